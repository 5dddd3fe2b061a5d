package names

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Along says how a stored tensor of a quantized layer lies along the rows of its
// weight.
type Along int

// The ways.
const (
	ByRows Along = iota // something for every row, or for every few
	Whole               // one for all rows
	Up                  // the factor of a low-rank part that has rows, and ranks
	Down                // the factor that has ranks, and no rows
)

// Stored is a tensor of a quantized layer. Its bytes are those of its elements,
// row-major; what they mean does not matter here.
type Stored struct {
	Role  string // which of the layer's it is
	Dtype string
	Width int // bytes of an element
	Shape []int
	Along Along
	// Axis is the dimension along which rows lie, of ByRows and Up.
	Axis int
	// Ranks is the dimension along which ranks lie, of Up and Down.
	Ranks int
	// Unit is how many rows only move together, of ByRows; 0 is 1. They share a
	// scale, they are a tile that is stored in an order of its own, or it takes as
	// many to fill whole bytes.
	Unit int
	// PerRow is the shape in which the format has one for every row instead of one
	// for all, with -1 for the rows; nil where it has none such. Of Whole.
	PerRow []int
}

// Layer is a quantized layer, as far as its rows are concerned.
type Layer struct {
	Rows int
	// Settings is all that rows of one layer have in common, in any words: format,
	// dtype, columns, groups, rotation. What its tensors tell need not be there.
	Settings string
	Tensors  []Stored
}

func (l *Layer) stored(role string) *Stored {
	for i := range l.Tensors {
		if l.Tensors[i].Role == role {
			return &l.Tensors[i]
		}
	}
	return nil
}

// Gathered is a layer made of rows of others.
type Gathered struct {
	Rows    int
	Tensors []Moved
	// Rank of its low-rank part, 0 where it has none.
	Rank int
	// PerRow says that what was one for all rows of a source is now one for each.
	PerRow bool
}

// Moved is a tensor of such a layer.
type Moved struct {
	Role  string
	Dtype string
	Shape []int
	Along Along

	runs func(from, to int) iter.Seq[Run]
}

// Run is bytes of a tensor and where they are taken from.
type Run struct {
	To, Size int64
	// Source is the part's, whose tensor of the same role they are in; "" stands for
	// zeros.
	Source string
	From   int64
}

// Runs yields what the rows [from, to) have of a tensor. Each byte belongs to one
// row: what several rows share to the first of them, what all share to the first of
// all. The runs of rows that follow each other therefore make the tensor whole,
// however they are cut.
func (m *Moved) Runs(from, to int) iter.Seq[Run] { return m.runs(from, to) }

// Gather makes a layer of rows of others: of one, where they are split or swapped,
// or of several. layers are those of the parts' sources. same reports whether a
// tensor has the same bytes in all of these sources; nil says that it never has. The
// error says why the rows cannot be one layer without being quantized again.
func Gather(parts []Part, layers map[string]*Layer, same func(role string, sources []string) bool) (*Gathered, error) {
	g := gatherer{parts: parts, layers: layers, same: same}
	if err := g.check(); err != nil {
		return nil, err
	}
	g.perRow = g.widens()
	out := &Gathered{Rows: g.rows, PerRow: g.perRow}
	for _, role := range g.roles() {
		m, err := g.move(role)
		if err != nil {
			return nil, err
		}
		if m.Along == Up {
			out.Rank = m.Shape[g.first(role).Ranks]
		}
		out.Tensors = append(out.Tensors, *m)
	}
	return out, nil
}

// gatherer is at work on one layer.
type gatherer struct {
	parts   []Part
	layers  map[string]*Layer
	same    func(role string, sources []string) bool
	sources []string // each once
	rows    int
	perRow  bool
}

func (g *gatherer) check() error {
	for _, p := range g.parts {
		l := g.layers[p.Source]
		switch first := g.parts[0].Source; {
		case l == nil:
			return fmt.Errorf("%s is not quantized as %s is", p.Source, g.quantized())
		case l.Settings != g.layers[first].Settings:
			return fmt.Errorf("%s is %s, %s is %s", first, g.layers[first].Settings, p.Source, l.Settings)
		case p.From < 0 || p.To > l.Rows || p.From >= p.To:
			return fmt.Errorf("%s has no rows %d to %d", p.Source, p.From, p.To)
		}
		if !slices.Contains(g.sources, p.Source) {
			g.sources = append(g.sources, p.Source)
		}
		g.rows += p.Rows()
	}
	return nil
}

