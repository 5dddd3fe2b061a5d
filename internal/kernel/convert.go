package kernel

import (
	"encoding/binary"
	"math"
)

func widenBF16(dst []float32, src []byte) {
	src = src[:2*len(dst)]
	for i := range dst {
		dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
	}
}

func widenF32(dst []float32, src []byte) {
	copy(AsBytes(dst), src[:4*len(dst)])
}

func widenF16(dst []float32, src []byte) {
	src = src[:2*len(dst)]
	for i := range dst {
		dst[i] = Half(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func narrowBF16(dst []byte, src []float32) {
	for i, x := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], ToBF16(x))
	}
}

func narrowF16(dst []byte, src []float32) {
	for i, x := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], ToHalf(x))
	}
}

func narrowF32(dst []byte, src []float32) {
	copy(dst[:4*len(src)], AsBytes(src))
}

// Half returns the value of an IEEE half-precision number. NaN becomes quiet, as
// processors make it.
func Half(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	rest := uint32(h&0x7FFF) << 13
	if rest >= 0x0F800000 { // infinity or NaN: fill the wider exponent
		if rest > 0x0F800000 {
			rest |= 1 << 22
		}
		return math.Float32frombits(sign | rest | 0x7F800000)
	}
	// Exact also for subnormals: the product rebiases the exponent.
	magnitude := math.Float32frombits(rest) * 0x1p112
	return math.Float32frombits(sign | math.Float32bits(magnitude))
}

// ToHalf rounds to half precision, to nearest even. NaN becomes a quiet NaN.
func ToHalf(x float32) uint16 {
	u := math.Float32bits(x)
	sign := uint16(u >> 16 & 0x8000)
	u &= 0x7FFFFFFF
	switch {
	case u > 0x7F800000:
		return sign | 0x7E00 | uint16(u>>13&0x1FF)
	case u >= 0x47800000: // 65536
		return sign | 0x7C00
	}
	return sign | uint16(roundBits(u, 10, 15))
}

// ToBF16 rounds to bfloat16, to nearest even. NaN becomes the quiet NaN without
// payload.
func ToBF16(x float32) uint16 {
	u := math.Float32bits(x)
	if u&0x7FFFFFFF > 0x7F800000 {
		return 0x7FC0
	}
	return uint16((u + 0x7FFF + u>>16&1) >> 16)
}

// roundBits rounds a magnitude, given by its single-precision bits, to the nearest
// float of m mantissa bits and the given bias, ties to even. Subnormals are included.
func roundBits(u uint32, m, bias uint32) uint32 {
	if u < (128-bias)<<23 { // below the least normal: let an addition round
		magic := (127 - bias + 23 - m + 1) << 23
		sum := math.Float32frombits(u) + math.Float32frombits(magic)
		return math.Float32bits(sum) - magic
	}
	odd := u >> (23 - m) & 1
	return (u - (127-bias)<<23 + 1<<(22-m) - 1 + odd) >> (23 - m)
}
