package lora

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// Patch is what adapters change of one tensor: terms, in the order in which they are
// merged.
type Patch struct {
	rows, cols int // of the tensor, with all dimensions after the first in one
	terms      []term
	held       int64
}

// term is what one module of a file changes.
type term struct {
	file   *File
	module *module
	part   part // of a bias: biasDiff or biasUp; else -1
	pieces []piece
	groups int // columns of a channel, for the norms of DoRA
}

// piece is rows of the tensor and those of the change that are added to them.
type piece struct{ row, from, n int }

// Set is all adapters of a run.
type Set struct{ files []*File }

// OpenAll opens adapters, each FILE or FILE=STRENGTH. They are merged in this order.
func OpenAll(texts []string) (*Set, error) {
	s := &Set{}
	for _, text := range texts {
		f, err := Open(text)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.files = append(s.files, f)
	}
	return s, nil
}

// Close closes the files.
func (s *Set) Close() error {
	for _, f := range s.files {
		f.Close()
	}
	return nil
}

// Paths are those of the files.
func (s *Set) Paths() (paths []string) {
	if s == nil {
		return nil
	}
	for _, f := range s.files {
		paths = append(paths, f.source.File(f.source.Tensors[0]))
	}
	return paths
}

// Files are all that was read: adapters, and the configs beside them.
func (s *Set) Files() (all []source.Source) {
	for _, path := range s.Paths() {
		all = append(all, source.Path(path))
	}
	if s != nil {
		for _, f := range s.files {
			if f.config != nil && f.config.components == nil { // not of the header
				all = append(all, f.source.Beside(configFile))
			}
		}
	}
	return all
}

// Adapter is a file of adapters and its strength.
type Adapter struct {
	*checkpoint.Checkpoint
	Strength float64
}

// Adapters are those of the set, in the order in which they are merged.
func (s *Set) Adapters() (all []Adapter) {
	for _, f := range s.files {
		all = append(all, Adapter{f.source, f.Strength})
	}
	return all
}

