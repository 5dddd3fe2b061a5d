package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestDecodeRotated has codes whose sums are as large as whole numbers hold, or
// nothing, scales that they do not go with, and groups of every kind: restored
// weights would depend on the machine.
func TestDecodeRotated(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	values := []*Values{IntValues(0x80, -128), IntValues(8, -8), IntValues(0, -4), IntValues(0, 0), SmallValues(E4M3)}
	bits := []int{8, 4, 3, 8, 8}
	scales := []float32{
		1, 0x1.fffffep-8, 0x1.000002p-7, 0x1p-60, 0x1.8p60, 0x1p-61, 0x1p61, 0, -1, 0x1p-149, 3e38,
		float32(math.Inf(1)), float32(math.NaN()),
	}
	for range 12 {
		scales = append(scales, float32(math.Exp(3*r.NormFloat64()-6)))
	}
	eachSet(t, func(t *testing.T, k *set) {
		for i, v := range values {
			for _, n := range []int{16, 256} {
				for _, groups := range []int{0, 1, 2} {
					var codes []byte
					for range len(scales) * groups {
						codes = append(codes, codeGroup(r, v, n, 1<<bits[i]-1)...)
					}
					for _, entry := range []float32{entryOf(n), 1, 0x1p-21} {
						name := fmt.Sprintf("values %d, %d groups of %d, entry %g", i, groups, n, entry)
						got, want := make([]float32, len(codes)+1), make([]float32, len(codes)+1)
						k.decodeRotatedOnce(got[:len(codes)], codes, scales, groups*n, v, n, entry)
						portable.decodeRotatedOnce(want[:len(codes)], codes, scales, groups*n, v, n, entry)
						sameValues(t, name+", once", got, want)
						k.decodeRotatedBF16(got[:len(codes)], codes, scales, groups*n, v, n, entry)
						portable.decodeRotatedBF16(want[:len(codes)], codes, scales, groups*n, v, n, entry)
						sameValues(t, name+", bf16", got, want)
					}
				}
			}
		}
	})
}

// TestLookUpRotated has levels that whole numbers just hold, and others.
func TestLookUpRotated(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r := rand.New(rand.NewPCG(15, 16))
		for _, n := range []int{4, 64, 256} {
			for _, count := range []int{0, 1, 5, 65, 80} {
				codes := make([]byte, count*n)
				for i := range codes {
					codes[i] = byte(r.IntN(16))
				}
				var levels []float32
				for len(levels)*LevelRun < 16*len(codes) {
					levels = append(levels, bf16Group(r, 64)...) // of 256 values
				}
				for _, entry := range []float32{entryOf(n), 0x1p-3} {
					got, want := make([]float32, len(codes)+1), make([]float32, len(codes)+1)
					k.lookUpRotated(got[:len(codes)], codes, levels, n, entry)
					portable.lookUpRotated(want[:len(codes)], codes, levels, n, entry)
					sameValues(t, fmt.Sprintf("%d groups of %d", count, n), got, want)
				}
			}
		}
	})
}

// codeGroup returns a group that gives a result as large as can be, or the same
// but for one, few numbers, or any.
func codeGroup(r *rand.Rand, v *Values, n, mask int) []byte {
	codes := make([]byte, n)
	lo, hi := byte(0), byte(0)
	for c := range mask + 1 {
		if v.At(byte(c)) < v.At(lo) {
			lo = byte(c)
		}
		if v.At(byte(c)) > v.At(hi) {
			hi = byte(c)
		}
	}
	if r.IntN(2) == 0 {
		lo, hi = hi, lo
	}
	kind, j, all := r.IntN(5), r.IntN(n), []byte{lo, hi}
	for i := range codes {
		switch kind {
		case 0:
			codes[i] = all[r.IntN(2)&1]
		case 1, 2:
			codes[i] = hi
			if minusFours(i ^ j) {
				codes[i] = lo
			}
		case 3:
			codes[i] = lo
		default:
			codes[i] = byte(r.IntN(mask + 1))
		}
	}
	if kind == 2 || kind == 3 && r.IntN(2) == 0 {
		codes[r.IntN(n)] = byte(r.IntN(mask + 1))
	}
	return codes
}

// BenchmarkDecodeRotated counts bytes of values of bfloat16.
func BenchmarkDecodeRotated(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 8))
	const columns = 3072
	codes, x, scales := make([]byte, 20*columns), make([]float32, 20*columns), slices.Repeat([]float32{0.0123}, 20)
	for i := range codes {
		codes[i] = byte(int8(r.NormFloat64() * 30))
	}
	v := IntValues(0x80, -128)
	for name, f := range map[string]RotatedDecoder{"once": DecodeRotatedOnce, "bf16": DecodeRotatedBF16} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(2 * len(x)))
			for b.Loop() {
				f(x, codes, scales, columns, v, 256, 1./16)
			}
		})
	}
}
