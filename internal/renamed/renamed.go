// Package renamed shows a model as it is with the other side's names: its tensors and
// layers, of which those that are rows of several are read from where these lie.
package renamed

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/names"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Options say what is wanted of layers that become one.
type Options struct {
	To names.Side
	// Codes tells that layers are moved as they are stored. Else they are restored, to
	// the very values that they have where they are.
	Codes bool
	// Dtype of restored weights, 0 for each layer's own.
	Dtype func(l *layout.Layer) safetensors.Dtype
}

// Model is m with the names of a side, and what should be said of it. m itself is
// returned where it has those names already.
func Model(m *layout.Model, o Options) (*layout.Model, []string, error) {
	v := &view{Options: o, model: m, layers: map[string]*layout.Layer{}, plain: map[string]*checkpoint.Tensor{}, stored: map[string]*names.Layer{}}
	p, err := names.Make(v.inventory(), o.To)
	if err != nil {
		return nil, nil, v.explain(err)
	}
	if p.From == p.To && len(p.Wants) == 0 {
		return m, nil, nil
	}
	if p.From == p.To {
		v.to = *m
		v.to.Plain = slices.Clone(m.Plain)
	} else if err := v.outputs(p); err != nil {
		return nil, nil, err
	}
	if len(p.LeftOut) > 0 {
		v.notes = append(v.notes, fmt.Sprintf("%s has no place for %s: left out", p.To, some(p.LeftOut)))
	}
	if len(p.Kept) > 0 {
		v.notes = append(v.notes, fmt.Sprintf("not known of %s, and kept under the names that they have: %s", p.Family, some(p.Kept)))
	}
	if err := v.wants(p.Wants); err != nil {
		return nil, nil, err
	}
	byName := func(a, b checkpoint.Tensor) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(v.to.Plain, byName)
	slices.SortFunc(v.to.Layers, func(a, b *layout.Layer) int { return strings.Compare(a.Name, b.Name) })
	return &v.to, v.notes, nil
}

// view is a model in the making.
type view struct {
	Options
	model  *layout.Model
	layers map[string]*layout.Layer      // by their weights' names
	plain  map[string]*checkpoint.Tensor // by their names
	stored map[string]*names.Layer       // how layers lie along rows, once it was asked
	to     layout.Model
	notes  []string
}

// inventory is the model as names are looked up for it.
func (v *view) inventory() (all []names.Tensor) {
	for i := range v.model.Plain {
		t := &v.model.Plain[i]
		v.plain[t.Name] = t
		all = append(all, names.Tensor{Name: t.Name, Shape: t.Shape, Dtype: t.Dtype.String()})
	}
	for _, l := range v.model.Layers {
		name := l.WeightName()
		v.layers[name] = l
		all = append(all, names.Tensor{Name: name, Shape: l.Shape(), Dtype: v.Dtype(l).String()})
	}
	return all
}

// explain says whose fault it is that names cannot be given.
func (v *view) explain(err error) error {
	path := v.model.Checkpoint.Path
	if problems := (names.Problems)(nil); errors.As(err, &problems) {
		return usage.SourceErrorf("%s cannot be given %s's names: %w", path, v.To, problems)
	}
	if all := v.inventory(); len(all) > 0 && errors.Is(err, names.ErrUnknown) {
		path += ", with " + all[0].Name
	}
	return usage.Errorf("%s: %w: leave `Names` out", path, err)
}

