package codec

import (
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// OpenAs is [Format.Open] that also accepts scales in BF16 or F16 where the format has
// F32: some programs save all of a file in one dtype, and loaders compute with whatever
// they find. Matrices in one tensor are a [Bank].
func (f *Format) OpenAs(l *Stored) (Codec, error) {
	if f.Banks != "" && l.isBank() {
		return f.openBank(l)
	}
	c, err := f.Open(l)
	scale, ok := l.Tensors[tile.Scale]
	if err == nil || !ok || f == sdnqFormat || scale.Dtype != safetensors.BF16 && scale.Dtype != safetensors.F16 {
		return c, err
	}
	wide := &Stored{Metadata: l.Metadata, Hint: l.Hint, Tensors: map[tile.Role]tile.Tensor{}}
	for role, t := range l.Tensors {
		if role == tile.Scale {
			t.Dtype = safetensors.F32
		}
		wide.Tensors[role] = t
	}
	opened, failed := f.Open(wide)
	if failed != nil {
		return nil, err
	}
	return narrowScale{opened, scale}, nil
}

// narrowScale is a layer whose scales have a narrower dtype than its format's. It
// is read, and not written.
type narrowScale struct {
	Codec
	scale tile.Tensor
}

// Tensors names the scales as they are stored.
func (n narrowScale) Tensors() []tile.Tensor {
	var tensors []tile.Tensor
	for _, t := range n.Codec.Tensors() {
		if t.Role == tile.Scale {
			t.Dtype = n.scale.Dtype
		}
		tensors = append(tensors, t)
	}
	return tensors
}

// Needed counts their bytes.
func (n narrowScale) Needed(i int, a tile.Area) []tile.Span {
	spans := n.Codec.Needed(i, a)
	if n.Tensors()[i].Role != tile.Scale {
		return spans
	}
	half := make([]tile.Span, len(spans))
	for i, s := range spans {
		half[i] = tile.Span{Offset: s.Offset / 2, Size: s.Size / 2, Count: s.Count, Stride: s.Stride / 2}
	}
	return half
}

// Written is nothing: there is no encoder.
func (narrowScale) Written(int, tile.Area) []tile.Span { return nil }

// NewEncoder returns nil.
func (narrowScale) NewEncoder(safetensors.Dtype, int) tile.Encoder { return nil }

// Decode widens the scales first.
func (n narrowScale) Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, s *tile.Scratch) {
	wide := make([][]byte, len(src))
	for i, t := range n.Codec.Tensors() {
		wide[i] = src[i]
		if t.Role == tile.Scale {
			values := make([]float32, len(src[i])/2)
			Widen(values, src[i], n.scale.Dtype)
			wide[i] = make([]byte, 4*len(values))
			floats.Narrow(wide[i], values, safetensors.F32)
		}
	}
	n.Codec.Decode(dst, wide, a, out, s)
}
