package tile

import (
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Values are those of an area of a weight as they lie in its file: little-endian,
// row by row, in BF16, F16 or F32. They are not to be changed.
type Values struct {
	Area
	Dtype safetensors.Dtype
	Bytes []byte
}

// ValuesOf are values in memory, which they share.
func ValuesOf(a Area, x []float32) Values {
	return Values{a, safetensors.F32, kernel.AsBytes(x)}
}

// Floats returns a copy in single precision, which lasts until the next call with
// that scratch and may be changed.
func (v Values) Floats(s *Scratch) []float32 { return v.Widen(&s.widened) }

// Widen is Floats with a buffer of the caller's.
func (v Values) Widen(buffer *[]float32) []float32 {
	return floats.Widen(Sized(buffer, v.Len()), v.Bytes, v.Dtype)
}

// Raw returns them in a form that kernels read.
func (v Values) Raw(s *Scratch) ([]byte, kernel.Raw) {
	switch v.Dtype {
	case safetensors.BF16:
		return v.Bytes, kernel.RawBF16
	case safetensors.F16:
		return kernel.AsBytes(v.Widen(&s.half)), kernel.RawF32
	}
	return v.Bytes, kernel.RawF32
}

// Shift makes bytes of a number of values, without a division, which would show
// beside the work on a short row.
func (v Values) Shift() uint {
	if v.Dtype == safetensors.F32 {
		return 2
	}
	return 1
}

func (v Values) Len() int { return len(v.Bytes) >> v.Shift() }

// Part returns values [from, to) of those that lie one after the other: whole rows, as
// a part of one long row, or a part of a row, of which the place does not matter.
func (v Values) Part(from, to int) Values {
	shift := v.Shift()
	return Values{Area{0, v.Row*v.Cols + v.Col + from, 1, to - from}, v.Dtype, v.Bytes[from<<shift : to<<shift]}
}

// Band returns rows [from, to) of the area.
func (v Values) Band(from, to int) Values {
	shift := v.Shift()
	return Values{Area{v.Row + from, v.Col, to - from, v.Cols}, v.Dtype, v.Bytes[from*v.Cols<<shift : to*v.Cols<<shift]}
}

// Bands yields the values some rows at a time, so many that their bytes are in the
// nearer caches still when they are used again.
func (v Values) Bands(yield func(Values) bool) {
	const near = 32 << 10
	some := max(near/max(v.Cols, 1), 1)
	for from := 0; from < v.Rows; from += some {
		if !yield(v.Band(from, min(from+some, v.Rows))) {
			return
		}
	}
}
