package codebook

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// sorted fits the codebooks of groups of BF16 from their values in ascending order.
// Kernels sort many groups at once, and work on the levels and ends of cells here.
type sorted struct {
	Lloyd
	ranks kernel.Ranks
	cells kernel.Sorted
}

// fit gives groups their codes and levels. It appends to rest the groups that it cannot
// fit.
func (o *sorted) fit(rest []int, s *Batch) []int {
	for first := 0; first < len(s.Values)/s.N; first += kernel.RankedGroups {
		known := o.ranks.Sort(s.Values[first*s.N:], s.N)
		for i := first; i < min(first+kernel.RankedGroups, len(s.Values)/s.N); i++ {
			if !known || !o.fitOne(i-first, i, s) {
				rest = append(rest, i)
			}
		}
	}
	return rest
}

// fitOne fits group i, which is the at-th of the sorted ones. It reports false if sums
// may be inexact.
func (o *sorted) fitOne(at, i int, s *Batch) bool {
	codes, values := s.group(i)
	c, r := &o.cells, &o.ranked
	o.ranks.Group(at, c)
	r.values, r.digits, r.sorted, r.sums = values, digitsBF16, c.Values, c.Sums
	lo, hi := r.sorted[1], r.sorted[len(values)]
	if !(max(-lo, hi) < mostSummed) || !r.bound() {
		return false
	}
	o.reset(s.Count, tile.Range{Lo: lo, Hi: hi})
	o.levels, o.middles, r.ends = moved(c.Levels[:], o.levels), moved(c.Middles[:], o.middles), c.Ends[:s.Count]
	c.Below, c.From, c.Reach, c.Steps = r.below, r.from, r.exactLimit(), s.Steps
	o.steps()
	kernel.BookCodes(codes, values, c.Middles[:kernel.BookLevels-1])
	copy(s.levelsOf(i), o.levels)
	return true
}

// moved copies levels to the beginning of to, fills the rest of it with infinities, and
// returns the copy.
func moved(to, levels []float32) []float32 {
	for i := copy(to, levels); i < len(to); i++ {
		to[i] = float32(math.Inf(1))
	}
	return to[:len(levels)]
}

// steps runs the steps of the groups at hand until no end of a cell moves.
func (o *sorted) steps() {
	c := &o.cells
	c.Find()
	for c.Step(); c.Steps > 0; c.Step() {
		c.Steps--
		if o.means(); !o.ranked.follow(o.middles[:len(o.middles)-1]) {
			break
		}
	}
}
