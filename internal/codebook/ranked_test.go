package codebook

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/golden"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// rankable are values of bfloat16 or half precision, such that levels have
// sums that depend on the order, ties, no values, or changing places.
func rankable(r *rand.Rand) map[string]func() float32 {
	bf16 := func(x float64) float32 { return kernel.BF16.Round(float32(x)) }
	f16 := func(x float64) float32 { return kernel.F16.Round(float32(x)) }
	sign := func() float64 { return math.Copysign(1, r.NormFloat64()) }
	return map[string]func() float32{
		"normal":     func() float32 { return bf16(r.NormFloat64() * 0.02) },
		"half":       func() float32 { return f16(r.NormFloat64() * 0.02) },
		"half, all":  func() float32 { return f16(math.Ldexp(r.NormFloat64(), r.IntN(38)-24)) },
		"half, wide": func() float32 { return f16(math.Ldexp(r.NormFloat64(), r.IntN(20)-10)) },
		"wide":       func() float32 { return bf16(math.Ldexp(r.NormFloat64(), -r.IntN(24))) },
		"farther":    func() float32 { return bf16(math.Ldexp(r.NormFloat64(), -r.IntN(48))) },
		"everywhere": func() float32 { return math.Float32frombits(uint32(r.IntN(0x6F80))<<16 | r.Uint32()&1<<31) },
		"small":      func() float32 { return math.Float32frombits(r.Uint32() & 0x81FF0000) },
		"huge":       func() float32 { return bf16(r.NormFloat64() * 1e38) },
		"few":        func() float32 { return float32(r.IntN(7)-3) / 4 },
		"same":       func() float32 { return -0.25 },
		"zeros":      func() float32 { return float32(sign()) * 0 * float32(sign()) },
		"often zero": func() float32 { return bf16(sign() * max(r.NormFloat64(), 0)) },
		"outliers":   func() float32 { return bf16(sign() * math.Exp(3*r.NormFloat64())) },
		"one sign":   func() float32 { return bf16(math.Exp(2 * r.NormFloat64())) },
		"middles":    func() float32 { return float32(r.IntN(64)) / 2 },
		"close":      func() float32 { return math.Float32frombits(0x3F800000 + r.Uint32()%4<<16) },
	}
}

// inSteps is the definition, which looks at every value in every step.
func inSteps(values []float32, n, steps int) (codes []uint16, levels []float32) {
	lo, hi := kernel.MinMax(values)
	l := NewLloyd(n, tile.Range{Lo: lo, Hi: hi})
	for range steps {
		l.Feed(values)
		if !l.Step() {
			break
		}
	}
	codes = make([]uint16, len(values))
	l.Codes(codes, values)
	return codes, l.Levels()
}

// TestRanked: weights of bfloat16 or half precision would get other codebooks
// than the definition gives, or take as long as any other values.
func TestRanked(t *testing.T) {
	r, rounds := rand.New(rand.NewPCG(31, 32)), 150
	if testing.Short() {
		rounds = 60
	}
	var l Lloyd
	for name, value := range rankable(r) {
		ranked := 0
		for i := range rounds {
			n, levels := 1+r.IntN(700), []int{2, 3, 4, 8, 16, 16, 32, 256}[r.IntN(8)]
			if i%30 == 29 {
				n = 1 + r.IntN(9000)
			}
			values := make([]float32, n)
			for i := range values {
				values[i] = value()
			}
			steps := []int{0, 1, 3, CodebookSteps, CodebookSteps}[r.IntN(5)]
			codes, want := inSteps(values, levels, steps)
			got := make([]uint16, n)
			l.Fit(got, values, levels, steps)
			if !slices.Equal(got, codes) || golden.HashFloats(l.Levels()) != golden.HashFloats(want) {
				t.Fatalf("%s, %d values, %d levels, %d steps: not the definition", name, n, levels, steps)
			}
			if lo, hi := kernel.MinMax(values); l.ranked.rank(values, lo, hi) {
				ranked++
			}
		}
		if name == "normal" || name == "half" {
			if ranked < rounds {
				t.Errorf("%s: only %d of %d groups are ranked", name, ranked, rounds)
			}
		}
	}
}

// BenchmarkRanked counts bytes of bfloat16 source.
func BenchmarkRanked(b *testing.B) {
	const groups = 256
	for _, c := range []struct{ levels, group int }{{4, 128}, {8, 256}, {16, 512}, {32, 1024}, {256, 8192}} {
		b.Run(fmt.Sprintf("%d levels, group %d", c.levels, c.group), func(b *testing.B) {
			values, codes := rankedGroups(groups*c.group), make([]uint16, c.group)
			b.SetBytes(int64(2 * len(values)))
			var l Lloyd
			for b.Loop() {
				for group := range slices.Chunk(values, c.group) {
					l.Fit(codes, group, c.levels, CodebookSteps)
				}
			}
		})
	}
}

func rankedGroups(n int) []float32 {
	r := rand.New(rand.NewPCG(11, 12))
	values := make([]float32, n)
	for i := range values {
		values[i] = kernel.BF16.Round(float32(r.NormFloat64()))
	}
	return values
}

// BenchmarkBooks is [BenchmarkRanked] for groups in the lanes of vectors.
func BenchmarkBooks(b *testing.B) {
	const groups = 256
	for _, c := range []struct{ levels, group int }{{4, 128}, {8, 256}, {16, 512}} {
		b.Run(fmt.Sprintf("%d levels, group %d", c.levels, c.group), func(b *testing.B) {
			if kernel.BookGroups() == 0 {
				b.Skip("this set fits groups one by one")
			}
			values := rankedGroups(groups * c.group)
			s := Batch{
				Values: values, Codes: make([]uint16, len(values)), Levels: make([]float32, groups*c.levels),
				N: c.group, Count: c.levels, Steps: CodebookSteps,
			}
			b.SetBytes(int64(2 * len(values)))
			var all Fitter
			for b.Loop() {
				all.Fit(s)
			}
		})
	}
}
