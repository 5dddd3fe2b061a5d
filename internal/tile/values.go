package tile

import (
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Values are the values of an area of a weight exactly as they lie in its file:
// little-endian, row by row, in BF16, F16 or F32. Bytes must not be changed.
type Values struct {
	Area
	Dtype safetensors.Dtype
	Bytes []byte
}

// ValuesOf wraps float32 values in memory without copying them.
func ValuesOf(a Area, x []float32) Values {
	return Values{a, safetensors.F32, kernel.AsBytes(x)}
}

// Floats returns the values as float32, in a copy that may be changed. It is valid
// until the next call with the same scratch.
func (v Values) Floats(s *Scratch) []float32 { return v.Widen(&s.widened) }

// Widen is [Values.Floats] with a buffer of the caller's.
func (v Values) Widen(buffer *[]float32) []float32 {
	return floats.Widen(Sized(buffer, v.Len()), v.Bytes, v.Dtype)
}

// Raw returns the values in one of the two dtypes that kernels read, BF16 or F32.
func (v Values) Raw(s *Scratch) ([]byte, kernel.Raw) {
	switch v.Dtype {
	case safetensors.BF16:
		return v.Bytes, kernel.RawBF16
	case safetensors.F16:
		return kernel.AsBytes(v.Widen(&s.half)), kernel.RawF32
	}
	return v.Bytes, kernel.RawF32
}

// Shift returns the base-2 logarithm of a value's size in bytes. A division would be
// noticeable beside the work on a short row.
func (v Values) Shift() uint {
	if v.Dtype == safetensors.F32 {
		return 2
	}
	return 1
}

// Len returns the number of values.
func (v Values) Len() int { return len(v.Bytes) >> v.Shift() }

// Part returns values [from, to) of the flattened area, whose values must be
// consecutive in the weight: whole rows, whose part is then one long row, or a part of
// a single row.
func (v Values) Part(from, to int) Values {
	shift := v.Shift()
	return Values{Area{0, v.Row*v.Cols + v.Col + from, 1, to - from}, v.Dtype, v.Bytes[from<<shift : to<<shift]}
}

// Of returns the values of a part of the area, in a copy where they are not adjacent.
func (v Values) Of(a Area) Values {
	if a.Cols == v.Cols {
		return v.Band(a.Row-v.Row, a.Row-v.Row+a.Rows)
	}
	part, shift := Values{a, v.Dtype, nil}, v.Shift()
	for row := range a.Rows {
		at := (a.Row-v.Row+row)*v.Cols + a.Col - v.Col
		part.Bytes = append(part.Bytes, v.Bytes[at<<shift:(at+a.Cols)<<shift]...)
	}
	return part
}

// Band returns rows [from, to) of the area.
func (v Values) Band(from, to int) Values {
	shift := v.Shift()
	return Values{Area{v.Row + from, v.Col, to - from, v.Cols}, v.Dtype, v.Bytes[from*v.Cols<<shift : to*v.Cols<<shift]}
}

// Bands yields the values a few rows at a time, few enough for their bytes to stay in
// the nearer caches while they are used twice.
func (v Values) Bands(yield func(Values) bool) {
	const near = 32 << 10
	some := max(near/max(v.Cols, 1), 1)
	for from := 0; from < v.Rows; from += some {
		if !yield(v.Band(from, min(from+some, v.Rows))) {
			return
		}
	}
}
