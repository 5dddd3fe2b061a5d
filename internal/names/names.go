// Package names knows how the tensors of a model are called in ComfyUI's files and
// in diffusers' folders, and what becomes of one side's tensors on the other: most
// are renamed, some are rows of several under one name, some have their halves
// swapped. It works on names and shapes alone.
package names

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Side is whose names a model has.
type Side int

// The sides.
const (
	ComfyUI Side = iota
	Diffusers
)

func (s Side) String() string {
	if s == ComfyUI {
		return "ComfyUI"
	}
	return "diffusers"
}

func (s Side) other() Side { return Diffusers - s }

// Tensor is a tensor of a model; a quantized weight stands there as the one that it
// restores to.
type Tensor struct {
	Name  string
	Shape []int
	// Dtype is compared where rows of several come together, and may be empty.
	Dtype string
}

// Plan says what every tensor of the other side consists of.
type Plan struct {
	Family   string
	From, To Side
	// Prefix stood before all names of the source and is left out.
	Prefix  string
	Outputs []Output
	// LeftOut are tensors of the source that the other side does not have, and
	// can do without.
	LeftOut []string
	// Kept are tensors of the source that no rule is for; they are called what they were.
	Kept []string
	// Wants are tensors of ComfyUI's that no tensor of the source becomes.
	Wants []Want
}

// Want is a tensor that files for ComfyUI have, and diffusers keeps elsewhere.
type Want struct {
	Name string
	// Files are names of a file whose bytes it holds, one-dimensional U8; the file
	// stands beside the model or in the pipeline's folder for its tokenizer. The
	// first that is there counts.
	Files []string
	// Setting is one of the model's config that is true where the tensor has to be
	// there, whatever it holds; "" where the files tell.
	Setting string
}

// Output is a tensor under its new name.
type Output struct {
	Name  string
	Shape []int
	Parts []Part // from the first row to the last
	// Turned says that it is matrices in one tensor, the one part, in which rows and
	// columns have changed places.
	Turned bool
	// Alternate is how many parts in a row make a matrix, in which a row of each stands
	// in turn; 0 where parts are one after the other.
	Alternate int
}

// Part is a range of rows, along the first dimension, of a tensor of the source.
type Part struct {
	Source   string
	From, To int
}

// Rows is how many there are.
func (p Part) Rows() int { return p.To - p.From }

// Renamed reports whether an output is one tensor of the source with all its rows
// in place, of that many.
func (o *Output) Renamed(rows int) bool {
	return !o.Turned && len(o.Parts) == 1 && o.Parts[0].From == 0 && o.Parts[0].To == rows
}

// partRows yields the rows of the source that the rows [from, to) of what consists of
// these parts are.
func partRows(parts []Part, from, to int) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		at := 0
		for _, p := range parts {
			begin, end := max(from, at), min(to, at+p.Rows())
			if begin < end && !yield(Part{p.Source, p.From + begin - at, p.From + end - at}) {
				return
			}
			at += p.Rows()
		}
	}
}

// Problem is what keeps tensors from being given other names.
type Problem struct {
	Tensors []string
	Why     string
}

func (p Problem) String() string {
	names := p.Tensors
	text := strings.Join(names[:min(len(names), shownNames)], ", ")
	if n := len(names) - shownNames; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text + ": " + p.Why
}

// How much of what is wrong an error says.
const (
	shownNames    = 3
	shownProblems = 5
)

// Problems is the error of a model that cannot be given other names.
type Problems []Problem

func (p Problems) Error() string {
	var lines []string
	for _, one := range p[:min(len(p), shownProblems)] {
		lines = append(lines, one.String())
	}
	if n := len(p) - shownProblems; n > 0 {
		lines = append(lines, fmt.Sprintf("and %d more of the kind", n))
	}
	return strings.Join(lines, "; ")
}

// ErrUnknown says that no family has such names, ErrControl that a model steers another,
// whose names it has.
var (
	ErrUnknown = errors.New("these are the names of no model whose other names are known")
	ErrControl = errors.New("this is a controlnet, of which other names are not known")
)

