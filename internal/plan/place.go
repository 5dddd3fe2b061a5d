package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

// place names every tensor of the output and gives it its file and offset.
func (p *Plan) place(o Output) error {
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

// units are tensors in groups that stay in one file.
type units struct {
	tensors []safetensors.Tensor
	ends    []int // of the units, in tensors
	files   []int // by tensor, once they are made; nil for one file
	taken   int   // tensors that next has returned
	room    []Part
}

// parts returns room for those of a step.
func (u *units) parts(n int) []Part {
	if len(u.room) < n {
		u.room = make([]Part, max(n, 1024))
	}
	parts := u.room[:n:n]
	u.room = u.room[n:]
	return parts
}

// add adds a unit.
func (u *units) add(tensors ...safetensors.Tensor) {
	u.tensors = append(u.tensors, tensors...)
	u.ends = append(u.ends, len(u.tensors))
}

// next returns where the tensors lie, one after the other.
func (u *units) next() Part {
	part := Part{Tensor: u.tensors[u.taken]}
	if u.files != nil {
		part.File = u.files[u.taken]
	}
	u.taken++
	return part
}

// makeFiles gives each unit of tensors to a file.
func (p *Plan) makeFiles(u *units, o Output) error {
	shards := u.split(o.ShardSize)
	for i, tensors := range shards {
		header, err := safetensors.Place(tensors, o.Metadata)
		if err != nil {
			return err
		}
		p.Files = append(p.Files, File{shardName(o.Stem, i, len(shards)), header})
		p.BytesOut += header.FileSize()
		if len(shards) > 1 {
			u.files = append(u.files, slices.Repeat([]int{i}, len(tensors))...)
		}
	}
	return nil
}

// units are the tensors of each step.
func (p *Plan) units() *units {
	n, layers, per := 0, 0, 0
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.Action != Quantize {
			n += 1 + len(s.Copies)
			continue
		}
		if layers++; per == 0 {
			per = len(s.Codec.Tensors()) + 1 // as most have that the first has
		}
		n += per
	}
	u := &units{tensors: make([]safetensors.Tensor, 0, n), ends: make([]int, 0, len(p.Steps))}
	if p.Layout.SelfDescribing {
		p.Literals = make([]Literal, 0, layers)
	}
	d := describer{}
	for i := range p.Steps {
		p.name(&p.Steps[i], u, d)
		u.ends = append(u.ends, len(u.tensors))
	}
	return u
}

// clash is an error if two steps write tensors of one name.
func (p *Plan) clash(u *units) error {
	from := map[string]int{} // steps by what they write
	start := 0
	for i, end := range u.ends {
		for _, t := range u.tensors[start:end] {
			if other, taken := from[t.Name]; taken {
				return &sourceError{fmt.Errorf("tensors %s and %s would both be written as %s: is the source quantized already?",
					p.Steps[other].Source.Name, p.Steps[i].Source.Name, t.Name)}
			}
			from[t.Name] = i
		}
		start = end
	}
	return nil
}

// sourceError is the source's fault.
type sourceError struct{ error }

func (e *sourceError) Is(target error) bool { return target == checkpoint.ErrSource }

// name gives a step as many parts as it has, which [Plan.locate] fills, and the
// plan its literals.
func (p *Plan) name(s *Step, u *units, d describer) {
	switch {
	case s.Action == Drop:
	case s.stays():
		for _, c := range s.Copies {
			u.tensors = append(u.tensors, c.Tensor)
		}
		s.Parts = u.parts(len(s.Copies))
	case s.Action == Keep:
		t := safetensors.Tensor{Name: s.Source.Name, Dtype: s.Source.Dtype, Shape: s.Source.Shape}
		if s.Codec != nil {
			t.Dtype = s.Codec.Tensors()[0].Dtype
		}
		s.Parts = u.parts(1)
		u.tensors = append(u.tensors, t)
	default:
		tensors := s.Codec.Tensors()
		s.Parts = u.parts(len(tensors))
		for _, t := range tensors {
			name := s.Source.Name // of the weight, in every layout
			if t.Role != quant.Weight {
				name = p.Layout.TensorName(s.Layer, t.Role)
			}
			u.tensors = append(u.tensors, safetensors.Tensor{Name: name, Dtype: t.Dtype, Shape: t.Shape})
		}
	}
	if s.described(p.Layout) {
		l := d.of(s)
		p.Literals = append(p.Literals, Literal{Part{Tensor: l.Tensor}, l.Data})
		u.tensors = append(u.tensors, l.Tensor)
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
func (u *units) split(size int64) [][]safetensors.Tensor {
	var shards [][]safetensors.Tensor
	var used int64
	first, start := 0, 0
	for _, end := range u.ends {
		var bytes int64
		for _, t := range u.tensors[start:end] {
			n, _ := safetensors.ByteSize(t.Dtype, t.Shape) // Place reports what is wrong
			bytes += n
		}
		if size > 0 && used > 0 && used+bytes > size {
			shards = append(shards, u.tensors[first:start])
			first, used = start, 0
		}
		used += bytes
		start = end
	}
	return append(shards, u.tensors[first:])
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

// locate copies offsets into parts and literals, in the order of their names.
func (p *Plan) locate(u *units) {
	literals := p.Literals
	for i := range p.Steps {
		s := &p.Steps[i]
		for j := range s.Parts {
			s.Parts[j] = u.next()
		}
		for j := range s.Copies {
			s.Copies[j].Part = s.Parts[j]
		}
		if s.described(p.Layout) {
			literals[0].Part = u.next()
			literals = literals[1:]
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

// BytesOut returns what a step writes.
func (s *Step) BytesOut() (n int64) {
	for _, part := range s.Parts {
		n += part.Size
	}
	return n
}
