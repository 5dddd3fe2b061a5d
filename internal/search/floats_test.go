package search

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// TestFloatsByWeight: where some values count more, the scales that are found restore
// them better; where all count the same, the scales are those without weights.
func TestFloatsByWeight(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 2))
	e4m3 := kernel.SmallFloats(kernel.E4M3, 448, false)
	for _, size := range []int{20, 600} {
		for _, exact := range []*Restoring{nil, {Codes: e4m3, Values: kernel.SmallValues(kernel.E4M3)}} {
			t.Run(fmt.Sprint("groups of ", size, ", exact ", exact != nil), func(t *testing.T) {
				const groups = 37
				x, ones, weights := make([]float32, groups*size), make([]float32, size), make([]float32, size)
				for i := range x {
					x[i] = float32(r.NormFloat64())
				}
				for i := range weights {
					ones[i], weights[i] = 1, float32(r.ExpFloat64()*r.ExpFloat64())
				}
				found := func(weights []float32) kernel.Steps {
					steps := kernel.Steps{}.Sized(groups)
					for i := range groups {
						lo, hi := kernel.MinMax(x[i*size : (i+1)*size])
						steps.Set(i, 0, max(-lo, hi)/448)
					}
					f := Floats{Rounding: kernel.RoundingOf(3, 7, 448), Ratios: Octave, Exact: exact, Weights: weights}
					f.Improve(steps, tile.ValuesOf(tile.Line(0, len(x)), x), size, new(tile.Scratch))
					return steps
				}
				missed := func(steps kernel.Steps) (sum float64) {
					for i, v := range x {
						scale := steps.Scales[i/size]
						d := float64(v - kernel.E4M3.Round(v/scale)*scale)
						sum += d * d * float64(weights[i%size])
					}
					return sum
				}
				alike, plain, weighted := found(ones), found(nil), found(weights)
				if fmt.Sprint(alike.Scales) != fmt.Sprint(plain.Scales) {
					t.Error("weights of 1 change scales")
				}
				if got, was := missed(weighted), missed(plain); got > 0.99*was {
					t.Errorf("the weighted error is %.4f of that of scales without weights", got/was)
				}
			})
		}
	}
}
