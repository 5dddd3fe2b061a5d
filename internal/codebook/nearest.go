package codebook

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
)

// NearestLevels finds the nearest of ascending levels, as [NearestOf] does. The index
// grows with the value: it is the number of edges below the value.
type NearestLevels struct {
	Levels []float32
	Edges  []float32 // edge i is the greatest value with an index up to i
	step   float32   // approximate distance of edges, set if there are more than 16
}

func NewNearestLevels(levels []float32) *NearestLevels {
	n := &NearestLevels{Levels: levels, Edges: make([]float32, len(levels)-1)}
	for i := range n.Edges {
		least, most := ordered(float32(math.Inf(-1))), ordered(float32(math.Inf(1)))
		for least < most { // the edge lies between
			middle := least + (most-least+1)/2
			if NearestOf(levels, unordered(middle)) <= i {
				least = middle
			} else {
				most = middle - 1
			}
		}
		n.Edges[i] = unordered(least)
	}
	n.step = (levels[len(levels)-1] - levels[0]) / float32(len(n.Edges))
	return n
}

// ordered maps a float32 to an integer that ascends as floats do, including infinities.
func ordered(x float32) int64 {
	bits := int64(math.Float32bits(x))
	if bits >= 1<<31 {
		return 1<<31 - 1 - bits
	}
	return bits
}

func unordered(i int64) float32 {
	if i < 0 {
		i = 1<<31 - 1 - i
	}
	return math.Float32frombits(uint32(i))
}

// Find sets codes to the indices of the levels nearest to x.
func (n *NearestLevels) Find(codes []uint16, x []float32) {
	if len(n.Levels) == kernel.BookLevels {
		kernel.BookCodes(codes, x, n.Edges)
		return
	}
	last := len(n.Edges)
	for i, v := range x {
		guess := (v - n.Levels[0]) / n.step
		at := 0
		if guess > 0 { // not of NaN
			at = int(min(guess, float32(last)))
		}
		for at < last && n.Edges[at] < v {
			at++
		}
		for at > 0 && !(n.Edges[at-1] < v) {
			at--
		}
		codes[i] = uint16(at)
	}
}

// NearestOf returns the index of the nearest of ascending levels; of two, the
// lower.
func NearestOf(levels []float32, x float32) int {
	pos := 0
	for n := len(levels); n > 0; {
		if half := n / 2; levels[pos+half] < x {
			pos, n = pos+half+1, n-half-1
		} else {
			n = half
		}
	}
	lo, hi := max(pos-1, 0), min(pos, len(levels)-1)
	if floats.Abs(x-levels[hi]) < floats.Abs(x-levels[lo]) {
		return hi
	}
	return lo
}
