package kernel

import "encoding/binary"

// Exponents of scales that [EncodeMXFP8] finds: beside the least, what is
// subnormal has the code zero, and above the most lie infinities.
const leastMXFP8, mostMXFP8 = 16, 246

// mxfp8Lows are the magnitudes, by exponents of scales, of 2^-11 times those: of what
// is less, no code but zero comes. Each is there twice.
var mxfp8Lows = func() (lows [1 << 8]uint32) {
	for scale := range lows {
		lows[scale] = inWords(uint32(mxfp8Low(uint16(scale))))
	}
	return lows
}()

func mxfp8Low(scale uint16) uint16 { return (scale - 11) << 7 }

// EncodeMXFP8 gives blocks of 32 bfloat16 values E4M3 codes, and each block the
// biased exponent of its scale, which is the least power of two that brings its
// greatest magnitude to 448. Where that is very small or large, or none, it is 0, and
// the codes mean nothing.
func EncodeMXFP8(codes, scales, src []byte) { active.mxfp8Blocks(codes, scales, src) }

// HasMXFP8 reports whether that is faster here than scaling and encoding.
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

// mxfp8Code is the code of a bfloat16 value. Above that low, a magnitude has its
// exponent and mantissa in the places of a code's but for eight bits behind those,
// which are rounded, once it has moved by four; the least ones are subnormal: they
// have a leading bit instead of the exponent.
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
