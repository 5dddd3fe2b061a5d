// Package floats rounds values to float dtypes, F32, BF16 or F16, and writes and reads
// their little-endian bytes.
package floats

import (
	"encoding/binary"
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// GetFloat returns value i of a dtype.
func GetFloat(src []byte, i int, d safetensors.Dtype) float32 {
	switch d {
	case safetensors.BF16:
		return kernel.BF16.Decode(binary.LittleEndian.Uint16(src[2*i:]))
	case safetensors.F16:
		return kernel.F16.Decode(binary.LittleEndian.Uint16(src[2*i:]))
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
}

// RoundAll rounds values to a float dtype; F32 leaves them.
func RoundAll(x []float32, to safetensors.Dtype) {
	switch to {
	case safetensors.BF16:
		kernel.RoundBF16(x)
	case safetensors.F16:
		kernel.RoundF16(x)
	}
}

// PutFloat writes x as value i of a dtype, rounded to nearest even.
func PutFloat(dst []byte, i int, x float32, d safetensors.Dtype) {
	switch d {
	case safetensors.BF16:
		binary.LittleEndian.PutUint16(dst[2*i:], kernel.BF16.Encode(x))
	case safetensors.F16:
		binary.LittleEndian.PutUint16(dst[2*i:], kernel.F16.Encode(x))
	default:
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
	}
}

// Finite reports whether x is neither NaN nor infinite.
func Finite(x float32) bool { return math.Float32bits(x)&0x7F800000 != 0x7F800000 }

// RoundTo returns x rounded to a float dtype: BF16, F16, or F32, which leaves it.
func RoundTo(x float32, out safetensors.Dtype) float32 {
	switch out {
	case safetensors.BF16:
		return kernel.BF16.Round(x)
	case safetensors.F16:
		return kernel.F16.Round(x)
	}
	return x
}

// PutFloats is [PutFloat] for several values. A NaN may have other bits than by [Narrow].
func PutFloats(dst []byte, x []float32, d safetensors.Dtype) {
	if d == safetensors.F32 {
		kernel.NarrowF32(dst, x)
		return
	}
	for i, v := range x {
		PutFloat(dst, i, v, d)
	}
}

// Widen fills dst with little-endian values of a float dtype, F32, BF16 or F16,
// in single precision, and returns it.
func Widen(dst []float32, src []byte, d safetensors.Dtype) []float32 {
	switch d {
	case safetensors.BF16:
		kernel.WidenBF16(dst, src)
	case safetensors.F16:
		kernel.WidenF16(dst, src)
	default:
		kernel.WidenF32(dst, src)
	}
	return dst
}

// Narrow fills dst with values as little-endian bytes of a float dtype, F32, BF16 or
// F16, rounded to nearest even.
func Narrow(dst []byte, src []float32, d safetensors.Dtype) {
	switch d {
	case safetensors.BF16:
		kernel.NarrowBF16(dst, src)
	case safetensors.F16:
		kernel.NarrowF16(dst, src)
	default:
		kernel.NarrowF32(dst, src)
	}
}

// Abs returns the magnitude of x.
func Abs(x float32) float32 { return max(x, -x) }