// Make plans the tensors of a model under the other side's names, or under its own
// where it has them already. The error is that of [Find], or [Problems].
func Make(tensors []Tensor, to Side) (*Plan, error) {
	found, err := Find(tensors)
	if err != nil {
		return nil, err
	}
	p := &Plan{Family: found.Family, From: found.Side, To: to}
	if found.Same {
		p.From = to.other()
	}
	if p.From == to {
		for _, t := range tensors {
			p.Outputs = append(p.Outputs, Output{Name: t.Name, Shape: t.Shape, Parts: []Part{{t.Name, 0, rows(t)}}})
		}
		p.want(found.family)
		return p, nil
	}
	p.Prefix = found.Prefix
	m := &maker{plan: p, inventory: newInventory(tensors, found.Prefix), outputs: map[string]*output{}}
	m.rules = found.family.compiled(m.inventory, p.From)
	for _, t := range tensors {
		m.take(t)
	}
	m.join()
	m.count()
	m.keep()
	if len(m.problems) > 0 {
		return nil, m.problems
	}
	p.want(found.family)
	return p, nil
}

// want lists what ComfyUI looks for and the outputs lack.
func (p *Plan) want(f *family) {
	if p.To != ComfyUI {
		return
	}
	var outputs []Tensor
	for _, o := range p.Outputs {
		outputs = append(outputs, Tensor{Name: o.Name})
	}
	v := newInventory(outputs, "")
	for _, w := range f.wants {
		if v.shows([]string{w.sign}) && !v.begun[w.Name] {
			p.Wants = append(p.Wants, w.Want)
		}
	}
}

// maker is a plan in the making.
type maker struct {
	plan      *Plan
	inventory *inventory
	rules     []rule
	outputs   map[string]*output
	order     []*output
	kept      []Tensor // without what stands before all names
	problems  Problems
}

// output is one whose parts are being collected.
type output struct {
	name  string
	rule  *rule
	at    match
	parts []*Tensor
}

func (m *maker) fail(why string, tensors ...string) {
	if n := len(m.problems); n > 0 && m.problems[n-1].Why == why && len(tensors) == 1 {
		m.problems[n-1].Tensors = append(m.problems[n-1].Tensors, tensors...)
		return
	}
	m.problems = append(m.problems, Problem{tensors, why})
}

// take finds the rule of a tensor and puts it where it belongs.
func (m *maker) take(t Tensor) {
	short, ok := strings.CutPrefix(t.Name, m.plan.Prefix)
	if !ok {
		m.fail("lies outside of "+m.plan.Prefix+", where the model is: a file of several models has to be split first", t.Name)
		return
	}
	for i := range m.rules {
		r := &m.rules[i]
		if piece, at, ok := r.match(short, m.plan.From); ok {
			m.put(r, piece, at, t)
			return
		}
	}
	for i := range m.rules {
		if _, _, ok := m.rules[i].match(short, m.plan.To); ok {
			m.fail(fmt.Sprintf("is called as in %s, all else as in %s: a file has to have the names of one", m.plan.To, m.plan.From), t.Name)
			return
		}
	}
	m.kept = append(m.kept, t)
}

// keep lets tensors that no rule is for have the names that they have.
func (m *maker) keep() {
	taken := map[string]bool{}
	for _, o := range m.plan.Outputs {
		taken[o.Name] = true
	}
	for _, t := range m.kept {
		name := strings.TrimPrefix(t.Name, m.plan.Prefix)
		if taken[name] {
			m.fail("is not the only one to become "+name, t.Name)
			continue
		}
		m.plan.Kept = append(m.plan.Kept, t.Name)
		m.plan.Outputs = append(m.plan.Outputs, Output{Name: name, Shape: t.Shape, Parts: []Part{{t.Name, 0, rows(t)}}})
	}
}