// some names the first of many.
func some(list []string) string {
	const most = 4
	text := strings.Join(list[:min(len(list), most)], ", ")
	if n := len(list) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

func (v *view) outputs(p *names.Plan) error {
	v.to = *v.model
	v.to.Plain, v.to.Layers = nil, nil
	for i := range p.Outputs {
		o := &p.Outputs[i]
		if slices.ContainsFunc(o.Parts, func(part names.Part) bool { return v.layers[part.Source] != nil }) {
			l, err := v.layer(o)
			if err != nil {
				return err
			}
			v.to.Layers = append(v.to.Layers, l)
			continue
		}
		t, err := v.tensor(o)
		if err != nil {
			return err
		}
		v.to.Plain = append(v.to.Plain, t)
	}
	return nil
}

// tensor is one that is not quantized.
func (v *view) tensor(o *names.Output) (checkpoint.Tensor, error) {
	from := v.plain[o.Parts[0].Source]
	if o.Renamed(rows(from.Shape)) {
		t := *from
		t.Name, t.Shape = o.Name, o.Shape
		return t, nil
	}
	if o.Turned {
		return checkpoint.Turned(o.Name, from), nil
	}
	if o.Alternate > 0 {
		return v.alternating(o)
	}
	g, at := &checkpoint.Gathered{}, int64(0)
	for _, part := range o.Parts {
		from := v.plain[part.Source]
		row := from.Size / int64(rows(from.Shape))
		g.Add(at, int64(part.Rows())*row, from, int64(part.From)*row)
		at += int64(part.Rows()) * row
	}
	return checkpoint.Gather(o.Name, from.Dtype, o.Shape, g)
}

func rows(shape []int) int {
	if len(shape) == 0 {
		return 1
	}
	return max(shape[0], 1)
}

// layer is one that is quantized, or of which a part is.
func (v *view) layer(o *names.Output) (*layout.Layer, error) {
	name, ok := strings.CutSuffix(o.Name, ".weight")
	if !ok && !o.Turned {
		return nil, usage.SourceErrorf("%s: layer %s would become %s, which is not the weight of a layer", v.model.Checkpoint.Path, o.Parts[0].Source, o.Name)
	}
	if l := v.layers[o.Parts[0].Source]; l != nil && o.Renamed(rows(l.Shape())) && slices.Equal(l.Shape(), o.Shape) {
		return l.As(name), nil
	}
	if first := v.first(o); o.Turned || len(o.Shape) > len(first.Shape()) {
		l, err := v.experts(name, o)
		if err != nil {
			return nil, usage.SourceErrorf("%s: layer %s is quantized, and %w: dequantize it first, then give it the other names", v.model.Checkpoint.Path, first.Name, err)
		}
		return l, nil
	}
	l, err := v.gather(name, o)
	if err == nil {
		return l, nil
	}
	return v.stack(name, o, shortened(err, o.Parts)), nil
}

// shortened is an error about layers without what their names begin with, so that those
// of all blocks are one.
func shortened(err error, parts []names.Part) error {
	begin := parts[0].Source
	for _, part := range parts {
		for !strings.HasPrefix(part.Source, begin) {
			begin = begin[:strings.LastIndexByte(strings.TrimSuffix(begin, "."), '.')+1]
		}
	}
	text := err.Error()
	for _, part := range parts {
		short := strings.TrimSuffix(strings.TrimPrefix(part.Source, begin), ".weight")
		if short != "" {
			text = strings.ReplaceAll(text, part.Source, short)
			text = strings.ReplaceAll(text, strings.TrimSuffix(part.Source, ".weight"), short)
		}
	}
	return errors.New(text)
}

// first is the first part that is quantized.
func (v *view) first(o *names.Output) *layout.Layer {
	for _, part := range o.Parts {
		if l := v.layers[part.Source]; l != nil {
			return l
		}
	}
	return nil
}

// stack is a weight of which the rows are restored where they are.
func (v *view) stack(name string, o *names.Output, why error) *layout.Layer {
	var all []codec.Rows
	var parts, tensors []checkpoint.Tensor
	apart := &layout.Apart{Why: why}
	for _, part := range o.Parts {
		if l := v.layers[part.Source]; l != nil {
			all = append(all, codec.Rows{Codec: l.Codec, From: part.From, To: part.To})
			parts, tensors = append(parts, l.Parts...), append(tensors, l.Tensors...)
			if apart.Like == nil || bitsOf(l) > bitsOf(apart.Like) {
				apart.Like = l
			}
			continue
		}
		t := v.plain[part.Source]
		all = append(all, codec.Rows{Codec: codec.Cast(t.Shape, t.Dtype), From: part.From, To: part.To})
		parts, tensors = append(parts, *t), append(tensors, *t)
	}
	l := apart.Like.With(name, codec.Stack(o.Shape, all), nil, parts, tensors)
	l.Format, l.Apart, l.FromHeader = "", apart, false
	return l
}

// bitsOf is how many bits a code of a layer has.
func bitsOf(l *layout.Layer) int {
	if s := codec.Scheme(l.Codec); s != nil {
		return s.Dtype.Bits
	}
	if f := codec.Lookup(l.Format); f != nil {
		return f.Bits
	}
	return 0
}

// gather makes a layer of rows of others that are stored alike.
func (v *view) gather(name string, o *names.Output) (*layout.Layer, error) {
	for _, part := range o.Parts {
		l := v.layers[part.Source]
		if l == nil || v.stored[part.Source] != nil {
			continue
		}
		s, err := rowsOf(l)
		if err != nil {
			return nil, err
		}
		v.stored[part.Source] = s
	}
	var failed error
	g, err := names.Gather(o.Parts, v.stored, func(role string, sources []string) bool {
		same, err := v.same(tile.Role(role), sources)
		failed = cmp.Or(failed, err)
		return same
	})
	if err := cmp.Or(failed, err); err != nil {
		return nil, err
	}
	from := v.first(o)
	if !v.Codes && g.Rank > 0 && len(o.Parts) > 1 {
		return nil, errors.New("low-rank parts of one add up to other bits")
	}
	return v.gathered(name, o, g, from)
}

// gathered is the layer of what was gathered.
func (v *view) gathered(name string, o *names.Output, g *names.Gathered, from *layout.Layer) (*layout.Layer, error) {
	f, err := codec.ByName(from.Format)
	if err != nil {
		return nil, err
	}
	r := codec.Resized{
		Source: codec.Source{Name: name, Shape: o.Shape, Dtype: v.Dtype(from)},
		Rank:   g.Rank, PerRow: g.PerRow, Format: f, Tensors: map[tile.Role]tile.Tensor{},
	}
	moved := map[tile.Role]*names.Moved{}
	for i := range g.Tensors {
		m := &g.Tensors[i]
		role := tile.Role(m.Role)
		d, err := safetensors.ParseDtype(m.Dtype)
		if err != nil {
			return nil, err
		}
		r.Tensors[role], moved[role] = tile.Tensor{Role: role, Dtype: d, Shape: m.Shape}, m
	}
	c, options, err := r.Open(from.Codec, from.Options, from.Layout.SelfDescribing)
	if err != nil {
		return nil, err
	}
	var parts []checkpoint.Tensor
	for _, t := range c.Tensors() {
		m := moved[t.Role]
		whole := &checkpoint.Gathered{}
		for run := range m.Runs(0, g.Rows) {
			if run.Source != "" {
				whole.Add(run.To, run.Size, v.part(run.Source, t.Role), run.From)
			}
		}
		part, err := checkpoint.Gather(from.Layout.TensorName(name, t.Role), t.Dtype, r.Tensors[t.Role].Shape, whole)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	beside, err := v.beside(name, o)
	if err != nil {
		return nil, err
	}
	l := from.With(name, c, options, parts, slices.Concat(parts, beside))
	l.FromHeader = from.Layout.SelfDescribing // the description is new
	return l, nil
}

// part is the tensor of a layer that has a role.
func (v *view) part(weight string, role tile.Role) *checkpoint.Tensor {
	l := v.layers[weight]
	for i, t := range l.Codec.Tensors() {
		if t.Role == role {
			return &l.Parts[i]
		}
	}
	return nil
}

// beside are the tensors of layers for their activations, which are the same for all
// that become one.
func (v *view) beside(name string, o *names.Output) (all []checkpoint.Tensor, err error) {
	first := v.layers[o.Parts[0].Source]
	for _, part := range o.Parts {
		l := v.layers[part.Source]
		for _, t := range extras(l) {
			end := t.Name[len(l.Name):]
			i := slices.IndexFunc(extras(first), func(one checkpoint.Tensor) bool { return one.Name[len(first.Name):] == end })
			if i < 0 {
				return nil, fmt.Errorf("%s has no %s, %s has", first.Name, end[1:], l.Name)
			}
			if same, err := v.equal(&extras(first)[i], &t); err != nil || !same {
				return nil, cmp.Or(err, fmt.Errorf("%s and %s have %s of their own", first.Name, l.Name, end[1:]))
			}
			if l != first {
				continue
			}
			t.Name = name + end
			if !slices.ContainsFunc(all, func(one checkpoint.Tensor) bool { return one.Name == t.Name }) {
				all = append(all, t)
			}
		}
		if n := len(extras(l)); n != len(extras(first)) {
			return nil, fmt.Errorf("%s and %s do not have the same tensors for activations", first.Name, l.Name)
		}
	}
	return all, nil
}

// extras are a layer's tensors that neither store nor describe its weight.
func extras(l *layout.Layer) (all []checkpoint.Tensor) {
	for _, t := range l.Tensors {
		isPart := slices.ContainsFunc(l.Parts, func(part checkpoint.Tensor) bool { return part.Name == t.Name })
		if !isPart && !layout.IsMetadata(t.Name) {
			all = append(all, t)
		}
	}
	return all
}

// same reports whether layers have a tensor with the same bytes.
func (v *view) same(role tile.Role, weights []string) (bool, error) {
	first := v.part(weights[0], role)
	for _, weight := range weights[1:] {
		other := v.part(weight, role)
		if first == nil || other == nil {
			return false, nil
		}
		if same, err := v.equal(first, other); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// equal compares tensors, which mostly differ from the beginning.
func (v *view) equal(a, b *checkpoint.Tensor) (bool, error) {
	if a.Dtype != b.Dtype || a.Size != b.Size {
		return false, nil
	}
	size := int64(4 << 10)
	for off := int64(0); off < a.Size; off, size = off+size, 256<<10 {
		x, y := make([]byte, min(size, a.Size-off)), make([]byte, min(size, a.Size-off))
		if err := v.model.Checkpoint.ReadSection(*a, x, off); err != nil {
			return false, err
		}
		if err := v.model.Checkpoint.ReadSection(*b, y, off); err != nil {
			return false, err
		}
		if !bytes.Equal(x, y) {
			return false, nil
		}
	}
	return true, nil
}
