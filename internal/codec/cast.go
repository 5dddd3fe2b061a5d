package codec

import (
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// cast stores plain values in another float dtype: what convert_to_quant does
// to the weights that it does not quantize.
type cast struct {
	shape []int
	to    safetensors.Dtype
}

// Cast returns the codec that stores a tensor of any shape as BF16, F16 or F32.
func Cast(shape []int, to safetensors.Dtype) Codec { return cast{shape, to} }

func (c cast) Shape() []int { return c.shape }

func (c cast) Tensors() []tile.Tensor {
	return []tile.Tensor{{Role: tile.Weight, Dtype: c.to, Shape: c.shape}}
}

func (c cast) Cut() tile.Cut {
	return tile.Cut{Rows: 1, Cols: tile.Numel(c.shape), UnitRows: 1, UnitCols: 1, GroupRows: 1, GroupCols: 1}
}

func (c cast) Written(_ int, a tile.Area) []tile.Span {
	return tile.SpansOf(a, c.Cut().Cols, c.to.Bits()/8)
}

func (c cast) Needed(i int, a tile.Area) []tile.Span { return c.Written(i, a) }

func (c cast) NewEncoder(safetensors.Dtype, int) tile.Encoder { return caster{c.to} }

type caster struct{ to safetensors.Dtype }

func (caster) Needs() tile.Needs { return tile.Needs{Rows: 1, Cols: tile.TileSize} }

func (c caster) Encode(dst [][]byte, v tile.Values, s *tile.Scratch) error {
	floats.Narrow(dst[0], v.Floats(s), c.to)
	return nil
}

func (c cast) Decode(dst []float32, src [][]byte, _ tile.Area, _ safetensors.Dtype, _ *tile.Scratch) {
	Widen(dst, src[0], c.to)
}

// Floats reports whether tensors of that dtype can be quantized.
func Floats(d safetensors.Dtype) bool {
	return d == safetensors.F32 || d == safetensors.BF16 || d == safetensors.F16
}

// Numbers reports whether [Widen] reads tensors of that dtype: floats, and 8-bit
// ones that have no scale.
func Numbers(d safetensors.Dtype) bool { return Floats(d) || small[d] != nil }

// small are the 8-bit floats by their values.
var small = map[safetensors.Dtype]*[256]float32{
	safetensors.F8_E4M3: values(kernel.E4M3), safetensors.F8_E5M2: values(kernel.E5M2),
}

func values(f *kernel.Small) *[256]float32 {
	var all [256]float32
	for code := range all {
		all[code] = f.Decode(uint16(code))
	}
	return &all
}

// Widen reads little-endian values of a dtype for which [Numbers] holds.
func Widen(dst []float32, src []byte, from safetensors.Dtype) {
	if table := small[from]; table != nil {
		for i := range dst {
			dst[i] = table[src[i]]
		}
		return
	}
	floats.Widen(dst, src, from)
}
