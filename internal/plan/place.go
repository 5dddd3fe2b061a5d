package plan

import (
	"cmp"
	"fmt"
	"maps"
	"strings"

	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// place names every tensor of the output and gives it its file and offset.
func (p *Plan) place(o Output) error {
	if err := p.inTheWay(); err != nil {
		return err
	}
	u := p.units()
	o.Metadata = p.metadata(o)
	err := p.makeFiles(u, o)
	if err != nil || len(p.Files) > 1 { // a header of one file has each name once
		err = cmp.Or(p.clash(u), err)
	}
	if err != nil {
		return err
	}
	p.locate(u)
	for i := range p.Steps {
		p.BytesIn += p.Steps[i].Source.Size
	}
	return nil
}

// units are parts in groups that stay in one file.
type units struct {
	parts []Part
	ends  []int // of the units, in parts
	taken int   // parts that were returned
}

// add adds a unit.
func (u *units) add(tensors ...safetensors.Tensor) {
	for _, t := range tensors {
		u.parts = append(u.parts, Part{Tensor: t})
	}
	u.ends = append(u.ends, len(u.parts))
}

// next returns the parts one after the other, n at a time.
func (u *units) next(n int) []Part {
	u.taken += n
	return u.parts[u.taken-n : u.taken : u.taken]
}

// makeFiles gives each unit of tensors to a file.
func (p *Plan) makeFiles(u *units, o Output) error {
	shards := u.split(o.ShardSize)
	for i, parts := range shards {
		tensors := make([]safetensors.Tensor, len(parts))
		for j := range parts {
			tensors[j] = parts[j].Tensor
		}
		header, err := safetensors.NewHeader(tensors, o.Metadata)
		if err != nil {
			return err
		}
		p.Files = append(p.Files, File{shardName(o.Stem, i, len(shards)), header})
		p.BytesOut += header.FileSize()
		for j := range parts {
			parts[j].File, parts[j].Tensor = i, tensors[j]
		}
	}
	return nil
}

// units are the parts of each step, in which Plan.locate finds them.
func (p *Plan) units() *units {
	u := &units{ends: make([]int, len(p.Steps))}
	literals := make([]int, len(p.Steps)+1) // of the steps before
	n := 0
	for i := range p.Steps {
		s := &p.Steps[i]
		literals[i+1] = literals[i]
		if s.described(p.Layout) {
			literals[i+1]++
			n++
		}
		n += s.outputs()
		u.ends[i] = n
	}
	u.parts, p.Literals = make([]Part, n), make([]Literal, literals[len(p.Steps)])
	inParts(partsOf(len(p.Steps)), len(p.Steps), func(_, from, to int) {
		d, start := describer{}, 0
		if from > 0 {
			start = u.ends[from-1]
		}
		for i := from; i < to; i++ {
			s, parts := &p.Steps[i], u.parts[start:u.ends[i]]
			p.name(s, parts)
			if literals[i] < literals[i+1] {
				l := d.of(s)
				parts[len(parts)-1].Tensor, p.Literals[literals[i]].Data = l.Tensor, l.Data
			}
			start = u.ends[i]
		}
	})
	return u
}

// outputs is how many tensors a step writes but for its description.
func (s *Step) outputs() int {
	switch {
	case s.Action == Drop:
		return 0
	case s.stays():
		return len(s.Copies)
	case s.Action == Keep:
		return 1
	}
	return len(s.Codec.Tensors())
}

// clash is an error if two steps write tensors of one name.
func (p *Plan) clash(u *units) error {
	from := map[string]int{} // steps by what they write
	start := 0
	for i, end := range u.ends {
		for _, t := range u.parts[start:end] {
			if other, taken := from[t.Name]; taken {
				return usage.SourceErrorf("tensors %s and %s would both be written as %s: is the source quantized already?",
					p.Steps[other].Source.Name, p.Steps[i].Source.Name, t.Name)
			}
			from[t.Name] = i
		}
		start = end
	}
	return nil
}

// inTheWay is an error if a tensor that is kept has a name by which readers would
// take it for a part of a layer that is quantized.
func (p *Plan) inTheWay() error {
	layers := map[string]bool{}
	for i := range p.Steps {
		if s := &p.Steps[i]; s.quantized() {
			layers[s.Layer] = true
		}
	}
	if len(layers) == 0 {
		return nil
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.Action != Keep || s.stays() || s.Reason == activations {
			continue
		}
		if layer, ok := p.Layout.PartOf(s.Source.Name); ok && layers[layer] {
			return usage.SourceErrorf("tensor %s has the name of a part of layer %s, which would be quantized: `Keep` that layer, or rename the tensor", s.Source.Name, layer)
		}
	}
	return nil
}

// name fills in the outputs of a step, but for where they lie.
func (p *Plan) name(s *Step, parts []Part) {
	switch {
	case s.Action == Drop:
	case s.stays():
		for i, c := range s.Copies {
			parts[i].Tensor = c.Tensor
		}
	case s.Action == Keep:
		t := safetensors.Tensor{Name: s.Source.Name, Dtype: s.Source.Dtype, Shape: s.Source.Shape}
		if s.Codec != nil {
			t.Dtype = s.Codec.Tensors()[0].Dtype
		}
		parts[0].Tensor = t
	default:
		for i, t := range s.Codec.Tensors() {
			name := s.Source.Name // of the weight, in every layout
			if t.Role != tile.Weight {
				name = p.Layout.TensorName(s.Layer, t.Role)
			}
			parts[i].Tensor = safetensors.Tensor{Name: name, Dtype: t.Dtype, Shape: t.Shape}
		}
	}
}

// described reports whether a tensor says how the layer is stored. For one that
// stays as it is it may be new: what the header said.
func (s *Step) described(l *layout.Layout) bool {
	if s.stays() {
		return s.From.FromHeader
	}
	return s.Action == Quantize && l.SelfDescribing
}

// describer makes tensors of metadata, one text for all layers that share it.
type describer map[*pyjson.Member]layout.Literal

func (d describer) of(s *Step) layout.Literal {
	if len(s.Options) == 0 {
		return layout.MetadataTensor(s.Layer, s.Options)
	}
	l, ok := d[&s.Options[0]]
	if !ok {
		l = layout.MetadataTensor(s.Layer, s.Options)
		d[&s.Options[0]] = l
	}
	l.Name = layout.MetadataName(s.Layer)
	return l
}

// split fills files up to a size, in order; 0 means one file.
func (u *units) split(size int64) [][]Part {
	var shards [][]Part
	var used int64
	first, start := 0, 0
	for _, end := range u.ends {
		var bytes int64
		for _, t := range u.parts[start:end] {
			n, _ := safetensors.ByteSize(t.Dtype, t.Shape) // Place reports what is wrong
			bytes += n
		}
		if size > 0 && used > 0 && used+bytes > size {
			shards = append(shards, u.parts[first:start])
			first, used = start, 0
		}
		used += bytes
		start = end
	}
	return append(shards, u.parts[first:])
}

func shardName(stem string, i, n int) string {
	if n == 1 {
		return stem + ".safetensors"
	}
	return fmt.Sprintf("%s-%05d-of-%05d.safetensors", stem, i+1, n)
}

// metadata of a file: the source's, and in the sdnq layout, where the output is
// one file, the config.
func (p *Plan) metadata(o Output) map[string]string {
	if p.Config == nil || o.Folder {
		return o.Metadata
	}
	m := maps.Clone(o.Metadata)
	if m == nil {
		m = map[string]string{}
	}
	m[layout.ConfigKey] = strings.TrimSuffix(pyjson.DumpSorted(p.Config.Encode()), "\n")
	return m
}

// locate gives steps and literals the parts that name made of them.
func (p *Plan) locate(u *units) {
	literals := p.Literals
	for i := range p.Steps {
		s := &p.Steps[i]
		s.Parts = u.next(s.outputs())
		for j := range s.Copies {
			s.Copies[j].Part = s.Parts[j]
		}
		if u.taken < u.ends[i] {
			literals[0].Part, literals = u.next(1)[0], literals[1:]
		}
	}
}

// Index returns the weight index of a sharded output as its loaders write it.
func (p *Plan) Index() string {
	names := pyjson.Object{}
	var total int64
	for _, f := range p.Files {
		for _, t := range f.Header.Tensors {
			names = append(names, pyjson.Member{Key: t.Name, Value: f.Name})
			total += t.Size
		}
	}
	return pyjson.DumpSorted(pyjson.Object{
		{Key: "metadata", Value: pyjson.Object{{Key: "total_size", Value: total}}},
		{Key: "weight_map", Value: names},
	})
}

// File returns the file that a step writes to, which is one; ok is false where it writes
// nothing.
func (s *Step) File() (file int, ok bool) {
	if len(s.Parts) == 0 {
		return 0, false
	}
	return s.Parts[0].File, true
}

// Of is the plan of some of the files alone: it has all of them, and the steps and the
// literals of those.
func (p *Plan) Of(want func(file int) bool) *Plan {
	one := *p
	one.Steps, one.Literals, one.BytesIn, one.BytesOut = nil, nil, 0, 0
	file := 0 // a tensor that is dropped goes with the one before
	for i := range p.Steps {
		s := &p.Steps[i]
		if of, ok := s.File(); ok {
			file = of
		}
		if want(file) {
			one.Steps = append(one.Steps, *s)
			one.BytesIn += s.Source.Size
		}
	}
	for _, l := range p.Literals {
		if want(l.File) {
			one.Literals = append(one.Literals, l)
		}
	}
	for i, f := range p.Files {
		if want(i) {
			one.BytesOut += f.Header.FileSize()
		}
	}
	return &one
}

// BytesOut returns what a step writes.
func (s *Step) BytesOut() (n int64) {
	for _, part := range s.Parts {
		n += part.Size
	}
	return n
}
