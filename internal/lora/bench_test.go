package lora

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/internal/tile"
)

// BenchmarkArea is what merging takes beside all else: a tile of a weight and factors of
// rank 32.
func BenchmarkArea(b *testing.B) {
	for _, cols := range []int{3072, 8192} {
		const rank, rows = 32, 40
		r := rand.New(rand.NewPCG(1, 2))
		random := func(n int) []float32 {
			x := make([]float32, n)
			for i := range x {
				x[i] = r.Float32() - 0.5
			}
			return x
		}
		p := &Patch{rows: rows, cols: cols}
		ready := &Ready{Patch: p, terms: []readyTerm{{pieces: []piece{{0, 0, rows}}, delta: newProduct(random(rows*rank), random(rank*cols), rank)}}}
		x := random(rows * cols)
		b.Run(fmt.Sprint(cols), func(b *testing.B) {
			b.SetBytes(int64(2 * rows * cols)) // of BF16
			for b.Loop() {
				if err := ready.Area(x, cols, tile.Area{Rows: rows, Cols: cols}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
