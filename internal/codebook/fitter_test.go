package codebook

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/golden"
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
	kinds := rankable(r)
	kinds["more digits"] = func() float32 { return float32(r.NormFloat64()) }
	kinds["far"] = func() float32 { return float32(math.Ldexp(r.NormFloat64(), r.IntN(200)-100)) }
	kinds["tiny"] = func() float32 { return math.Float32frombits(r.Uint32() & 0x8000FFFF) }
	var b Fitter
	for name, value := range kinds {
		for _, levels := range []int{2, 3, 8, 15, 16} {
			for _, n := range []int{16, 50, 512} {
				for _, groups := range []int{1, lanes, 3*lanes + 1} {
					values := make([]float32, groups*n)
					for i := range values {
						values[i] = value()
					}
					compareBooks(t, &b, fmt.Sprintf("%s, %d levels, %d groups of %d", name, levels, groups, n), values, n, levels)
				}
			}
		}
	}
}

func compareBooks(t *testing.T, b *Fitter, name string, values []float32, n, levels int) {
	t.Helper()
	codes, all := make([]uint16, len(values)), make([]float32, len(values)/n*levels)
	b.Fit(Batch{Values: values, Codes: codes, Levels: all, N: n, Count: levels, Steps: CodebookSteps})
	for i := range len(values) / n {
		var l Lloyd
		want := make([]uint16, n)
		l.Fit(want, values[i*n:(i+1)*n], levels, CodebookSteps)
		if !slices.Equal(codes[i*n:(i+1)*n], want) {
			t.Fatalf("%s: codes of group %d differ", name, i)
		}
		if got := all[i*levels : (i+1)*levels]; golden.HashFloats(got) != golden.HashFloats(l.Levels()) {
			t.Fatalf("%s: levels of group %d are %v, want %v", name, i, got, l.Levels())
		}
	}
}
