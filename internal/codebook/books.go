package codebook

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// Fitter fits the codebooks of many groups, each with the result of [Lloyd.Fit]. Groups
// that cannot be ranked are fitted several at a time, each in a lane of a vector
// register. As soon as one is done the next group takes its lane, because some need
// many times the steps of others.
type Fitter struct {
	rows, levels, middles, sums []float32 // by lanes
	counts                      []uint32
	lanes                       []lane
	one                         Lloyd // makes initial levels, and sorts levels that left their order
	rest                        []int // groups to be fitted in lanes
	sorted                      sorted
}

// lane is a group under way.
type lane struct {
	group int // -1 for none
	steps int // to go
}

// Batch is groups of n finite values to be fitted, each with levels up to
// [kernel.BookLevels].
type Batch struct {
	Values   []float32
	Codes    []uint16  // of the values
	Levels   []float32 // of the groups, one after the other
	N, Count int       // values and levels of a group
	Steps    int
}

// group returns the codes and values of group i.
func (s *Batch) group(i int) (codes []uint16, values []float32) {
	return s.Codes[i*s.N:][:s.N], s.Values[i*s.N:][:s.N]
}

func (s *Batch) levelsOf(i int) []float32 { return s.Levels[i*s.Count:][:s.Count] }

// Fit gives all groups their codes and levels: by ranking their values where that is
// faster, else in lanes.
func (b *Fitter) Fit(s Batch) {
	b.rest = b.rest[:0]
	switch n := len(s.Values) / s.N; {
	case kernel.CanRank(s.N) && s.Count <= s.N:
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
	if WorthLanes(len(b.rest)) {
		b.fitInLanes(&s)
		return
	}
	for _, i := range b.rest {
		codes, values := s.group(i)
		b.one.Fit(codes, values, s.Count, s.Steps)
		copy(s.levelsOf(i), b.one.levels)
	}
}

// WorthLanes reports whether that many groups fill enough lanes to be faster than one
// by one.
func WorthLanes(groups int) bool {
	lanes := kernel.BookGroups()
	return lanes > 0 && 2*groups >= lanes
}

// fewLanes is a number of lanes so small that ranking the values of groups is faster.
const fewLanes = 8

// fitQuickly fits a group by itself if its values can be ranked, else leaves it.
func (b *Fitter) fitQuickly(i int, s *Batch) {
	if codes, values := s.group(i); b.one.fitQuickly(codes, values, s.Count, s.Steps) {
		copy(s.levelsOf(i), b.one.levels)
	} else {
		b.rest = append(b.rest, i)
	}
}

// fitInLanes fits the groups that are left.
func (b *Fitter) fitInLanes(s *Batch) {
	b.begin(s.N)
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
		moved, unordered := kernel.BookMeans(b.levels, b.middles, b.sums, b.counts, s.N)
		for i := range b.lanes {
			l := &b.lanes[i]
			if l.group < 0 {
				continue
			}
			if unordered>>i&1 == 1 {
				b.sort(i, s.Count)
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

func (b *Fitter) begin(n int) {
	if count := kernel.BookGroups(); len(b.lanes) != count {
		*b = Fitter{
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
	b.rows = tile.Sized(&b.rows, n*len(b.lanes))
}

// next takes the next group into a lane, if there is one.
func (b *Fitter) next(i int, s *Batch) bool {
	l := &b.lanes[i]
	if len(b.rest) == 0 {
		l.group = -1
		return false
	}
	last := len(b.rest) - 1
	l.group, b.rest, l.steps = b.rest[last], b.rest[:last], s.Steps
	_, values := s.group(l.group)
	for row, at := 0, i; row < len(values); row, at = row+1, at+len(b.lanes) {
		b.rows[at] = values[row]
	}
	b.one.begin(values, s.Count)
	b.put(i)
	return true
}

// put sets the levels and middles of a lane.
func (b *Fitter) put(i int) {
	for j, level := range b.one.levels {
		at := j*len(b.lanes) + i
		b.levels[at] = level
		if j < len(b.one.levels)-1 {
			b.middles[at] = b.one.middles[j]
		}
	}
}

// sort puts the levels of a lane in order, as [Lloyd.Step] does.
func (b *Fitter) sort(i, count int) {
	b.one.levels = b.levelsOf(i, b.one.levels[:count])
	b.one.sort()
	b.put(i)
}

func (b *Fitter) levelsOf(i int, levels []float32) []float32 {
	for j := range levels {
		levels[j] = b.levels[j*len(b.lanes)+i]
	}
	return levels
}

// finish stores the result of a lane.
func (b *Fitter) finish(i int, s *Batch) {
	l := &b.lanes[i]
	var middles [kernel.BookLevels - 1]float32
	for j := range middles {
		middles[j] = b.middles[j*len(b.lanes)+i]
	}
	codes, values := s.group(l.group)
	kernel.BookCodes(codes, values, middles[:])
	b.levelsOf(i, s.levelsOf(l.group))
}
