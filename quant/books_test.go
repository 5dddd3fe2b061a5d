package quant

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// TestBooks: groups that are fitted together must get the levels and codes that
// each would get by itself, in whatever step they come to rest.
func TestBooks(t *testing.T) {
	lanes := kernel.BookGroups()
	if lanes == 0 {
		t.Skip("this set fits groups one by one")
	}
	r := rand.New(rand.NewPCG(21, 22))
	kinds := map[string]func() float32{
		"normal":  func() float32 { return float32(r.NormFloat64()) },
		"bf16":    func() float32 { return kernel.BF16.Round(float32(r.NormFloat64() * 0.02)) },
		"few":     func() float32 { return float32(r.IntN(5)) },
		"same":    func() float32 { return 0.25 },
		"zeros":   func() float32 { return float32(math.Copysign(0, r.NormFloat64())) },
		"far":     func() float32 { return float32(math.Ldexp(r.NormFloat64(), r.IntN(200)-100)) },
		"tiny":    func() float32 { return math.Float32frombits(r.Uint32() & 0x8000FFFF) },
		"middles": func() float32 { return float32(r.IntN(31)) / 2 },
	}
	var b books
	for name, value := range kinds {
		for _, levels := range []int{2, 3, 4, 8, 15, 16} {
			for _, n := range []int{16, 512} {
				values := make([]float32, lanes*n)
				for i := range values {
					values[i] = value()
				}
				codes := make([]uint16, len(values))
				b.fit(codes, values, n, levels, CodebookSteps)
				for lane := range lanes {
					var l Lloyd
					want := make([]uint16, n)
					l.Fit(want, values[lane*n:(lane+1)*n], levels, CodebookSteps)
					where := fmt.Sprintf("%s, %d levels, groups of %d, lane %d", name, levels, n, lane)
					if !slices.Equal(codes[lane*n:(lane+1)*n], want) {
						t.Fatalf("%s: codes differ", where)
					}
					if got := b.lloyds[lane].Levels(); hashFloats(got) != hashFloats(l.Levels()) {
						t.Fatalf("%s: levels %v, want %v", where, got, l.Levels())
					}
				}
			}
		}
	}
}
