package layout

import (
	"slices"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// As is the layer under another name: its tensors are called so and lie where they do.
func (l *Layer) As(name string) *Layer {
	renamed := *l
	renamed.Name = name
	rename := func(tensors []checkpoint.Tensor) []checkpoint.Tensor {
		tensors = slices.Clone(tensors)
		for i := range tensors {
			tensors[i].Name = name + tensors[i].Name[len(l.Name):]
		}
		return tensors
	}
	renamed.Parts, renamed.Tensors = rename(l.Parts), rename(l.Tensors)
	return &renamed
}

// Straight is a layer of matrices in one tensor that are stored transposed, under a name
// and as of the weight that they are as stored; nil for any other.
func (l *Layer) Straight(name string) *Layer {
	c := codec.Straight(l.Codec)
	if c == nil {
		return nil
	}
	made := l.With(name, c, l.Options, l.Parts, l.Tensors)
	named := *l.Layout
	named.parameter = false
	made.Layout = &named
	return made
}

// With is a layer stored as this one is, by another codec in those tensors, of which
// parts are the codec's.
func (l *Layer) With(name string, c codec.Codec, options pyjson.Object, parts, tensors []checkpoint.Tensor) *Layer {
	made := *l
	made.Name, made.Codec, made.Options, made.Parts, made.Tensors = name, c, options, parts, tensors
	made.alike = &opened{codec: c}
	return &made
}
