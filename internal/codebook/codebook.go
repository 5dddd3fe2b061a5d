// Package codebook fits tables of levels to groups of values, by Lloyd's steps, and finds
// the nearest level of a value.
package codebook

import (
	"math"
	"slices"
	"sort"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// CodebookSteps is how often SDNQ refines a codebook.
const CodebookSteps = 24

// CodebookLevels returns the number of levels for an unsigned integer dtype: one more
// than its greatest value. For uint9 to uint15 it is one more than the greatest value
// in SDNQ's table, whose code does not fit the bits.
func CodebookLevels(t *dtype.Type) int { return int(t.Divisor) + 1 }

// Lloyd fits the levels of one group's codebook to its values, as SDNQ does:
// levels evenly spread over the range, then steps that move every level to the
// mean of the values nearest to it.
//
// A group larger than a tile is fed in parts. Sums depend on the order of the
// values, so all parts of a step are fed in order, in every step:
//
//	l := NewLloyd(levels, range)
//	for range CodebookSteps {
//		l.Feed(part) // each of them
//		if !l.Step() {
//			break
//		}
//	}
//	l.Codes(codes, part) // each of them
type Lloyd struct {
	levels    []float32 // ascending
	middles   []float32 // between a level and the next
	cells     []cell
	fed       []int32  // levels with values in this step
	reordered bool     // the last step changed the order of levels
	hints     []uint16 // each value's level in the last step, for a group that is fed whole
	scale     float64  // levels per unit, for a first guess
	from      float64
	ranked    ranked // for a group that is fed whole and can be ranked
}

// cell is what a level was fed in this step.
type cell struct {
	sum   float32
	count uint32
}

// NewLloyd begins a codebook of n ≤ 65536 levels: level j is z + j·s, fused,
// with s = fl(fl(max-z)/fl(n-1)).
func NewLloyd(n int, r tile.Range) *Lloyd {
	l := new(Lloyd)
	l.reset(n, r)
	return l
}

func (l *Lloyd) reset(n int, r tile.Range) {
	if len(l.levels) != n {
		*l = Lloyd{
			levels: make([]float32, n), middles: make([]float32, n),
			cells: make([]cell, n), hints: l.hints, ranked: l.ranked,
		}
	}
	s := float32(r.Hi-r.Lo) / float32(n-1)
	for j := range l.levels {
		l.levels[j] = float32(j)
	}
	kernel.ScaleFrom(l.levels, s, r.Lo)
	l.from, l.scale = float64(r.Lo), 1/float64(s)
	l.sort()
}

// sort puts the levels in order, equal ones as they were, and sets the middles,
// fl(fl(level[j+1] + level[j])·0.5); the last one is no bound.
func (l *Lloyd) sort() {
	if !slices.IsSorted(l.levels) {
		slices.SortStableFunc(l.levels, func(a, b float32) int {
			switch {
			case a < b, a == a && b != b:
				return -1
			case a > b, a != a && b == b:
				return 1
			}
			return 0
		})
	}
	for j := range l.middles[:len(l.middles)-1] {
		l.middle(j)
	}
	l.middles[len(l.middles)-1] = float32(math.Inf(1))
}

func (l *Lloyd) middle(j int) { l.middles[j] = float32(l.levels[j+1]+l.levels[j]) * 0.5 }

// nearest returns the least j whose middle is not below v: a value in the
// middle belongs to the lower level. The search begins at a guess.
func (l *Lloyd) nearest(v float32, guess int) int {
	j, m := guess, l.middles
	for range 8 {
		switch {
		case m[j] < v:
			j++
		case j > 0 && !(m[j-1] < v):
			j--
		default:
			return j
		}
	}
	return sort.Search(len(m)-1, func(i int) bool { return !(m[i] < v) })
}

// guess estimates the level of v from the even spacing that levels had at the
// beginning.
func (l *Lloyd) guess(v float32) int {
	g := (float64(v) - l.from) * l.scale
	if !(g > 0) {
		return 0
	}
	return int(min(g, float64(len(l.levels)-1)))
}

// Feed adds the next values of the group to the step.
func (l *Lloyd) Feed(values []float32) {
	for _, v := range values {
		l.add(l.nearest(v, l.guess(v)), v)
	}
}

// add sums in single precision, one value after the other.
func (l *Lloyd) add(j int, v float32) {
	c := &l.cells[j]
	if c.count == 0 {
		l.fed = append(l.fed, int32(j))
	}
	c.count++
	c.sum += v
}

// Step moves the levels to the means of what was fed to them; those without
// values stay. It reports whether any level moved: if not, no further step
// will move one.
func (l *Lloyd) Step() bool {
	moved, ordered := false, true
	for _, j := range l.fed {
		c := &l.cells[j]
		mean := c.sum / float32(c.count)
		*c = cell{}
		if math.Float32bits(mean) != math.Float32bits(l.levels[j]) {
			l.levels[j], moved = mean, true
		}
	}
	last := len(l.levels) - 1
	for _, j := range l.fed {
		i := int(j)
		if i > 0 {
			ordered = ordered && l.levels[i-1] <= l.levels[i]
			l.middle(i - 1)
		}
		if i < last {
			ordered = ordered && l.levels[i] <= l.levels[i+1]
			l.middle(i)
		}
	}
	l.fed, l.reordered = l.fed[:0], !ordered
	if !ordered {
		l.sort()
	}
	return moved
}

// Codes writes the index of each value's level.
func (l *Lloyd) Codes(codes []uint16, values []float32) {
	for i, v := range values {
		codes[i] = uint16(l.nearest(v, l.guess(v)))
	}
}

// Levels returns the levels, ascending; the next group overwrites them.
func (l *Lloyd) Levels() []float32 { return l.levels }

// Fit makes the codebook of n levels of a whole group, in at most that many steps, and
// writes the values' codes. [Lloyd.Levels] returns the levels.
func (l *Lloyd) Fit(codes []uint16, values []float32, n, steps int) {
	if l.fitQuickly(codes, values, n, steps) {
		return
	}
	if len(l.hints) < len(values) {
		l.hints = make([]uint16, len(values))
	}
	hints := l.hints[:len(values)]
	for i, v := range values {
		hints[i] = uint16(l.guess(v))
	}
	for range steps {
		l.follow(hints, values)
		for i, v := range values {
			l.add(int(hints[i]), v)
		}
		if !l.Step() {
			break
		}
	}
	l.follow(hints, values)
	copy(codes, hints)
}

// begin makes the levels that a group begins with.
func (l *Lloyd) begin(values []float32, n int) tile.Range {
	lo, hi := kernel.MinMax(values)
	r := tile.Range{Lo: lo, Hi: hi}
	l.reset(n, r)
	return r
}

// fitQuickly is Fit for values that can be ranked. For others it only makes the initial
// levels, and reports false.
func (l *Lloyd) fitQuickly(codes []uint16, values []float32, n, steps int) bool {
	r := l.begin(values, n)
	if n > len(values) || !l.ranked.rank(values, r.Lo, r.Hi) {
		return false
	}
	l.fitRanked(codes, steps)
	return true
}

// follow updates hints to the nearest levels, which most of them are already.
func (l *Lloyd) follow(hints []uint16, values []float32) {
	m := l.middles
	for i, v := range values {
		j := int(hints[i])
		if below := max(j-1, 0); v <= m[j] && (m[below] < v || j == 0) {
			continue
		}
		hints[i] = uint16(l.nearest(v, j))
	}
}

// LookUp sets dst to the levels of codes. A code without a level, which only a damaged
// file has, gives NaN.
func LookUp(dst []float32, codes []uint16, levels []float32) {
	for i, c := range codes {
		if int(c) < len(levels) {
			dst[i] = levels[c]
		} else {
			dst[i] = float32(math.NaN())
		}
	}
}
