package quant

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// RawEncoder is an encoder that can take values as a checkpoint stores them,
// which saves a widened copy of them.
type RawEncoder interface {
	// TakesRaw reports whether it takes values of that dtype.
	TakesRaw(d safetensors.Dtype) bool
	// EncodeRaw is Encode.
	EncodeRaw(dst [][]byte, start int, raw []byte, d safetensors.Dtype, s *Scratch) error
}

// Pieces returns values [from, from+n) of a tile, counted from its first, as a
// checkpoint stores them. They are valid until the next call.
type Pieces func(from, n int) ([]byte, error)

// RawPass is a pass that can take them so. It asks for them, at once or piece by
// piece, so that they are in the nearer caches still when it uses them.
type RawPass interface {
	// TakesRaw is as that of an encoder.
	TakesRaw(d safetensors.Dtype) bool
	// ReadRaw is Read of n values. It fails if read does.
	ReadRaw(start, n int, read Pieces, d safetensors.Dtype, s *Scratch) (found any, err error)
}

// plain is a run of values as bytes, in BF16, F16 or F32.
type plain struct {
	data  []byte
	dtype safetensors.Dtype
	turn  *turning // to be done before they are scaled; nil for none
}

// widened are values in memory.
func widened(values []float32) plain {
	return plain{data: kernel.AsBytes(values), dtype: safetensors.F32}
}

func readable(d safetensors.Dtype) bool {
	return d == safetensors.BF16 || d == safetensors.F16 || d == safetensors.F32
}

func (p plain) len() int { return len(p.data) >> p.shift() }

func (p plain) slice(from, to int) plain {
	shift := p.shift()
	return plain{p.data[from<<shift : to<<shift], p.dtype, p.turn}
}

// shift makes bytes of a number of values, without a division, which would show
// beside the work on a short row.
func (p plain) shift() uint {
	if p.dtype == safetensors.F32 {
		return 2
	}
	return 1
}

// raw returns the values in a form that kernels read.
func (p plain) raw(s *Scratch) ([]byte, kernel.Raw) {
	switch p.dtype {
	case safetensors.BF16:
		return p.data, kernel.RawBF16
	case safetensors.F16:
		return kernel.AsBytes(p.values(&s.half)), kernel.RawF32
	}
	return p.data, kernel.RawF32
}

// values returns a widened copy in that buffer.
func (p plain) values(buffer *[]float32) []float32 {
	return Widen(sized(buffer, p.len()), p.data, p.dtype)
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