// put places a tensor that a rule is for: it is all of an output, one piece of it,
// or several outputs lie in it.
func (m *maker) put(r *rule, piece int, at match, t Tensor) {
	switch {
	case r.none || len(r.diffusers) == 0:
		m.plan.LeftOut = append(m.plan.LeftOut, t.Name)
	case m.plan.To == ComfyUI:
		name := r.comfy.fill(at)
		o := m.outputs[name]
		if o == nil {
			o = &output{name, r, at, nil}
			m.outputs[name] = o
			m.order = append(m.order, o)
		}
		if kinds := len(r.diffusers); piece >= len(o.parts) {
			n := (piece/kinds + 1) * kinds
			o.parts = append(o.parts, make([]*Tensor, n-len(o.parts))...)
		}
		if o.rule != r || o.parts[piece] != nil {
			m.fail("is not the only one to become "+name, t.Name)
			return
		}
		o.parts[piece] = &t
	default:
		m.split(r, at, t)
	}
}

// split gives the pieces of a tensor of ComfyUI's names of their own.
func (m *maker) split(r *rule, at match, t Tensor) {
	sizes, err := r.sizes(rows(t), m.columns(t))
	if err == nil && r.turned && len(t.Shape) != 3 {
		err = errTurned
	}
	if err != nil {
		m.fail(err.Error(), t.Name)
		return
	}
	from := 0
	for i, n := range sizes {
		name := r.diffusers[i].fill(at)
		if m.outputs[name] != nil {
			m.fail("is not the only one to become "+name, t.Name)
			return
		}
		o := &output{name: name}
		m.outputs[name] = o
		shape := slices.Clone(t.Shape)
		if len(sizes) > 1 {
			shape[0] = n
		}
		if r.flat {
			shape = flatten(shape)
		}
		if r.turned {
			shape[1], shape[2] = shape[2], shape[1]
		}
		m.plan.Outputs = append(m.plan.Outputs, Output{Name: name, Shape: shape, Parts: swapped(r, Part{t.Name, from, from + n}), Turned: r.turned})
		from += n
	}
}

// join makes the outputs whose parts have been collected.
func (m *maker) join() {
	for _, o := range m.order {
		got := o.names()
		var wanted []string
		var parts []Part
		for i, t := range o.parts {
			if t == nil {
				wanted = append(wanted, o.lacks(i))
				continue
			}
			parts = append(parts, swapped(o.rule, Part{t.Name, 0, rows(*t)})...)
		}
		if len(wanted) > 0 {
			m.fail(fmt.Sprintf("would become %s together with %s, which the source lacks", o.name, strings.Join(wanted, " and ")), got...)
			continue
		}
		shape, err := m.joined(o)
		if err != nil {
			m.fail(fmt.Sprintf("cannot become %s: %v", o.name, err), got...)
			continue
		}
		m.plan.Outputs = append(m.plan.Outputs, Output{o.name, shape, parts, o.rule.turned, o.rule.alternate()})
	}
}

// count finds experts that are fewer than their router chooses from: the last ones of a
// source leave no gap between the others.
func (m *maker) count() {
	for _, o := range m.order {
		at := strings.LastIndex(o.name, "experts.")
		if !o.rule.stack || at < 0 {
			continue
		}
		router := m.outputs[o.name[:at]+"router.weight"]
		if router == nil || slices.Contains(router.parts, nil) {
			continue
		}
		if n, want := len(o.parts)/len(o.rule.diffusers), rows(*router.parts[0]); n != want {
			m.fail(fmt.Sprintf("would become %s of %d experts, and %s chooses from %d", o.name, n, router.parts[0].Name, want), o.names()...)
		}
	}
}

// names are those of the parts that are there.
func (o *output) names() (all []string) {
	for _, t := range o.parts {
		if t != nil {
			all = append(all, t.Name)
		}
	}
	return all
}

// lacks is the name of a piece that is not there.
func (o *output) lacks(piece int) string {
	if !o.rule.stack {
		return o.rule.diffusers[piece].fill(o.at)
	}
	at, kinds := o.at, len(o.rule.diffusers)
	at.expert = piece / kinds
	return o.rule.diffusers[piece%kinds].fill(at)
}