// quantized is a source that is a layer.
func (g *gatherer) quantized() string {
	for _, p := range g.parts {
		if g.layers[p.Source] != nil {
			return p.Source
		}
	}
	return "none"
}

// roles are those of all sources, in their order.
func (g *gatherer) roles() (roles []string) {
	for _, source := range g.sources {
		for _, s := range g.layers[source].Tensors {
			if !slices.Contains(roles, s.Role) {
				roles = append(roles, s.Role)
			}
		}
	}
	return roles
}

// first is a role's tensor in the first source that has it.
func (g *gatherer) first(role string) *Stored {
	for _, source := range g.sources {
		if s := g.layers[source].stored(role); s != nil {
			return s
		}
	}
	return nil
}

// alike reports whether all sources have the same bytes.
func (g *gatherer) alike(role string) bool {
	return len(g.sources) == 1 || g.same != nil && g.same(role, g.sources)
}

// widens reports whether what sources have once for all rows, where the format can
// have it for each, has to become so: because it differs, or because one of them has
// it already. It holds for scale and zero point together.
func (g *gatherer) widens() bool {
	for _, role := range g.roles() {
		var rows, whole bool
		for _, source := range g.sources {
			if s := g.layers[source].stored(role); s != nil {
				rows = rows || s.Along == ByRows
				whole = whole || s.Along == Whole && s.PerRow != nil
			}
		}
		if whole && (rows || !g.alike(role)) {
			return true
		}
	}
	return false
}

// move makes one tensor.
func (g *gatherer) move(role string) (*Moved, error) {
	first := g.first(role)
	for _, source := range g.sources {
		s := g.layers[source].stored(role)
		switch {
		case s == nil && first.Along != Up && first.Along != Down:
			return nil, fmt.Errorf("%s has no %s", source, role)
		case s != nil && s.Dtype != first.Dtype:
			return nil, fmt.Errorf("%s has its %s in %s, %s in %s", g.sources[0], role, first.Dtype, source, s.Dtype)
		}
	}
	m := &Moved{Role: role, Dtype: first.Dtype, Along: first.Along}
	switch factored := first.Along == Up || first.Along == Down; {
	case factored && g.alikeFactors():
		if first.Along == Up {
			return m, g.byRows(m)
		}
		g.once(m)
		return m, nil
	case first.Along == Up:
		return m, g.up(m)
	case first.Along == Down:
		return m, g.down(m)
	case first.Along == Whole && !(g.perRow && first.PerRow != nil):
		if !g.alike(role) {
			return nil, fmt.Errorf("%s differs between %s, and the format has one for all rows", role, strings.Join(g.sources, " and "))
		}
		g.once(m)
		return m, nil
	}
	return m, g.byRows(m)
}

// alikeFactors reports whether all sources share the factor that has no rows, so
// that the other one can move as all rows do.
func (g *gatherer) alikeFactors() bool {
	for _, role := range g.roles() {
		if g.first(role).Along != Down {
			continue
		}
		for _, source := range g.sources {
			if g.layers[source].stored(role) == nil {
				return false
			}
		}
		return g.alike(role)
	}
	return true
}

// once takes a tensor from the first source as it is.
func (g *gatherer) once(m *Moved) {
	s := g.first(m.Role)
	m.Shape = slices.Clone(s.Shape)
	whole := Run{Size: s.bytes(), Source: g.sources[0]}
	m.runs = func(from, to int) iter.Seq[Run] {
		return func(yield func(Run) bool) {
			if from == 0 && to > 0 {
				yield(whole)
			}
		}
	}
}

// stretch is rows of a part on their way: units of the source to units of the output.
type stretch struct {
	source   string
	to, from int // the first
	units    int
	all      int  // of the source
	repeated bool // the source has one for all
}

// grain is how a tensor lies by rows: how many move together, how often they lie
// there, and how many bytes each time.
type grain struct {
	unit, outer int
	inner       int64
}

