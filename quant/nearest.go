package quant

import (
	"math"
	"sync/atomic"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// nearestLevels finds the nearest of ascending levels as [nearestOf] does. The index
// grows with the value: it is the number of edges below it.
type nearestLevels struct {
	levels []float32
	edges  []float32 // edge i is the greatest value with an index up to i
	step   float32   // by which they are nearly spaced, where there are more than 16
}

func newNearestLevels(levels []float32) *nearestLevels {
	n := &nearestLevels{levels: levels, edges: make([]float32, len(levels)-1)}
	for i := range n.edges {
		least, most := ordered(float32(math.Inf(-1))), ordered(float32(math.Inf(1)))
		for least < most { // the edge lies between
			middle := least + (most-least+1)/2
			if nearestOf(levels, unordered(middle)) <= i {
				least = middle
			} else {
				most = middle - 1
			}
		}
		n.edges[i] = unordered(least)
	}
	n.step = (levels[len(levels)-1] - levels[0]) / float32(len(n.edges))
	return n
}

// ordered are whole numbers that ascend as values do, infinities included.
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

// find sets codes to the indices of the levels nearest to x.
func (n *nearestLevels) find(codes []uint16, x []float32) {
	if len(n.levels) == kernel.BookLevels {
		kernel.BookCodes(codes, x, n.edges)
		return
	}
	last := len(n.edges)
	for i, v := range x {
		guess := (v - n.levels[0]) / n.step
		at := 0
		if guess > 0 { // not of NaN
			at = int(min(guess, float32(last)))
		}
		for at < last && n.edges[at] < v {
			at++
		}
		for at > 0 && !(n.edges[at-1] < v) {
			at--
		}
		codes[i] = uint16(at)
	}
}

// nearestOf returns the index of the nearest of ascending levels; of two, the
// lower.
func nearestOf(levels []float32, x float32) int {
	pos := 0
	for n := len(levels); n > 0; {
		if half := n / 2; levels[pos+half] < x {
			pos, n = pos+half+1, n-half-1
		} else {
			n = half
		}
	}
	lo, hi := max(pos-1, 0), min(pos, len(levels)-1)
	if abs(x-levels[hi]) < abs(x-levels[lo]) {
		return hi
	}
	return lo
}

// decodedLevels are what levels decode to in a group, by the code of its scale, each
// found when it is first asked for.
type decodedLevels struct {
	levels []float32
	byCode [128]atomic.Pointer[nearestLevels]
	own    atomic.Pointer[nearestLevels]
}

// The levels that most layers have.
var (
	fixedDecoded = &decodedLevels{levels: fixedLevels}
	wholeDecoded = &decodedLevels{levels: wholeNumbers}
)

// of returns those for a scale's code in E4M3.
func (d *decodedLevels) of(code byte) *nearestLevels {
	return once(&d.byCode[code], func() []float32 {
		scale, decoded := kernel.E4M3.Decode(uint16(code)), make([]float32, len(d.levels))
		for i, l := range d.levels {
			decoded[i] = grid(l, scale)
		}
		return decoded
	})
}

// undecoded returns the levels themselves.
func (d *decodedLevels) undecoded() *nearestLevels {
	return once(&d.own, func() []float32 { return d.levels })
}

// once returns what lies there, or else what is made of levels; who makes it at the
// same time makes the same.
func once(at *atomic.Pointer[nearestLevels], levels func() []float32) *nearestLevels {
	if n := at.Load(); n != nil {
		return n
	}
	n := newNearestLevels(levels())
	at.Store(n)
	return n
}
