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

// plainLloyd is the definition, step by step.
func plainLloyd(values []float32, n, steps int) (codes []uint16, levels []float32) {
	lo, hi := kernel.MinMax(values)
	s := float32(hi-lo) / float32(n-1)
	for j := range n {
		levels = append(levels, kernel.FMA(float32(j), s, lo))
	}
	codes = make([]uint16, len(values))
	for step := range steps + 1 {
		slices.SortStableFunc(levels, func(a, b float32) int { // as less alone orders them
			if a < b {
				return -1
			} else if b < a {
				return 1
			}
			return 0
		})
		sums, counts := make([]float32, n), make([]int, n)
		for i, v := range values {
			j := 0
			for j < n-1 && float32(levels[j+1]+levels[j])*0.5 < v {
				j++
			}
			codes[i] = uint16(j)
			counts[j]++
			sums[j] += v
		}
		for j, c := range counts {
			if c > 0 && step < steps {
				levels[j] = sums[j] / float32(c)
			}
		}
	}
	return codes, levels
}

// TestCodebookInParts: tiles would change the bytes. Values are such that
// guesses fail: equal levels, ties, a huge outlier, empty levels.
func TestCodebookInParts(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	makers := map[string]func(i int) float32{
		"normal":   func(int) float32 { return float32(r.NormFloat64()) },
		"grid":     func(int) float32 { return float32(r.IntN(9)) / 8 },
		"constant": func(int) float32 { return 0.3 },
		"outlier":  func(i int) float32 { return float32(r.NormFloat64()*1e-3) + float32(i/40*1000) },
		"close":    func(int) float32 { return math.Float32frombits(0x3F800000 + r.Uint32()%4) },
		"zeros":    func(int) float32 { return float32(math.Copysign(0, r.NormFloat64())) },
		"tiny":     func(int) float32 { return math.Float32frombits(r.Uint32() & 0x8000001F) },
	}
	for name, f := range makers {
		for _, n := range []int{2, 3, 4, 16, 256, 513, 2000} {
			values := make([]float32, 50+r.IntN(400))
			for i := range values {
				values[i] = f(i)
			}
			for _, steps := range []int{0, 1, 5, CodebookSteps} {
				codes, levels := plainLloyd(values, n, steps)
				var l Lloyd
				got := make([]uint16, len(values))
				l.Fit(got, values, n, steps)
				if !slices.Equal(got, codes) || golden.HashFloats(l.Levels()) != golden.HashFloats(levels) {
					t.Fatalf("%s, %d levels, %d steps: not the definition", name, n, steps)
				}
				lo, hi := kernel.MinMax(values)
				parts := NewLloyd(n, tile.Range{Lo: lo, Hi: hi})
				for range steps {
					for part := range slices.Chunk(values, 37) {
						parts.Feed(part)
					}
					if !parts.Step() {
						break
					}
				}
				clear(got)
				for at := 0; at < len(values); at += 50 {
					to := min(at+50, len(values))
					parts.Codes(got[at:to], values[at:to])
				}
				if !slices.Equal(got, codes) || golden.HashFloats(parts.Levels()) != golden.HashFloats(levels) {
					t.Fatalf("%s, %d levels, %d steps: parts differ", name, n, steps)
				}
			}
		}
	}
}

// BenchmarkCodebook counts bytes of bfloat16 source.
func BenchmarkCodebook(b *testing.B) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, c := range []struct{ levels, group int }{{4, 128}, {16, 512}, {256, 4096}, {65536, 4096}} {
		values, codes := make([]float32, c.group), make([]uint16, c.group)
		for i := range values {
			values[i] = float32(r.NormFloat64())
		}
		b.Run(fmt.Sprintf("%d levels, group %d", c.levels, c.group), func(b *testing.B) {
			b.SetBytes(int64(2 * c.group))
			var l Lloyd
			for b.Loop() {
				l.Fit(codes, values, c.levels, CodebookSteps)
			}
		})
	}
}