// byRows moves what there is for every unit of rows.
func (g *gatherer) byRows(m *Moved) error {
	m.Shape = slices.Clone(g.first(m.Role).PerRow)
	per := grain{1, 1, g.first(m.Role).bytes()}
	axis, size := slices.Index(m.Shape, -1), 1
	for _, source := range g.sources { // one that lies by rows is the model for the output
		l := g.layers[source]
		if s := l.stored(m.Role); s.Along != Whole {
			var err error
			if per, err = s.measure(l.Rows); err != nil {
				return fmt.Errorf("%s of %s: %w", m.Role, source, err)
			}
			m.Shape, axis = slices.Clone(s.Shape), s.Axis
			size = s.Shape[axis] / unitsOf(l.Rows, per.unit)
		}
	}
	stretches, all, err := g.stretches(m.Role, per)
	if err != nil {
		return err
	}
	m.Shape[axis] = size * all
	if m.Along == Whole {
		m.Along = ByRows
	}
	m.runs = func(from, to int) iter.Seq[Run] {
		return func(yield func(Run) bool) {
			first, end := unitsOf(from, per.unit), unitsOf(to, per.unit)
			for o := range per.outer {
				for _, s := range stretches {
					if !s.runs(first, end, o, all, per.inner, yield) {
						return
					}
				}
			}
		}
	}
	return nil
}

// stretches are the parts as units of rows, and how many there are in all.
func (g *gatherer) stretches(role string, per grain) (list []stretch, all int, err error) {
	for i, p := range g.parts {
		l := g.layers[p.Source]
		s := l.stored(role)
		if s.Along == Whole {
			if s.PerRow == nil || per != (grain{1, 1, s.bytes()}) {
				return nil, 0, fmt.Errorf("%s of %s is one for all rows, elsewhere there are more", role, p.Source)
			}
		} else if own, err := s.measure(l.Rows); err != nil || own != per {
			return nil, 0, fmt.Errorf("%s of %s, %v, lies otherwise than that of %s", role, p.Source, s.Shape, g.sources[0])
		}
		last := i == len(g.parts)-1
		if p.From%per.unit != 0 || p.To%per.unit != 0 && (p.To != l.Rows || !last) {
			return nil, 0, fmt.Errorf("%s of %s goes by %d rows: rows %d to %d cannot be moved alone", role, p.Source, per.unit, p.From, p.To)
		}
		u := stretch{p.Source, all, p.From / per.unit, unitsOf(p.Rows(), per.unit), unitsOf(l.Rows, per.unit), s.Along == Whole}
		list = append(list, u)
		all += u.units
	}
	return list, all, nil
}

// runs yields the units [first, end) of the output that are the stretch's, in one
// of the outer dimensions.
func (s *stretch) runs(first, end, outer, all int, inner int64, yield func(Run) bool) bool {
	first, end = max(first, s.to), min(end, s.to+s.units)
	if first >= end {
		return true
	}
	to := int64(outer*all+first) * inner
	if !s.repeated {
		from := int64(outer*s.all+s.from+first-s.to) * inner
		return yield(Run{to, int64(end-first) * inner, s.source, from})
	}
	for range end - first {
		if !yield(Run{To: to, Size: inner, Source: s.source}) {
			return false
		}
		to += inner
	}
	return true
}

// ranked is a source's place among the ranks of the output.
type ranked struct {
	base, rank int
}

// ranks gives every source that has factors its place.
func (g *gatherer) ranks(along Along) (places map[string]ranked, all int, err error) {
	places = map[string]ranked{}
	for _, source := range g.sources {
		for i := range g.layers[source].Tensors {
			s := &g.layers[source].Tensors[i]
			if s.Along != along {
				continue
			}
			if len(s.Shape) != 2 || s.Ranks < 0 || s.Ranks > 1 || along == Up && s.Axis != 1-s.Ranks {
				return nil, 0, fmt.Errorf("%s of %s, %v, is no matrix of rows and ranks", s.Role, source, s.Shape)
			}
			places[source] = ranked{all, s.Shape[s.Ranks]}
			all += s.Shape[s.Ranks]
		}
	}
	return places, all, nil
}

// up puts the factors that have rows one beside the other: a row takes part in the
// ranks of its own source alone.
func (g *gatherer) up(m *Moved) error {
	places, all, err := g.ranks(Up)
	if err != nil {
		return err
	}
	first := g.first(m.Role)
	for _, source := range g.sources {
		s := g.layers[source].stored(m.Role)
		if s != nil && (s.Ranks != first.Ranks || s.Shape[s.Axis] != g.layers[source].Rows) {
			return fmt.Errorf("%s of %s, %v, lies otherwise than that of %s", m.Role, source, s.Shape, g.sources[0])
		}
	}
	m.Shape = make([]int, 2)
	m.Shape[first.Axis], m.Shape[first.Ranks] = g.rows, all
	m.runs = func(from, to int) iter.Seq[Run] {
		return func(yield func(Run) bool) {
			begin := from
			for p := range partRows(g.parts, from, to) {
				f := factor{p.Source, places[p.Source], g.layers[p.Source].Rows, all, g.rows, int64(first.Width)}
				lay := f.byRanks
				if first.Ranks == 1 {
					lay = f.byRows
				}
				if !lay(begin, begin+p.Rows(), p.From-begin, yield) {
					return
				}
				begin += p.Rows()
			}
		}
	}
	return nil
}

