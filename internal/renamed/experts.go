package renamed

import (
	"errors"
	"fmt"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/names"
	"github.com/tensorpress/tensorpress/safetensors"
)

// experts is the weight of matrices in one tensor that are quantized: turned ones as they
// are stored, or several layers one after the other, which are restored as they are read.
func (v *view) experts(name string, o *names.Output) (*layout.Layer, error) {
	if o.Turned {
		if l := v.first(o).Straight(name); l != nil && v.To == names.ComfyUI {
			return l, nil
		}
		return nil, errors.New("its experts do not lie as the other side's do")
	}
	var each []codec.Codec
	for _, part := range o.Parts {
		l := v.layers[part.Source]
		if l == nil {
			return nil, fmt.Errorf("%s, another of the experts, is not", part.Source)
		}
		each = append(each, l.Codec)
	}
	c, err := codec.Join(each, o.Alternate)
	if err != nil {
		return nil, fmt.Errorf("of the experts that become %s, %w", o.Name, err)
	}
	first := v.first(o)
	var parts []checkpoint.Tensor
	for _, t := range c.Tensors() {
		whole, at := &checkpoint.Gathered{}, int64(0)
		for _, part := range o.Parts {
			from := v.part(part.Source, t.Role)
			whole.Add(at, from.Size, from, 0)
			at += from.Size
		}
		part, err := checkpoint.Gather(first.Layout.TensorName(name, t.Role), t.Dtype, t.Shape, whole)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	l := first.With(name, c, nil, parts, parts)
	l.Format, l.FromHeader = "", false
	l.Apart = &layout.Apart{Why: errors.New("experts that are layers of their own become one"), Like: first}
	return l, nil
}

// alternating is a plain tensor of matrices in which rows of several stand in turn.
func (v *view) alternating(o *names.Output) (checkpoint.Tensor, error) {
	g, at := &checkpoint.Gathered{}, int64(0)
	var dtype safetensors.Dtype
	for i, part := range o.Parts {
		from := v.plain[part.Source]
		row, turn := from.Size/int64(part.Rows()), int64(i%o.Alternate)
		g.Pieces = append(g.Pieces, checkpoint.Piece{
			To: at + turn*row, Size: row, Stride: row * int64(o.Alternate), Count: part.Rows(), From: from, Step: row,
		})
		if dtype = from.Dtype; turn == int64(o.Alternate-1) {
			at += from.Size * int64(o.Alternate)
		}
	}
	return checkpoint.Gather(o.Name, dtype, o.Shape, g)
}
