package quant

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// books fits the codebooks of many groups, several at once, each in a lane of
// vectors. Each comes out as [Lloyd.Fit] makes it. As soon as one is done the
// next takes its lane: some need many times the steps of others.
type books struct {
	rows, levels, middles, sums []float32 // by lanes
	counts                      []uint32
	lanes                       []lane
	one                         Lloyd // for beginnings, and levels that changed places
}

// lane is a group under way.
type lane struct {
	group int // -1 for none
	steps int // to go
}

// shelf is groups of n finite values to be fitted, each with levels up to
// [kernel.BookLevels].
type shelf struct {
	values   []float32
	codes    []uint16  // of the values
	levels   []float32 // of the groups, one after the other
	n, count int       // values and levels of a group
	steps    int
	taken    int // groups
}

// fit gives all groups their codes and levels.
func (b *books) fit(s shelf) {
	b.begin(s.n)
	busy := 0
	for i := range b.lanes {
		if b.next(i, &s) {
			busy++
		}
	}
	for busy > 0 {
		clear(b.sums)
		clear(b.counts)
		kernel.BookSums(b.sums, b.counts, b.rows, b.middles)
		moved, unordered := kernel.BookMeans(b.levels, b.middles, b.sums, b.counts, s.n)
		for i := range b.lanes {
			l := &b.lanes[i]
			if l.group < 0 {
				continue
			}
			if unordered>>i&1 == 1 {
				b.sort(i, s.count)
			}
			if l.steps--; moved>>i&1 == 1 && l.steps > 0 {
				continue
			}
			if b.finish(i, &s); !b.next(i, &s) {
				busy--
			}
		}
	}
}

func (b *books) begin(n int) {
	if count := kernel.BookGroups(); len(b.lanes) != count {
		*b = books{
			levels: make([]float32, kernel.BookLevels*count), middles: make([]float32, (kernel.BookLevels-1)*count),
			sums: make([]float32, kernel.BookLevels*count), counts: make([]uint32, (kernel.BookLevels-1)*count),
			lanes: make([]lane, count),
		}
	}
	for i := range b.levels {
		b.levels[i] = float32(math.Inf(1))
	}
	for i := range b.middles {
		b.middles[i] = float32(math.Inf(1))
	}
	b.rows = sized(&b.rows, n*len(b.lanes))
}

// fewLanes are so few that ranking the values of groups takes less time.
const fewLanes = 8

// next takes the next group into a lane, if there is one.
func (b *books) next(i int, s *shelf) bool {
	l := &b.lanes[i]
	for l.group = s.taken; l.group < len(s.values)/s.n; l.group = s.taken {
		s.taken++
		values := s.values[l.group*s.n:][:s.n]
		if b.fitQuickly(values, l.group, s) {
			continue
		}
		l.steps = s.steps
		for row, at := 0, i; row < len(values); row, at = row+1, at+len(b.lanes) {
			b.rows[at] = values[row]
		}
		b.put(i)
		return true
	}
	l.group = -1
	return false
}

// fitQuickly fits a group by itself where that takes less time. Otherwise it
// makes the levels that it begins with, and reports false.
func (b *books) fitQuickly(values []float32, group int, s *shelf) bool {
	if len(b.lanes) > fewLanes {
		lo, hi := kernel.MinMax(values)
		b.one.reset(s.count, Range{lo, hi})
		return false
	}
	if !b.one.fitQuickly(s.codes[group*s.n:][:s.n], values, s.count, s.steps) {
		return false
	}
	copy(s.levels[group*s.count:], b.one.levels)
	return true
}

// put sets the levels and middles of a lane.
func (b *books) put(i int) {
	for j, level := range b.one.levels {
		at := j*len(b.lanes) + i
		b.levels[at] = level
		if j < len(b.one.levels)-1 {
			b.middles[at] = b.one.middles[j]
		}
	}
}

// sort puts the levels of a lane in order, as [Lloyd.Step] does.
func (b *books) sort(i, count int) {
	b.one.levels = b.levelsOf(i, b.one.levels[:count])
	b.one.sort()
	b.put(i)
}

func (b *books) levelsOf(i int, levels []float32) []float32 {
	for j := range levels {
		levels[j] = b.levels[j*len(b.lanes)+i]
	}
	return levels
}

// finish stores what a lane came to.
func (b *books) finish(i int, s *shelf) {
	l := &b.lanes[i]
	var middles [kernel.BookLevels - 1]float32
	for j := range middles {
		middles[j] = b.middles[j*len(b.lanes)+i]
	}
	at := l.group * s.n
	kernel.BookCodes(s.codes[at:at+s.n], s.values[at:at+s.n], middles[:])
	b.levelsOf(i, s.levels[l.group*s.count:][:s.count])
}

// together reports whether the codebooks of a tile are fitted so: its groups
// lie whole in it, and are enough for the lanes to be worth it.
func (s *Scheme) together(t *Tile) bool {
	known := t.known != nil && t.known.books != nil
	lanes := kernel.BookGroups()
	return !known && lanes > 0 && s.steps > 0 && s.Inner == 1 && s.Levels <= kernel.BookLevels && t.Start%s.Group == 0 &&
		len(t.Values)%s.Group == 0 && 2*(len(t.Values)/s.Group) >= lanes
}

// lookTogether gives the values of a tile the codes of their groups' levels,
// and reports false where one is not finite.
func (s *Scheme) lookTogether(codes []uint16, values []float32, scratch *Scratch) bool {
	n := len(values) / s.Group
	lo, hi := sized(&scratch.lo, n), sized(&scratch.hi, n)
	kernel.Ranges(lo, hi, kernel.AsBytes(values), kernel.RawF32, s.Group)
	for i := range lo {
		if !(Range{lo[i], hi[i]}).finite() {
			return false
		}
	}
	levels := sized(&scratch.scales, n*s.Levels)
	scratch.scales = levels
	scratch.books.fit(shelf{values: values, codes: codes, levels: levels, n: s.Group, count: s.Levels, steps: s.steps})
	for i, v := range levels {
		levels[i] = s.round(v)
	}
	if !s.exact {
		clampCodes(codes, s.Dtype)
	}
	return true
}
