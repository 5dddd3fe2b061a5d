package comfy

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// MXFP8 is a weight of E4M3 codes in blocks of 32, each with a power of two as
// its scale.
type MXFP8 struct {
	swizzled
	o BlockOptions
}

// BlockOptions are those of the block-scaled formats.
type BlockOptions struct {
	// ExactReference keeps what comfy-kitchen does to blocks so small that
	// their scale decodes to zero: their zeros become NaN.
	ExactReference bool
	AllowNonfinite bool
	// RoundBF16 rounds values to BF16 first, as comfy-kitchen's kernels take
	// them; the scale of an NVFP4 tensor is found before that.
	RoundBF16 bool
	// Search chooses scales of blocks that lose least, where the format gains by it.
	Search bool
	// Moments are how much errors count in the search, by columns; nil if all count alike.
	Moments []float32
}

// rounded returns values as blocks are made of them.
func (o BlockOptions) rounded(v tile.Values, s *tile.Scratch) tile.Values {
	if !o.RoundBF16 || v.Dtype == safetensors.BF16 {
		return v
	}
	x := v.Floats(s)
	floats.RoundAll(x, safetensors.BF16)
	return tile.ValuesOf(v.Area, x)
}

// NewMXFP8 resolves the format for a weight of shape [rows, columns].
func NewMXFP8(shape []int, o BlockOptions) (*MXFP8, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	return &MXFP8{newSwizzled(shape, 32, 32, 8), o}, nil
}

// Tensors returns the codes and the scales' exponents.
func (m *MXFP8) Tensors() []tile.Tensor { return m.tensors(safetensors.F8_E4M3, safetensors.U8) }

// Cut is by the tiles of the scales.
func (m *MXFP8) Cut() tile.Cut { return m.cut() }

// Written returns what encoding an area fills.
func (m *MXFP8) Written(i int, a tile.Area) []tile.Span { return m.span(i, a) }

// Needed returns what decoding an area takes.
func (m *MXFP8) Needed(i int, a tile.Area) []tile.Span { return m.span(i, a) }

// NewEncoder prepares to encode in tiles that take at most that many bytes of memory.
func (m *MXFP8) NewEncoder(_ safetensors.Dtype, memory int) tile.Encoder {
	e := tile.NewRanged(m.Cut(), tile.RawTile(memory), m.encode, nil)
	e.Wants.PieceRows = pieceRows(e.Wants)
	return e
}

func (m *MXFP8) encode(dst [][]byte, v tile.Values, _ []tile.Range, s *tile.Scratch) error {
	rounded := m.o.rounded(v, s)
	rule := &blockRule{floats: e4m3Floats, small: kernel.E4M3, scales: mxScales, normalize: m.normalize}
	if rounded.Dtype == safetensors.BF16 && kernel.HasMXFP8() {
		rule.whole = kernel.EncodeMXFP8
	}
	own := buffersOf(s)
	if !m.encodeBlocks(dst, rounded, rule, own) && !m.o.AllowNonfinite {
		return tile.CheckArea(v.Area, v.Widen(&own.slow), m.shape[1])
	}
	return nil
}

// mxScales are powers of 2, which need no rounding.
func mxScales(codes []byte, steps kernel.Steps, amax []float32, _ *buffers) bool {
	clear(steps.Zeros)
	if kernel.PowerSteps(codes, steps.Scales, steps.Inverses, amax, 448) {
		return true
	}
	for c, a := range amax {
		codes[c] = scaleExponent(a)
		scale := math.Float32frombits(uint32(codes[c]) << 23)
		if !steps.Set(c, 0, scale) || a == 0 || !floats.Finite(a) {
			steps.Scales[c] = 0
		}
	}
	return false
}

// normalize divides a block by its scale and returns the scale's code.
func (m *MXFP8) normalize(block []float32) byte {
	lo, hi := kernel.MinMax(block)
	amax := tile.Range{Lo: lo, Hi: hi}.AbsMax()
	if lo != lo {
		amax = lo
	}
	code := scaleExponent(amax)
	scale := math.Float32frombits(uint32(code) << 23)
	switch {
	case amax == 0, scale == 0 && floats.Finite(amax) && !m.o.ExactReference:
		clear(block)
		return 0
	case scale == 0:
		divideByZero(block)
		return 0
	}
	kernel.Divide(block, 0, scale, -448, 448)
	return code
}

// divideByZero gives the largest value, or NaN as x86 makes it.
func divideByZero(x []float32) {
	for i, v := range x {
		switch {
		case v > 0:
			x[i] = 448
		case v < 0:
			x[i] = -448
		case v == 0:
			x[i] = math.Float32frombits(0xFFC00000)
		}
	}
}

// scaleExponent returns the biased exponent of the least power of two that
// brings amax to 448 at most, as the reference computes it: by a logarithm
// rounded to single precision, which just above a power of two is whole.
func scaleExponent(amax float32) byte {
	if !floats.Finite(amax) {
		return 0
	}
	t := max(amax/448, 0x1p-127)
	bits := math.Float32bits(t)
	exponent := int(bits>>23) - 127
	switch mantissa := bits & (1<<23 - 1); {
	case bits>>23 == 0: // subnormal: 2^-127 and up
		exponent = int(math.Ceil(float64(float32(math.Log2(float64(t))))))
	case mantissa >= 64:
		exponent++
	case mantissa > 0:
		exponent = int(math.Ceil(float64(float32(math.Log2(float64(t))))))
	}
	return byte(min(max(exponent+127, 0), 254))
}

// Decode restores an area from the bytes that Needed names.
func (m *MXFP8) Decode(dst []float32, src [][]byte, a tile.Area, _ safetensors.Dtype, scratch *tile.Scratch) {
	m.decodeRows(dst, src, a, powers, group.SmallValues[kernel.E4M3], buffersOf(scratch))
}

// powers are the scales with those exponents.
func powers(dst []float32, codes []byte) {
	for i, code := range codes {
		dst[i] = math.Float32frombits(uint32(code) << 23)
	}
}
