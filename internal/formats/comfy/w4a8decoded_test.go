package comfy

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/codebook"
)

// TestNearestLevels: a value between two levels must get the code that a search gives
// it, also where differences from both are rounded to the same, and where levels are equal.
func TestNearestLevels(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	tables := [][]float32{fixedLevels, wholeNumbers, make([]float32, 16), make([]float32, 63)}
	for _, code := range []byte{0, 1, 8, 40, 56, 80, 0x7E, 0x7F} {
		tables = append(tables, fixedDecoded.of(code).Levels, wholeDecoded.of(code).Levels)
	}
	for range 20 {
		levels := make([]float32, 16)
		for i := range levels {
			levels[i] = float32(math.Ldexp(r.NormFloat64(), r.IntN(20)-10))
		}
		slices.Sort(levels)
		tables = append(tables, levels)
	}
	for _, levels := range tables {
		x := []float32{0, float32(math.Copysign(0, -1)), float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, -math.MaxFloat32, 0x1p-149}
		for i, l := range levels {
			next := levels[min(i+1, len(levels)-1)]
			middle := l + (next-l)/2
			for _, v := range []float32{l, middle} {
				for range 4 {
					x = append(x, v)
					v = math.Nextafter32(v, float32(math.Inf(1)))
				}
				v = math.Nextafter32(middle, float32(math.Inf(-1)))
				x = append(x, v, math.Nextafter32(v, float32(math.Inf(-1))))
			}
			x = append(x, float32(r.NormFloat64()), l+(next-l)*r.Float32())
		}
		codes := make([]uint16, len(x))
		codebook.NewNearestLevels(levels).Find(codes, x)
		for i, v := range x {
			if want := codebook.NearestOf(levels, v); int(codes[i]) != want {
				t.Fatalf("%v among %v: code %d, want %d", v, levels, codes[i], want)
			}
		}
	}
}
