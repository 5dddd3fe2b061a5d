package rotation

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestMomentsOfRotatedColumns: what a rotation makes of inputs has the mean square of
// its block in every column, so that a search weighs errors by what they are multiplied
// with.
func TestMomentsOfRotatedColumns(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 15))
	const size, blocks, samples = 16, 2, 20000
	moments, seen := make([]float32, size*blocks), make([]float64, size*blocks)
	for i := range moments {
		moments[i] = float32(i*i%7) + 0.5
	}
	x := make([]float32, len(moments))
	for range samples {
		for i, m := range moments {
			x[i] = float32(r.NormFloat64() * math.Sqrt(float64(m)))
		}
		Rotate(x, size)
		for i, v := range x {
			seen[i] += float64(v) * float64(v) / samples
		}
	}
	for i, m := range Moments(moments, size) {
		if math.Abs(float64(m)/seen[i]-1) > 0.06 {
			t.Errorf("column %d: %v, but %v was seen", i, m, seen[i])
		}
	}
	if got := Moments(moments, 0); !slices.Equal(got, moments) {
		t.Errorf("without a rotation: %v", got)
	}
	for _, all := range [][]float32{nil, {1, 1, 1, 1}} {
		if got := Moments(all, 2); got != nil {
			t.Errorf("%v: %v", all, got)
		}
	}
}
