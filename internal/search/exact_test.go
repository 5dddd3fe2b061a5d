package search

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// exact returns the least error that codes 0 to most can leave to values, whatever the
// scale and the zero point. The codes of ascending values ascend, so all ways to do so
// are tried, each with its line by least squares. With through, lines have no zero point
// and codes run from -(most+1)/2, for scales of either sign.
func exact(x []float64, most int, through bool) float64 {
	slices.Sort(x)
	first := 0
	if through {
		first = -(most + 1) / 2
	}
	best := math.Inf(1)
	codes := make([]int, len(x))
	var place func(i, least int)
	place = func(i, least int) {
		if i < len(x) {
			for q := least; q <= first+most; q++ {
				codes[i] = q
				place(i+1, q)
			}
			return
		}
		best = min(best, leastSquares(x, codes, through))
	}
	place(0, first)
	if through {
		for i, j := 0, len(x)-1; i <= j; i, j = i+1, j-1 {
			x[i], x[j] = -x[j], -x[i]
		}
		place(0, first)
	}
	return best
}

func leastSquares(x []float64, codes []int, through bool) float64 {
	var n, sq, sqq, sx, sxx, sxq float64
	for i, v := range x {
		q := float64(codes[i])
		n, sq, sqq, sx, sxx, sxq = n+1, sq+q, sqq+q*q, sx+v, sxx+v*v, sxq+v*q
	}
	if through {
		if sqq == 0 {
			return sxx
		}
		return sxx - sxq*sxq/sqq
	}
	det := n*sqq - sq*sq
	if det == 0 {
		return sxx - sx*sx/n
	}
	a := (n*sxq - sx*sq) / det
	b := (sx - a*sq) / n
	return sxx - a*sxq - b*sx
}

// TestNearTheLeast: the error after a search is close to the least that the format
// allows, over many groups.
func TestNearTheLeast(t *testing.T) {
	for _, c := range []struct {
		most, size, groups int
		through            bool
		bound              float64
	}{
		{most: 1, size: 32, groups: 200, bound: 1.01},
		{most: 3, size: 24, groups: 60, bound: 1.02},
		{most: 7, size: 10, groups: 60, bound: 1.08},
		{most: 3, size: 24, groups: 60, through: true, bound: 1.02},
		{most: 7, size: 10, groups: 60, through: true, bound: 1.04},
	} {
		t.Run(fmt.Sprint(c.most+1, " codes, ", c.size, " values, through zero ", c.through), func(t *testing.T) {
			r := rand.New(rand.NewPCG(2, 7))
			var least, got float64
			for range c.groups {
				x := make([]float32, c.size)
				wide := make([]float64, c.size)
				for i := range x {
					x[i] = float32(r.NormFloat64())
					wide[i] = float64(x[i])
				}
				l := Lines{Hi: float32(c.most), Stored: rounded{safetensors.F32}, Through: c.through}
				if c.through {
					l.Lo, l.Hi = -float32(c.most+1)/2, float32(c.most-1)/2
				}
				got += errorOf(x, searched(x, &l), &l)
				least += exact(wide, c.most, c.through)
			}
			if got < least*(1-1e-5) || got > least*c.bound {
				t.Errorf("the error is %.4f of the least, want at most %v", got/least, c.bound)
			}
		})
	}
}

// TestNearTheFloor: where there are too many ways to try all, the error is close to the
// least that many starts come to.
func TestNearTheFloor(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 9))
	for _, c := range []struct {
		most, size int
		bound      float64
	}{{15, 32, 1.055}, {15, 64, 1.03}, {7, 64, 1.015}, {31, 32, 1.08}, {15, 600, 1.03}} {
		var least, got float64
		for range 60 {
			x, wide := make([]float32, c.size), make([]float64, c.size)
			for i := range x {
				x[i] = float32(r.NormFloat64())
				wide[i] = float64(x[i])
			}
			l := Lines{Hi: float32(c.most), Stored: rounded{safetensors.F32}}
			got += errorOf(x, searched(x, &l), &l)
			least += floor(wide, c.most)
		}
		if got > least*c.bound {
			t.Errorf("%d codes, %d values: the error is %.4f of the least, want at most %v", c.most+1, c.size, got/least, c.bound)
		}
	}
}

// floor returns the least error of 11 by 11 starts that are refined eight times.
func floor(x []float64, most int) float64 {
	lo, hi := slices.Min(x), slices.Max(x)
	best, codes := math.Inf(1), make([]int, len(x))
	for i := range 11 {
		for j := range 11 {
			draw := func(k int) float64 { return (float64(k)*0.025 - 0.02) * (hi - lo) }
			from := lo + draw(i)
			scale := (hi - draw(j) - from) / float64(most)
			for range 8 {
				for k, v := range x {
					codes[k] = int(min(max(math.RoundToEven((v-from)/scale), 0), float64(most)))
				}
				best = min(best, leastSquares(x, codes, false))
				from, scale = fitted(x, codes)
			}
		}
	}
	return best
}

func fitted(x []float64, codes []int) (from, scale float64) {
	var n, sq, sqq, sx, sxq float64
	for i, v := range x {
		q := float64(codes[i])
		n, sq, sqq, sx, sxq = n+1, sq+q, sqq+q*q, sx+v, sxq+v*q
	}
	scale = (n*sxq - sx*sq) / (n*sqq - sq*sq)
	return (sx - scale*sq) / n, scale
}

// searched returns the step that is found for one group.
func searched(x []float32, l *Lines) kernel.Steps {
	steps := kernel.Steps{}.Sized(1)
	lo, hi := kernel.MinMax(x)
	if l.Through {
		steps.Set(0, 0, max(-lo, hi)/l.Hi)
	} else {
		steps.Set(0, lo, (hi-lo)/l.Hi)
	}
	l.Improve(steps, tile.ValuesOf(tile.Line(0, len(x)), x), len(x), new(tile.Scratch))
	return steps
}

func errorOf(x []float32, steps kernel.Steps, l *Lines) (sum float64) {
	for i, v := range x {
		q := float64(x[i]-steps.Zeros[0]) / float64(steps.Scales[0])
		q = min(max(math.RoundToEven(q), float64(l.Lo)), float64(l.Hi))
		d := float64(v) - q*float64(steps.Scales[0]) - float64(steps.Zeros[0])
		sum += d * d
	}
	return sum
}

// TestWeightsCount: values that count more are restored better.
func TestWeightsCount(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 8))
	const size = 64
	for _, through := range []bool{false, true} {
		var plain, weighted float64
		for range 100 {
			x, weights := make([]float32, size), make([]float32, size)
			for i := range x {
				x[i], weights[i] = float32(r.NormFloat64()), float32(math.Exp(3*r.NormFloat64()))
			}
			l := Lines{Hi: 15, Stored: rounded{safetensors.F32}, Through: through}
			if through {
				l.Lo, l.Hi = -8, 7
			}
			one := searched(x, &l)
			l.Weights = weights
			other := searched(x, &l)
			for i := range x {
				only := x[i : i+1]
				plain += float64(weights[i]) * errorOf(only, one, &l)
				weighted += float64(weights[i]) * errorOf(only, other, &l)
			}
		}
		if weighted > 0.9*plain {
			t.Errorf("through zero %v: the weighted error is %.3f of that without weights", through, weighted/plain)
		}
	}
}
