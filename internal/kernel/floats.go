package kernel

import "math"

// Floats describes how scaled and clamped values become float codes of at most 8 bits.
type Floats struct {
	small    *Small
	packed   *Packed
	lo, hi   float32
	multiply bool
	c        constants
}

// constants are what assembly reads, each eight times, in the order that its generator
// defines.
type constants [13][8]uint32

func (c *constants) set(values ...uint32) {
	for i, v := range values {
		for j := range c[i] {
			c[i][j] = v
		}
	}
}

// SmallFloats casts to a native float values that are clamped to ±hi, which must lie
// within the format's range. They are multiplied by the scale, or divided by it.
func SmallFloats(f *Small, hi float32, multiply bool) *Floats {
	floats := &Floats{small: f, lo: -hi, hi: hi, multiply: multiply}
	cut, bit := 23-f.Mantissa, uint32(f.SignBit)
	base, rest := signBytes(bit, (128-f.Bias+cut)<<f.Mantissa)
	floats.c.set(cut, base, 1<<31-1, bit, math.Float32bits(hi), 0x7F800000, (128-f.Bias)<<23, cut<<23,
		(127+cut)<<23, 1<<16|1<<(7-f.Mantissa), inWords(1<<(9+f.Mantissa)), inWords(1<<(1+f.Mantissa)), rest)
	return floats
}

// PackedFloats casts to a packed float values that are clamped to [lo, hi]; lo is 0 for
// an unsigned format, else -hi.
func PackedFloats(p *Packed, lo, hi float32) *Floats {
	floats := &Floats{packed: p, lo: lo, hi: hi}
	if p.Mantissa > 19 || p.Bits > 8 {
		return floats
	}
	cut, bit := 23-p.Mantissa, uint32(1)<<(p.Bits-1)
	if p.Unsigned {
		bit = 0
	}
	base, rest := signBytes(bit, 0)
	floats.c.set(cut, base, 1<<31-1, bit, math.Float32bits(hi), rest,
		15<<(cut-4), 7<<(cut-4), 1<<cut, (127+p.Mantissa-(1-p.bias()))<<23, 0x4B000000, (128-p.bias())<<23-1, (127-p.bias())<<23)
	return floats
}

// signBytes returns corrections for code bytes, which assembly makes too large by
// excess: base is added to every byte, rest also to those of values without a sign.
func signBytes(bit, excess uint32) (base, rest uint32) {
	return uint32(byte(bit-excess)) * 0x01010101, uint32(byte(-bit)) * 0x01010101
}

func inWords(x uint32) uint32 { return x<<16 | x }

// EncodeFloats encodes consecutive groups of group values, each scaled by its step, as
// codes of one byte. Values and quotients must be finite.
func EncodeFloats(codes, src []byte, raw Raw, steps Steps, group int, f *Floats) {
	active.encodeFloats[raw](codes, src, steps, group, f)
}

// encodeFloatsOf returns the portable EncodeFloats for one form of raw values.
func encodeFloatsOf(raw Raw) func(codes, src []byte, steps Steps, group int, f *Floats) {
	return func(codes, src []byte, steps Steps, group int, f *Floats) {
		byteCodes{floats: f}.groups(codes, src, raw, steps, group)
	}
}
