package quant

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// books fits the codebooks of many groups. Each comes out as [Lloyd.Fit] makes it.
// Those whose values are not worth to be ranked go several at once, each in a lane
// of vectors. As soon as one is done the next takes its lane: some need many times
// the steps of others.
type books struct {
	rows, levels, middles, sums []float32 // by lanes
	counts                      []uint32
	lanes                       []lane
	one                         Lloyd // for beginnings, and levels that changed places
	rest                        []int // groups that go into lanes
	sorted                      sorted
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
}

// group returns the codes and values of group i.
func (s *shelf) group(i int) (codes []uint16, values []float32) {
	return s.codes[i*s.n:][:s.n], s.values[i*s.n:][:s.n]
}

func (s *shelf) levelsOf(i int) []float32 { return s.levels[i*s.count:][:s.count] }

// fit gives all groups their codes and levels: by the order of values where that
// takes less time, else in lanes.
func (b *books) fit(s shelf) {
	b.rest = b.rest[:0]
	switch n := len(s.values) / s.n; {
	case kernel.CanRank(s.n) && s.count <= s.n:
		b.rest = b.sorted.fit(b.rest, &s)
	case kernel.BookGroups() <= fewLanes:
		for i := range n {
			b.fitQuickly(i, &s)
		}
	default:
		for i := range n {
			b.rest = append(b.rest, i)
		}
	}
	if worthLanes(len(b.rest)) {
		b.fitInLanes(&s)
		return
	}
	for _, i := range b.rest {
		codes, values := s.group(i)
		b.one.Fit(codes, values, s.count, s.steps)
		copy(s.levelsOf(i), b.one.levels)
	}
}

// worthLanes reports whether that many groups fill enough lanes.
func worthLanes(groups int) bool {
	lanes := kernel.BookGroups()
	return lanes > 0 && 2*groups >= lanes
}

// fewLanes are so few that ranking the values of groups takes less time.
const fewLanes = 8

// fitQuickly fits a group by itself if its values can be ranked, else leaves it.
func (b *books) fitQuickly(i int, s *shelf) {
	if codes, values := s.group(i); b.one.fitQuickly(codes, values, s.count, s.steps) {
		copy(s.levelsOf(i), b.one.levels)
	} else {
		b.rest = append(b.rest, i)
	}
}

// fitInLanes fits the groups that are left.
func (b *books) fitInLanes(s *shelf) {
	b.begin(s.n)
	busy := 0
	for i := range b.lanes {
		if b.next(i, s) {
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
			if b.finish(i, s); !b.next(i, s) {
				busy--
			}
		}
	}
}

func (b *books) begin(n int) {
	if count := kernel.BookGroups(); len(b.lanes) != count {
		*b = books{
			rest: b.rest, sorted: b.sorted,
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

// next takes the next group into a lane, if there is one.
func (b *books) next(i int, s *shelf) bool {
	l := &b.lanes[i]
	if len(b.rest) == 0 {
		l.group = -1
		return false
	}
	last := len(b.rest) - 1
	l.group, b.rest, l.steps = b.rest[last], b.rest[:last], s.steps
	_, values := s.group(l.group)
	for row, at := 0, i; row < len(values); row, at = row+1, at+len(b.lanes) {
		b.rows[at] = values[row]
	}
	b.one.begin(values, s.count)
	b.put(i)
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
	codes, values := s.group(l.group)
	kernel.BookCodes(codes, values, middles[:])
	b.levelsOf(i, s.levelsOf(l.group))
}

// together reports whether the codebooks of n values are fitted so: groups lie whole
// among them, and are enough for the lanes to be worth it.
func (s *Scheme) together(start, n int, k *known) bool {
	return k.books == nil && s.steps > 0 && s.Inner == 1 && s.Levels <= kernel.BookLevels && start%s.Group == 0 &&
		n%s.Group == 0 && worthLanes(n/s.Group)
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