// errTurned is of tensors that are no matrices in one.
var errTurned = errors.New("is no tensor of three dimensions, as experts are")

// stacked is the shape of a tensor of all parts, which are of one shape.
func (o *output) stacked() ([]int, error) {
	first := o.parts[0]
	for _, t := range o.parts {
		if !slices.Equal(t.Shape, first.Shape) || t.Dtype != first.Dtype {
			return nil, fmt.Errorf("%s is %s %v, %s %s %v", first.Name, first.Dtype, first.Shape, t.Name, t.Dtype, t.Shape)
		}
	}
	kinds := len(o.rule.diffusers)
	shape := append([]int{len(o.parts) / kinds}, first.Shape...)
	if kinds > 1 {
		if len(shape) < 2 {
			return nil, fmt.Errorf("%s has no rows", first.Name)
		}
		shape[1] *= kinds
	}
	return shape, nil
}

// joined is the shape of an output of one part or more; the error says why what
// is joined could not be told apart again.
func (m *maker) joined(o *output) ([]int, error) {
	first := o.parts[0]
	shape := slices.Clone(first.Shape)
	if o.rule.stack {
		return o.stacked()
	}
	if o.rule.turned {
		if len(shape) != 3 {
			return nil, errTurned
		}
		shape[1], shape[2] = shape[2], shape[1]
	}
	if o.rule.swap {
		if _, err := o.rule.sizes(rows(*first), 0); err != nil {
			return nil, err
		}
	}
	if o.rule.flat {
		shape = unflatten(shape)
	}
	if len(o.parts) == 1 {
		return shape, nil
	}
	all := 0
	for _, t := range o.parts {
		switch {
		case len(t.Shape) == 0:
			return nil, fmt.Errorf("%s has no rows", t.Name)
		case !slices.Equal(t.Shape[1:], first.Shape[1:]):
			return nil, fmt.Errorf("rows of %v and %v do not fit together", first.Shape, t.Shape)
		case t.Dtype != first.Dtype:
			return nil, fmt.Errorf("%s is %s, %s %s", first.Name, first.Dtype, t.Name, t.Dtype)
		}
		all += t.Shape[0]
	}
	shape[0] = all
	sizes, err := o.rule.sizes(all, m.columns(*first))
	if err != nil {
		return nil, err
	}
	for i, t := range o.parts {
		if t.Shape[0] != sizes[i] {
			return nil, fmt.Errorf("%s has %d rows, where a reader of the joined ones takes %d", t.Name, t.Shape[0], sizes[i])
		}
	}
	return shape, nil
}

// columns are those of a layer's weight, which its bias does not tell, 0 where
// nothing does.
func (m *maker) columns(t Tensor) int {
	if len(t.Shape) > 1 {
		return t.Shape[1]
	}
	if layer, ok := strings.CutSuffix(t.Name, ".bias"); ok {
		if w := m.inventory.tensors[layer+".weight"]; len(w.Shape) > 1 {
			return w.Shape[1]
		}
	}
	return 0
}

// swapped are the rows of a part in the order that a rule asks for.
func swapped(r *rule, p Part) []Part {
	if !r.swap {
		return []Part{p}
	}
	half := p.From + p.Rows()/2
	return []Part{{p.Source, half, p.To}, {p.Source, p.From, half}}
}

// rows of a tensor; a scalar is one.
func rows(t Tensor) int {
	if len(t.Shape) == 0 {
		return 1
	}
	return t.Shape[0]
}

// flatten takes a convolution of one place for a matrix, unflatten a matrix for such
// a convolution in two dimensions.
func flatten(shape []int) []int {
	for len(shape) > 2 && shape[len(shape)-1] == 1 {
		shape = shape[:len(shape)-1]
	}
	return shape
}

func unflatten(shape []int) []int {
	if len(shape) == 2 {
		return []int{shape[0], shape[1], 1, 1}
	}
	return shape
}
