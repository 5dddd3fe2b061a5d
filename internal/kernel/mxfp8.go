package kernel

import "encoding/binary"

// The range of scale exponents for which [EncodeMXFP8] works. At the least one,
// subnormal values have the code zero; above the greatest one there are infinities.
const leastMXFP8, mostMXFP8 = 16, 246

// mxfp8Lows are, for each exponent of a scale, the bits of 2^-11 times the scale.
// Smaller magnitudes all have the code zero. Each is stored twice in a word.
var mxfp8Lows = func() (lows [1 << 8]uint32) {
	for scale := range lows {
		lows[scale] = inWords(uint32(mxfp8Low(uint16(scale))))
	}
	return lows
}()

func mxfp8Low(scale uint16) uint16 { return (scale - 11) << 7 }

// EncodeMXFP8 encodes blocks of 32 bfloat16 values as E4M3. It sets scales to the
// biased exponent of each block's scale, the least power of two that brings the block's
// greatest magnitude to at most 448. For a block whose scale is too small or large for
// that, or that is all zero or not finite, the exponent is 0 and the codes are
// meaningless.
func EncodeMXFP8(codes, scales, src []byte) { active.mxfp8Blocks(codes, scales, src) }

// HasMXFP8 reports whether the set in use has EncodeMXFP8, which must not be called
// otherwise. A set lacks it where scaling and encoding are faster.
func HasMXFP8() bool { return active.mxfp8Blocks != nil }

func mxfp8Blocks(codes, scales, src []byte) {
	for i := range scales {
		block, to := src[64*i:64*i+64], codes[32*i:32*i+32]
		scale := (greatestBF16(block)+31)>>7 - 8 // 448 has the mantissa 96
		if scale < leastMXFP8 || scale > mostMXFP8 {
			scale = 0
		}
		scales[i] = byte(scale)
		low := mxfp8Low(scale)
		for j := range to {
			to[j] = mxfp8Code(binary.LittleEndian.Uint16(block[2*j:]), low)
		}
	}
}

// mxfp8Code returns the code of a bfloat16 value; low is that of its block's scale.
// Minus low, and shifted by four bits, a magnitude has its exponent and mantissa where
// a code has them, with eight more bits below, which are rounded. The smallest
// magnitudes are subnormal: they have a leading bit in place of the exponent.
func mxfp8Code(bits, low uint16) byte {
	magnitude := bits & 0x7FFF
	above := magnitude - min(magnitude, low)
	code := uint16(0)
	switch exponent := above >> 7; {
	case exponent > 4:
		code = (above - 4<<7) << 4
	case exponent > 0:
		code = (magnitude&0x7F | 0x80) << (exponent - 1)
	}
	return byte((code+0x7F+code>>8&1)>>8 | bits>>8&0x80)
}
