package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// roundings are those of the floats that are searched for, with their formats.
var roundings = []struct {
	*Rounding
	f    *Small
	most float32
}{
	{RoundingOf(1, 1, 6), E2M1, 6},
	{RoundingOf(3, 7, 448), E4M3, 448},
	{RoundingOf(2, 15, 57344), E5M2, 57344},
}

// TestScaleErrorsEqualPortable: a set that rated scales otherwise would write other
// bytes.
func TestScaleErrorsEqualPortable(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		r := rand.New(rand.NewPCG(3, 4))
		for _, f := range roundings {
			for _, rows := range []int{0, 1, 2, 15, 16, 64, 129} {
				for _, count := range []int{1, 2, 10, 17} {
					x, weights := make([]float32, rows*LineLanes), make([]float32, rows*LineLanes)
					inverses, squares := make([]float32, count*LineLanes), make([]float32, count*LineLanes)
					for i := range x {
						x[i], weights[i] = float32(math.Abs(r.NormFloat64())*math.Pow(10, float64(r.IntN(9)-6))), float32(r.ExpFloat64())
						if r.IntN(9) == 0 {
							x[i] = 0
						}
					}
					for i := range inverses {
						inverses[i], squares[i] = f.most*float32(r.ExpFloat64()), float32(r.ExpFloat64())
					}
					what := fmt.Sprintf("%d rows, %d scales, to %v", rows, count, f.most)
					got, want := make([]float32, len(inverses)), make([]float32, len(inverses))
					compare := func() {
						t.Helper()
						for i := range want {
							if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
								t.Fatalf("%s: error %d is %v, want %v", what, i, got[i], want[i])
							}
						}
					}
					k.scaleErrors(got, x, inverses, squares, f.Rounding)
					scaleErrors(want, x, inverses, squares, f.Rounding)
					compare()
					k.weightedScaleErrors(got, x, weights, inverses, squares, f.Rounding)
					weightedScaleErrors(want, x, weights, inverses, squares, f.Rounding)
					compare()
				}
			}
		}
	})
}

// TestRestsAreThoseOfCodes: scales are rated by what the encoder rounds away.
func TestRestsAreThoseOfCodes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, f := range roundings {
		for i := range 200_000 {
			x := float32(math.Abs(r.NormFloat64())) * f.most * float32(math.Ldexp(1, -r.IntN(30)))
			if i < 1<<(f.f.Mantissa+5) { // ties
				x = f.f.Decode(uint16(i)/2&(f.f.SignBit-1)) + f.f.Decode(uint16(i+1)/2&(f.f.SignBit-1))
				if x /= 2; !(x <= f.most) {
					continue
				}
			}
			if got, want := f.rest(x), x-f.f.Round(min(x, f.most)); got != want {
				t.Fatalf("to %v: of %v, %v is left, want %v", f.most, x, got, want)
			}
		}
	}
}

// TestMagnitudes: of every set, group for group.
func TestMagnitudes(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		for _, raw := range []Raw{RawBF16, RawF32} {
			for _, size := range []int{0, 1, 3, 15, 16, 17, 32, 48, 100} {
				src, x := make([]byte, LineLanes*size*raw.Bytes()), make([]float32, LineLanes*size)
				for i := range src {
					src[i] = byte(i*i>>3 + i)
				}
				k.magnitudes[raw](x, src, size)
				wide := make([]float32, len(x))
				raw.widen(wide, src)
				for i, v := range wide {
					at := i%max(size, 1)*LineLanes + i/max(size, 1)
					if math.Float32bits(x[at]) != math.Float32bits(v)&(1<<31-1) {
						t.Fatalf("raw %d, groups of %d: value %d is %v, want that of %v", raw, size, i, x[at], v)
					}
				}
			}
		}
	})
}

func BenchmarkScaleErrors(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	x, by, errors := make([]float32, 16*LineLanes), make([]float32, 10*LineLanes), make([]float32, 10*LineLanes)
	for i := range x {
		x[i] = float32(math.Abs(r.NormFloat64()))
	}
	for i := range by {
		by[i] = 2
	}
	for _, s := range sets {
		if s.has {
			b.Run(s.name, func(b *testing.B) {
				b.SetBytes(int64(len(x)))
				for b.Loop() {
					s.scaleErrors(errors, x, by, by, roundings[0].Rounding)
				}
			})
			b.Run(s.name+"/magnitudes", func(b *testing.B) {
				b.SetBytes(int64(len(x)))
				src := make([]byte, 2*len(x))
				for b.Loop() {
					s.magnitudes[RawBF16](x, src, 16)
				}
			})
		}
	}
}
