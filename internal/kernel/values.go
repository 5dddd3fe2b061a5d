package kernel

import "math"

// Values are those of codes of one byte.
type Values struct {
	table [256]float32
	form  valueForm
	few   bool      // codes have four bits at most
	c     constants // of the form
}

// valueForm says how assembly finds values.
type valueForm uint8

const (
	looked  valueForm = iota // in the table: it has no other way
	whole                    // numbers, of the xor with flip and the sum with an offset
	floated                  // of the fields of a float
)

// IntValues are (code xor flip) + offset.
func IntValues(flip uint8, offset int32) *Values {
	v := &Values{form: whole}
	for code := range v.table {
		v.table[code] = float32(int32(uint8(code)^flip) + offset)
	}
	v.c.set(uint32(flip), uint32(offset))
	return v
}

// SmallValues are those of a native float of at most 8 bits. Bits of codes
// above the sign's must be zero.
func SmallValues(f *Small) *Values {
	v := &Values{form: floated, few: f.SignBit < 16}
	for code := range v.table {
		v.table[code] = f.Decode(uint16(code) & (2*f.SignBit - 1))
	}
	if f.Unsigned0 {
		v.form = looked
		return v
	}
	last := uint32(f.Infinite) // of magnitudes that are not NaN
	if !f.IEEE {
		last--
	}
	v.c.fields(f.Mantissa, f.Bias, 255&^uint32(f.SignBit), uint32(f.SignBit), uint32(f.Infinite)-1, last, 1<<31)
	return v
}

// PackedValues are those of a packed float of at most 8 bits. Bits of codes
// above the float's must be zero.
func PackedValues(p *Packed) *Values {
	v := &Values{form: floated, few: p.Bits <= 4}
	var codes [256]uint16
	for i := range codes {
		codes[i] = uint16(i) & (1<<p.Bits - 1)
	}
	decodePacked(v.table[:], codes[:], p)
	v.c.packed(p)
	return v
}

// packed sets the constants of a packed float.
func (c *constants) packed(p *Packed) {
	sign := uint32(0)
	if !p.Unsigned {
		sign = 1 << (p.Bits - 1)
	}
	c.fields(p.Mantissa, p.bias(), 0xFFFF&^sign, sign, 0xFFFF, 0xFFFF, 0)
}

// fields sets the constants of a float with those bits of its magnitude and its
// sign, 0 for none: the greatest magnitude that is a number, and the greatest
// that is not NaN. Adding 0 makes a negative zero positive, adding a negative
// one leaves both.
func (c *constants) fields(mantissa, bias, magnitude, sign, numbers, last, zero uint32) {
	signShift := uint32(0)
	if sign != 0 {
		signShift = 31 - uint32(math.Ilogb(float64(sign)))
	}
	c.set(23-mantissa, signShift, magnitude, sign, (127-bias)<<23, (128-bias)<<23, 1<<mantissa-1,
		numbers, 0x7F800000, last, 0x7FC00000, zero)
}

// At returns the value of a code.
func (v *Values) At(code byte) float32 { return v.table[code] }

// DecodeBytes gives consecutive groups of that many codes, a scale for each,
// their values: value · scale, or, with zero points, value · scale + zero with a
// single rounding.
func DecodeBytes(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values) {
	active.decodeBytes(dst, codes, scales, zeros, group, v)
}

func decodeBytes(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values) {
	decodeBytesWith(scaleBy, scaleFrom)(dst, codes, scales, zeros, group, v)
}

// decodeBytesWith looks values up and scales them by functions of a set.
func decodeBytesWith(by func(x []float32, scale float32), from func(x []float32, scale, zero float32)) func(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values) {
	return func(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values) {
		codes = codes[:len(scales)*group]
		for i, c := range codes {
			dst[i] = v.table[c]
		}
		for i, scale := range scales {
			if x := dst[i*group : (i+1)*group]; zeros != nil {
				from(x, scale, zeros[i])
			} else {
				by(x, scale)
			}
		}
	}
}

// LookUp sets dst to the levels of codes; one without a level gives NaN. Up to
// 16 levels, codes are below 16.
func LookUp(dst []float32, codes []byte, levels []float32) { active.lookUp(dst, codes, levels) }

func lookUp(dst []float32, codes []byte, levels []float32) {
	dst = dst[:len(codes)]
	for i, c := range codes {
		if int(c) < len(levels) {
			dst[i] = levels[c]
		} else {
			dst[i] = float32(math.NaN())
		}
	}
}
