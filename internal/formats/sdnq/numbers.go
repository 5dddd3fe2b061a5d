package sdnq

import (
	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// numbers converts scaled values to the codes of one dtype and back.
type numbers interface {
	// bounds returns the range that values are clamped to before they are encoded.
	bounds() (lo, hi float32)
	encode(codes []uint16, x []float32)
	decode(dst []float32, codes []uint16)
	// values returns the values of all codes, for dtypes of at most 8 bits.
	values() *kernel.Values
}

func newNumbers(t *dtype.Type, exact bool) numbers {
	switch t.Class {
	case dtype.Integer:
		return newInts(t, exact)
	case dtype.Native:
		return natives[t.Storage]
	}
	return packed{t, &kernel.Packed{
		Bits: uint32(t.Bits), Exponent: uint32(t.Exponent), Mantissa: uint32(t.Mantissa),
		Unsigned: t.Unsigned, ZeroBand: exact,
	}}
}

// ints are rounded to nearest even. Values that share words are stored less
// the minimum, whole words in two's complement.
type ints struct {
	lo, hi float32
	offset int32  // added to a value to make its code
	flip   uint16 // sign bit of two's complement codes
	least  int32  // added to a flipped code to make its value
	nan    uint16
}

func newInts(t *dtype.Type, exact bool) ints {
	n := ints{lo: float32(t.Min), hi: float32(t.Max)}
	if exact {
		n.hi = float32(t.Divisor)
	}
	if !t.Unsigned {
		n.least = int32(t.Min)
		if t.Bitpacked() {
			n.offset = -n.least
		} else {
			n.flip = 1 << (t.Bits - 1)
		}
	}
	n.nan = uint16(n.offset)
	if t.Bits == 1 {
		n.nan = 1 // a boolean in SDNQ, where NaN is true
	}
	return n
}

func (n ints) bounds() (lo, hi float32) { return n.lo, n.hi }

func (n ints) encode(codes []uint16, x []float32) { kernel.RoundInts(codes, x, n.offset, n.nan) }

func (n ints) decode(dst []float32, codes []uint16) {
	kernel.DecodeInts(dst, codes, n.flip, n.least)
}

func (n ints) values() *kernel.Values { return kernel.IntValues(uint8(n.flip), n.least) }

// native floats are cast by value, rounded to nearest even.
type native struct {
	max float32
	f   *kernel.Small
}

var natives = map[safetensors.Dtype]native{
	safetensors.F8_E4M3:     {448, kernel.E4M3},
	safetensors.F8_E5M2:     {57344, kernel.E5M2},
	safetensors.F8_E4M3FNUZ: {240, kernel.E4M3FNUZ},
	safetensors.F8_E5M2FNUZ: {57344, kernel.E5M2FNUZ},
	safetensors.F16:         {65504, kernel.F16},
	safetensors.BF16:        {3.38953e38, kernel.BF16},
}

func (n native) bounds() (lo, hi float32) { return -n.max, n.max }

func (n native) encode(codes []uint16, x []float32) { kernel.EncodeSmall(codes, x, n.f) }

func (n native) decode(dst []float32, codes []uint16) { kernel.DecodeSmall(dst, codes, n.f) }

func (n native) values() *kernel.Values { return group.SmallValues[n.f] }

// packed floats have SDNQ's own rounding.
type packed struct {
	t *dtype.Type
	f *kernel.Packed
}

func (p packed) bounds() (lo, hi float32) { return float32(p.t.Min), float32(p.t.Max) }

func (p packed) encode(codes []uint16, x []float32) { kernel.EncodePacked(codes, x, p.f) }

func (p packed) decode(dst []float32, codes []uint16) { kernel.DecodePacked(dst, codes, p.f) }

func (p packed) values() *kernel.Values { return kernel.PackedValues(p.f) }
