package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestRanks: groups of BF16 would get codebooks that other values than theirs
// have, or that depend on the processor.
func TestRanks(t *testing.T) {
	eachSet(t, func(t *testing.T, k *set) {
		if k.ranks == nil {
			t.Skip("ranks groups one by one")
		}
		defer func(s *set) { active = s }(active)
		active = k
		r := rand.New(rand.NewPCG(51, 52))
		var all Ranks
		var s Sorted
		for _, n := range []int{1, 15, 16, 31, 32, 33, 100, 128, 512, 640, 1000, RankedMost} {
			for _, groups := range []int{1, 3, RankedGroups} {
				values := make([]float32, groups*n)
				for i := range values {
					values[i] = BF16.Round(rankValue(r))
				}
				if !all.Sort(values, n) {
					t.Fatalf("%d groups of %d: not BF16", groups, n)
				}
				for i := range groups {
					all.Group(i, &s)
					testSorted(t, fmt.Sprintf("group %d of %d, %d values", i, groups, n), r, &s, values[i*n:][:n])
				}
				values[r.IntN(len(values))] = math.Float32frombits(0x3F800001)
				if all.Sort(values, n) {
					t.Errorf("%d groups of %d: taken for BF16", groups, n)
				}
			}
		}
	})
}

// rankValue is often one that others are, and not so small that sums of double
// precision would round.
func rankValue(r *rand.Rand) float32 {
	switch r.IntN(8) {
	case 0:
		return float32(math.Copysign(0, r.NormFloat64()))
	case 1, 2, 3:
		return float32(r.IntN(40)-20) / 8
	case 4:
		return float32(math.Ldexp(r.NormFloat64(), -r.IntN(16)))
	}
	return float32(r.NormFloat64())
}

func testSorted(t *testing.T, name string, r *rand.Rand, s *Sorted, values []float32) {
	t.Helper()
	want, sums := []float32{float32(math.Inf(-1))}, []float64{0}
	for _, v := range values {
		want = append(want, v+0)
	}
	slices.Sort(want)
	for i, v := range want[1:] {
		sums = append(sums, sums[i]+float64(v))
	}
	want = append(want, float32(math.Inf(1)))
	if !slices.Equal(s.Values, want) || !slices.Equal(s.Sums, sums) {
		t.Fatalf("%s: %v sum up to %v, want %v and %v", name, s.Values, s.Sums, want, sums)
	}
	beginCells(s, r, want)
	s.Find()
	for j, m := range s.Middles {
		if count := countTo(want, m); s.Ends[j] != count {
			t.Fatalf("%s: %d values up to %v, want %d", name, s.Ends[j], m, count)
		}
	}
	expected := s.Cells
	stepCells(&expected, want, sums)
	s.Step()
	if s.Cells != expected {
		t.Fatalf("%s: steps to %v, want %v", name, s.Cells, expected)
	}
}

// beginCells has levels that are spread over the range or lie anywhere, and cells
// around zero that are in doubt or not.
func beginCells(s *Sorted, r *rand.Rand, sorted []float32) {
	n := len(sorted) - 2
	levels := []int{2, 3, 8, 16, 16}[r.IntN(5)]
	lo, hi := sorted[1], sorted[n]
	for j := range s.Levels {
		switch {
		case j >= levels:
			s.Levels[j] = float32(math.Inf(1))
		case n%2 == 0:
			s.Levels[j] = lo + (hi-lo)*float32(j)/float32(levels-1)
		default:
			s.Levels[j] = rankValue(r)
		}
	}
	slices.Sort(s.Levels[:])
	middlesOf(&s.Cells)
	s.Below, s.From = n/2-r.IntN(n/2+1), n/2+r.IntN(n/2+1)
	s.Reach, s.Steps = []float64{-1e30, r.NormFloat64() * float64(n), 1e30, 1e30}[r.IntN(4)], 1+r.IntN(24)
}

func middlesOf(c *Cells) {
	for j := range c.Middles {
		if c.Middles[j] = float32(math.Inf(1)); j+1 < len(c.Levels) {
			c.Middles[j] = float32(c.Levels[j]+c.Levels[j+1]) * 0.5
		}
	}
}

// countTo is how many values are not above m, of those between infinities.
func countTo(sorted []float32, m float32) int {
	n := len(sorted) - 2
	for n > 0 && sorted[n] > m {
		n--
	}
	return n
}

// stepCells is the definition of [Sorted.Step].
func stepCells(c *Cells, sorted []float32, sums []float64) {
	for c.Steps > 0 {
		next, a := *c, 0
		for j, b := range c.Ends {
			if a < b {
				if a < c.From && b > c.Below && sums[a]+sums[b] > c.Reach {
					return
				}
				next.Levels[j] = float32(sums[b]-sums[a]) / float32(b-a)
			}
			a = b
		}
		if !slices.IsSorted(next.Levels[:]) {
			return
		}
		middlesOf(&next)
		for j, m := range next.Middles {
			next.Ends[j] = countTo(sorted, m)
		}
		if next.Steps--; next.Ends == c.Ends {
			next.Steps = 0
		}
		*c = next
	}
}
