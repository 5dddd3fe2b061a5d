package kernel

import "math"

// Small describes a native float of at most 16 bits.
type Small struct {
	Mantissa, Bias uint32
	Overflow       uint32 // single-precision bits from which a magnitude has no code
	Infinite       uint16 // the code of those magnitudes
	NaN            uint16 // NaN's code, with the sign of the input unless Unsigned0
	SignBit        uint16
	IEEE           bool // Infinite is infinity, magnitudes above it are NaN
	Unsigned0      bool // fnuz: one zero, one NaN, both without sign
}

// The native small floats. Overflow is the first magnitude that does not round to the
// largest value.
var (
	E4M3     = &Small{Mantissa: 3, Bias: 7, Overflow: 0x43E80001, Infinite: 0x7F, NaN: 0x7F, SignBit: 0x80}
	E5M2     = &Small{Mantissa: 2, Bias: 15, Overflow: 0x47700000, Infinite: 0x7C, NaN: 0x7F, SignBit: 0x80, IEEE: true}
	E4M3FNUZ = &Small{Mantissa: 3, Bias: 8, Overflow: 0x43780000, Infinite: 0x80, NaN: 0x80, SignBit: 0x80, Unsigned0: true}
	E5M2FNUZ = &Small{Mantissa: 2, Bias: 16, Overflow: 0x47700000, Infinite: 0x80, NaN: 0x80, SignBit: 0x80, Unsigned0: true}
	E2M1     = &Small{Mantissa: 1, Bias: 1, Overflow: 0x7F800001, Infinite: 8, NaN: 3, SignBit: 8} // values are clamped first, so none overflows
	F16      = &Small{Mantissa: 10, Bias: 15, Overflow: 0x477FF000, Infinite: 0x7C00, NaN: 0x7E00, SignBit: 0x8000, IEEE: true}
	BF16     = &Small{Mantissa: 7, Bias: 127, Overflow: 0x7F7F8000, Infinite: 0x7F80, NaN: 0x7FC0, SignBit: 0x8000, IEEE: true}
)

// encodeSmall is [Small.Encode] for many values, with the constants computed once.
func encodeSmall(codes []uint16, x []float32, f *Small) {
	least, magic := (128-f.Bias)<<23, (127-f.Bias+23-f.Mantissa+1)<<23
	shift := 23 - f.Mantissa
	rebias := uint32(1)<<(shift-1) - 1 - (127-f.Bias)<<23
	codes = codes[:len(x)]
	for i, v := range x {
		u := math.Float32bits(v)
		m := u & 0x7FFFFFFF
		switch {
		case m >= f.Overflow:
			codes[i] = f.Encode(v)
			continue
		case m < least:
			m = math.Float32bits(math.Float32frombits(m)+math.Float32frombits(magic)) - magic
		default:
			m = (m + rebias + m>>shift&1) >> shift
		}
		if m != 0 || !f.Unsigned0 {
			m |= u >> 31 * uint32(f.SignBit)
		}
		codes[i] = uint16(m)
	}
}

// Round returns the value of v's code.
func (f *Small) Round(v float32) float32 { return f.Decode(f.Encode(v)) }

// Encode returns the code of v, rounded to nearest even.
func (f *Small) Encode(v float32) uint16 {
	u := math.Float32bits(v)
	sign := uint16(0)
	if u>>31 != 0 {
		sign = f.SignBit
	}
	u &= 0x7FFFFFFF
	code := f.magnitude(u)
	if f.Unsigned0 && (code == 0 || code == f.NaN) {
		return code
	}
	return sign | code
}

func (f *Small) magnitude(u uint32) uint16 {
	switch {
	case u > 0x7F800000:
		return f.NaN
	case u >= f.Overflow:
		return f.Infinite
	}
	return uint16(roundBits(u, f.Mantissa, f.Bias))
}

// Decode returns the value of a code.
func (f *Small) Decode(code uint16) float32 {
	m := code &^ f.SignBit
	switch {
	case f.Unsigned0 && code == f.NaN, f.IEEE && m > f.Infinite, !f.IEEE && m >= f.Infinite:
		return float32(math.NaN())
	case f.IEEE && m == f.Infinite:
		return float32(math.Inf(1 - 2*int(code/f.SignBit)))
	}
	v := rebias(uint32(m), f.Mantissa, f.Bias)
	if code&f.SignBit != 0 {
		v = -v
	}
	return v
}

func decodeSmall(dst []float32, codes []uint16, f *Small) {
	for i, c := range codes {
		dst[i] = f.Decode(c)
	}
}

// rebias returns the value of magnitude bits with that mantissa and bias. It is exact
// even for subnormals, because the multiplication only changes the exponent.
func rebias(m, mantissa, bias uint32) float32 {
	return math.Float32frombits(m<<(23-mantissa)) * math.Float32frombits((254-bias)<<23)
}

// Packed describes a float format of SDNQ's without infinities or NaN.
type Packed struct {
	Bits, Exponent, Mantissa uint32
	Unsigned                 bool
	// ZeroBand reproduces SDNQ's defect in formats with one exponent bit: values that
	// round up to the least normal become zero.
	ZeroBand bool
}

func (p *Packed) bias() uint32 { return 1<<(p.Exponent-1) - 1 }

// encodePacked rounds as SDNQ does: a discarded fraction of 9/16 or more goes up, less
// goes down. A result that is subnormal is then rounded once more, from the bits that
// were not cleared.
func encodePacked(codes []uint16, x []float32, p *Packed) {
	cut := 23 - p.Mantissa
	minNormal := math.Float32frombits((128 - p.bias()) << 23)
	toSubnormal := math.Float32frombits((127 + p.Mantissa - (1 - p.bias())) << 23)
	fraction := uint32(1)<<p.Mantissa - 1
	low := uint32(1)<<(p.Exponent-1) - 1
	for i, v := range x {
		u := math.Float32bits(v)
		if u>>(cut-4)&15 > 8 {
			u += 1 << cut
		}
		sign := u >> 31
		u &= 0x7FFFFFFF
		var code uint32
		if y := math.Float32frombits(u); y < minNormal {
			code = roundEven(float32(y * toSubnormal))
			if code > fraction && p.ZeroBand && p.Exponent == 1 {
				code = 0
			}
		} else {
			e := u >> 23
			code = (e>>7<<(p.Exponent-1)|e&low)<<p.Mantissa | u>>cut&fraction
		}
		if !p.Unsigned {
			code |= sign << (p.Bits - 1)
		}
		codes[i] = uint16(code)
	}
}

// roundEven rounds 0 ≤ v < 2^22 to the nearest whole number, ties to even.
func roundEven(v float32) uint32 {
	const magic = 0x1p23
	return math.Float32bits(v+magic) - 0x4B000000
}

func decodePacked(dst []float32, codes []uint16, p *Packed) {
	signBit := uint16(0)
	if !p.Unsigned {
		signBit = 1 << (p.Bits - 1)
	}
	for i, c := range codes {
		v := rebias(uint32(c&^signBit), p.Mantissa, p.bias())
		if c&signBit != 0 && v != 0 { // a negative zero decodes to +0
			v = -v
		}
		dst[i] = v
	}
}