// factor is the rows of a source on their way into the factor of all.
type factor struct {
	source    string
	place     ranked
	rows      int // of the source
	ranks     int // of all
	allRows   int
	elemBytes int64
}

// byRows lays rows of ranks: zeros, the source's own, zeros. shift makes a row of the
// output one of the source.
func (f *factor) byRows(begin, end, shift int, yield func(Run) bool) bool {
	own, after := f.place.base+f.place.rank, f.ranks-f.place.base-f.place.rank
	for row := begin; row < end; row++ {
		start := row * f.ranks
		for _, r := range []Run{
			f.run(start, f.place.base, "", 0),
			f.run(start+f.place.base, f.place.rank, f.source, (row+shift)*f.place.rank),
			f.run(start+own, after, "", 0),
		} {
			if r.Size > 0 && !yield(r) {
				return false
			}
		}
	}
	return true
}

// byRanks lays ranks of rows, of which those that are not the source's are zeros.
func (f *factor) byRanks(begin, end, shift int, yield func(Run) bool) bool {
	for rank := range f.ranks {
		r := f.run(rank*f.allRows+begin, end-begin, "", 0)
		if own := rank - f.place.base; own >= 0 && own < f.place.rank {
			r = f.run(rank*f.allRows+begin, end-begin, f.source, own*f.rows+begin+shift)
		}
		if !yield(r) {
			return false
		}
	}
	return true
}

// run is that many elements.
func (f *factor) run(to, n int, source string, from int) Run {
	return Run{int64(to) * f.elemBytes, int64(n) * f.elemBytes, source, int64(from) * f.elemBytes}
}

// down puts the factors that have no rows one after the other.
func (g *gatherer) down(m *Moved) error {
	places, all, err := g.ranks(Down)
	if err != nil {
		return err
	}
	first := g.first(m.Role)
	columns := first.Shape[1-first.Ranks]
	for _, source := range g.sources {
		if s := g.layers[source].stored(m.Role); s != nil && (s.Ranks != first.Ranks || s.Shape[1-s.Ranks] != columns) {
			return fmt.Errorf("%s of %s, %v, lies otherwise than that of %s", m.Role, source, s.Shape, g.sources[0])
		}
	}
	m.Shape = make([]int, 2)
	m.Shape[first.Ranks], m.Shape[1-first.Ranks] = all, columns
	width := int64(first.Width)
	m.runs = func(from, to int) iter.Seq[Run] {
		return func(yield func(Run) bool) {
			if from != 0 || to <= 0 {
				return
			}
			for _, source := range g.sources {
				place, ok := places[source]
				if !ok {
					continue
				}
				lines, size := 1, int64(place.rank*columns)*width
				if first.Ranks == 1 {
					lines, size = columns, int64(place.rank)*width
				}
				for line := range lines {
					to := int64(place.base*columns) * width
					if first.Ranks == 1 {
						to = int64(line*all+place.base) * width
					}
					if !yield(Run{to, size, source, int64(line) * size}) {
						return
					}
				}
			}
		}
	}
	return nil
}

// bytes of a tensor.
func (s *Stored) bytes() int64 {
	n := int64(s.Width)
	for _, d := range s.Shape {
		n *= int64(d)
	}
	return n
}

// measure is how a tensor lies by that many rows.
func (s *Stored) measure(rows int) (grain, error) {
	if s.Axis < 0 || s.Axis >= len(s.Shape) {
		return grain{}, fmt.Errorf("shape %v has no dimension %d", s.Shape, s.Axis)
	}
	per := grain{unit: max(s.Unit, 1), outer: 1}
	for _, d := range s.Shape[:s.Axis] {
		per.outer *= d
	}
	units := unitsOf(rows, per.unit)
	if units == 0 || per.outer == 0 || s.Shape[s.Axis]%units != 0 {
		return grain{}, fmt.Errorf("shape %v does not divide into %d rows", s.Shape, rows)
	}
	per.inner = s.bytes() / int64(per.outer) / int64(units)
	return per, nil
}

// unitsOf is how many units rows take.
func unitsOf(rows, unit int) int { return (rows + unit - 1) / unit }
