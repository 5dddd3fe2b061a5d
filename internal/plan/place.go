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
	"github.com/tensorpress/tensorpress/safetensors"
)

// place names every tensor of the output and gives it its file and offset.
func (p *Plan) place(o Output) error {
	units := p.units()
	o.Metadata = p.metadata(o)
	err := p.makeFiles(units, o)
	if err != nil || len(p.Files) > 1 { // a header of one file has each name once
		err = cmp.Or(p.clash(units), err)
	}
	if err != nil {
		return err
	}
	p.locate()
	for _, s := range p.Steps {
		p.BytesIn += s.Source.Size
	}
	return nil
}

// makeFiles gives each unit of tensors to a file.
func (p *Plan) makeFiles(units [][]safetensors.Tensor, o Output) error {
	shards := split(units, o.ShardSize)
	for i, tensors := range shards {
		header, err := safetensors.NewHeader(tensors, o.Metadata)
		if err != nil {
			return err
		}
		p.Files = append(p.Files, File{shardName(o.Stem, i, len(shards)), header})
		p.BytesOut += header.FileSize()
	}
	return nil
}

// finder finds the tensors of the output. Those of neighbouring steps lie in
// one file or the next.
type finder struct {
	files []File
	at    int
}

func (f *finder) part(name string) Part {
	for range f.files {
		if t, ok := f.files[f.at].Header.Lookup(name); ok {
			return Part{t, f.at}
		}
		f.at = (f.at + 1) % len(f.files)
	}
	return Part{}
}

// units are the tensors of each step, which stay in one file.
func (p *Plan) units() [][]safetensors.Tensor {
	units := make([][]safetensors.Tensor, len(p.Steps))
	for i := range p.Steps {
		units[i] = p.name(&p.Steps[i])
	}
	return units
}

// clash is an error if two steps write tensors of one name.
func (p *Plan) clash(units [][]safetensors.Tensor) error {
	from := map[string]int{} // steps by what they write
	for i, unit := range units {
		for _, t := range unit {
			if other, taken := from[t.Name]; taken {
				return &sourceError{fmt.Errorf("tensors %s and %s would both be written as %s: is the source quantized already?",
					p.Steps[other].Source.Name, p.Steps[i].Source.Name, t.Name)}
			}
			from[t.Name] = i
		}
	}
	return nil
}

// sourceError is the source's fault.
type sourceError struct{ error }

func (e *sourceError) Is(target error) bool { return target == checkpoint.ErrSource }

// name gives a step its parts, and the plan its literals.
func (p *Plan) name(s *Step) []safetensors.Tensor {
	if s.Action == Drop {
		return nil
	}
	if s.stays() {
		return p.nameStored(s)
	}
	if s.Action == Keep {
		t := safetensors.Tensor{Name: s.Source.Name, Dtype: s.Source.Dtype, Shape: s.Source.Shape}
		if s.Codec != nil {
			t.Dtype = s.Codec.Tensors()[0].Dtype
		}
		s.Parts = []Part{{Tensor: t}}
		return []safetensors.Tensor{t}
	}
	tensors := s.Codec.Tensors()
	unit := make([]safetensors.Tensor, 0, len(tensors)+1)
	s.Parts = make([]Part, 0, len(tensors))
	for _, t := range tensors {
		named := safetensors.Tensor{Name: p.Layout.TensorName(s.Layer, t.Role), Dtype: t.Dtype, Shape: t.Shape}
		s.Parts = append(s.Parts, Part{Tensor: named})
		unit = append(unit, named)
	}
	if p.Layout.SelfDescribing {
		unit = append(unit, p.metadataOf(s))
	}
	return unit
}

// metadataOf adds the tensor with a layer's metadata.
func (p *Plan) metadataOf(s *Step) safetensors.Tensor {
	l := layout.MetadataTensor(s.Layer, s.Options)
	p.Literals = append(p.Literals, Literal{Part{Tensor: l.Tensor}, l.Data})
	return l.Tensor
}

// nameStored is name for a layer that stays as it is stored. What the header
// said of it goes into a tensor.
func (p *Plan) nameStored(s *Step) []safetensors.Tensor {
	var unit []safetensors.Tensor
	for _, c := range s.Copies {
		unit = append(unit, c.Tensor)
		s.Parts = append(s.Parts, c.Part)
	}
	if s.From.FromHeader {
		unit = append(unit, p.metadataOf(s))
	}
	return unit
}

// split fills files up to a size, in order; 0 means one file.
func split(units [][]safetensors.Tensor, size int64) [][]safetensors.Tensor {
	var shards [][]safetensors.Tensor
	var used int64
	first := 0
	for i, unit := range units {
		var bytes int64
		for _, t := range unit {
			n, _ := safetensors.ByteSize(t.Dtype, t.Shape) // NewHeader reports what is wrong
			bytes += n
		}
		if size > 0 && used > 0 && used+bytes > size {
			shards = append(shards, slices.Concat(units[first:i]...))
			first, used = i, 0
		}
		used += bytes
	}
	return append(shards, slices.Concat(units[first:]...))
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

// locate copies offsets from the files' headers into parts and literals.
func (p *Plan) locate() {
	steps, literals := finder{files: p.Files}, finder{files: p.Files}
	for i := range p.Steps {
		for j := range p.Steps[i].Parts {
			p.Steps[i].Parts[j] = steps.part(p.Steps[i].Parts[j].Name)
		}
		for j := range p.Steps[i].Copies {
			p.Steps[i].Copies[j].Part = p.Steps[i].Parts[j]
		}
	}
	for i := range p.Literals {
		p.Literals[i].Part = literals.part(p.Literals[i].Name)
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
