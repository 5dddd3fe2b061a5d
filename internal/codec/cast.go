package codec

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

// cast stores plain values in another float dtype: what convert_to_quant does
// to the weights that it does not quantize.
type cast struct {
	quant.Grid
	shape []int
	to    safetensors.Dtype
}

// Cast returns the codec that stores a tensor of any shape as BF16, F16 or F32.
func Cast(shape []int, to safetensors.Dtype) Codec {
	bits := to.Bits()
	return flat{&cast{quant.Grid{Values: numel(shape), Group: 1, Inner: 1, Levels: 1, Bits: min(bits, 16), Block: 1}, shape, to}, shape}
}

func (c *cast) Tensors() []quant.Tensor {
	return []quant.Tensor{{Role: quant.Weight, Dtype: c.to, Shape: c.shape}}
}

func (c *cast) Written(_, start, end int) quant.Span {
	width := int64(c.to.Bits() / 8)
	return quant.Span{Offset: int64(start) * width, Size: int64(end-start) * width, Count: 1}
}

func (c *cast) Needed(i, start, end int) quant.Span { return c.Written(i, start, end) }

func (c *cast) NewEncoder(limit int) quant.Encoder { return caster{c, min(limit, quant.TileSize)} }

// caster needs no pass.
type caster struct {
	*cast
	tile int
}

func (c caster) Tile() int            { return c.tile }
func (c caster) Passes() []quant.Pass { return nil }

func (c caster) Encode(dst [][]byte, _ int, values []float32, _ *quant.Scratch) error {
	Narrow(dst[0], values, c.to)
	return nil
}

func (c *cast) Decode(dst []float32, src [][]byte, _ int, _ safetensors.Dtype, _ *quant.Scratch) {
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
	quant.Widen(dst, src, from)
}

// Narrow writes values as a dtype for which [Floats] holds, rounded to nearest
// even.
func Narrow(dst []byte, src []float32, to safetensors.Dtype) {
	switch to {
	case safetensors.BF16:
		kernel.NarrowBF16(dst, src)
	case safetensors.F16:
		kernel.NarrowF16(dst, src)
	default:
		kernel.NarrowF32(dst, src)
	}
}
