package search

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// rounded are scales that are stored in a float dtype.
type rounded struct{ d safetensors.Dtype }

func (r rounded) Scales(dst, src []float32, _ *tile.Scratch) {
	copy(dst, src)
	floats.RoundAll(dst, r.d)
}
func (r rounded) Zeros(dst, src []float32, s *tile.Scratch) { r.Scales(dst, src, s) }
func (r rounded) Signed() bool                              { return true }
func (r rounded) Step() float32                             { return 0 }

func BenchmarkLines(b *testing.B) {
	for _, size := range []int{16, 32, 64, 128, 4096} {
		b.Run(fmt.Sprint("uint4 ", size), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			x := make([]float32, 16384)
			for i := range x {
				x[i] = float32(r.NormFloat64())
			}
			v := tile.ValuesOf(tile.Line(0, len(x)), x)
			n := len(x) / size
			plain, s := kernel.Steps{}.Sized(n), new(tile.Scratch)
			lo, hi := make([]float32, n), make([]float32, n)
			kernel.Ranges(lo, hi, v.Bytes, kernel.RawF32, size)
			for i := range lo {
				plain.Set(i, lo[i], (hi[i]-lo[i])/15)
			}
			work, l := kernel.Steps{}.Sized(n), &Lines{Hi: 15, Stored: rounded{safetensors.F32}}
			b.SetBytes(int64(len(x)))
			for b.Loop() {
				copy(work.Zeros, plain.Zeros)
				copy(work.Scales, plain.Scales)
				copy(work.Inverses, plain.Inverses)
				l.Improve(work, v, size, s)
			}
		})
	}
}
