package safetensors

import "math"

// Tensor describes a tensor of a file: its type and where its body lies.
type Tensor struct {
	Name  string
	Dtype Dtype
	Shape []int // elements along each axis, row-major; empty: a scalar
	// Offset is where the body begins, in bytes from the start of the data section.
	Offset int64
	// Size is the length of the body in bytes.
	Size int64
}

// Numel returns the number of elements, 1 for a scalar. It does not overflow for a
// tensor of a [Header].
func (t Tensor) Numel() int {
	n := 1
	for _, dim := range t.Shape {
		n *= dim
	}
	return n
}

// ByteSize returns the length of a tensor's body in bytes. The error is [ErrInvalid]
// for an unknown dtype, a negative dimension, more bits than an int64 can count, or
// bits that do not fill whole bytes. Dimensions of 0 do not hide an overflow of the
// others, so that the product of any of the dimensions is safe.
func ByteSize(d Dtype, shape []int) (int64, error) {
	if !d.valid() {
		return 0, errorOf(ErrInvalid, "invalid dtype %d", uint8(d))
	}
	bits, empty := int64(d.Bits()), false
	for _, dim := range shape {
		switch {
		case dim < 0:
			return 0, errorOf(ErrInvalid, "shape %s has a negative dimension", shapeText(shape))
		case dim == 0:
			empty = true
		case bits > math.MaxInt64/int64(dim):
			return 0, errorOf(ErrInvalid, "shape %s of %s overflows", shapeText(shape), d)
		default:
			bits *= int64(dim)
		}
	}
	if empty {
		return 0, nil
	}
	if bits%8 != 0 {
		return 0, errorOf(ErrInvalid, "shape %s of %s takes %d bits, not a whole number of bytes",
			shapeText(shape), d, bits)
	}
	return bits / 8, nil
}
