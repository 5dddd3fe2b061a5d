// Package rotation multiplies runs of values along a row by Hadamard matrices, in the order
// of sums that each reference has.
package rotation

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// HadamardSize returns the number of consecutive values that SDNQ rotates
// together along rows of that many columns, where want is asked for: the
// greatest power of 2 that divides columns and is no more than the least one
// from min(columns, want) on. Below 4 it does not rotate, and the result is 0.
func HadamardSize(columns, want int) int {
	if columns < 1 || want < 1 {
		return 0
	}
	n := 1
	for n < min(columns, want) {
		n *= 2
	}
	for columns%n != 0 {
		n /= 2
	}
	if n < 4 {
		return 0
	}
	return n
}

// Rotate multiplies consecutive groups of n values, n a power of 2 from 4 on,
// by the Hadamard matrix H of size n, which is its own transpose and inverse:
//
//   - n a power of 4: H[i][j] = ±1/√n, negative where an odd number of the
//     base-4 digits of i xor j are 3;
//   - else H[i][j] = ±fl(1/√n), negative where i and j have an odd number of
//     one bits in common.
//
// Every result is the chain of fused multiply-adds by which SDNQ's product
// comes about in single precision on AVX-512: from 0, for k = 0, 1, …, n-1,
// sum = fl(x[k]·H[k][j] + sum), and no result is a negative zero. len(x) is a
// multiple of n.
func Rotate(x []float32, n int) { kernel.Rotate(x, n, Entry(n, safetensors.F32)) }

// RotateTo is Rotate as dequantization does it, in the dtype of the result: x
// holds values of the dtype out, the matrix is rounded to it, sums follow the
// chain in single precision and are rounded to it at the end. The reference
// leaves the order of these sums to a library: in BF16 and F16 it can differ by
// a last bit (see the test).
func RotateTo(x []float32, n int, out safetensors.Dtype) {
	kernel.Rotate(x, n, Entry(n, out))
	floats.RoundAll(x, out)
}

// RotateOnce multiplies by the same matrix in double precision and rounds the
// results once to single. It stands for ComfyUI's ConvRot, whose sums have no
// fixed order: of BF16 and F16 weights, codes are those of the references, and
// scales but for a few in a thousand; of F32 weights one code in 10^4 may differ
// by one. n not a power of 4 is for convert_to_quant alone: no loader takes it.
func RotateOnce(x []float32, n int) { kernel.RotateOnce(x, n, Entry(n, safetensors.F32)) }

// Hadamard is a rotation of groups of Size consecutive values, given as the bytes of a
// file.
type Hadamard struct {
	Size int
	Once bool // RotateOnce, or else Rotate
}

// Rotated returns the values after the rotation, in the buffer.
func (r Hadamard) Rotated(v tile.Values, buffer *[]float32) tile.Values {
	entry, raw := Entry(r.Size, safetensors.F32), v.Dtype == safetensors.BF16
	x := tile.Sized(buffer, v.Len())
	if !raw {
		floats.Widen(x, v.Bytes, v.Dtype)
	}
	switch {
	case raw && r.Once:
		kernel.RotateOnceBF16(x, v.Bytes, r.Size, entry)
	case raw:
		kernel.RotateBF16(x, v.Bytes, r.Size, entry)
	case r.Once:
		kernel.RotateOnce(x, r.Size, entry)
	default:
		kernel.Rotate(x, r.Size, entry)
	}
	return tile.ValuesOf(v.Area, x)
}

// Entry returns the magnitude of the matrix's entries, 1/√n, in a dtype: one division
// by √n, rounded as that dtype does.
func Entry(n int, out safetensors.Dtype) float32 {
	return floats.RoundTo(1/float32(math.Sqrt(float64(n))), out)
}