// Unchanged fails if a file is not what it was when it was opened.
func (s *Set) Unchanged() error {
	for _, f := range s.files {
		if err := f.source.Unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// Patches finds what changes a model, by the names of its tensors. folder is that of the
// model in a pipeline, "" where it stands alone. What fits no tensor is remembered for
// [Set.Unmatched].
func (s *Set) Patches(tensors []checkpoint.Tensor, folder string) (map[string]*Patch, error) {
	if s == nil || len(s.files) == 0 {
		return nil, nil
	}
	x := newIndex(tensors, folder)
	all := map[string]*Patch{}
	for _, f := range s.files {
		for _, m := range f.modules {
			if err := f.place(m, x, all); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// place adds what a module changes to the patches of the tensors that it means.
func (f *File) place(m *module, x *index, all map[string]*Patch) error {
	if m.kind() != nil {
		places, ok := x.find(m.name, false)
		if !ok {
			return nil
		}
		rows, cols, err := f.shape(m)
		if err == nil {
			err = f.put(m, -1, x, places, rows, cols, all)
		}
		if err != nil {
			return err
		}
	}
	for _, p := range []part{biasDiff, biasUp} {
		t, ok := m.parts[p]
		if !ok {
			continue
		}
		places, ok := x.find(m.name, true)
		if !ok {
			return nil
		}
		if err := f.checkDtype(t); err != nil {
			return err
		}
		if err := f.put(m, p, x, places, t.Numel(), 1, all); err != nil {
			return err
		}
	}
	m.matched = true
	return nil
}

// wholeChange is the tensor that is added to the weight, or takes its place.
func (m *module) wholeChange() (checkpoint.Tensor, bool) {
	for _, p := range []part{set, diff} {
		if t, ok := m.parts[p]; ok {
			return t, true
		}
	}
	return checkpoint.Tensor{}, false
}

// put places a change of that shape.
func (f *File) put(m *module, p part, x *index, places []place, rows, cols int, all map[string]*Patch) error {
	want := 0
	for _, at := range places {
		want += at.to - at.from
	}
	first := &x.tensors[places[0].tensor]
	if columns := first.Numel() / max(rowsOf(first.Shape), 1); rows != want || cols != columns {
		return usage.SourceErrorf("%s: %s changes a matrix of %d rows and %d columns, tensor %s is %s: it is an adapter of another model",
			f.Path, m.anyPart(), rows, cols, first.Name, placed(first, places))
	}
	if t, ok := m.wholeChange(); ok && p < 0 && len(t.Shape) == len(first.Shape) && !slices.Equal(t.Shape[1:], first.Shape[1:]) {
		return usage.SourceErrorf("%s: tensor %s is %v, tensor %s is %v: it is an adapter of another model", f.Path, t.Name, t.Shape, first.Name, first.Shape)
	}
	if m.byColumns(rows) && len(places) > 1 && slices.ContainsFunc(places, func(at place) bool { return at.tensor != places[0].tensor }) {
		return usage.SourceErrorf("%s: %s are norms of columns, of rows that lie in several tensors here (%s, …): give the model the adapter's names first (`Names`)", f.Path, m.parts[doraScale].Name, first.Name)
	}
	if f.Strength == 0 {
		return nil
	}
	from := 0
	for _, at := range places {
		t := &x.tensors[at.tensor]
		patch := all[t.Name]
		if patch == nil {
			n := max(rowsOf(t.Shape), 1)
			patch = &Patch{rows: n, cols: t.Numel() / n}
			all[t.Name] = patch
		}
		patch.add(f, m, p, piece{at.from, from, at.to - at.from}, channel(t.Shape))
		from += at.to - at.from
	}
	return nil
}

// placed describes where a change goes.
func placed(t *checkpoint.Tensor, places []place) string {
	if len(places) == 1 && places[0].from == 0 && places[0].to == max(rowsOf(t.Shape), 1) {
		return fmt.Sprint(t.Shape)
	}
	return fmt.Sprintf("%v, of which it means rows %d to %d", t.Shape, places[0].from, places[len(places)-1].to)
}

// channel is how many columns of a convolution are of one channel.
func channel(shape []int) int {
	n := 1
	for i := 2; i < len(shape); i++ {
		n *= shape[i]
	}
	return n
}

// add adds rows of a module's change.
func (p *Patch) add(f *File, m *module, of part, one piece, groups int) {
	if n := len(p.terms); n > 0 && p.terms[n-1].module == m && p.terms[n-1].part == of {
		p.terms[n-1].pieces = append(p.terms[n-1].pieces, one)
		return
	}
	p.terms = append(p.terms, term{f, m, of, []piece{one}, groups})
	p.held += f.heldBytes(m)
}

// Columns are the tensor's, with all dimensions after the first in one.
func (p *Patch) Columns() int { return p.cols }

// Held is how many bytes the factors take while the tensor is read.
func (p *Patch) Held() int64 { return p.held }

// Unmatched are errors, or notes with partial, of what fits no tensor of any model.
func (s *Set) Unmatched(partial bool) (notes []string, err error) {
	for _, f := range s.files {
		var lost []string
		for _, m := range f.modules {
			if !m.matched {
				lost = append(lost, m.anyPart())
			}
		}
		all := len(lost) == len(f.modules)
		lost = append(lost, f.unread...)
		slices.Sort(lost)
		notes = append(notes, f.notes...)
		if len(lost) == 0 {
			continue
		}
		text := fmt.Sprintf("%s: %s", f.Path, f.lost(lost))
		if all {
			return nil, usage.SourceErrorf("%s: it is an adapter of another model, or of a part that is not here", text)
		}
		if !partial {
			return nil, usage.SourceErrorf("%s: `LoraPartial` leaves them out", text)
		}
		notes = append(notes, text+": left out")
	}
	return notes, nil
}

// lost names what fits nothing.
func (f *File) lost(keys []string) string {
	const most = 5
	keys = slices.Clone(keys)
	slices.SortStableFunc(keys, func(a, b string) int { // those whose kind is why come first
		return cmp.Compare(min(len(kindNotRead(b)), 1), min(len(kindNotRead(a)), 1))
	})
	for i, key := range keys {
		if kind := kindNotRead(key); kind != "" {
			keys[i] = fmt.Sprintf("%s (%s, not read)", key, kind)
		}
	}
	text := strings.Join(keys[:min(len(keys), most)], ", ")
	if n := len(keys) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	if len(keys) == 1 {
		return "1 key means no tensor of the model: " + text
	}
	return fmt.Sprintf("%d keys mean no tensor of the model: %s", len(keys), text)
}

// Merged says how many tensors a set changes, for a note.
func (s *Set) Merged(tensors int) string {
	var texts []string
	for _, f := range s.files {
		texts = append(texts, fmt.Sprintf("%s with strength %g", f.Path, f.Strength))
	}
	noun := "tensors"
	if tensors == 1 {
		noun = "tensor"
	}
	return fmt.Sprintf("merged into %d %s: %s", tensors, noun, strings.Join(texts, ", "))
}

// byColumns reports whether DoRA's norms are those of columns.
func (m *module) byColumns(rows int) bool {
	t, ok := m.parts[doraScale]
	return ok && (len(t.Shape) == 0 || t.Shape[0] != rows)
}

// Ready is a patch whose factors are in memory.
type Ready struct {
	*Patch
	terms []readyTerm
}

type readyTerm struct {
	pieces []piece
	delta  delta
	set    bool
	norms  *norms // of DoRA, else nil
}

// Rows reads whole rows of the tensor as it is before anything is merged.
type Rows func(row, n int) ([]float32, error)

// Ready reads the factors, and the tensor itself where norms of the merged weight are
// needed.
func (p *Patch) Ready(read Rows) (*Ready, error) {
	r := &Ready{Patch: p}
	for i := range p.terms {
		one, err := p.terms[i].ready()
		if err != nil {
			return nil, err
		}
		if one.norms != nil {
			if err := one.norms.measure(r, &one, read); err != nil {
				return nil, err
			}
		}
		r.terms = append(r.terms, one)
	}
	return r, nil
}

func (t *term) ready() (one readyTerm, err error) {
	one.pieces = t.pieces
	r := &reader{t.file, t.module, t.file.Strength}
	switch t.part {
	case biasDiff:
		one.delta = &whole{t.file, t.module.parts[biasDiff], 1, float32(t.file.Strength)}
		return one, nil
	case biasUp:
		one.delta = &whole{t.file, t.module.parts[biasUp], 1, r.scaled(t.module.parts[down].Shape[0])}
		return one, nil
	}
	_, one.set = t.module.parts[set]
	if one.norms, err = t.norms(r); err != nil {
		return one, err
	}
	if one.norms != nil {
		r.factor = 1 // the strength is that of the merged weight
	}
	one.delta, err = t.module.kind().make(r)
	return one, err
}

// Area adds what the adapters change to an area of the tensor, seen as a matrix of that
// many columns.
func (r *Ready) Area(x []float32, columns int, a tile.Area) error {
	if columns == r.cols {
		return r.rectangle(x, a, r.terms)
	}
	rows, width := a.Rows, a.Cols
	if a.Cols == columns { // whole rows are consecutive
		rows, width = 1, a.Values()
	}
	for i := range rows {
		if err := r.run(x[i*width:(i+1)*width], (a.Row+i)*columns+a.Col); err != nil {
			return err
		}
	}
	return nil
}

// run is [Ready.Area] for consecutive values: the end of a row, then whole rows, then the
// beginning of one.
func (r *Ready) run(x []float32, start int) error {
	for len(x) > 0 {
		a := tile.Area{Row: start / r.cols, Col: start % r.cols, Rows: 1}
		a.Cols = min(r.cols-a.Col, len(x))
		if a.Cols == r.cols {
			a.Rows = len(x) / r.cols
		}
		if err := r.rectangle(x[:a.Values()], a, r.terms); err != nil {
			return err
		}
		x, start = x[a.Values():], start+a.Values()
	}
	return nil
}

// near is so many values that a change of them stays in the nearer caches.
const near = 16 << 10

// rectangle merges terms into an area of the tensor's own rows and columns.
func (r *Ready) rectangle(x []float32, a tile.Area, terms []readyTerm) error {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	for i := range terms {
		some := max(near/a.Cols, 4)
		if terms[i].added() != nil { // at once, for which rows are best many
			some = a.Rows
		}
		for part := range a.Split(some, a.Cols) {
			if err := terms[i].merge(x[(part.Row-a.Row)*a.Cols:][:part.Values()], part, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// added is the product that the term adds as it is, nil where it does something else.
func (t *readyTerm) added() *product {
	if t.set || t.norms != nil {
		return nil
	}
	p, _ := t.delta.(*product)
	return p
}

// merge merges the term into an area.
func (t *readyTerm) merge(x []float32, a tile.Area, s *scratch) error {
	for _, p := range t.pieces {
		from, to := max(p.row, a.Row), min(p.row+p.n, a.Row+a.Rows)
		if from >= to {
			continue
		}
		values := x[(from-a.Row)*a.Cols : (to-a.Row)*a.Cols]
		at := tile.Area{Row: from - p.row + p.from, Col: a.Col, Rows: to - from, Cols: a.Cols}
		if product := t.added(); product != nil {
			product.add(values, at, s)
			continue
		}
		change := tile.Sized(&s.delta, len(values))
		if err := t.delta.fill(change, at, s); err != nil {
			return err
		}
		switch {
		case t.set:
			copy(values, change)
		case t.norms != nil:
			t.norms.merge(values, change, at)
		default:
			kernel.Add(values, change)
		}
	}
	return nil
}

// norms are DoRA's: the merged weight's rows or columns get lengths of their own.
type norms struct {
	wanted   []float32 // lengths, by row or by channel
	factors  []float32 // that rows or channels are multiplied by
	rows     int       // of the change
	byRows   bool
	merged   bool // the length is that of the merged weight, else of the weight before
	epsilon  float64
	groups   int // columns of a channel
	strength float32
}

// norms are those that a module has, nil for none. Where LyCORIS's are of rows, ComfyUI
// divides by the lengths of the rows before the merge; PEFT divides by those after it.
func (t *term) norms(r *reader) (*norms, error) {
	rows, _, err := r.shape(t.module)
	if err != nil {
		return nil, err
	}
	n := &norms{rows: rows, groups: t.groups, strength: float32(t.file.Strength)}
	of := doraScale
	one, ok := t.module.parts[doraScale]
	if ok {
		n.byRows = !t.module.byColumns(rows)
		n.merged, n.epsilon = !n.byRows, 0x1p-23
	} else if one, ok = t.module.parts[magnitude]; ok {
		of, n.byRows, n.merged = magnitude, true, true
	} else {
		return nil, nil
	}
	if n.wanted, err = r.part(of); err != nil {
		return nil, err
	}
	want := rows
	if !n.byRows {
		_, cols, _ := r.shape(t.module)
		want = cols / n.groups
	}
	if len(n.wanted) != want {
		return nil, usage.SourceErrorf("%s: tensor %s has %d lengths, for %d rows or columns", t.file.Path, one.Name, len(n.wanted), want)
	}
	return n, nil
}

// measure finds the lengths that the weight has, whose earlier terms are r's.
func (n *norms) measure(r *Ready, t *readyTerm, read Rows) error {
	squares := make([]float64, len(n.wanted))
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	some := max(near/r.cols, 4)
	for row := 0; row < r.rows; row += some {
		a := tile.Area{Row: row, Rows: min(some, r.rows-row), Cols: r.cols}
		x, err := read(a.Row, a.Rows)
		if err == nil {
			err = r.rectangle(x, a, r.terms)
		}
		if err == nil {
			err = n.square(squares, t, x, a, s)
		}
		if err != nil {
			return err
		}
	}
	n.factors = make([]float32, len(squares))
	for i, v := range squares {
		n.factors[i] = n.wanted[i] / float32(math.Sqrt(v)+n.epsilon)
	}
	return nil
}

// square adds the squares of an area to those of rows or channels.
func (n *norms) square(squares []float64, t *readyTerm, x []float32, a tile.Area, s *scratch) error {
	for _, p := range t.pieces {
		from, to := max(p.row, a.Row), min(p.row+p.n, a.Row+a.Rows)
		if from >= to {
			continue
		}
		values := x[(from-a.Row)*a.Cols : (to-a.Row)*a.Cols]
		at := tile.Area{Row: from - p.row + p.from, Rows: to - from, Cols: a.Cols}
		if n.merged {
			change := tile.Sized(&s.delta, len(values))
			if err := t.delta.fill(change, at, s); err != nil {
				return err
			}
			kernel.Add(values, change)
		}
		for i, v := range values {
			k := at.Row + i/a.Cols
			if !n.byRows {
				k = i % a.Cols / n.groups
			}
			squares[k] += float64(float64(v) * float64(v))
		}
	}
	return nil
}

// merge gives values their change and then the lengths of their rows or channels.
func (n *norms) merge(values, change []float32, a tile.Area) {
	for i := range values {
		k := a.Row + i/a.Cols
		if !n.byRows {
			k = (a.Col + i%a.Cols) / n.groups
		}
		w := values[i]
		merged := float32((w + change[i]) * n.factors[k])
		if n.strength != 1 {
			merged = w + float32(n.strength*float32(merged-w))
		}
		values[i] = merged
	}
}
