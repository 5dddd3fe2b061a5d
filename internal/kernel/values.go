package kernel

import "math"

// Values are the values of one-byte codes.
type Values struct {
	table [256]float32
	form  valueForm
	few   bool      // codes have at most four bits
	c     constants // constants for assembly, by the form
}

// valueForm says how assembly computes values.
type valueForm uint8

const (
	looked  valueForm = iota // not at all: they are looked up in the table
	whole                    // as integers: (code xor flip) + offset
	floated                  // from the fields of a float
)

// IntValues returns the values (code xor flip) + offset.
func IntValues(flip uint8, offset int32) *Values {
	v := &Values{form: whole}
	for code := range v.table {
		v.table[code] = float32(int32(uint8(code)^flip) + offset)
	}
	v.c.set(uint32(flip), uint32(offset))
	return v
}

// SmallValues returns the values of a native float of at most 8 bits. Bits of codes
// above the sign must be zero.
func SmallValues(f *Small) *Values {
	v := &Values{form: floated, few: f.SignBit < 16}
	for code := range v.table {
		v.table[code] = f.Decode(uint16(code) & (2*f.SignBit - 1))
	}
	if f.Unsigned0 {
		v.form = looked
		return v
	}
	last := uint32(f.Infinite) // the greatest magnitude that is not NaN
	if !f.IEEE {
		last--
	}
	v.c.fields(f.Mantissa, f.Bias, 255&^uint32(f.SignBit), uint32(f.SignBit), uint32(f.Infinite)-1, last, 1<<31)
	return v
}

// PackedValues returns the values of a packed float of at most 8 bits. Bits of codes
// above the float must be zero.
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

// packed sets the constants for a packed float.
func (c *constants) packed(p *Packed) {
	sign := uint32(0)
	if !p.Unsigned {
		sign = 1 << (p.Bits - 1)
	}
	c.fields(p.Mantissa, p.bias(), 0xFFFF&^sign, sign, 0xFFFF, 0xFFFF, 0)
}

// fields sets the constants for a float with the given bits of its magnitude and its
// sign, which is 0 for none. numbers is the greatest magnitude that is a number, last
// the greatest that is not NaN. zero is added to values: 0 makes a negative zero
// positive, a negative zero changes nothing.
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

// DecodeBytes decodes consecutive groups of group codes, each with a scale: dst is
// value · scale or, with zero points, value · scale + zero rounded once.
func DecodeBytes(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values) {
	active.decodeBytes(dst, codes, scales, zeros, group, v)
}

func decodeBytes(dst []float32, codes []byte, scales, zeros []float32, group int, v *Values) {
	decodeBytesWith(scaleBy, scaleFrom)(dst, codes, scales, zeros, group, v)
}

// decodeBytesWith returns a DecodeBytes that looks values up and scales them with
// functions of a set.
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

// LookUp sets dst to the levels of codes; a code without a level gives NaN. With up to
// 16 levels, codes must be below 16.
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
