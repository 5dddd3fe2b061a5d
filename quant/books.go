package quant

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// books fits the codebooks of several groups at once, one in each lane of
// vectors. Each comes out as [Lloyd.Fit] makes it.
type books struct {
	middles, sums []float32 // by lanes
	counts        []uint32
	seen          []cell  // what levels were moved by
	lloyds        []Lloyd // of the lanes
	moving        []bool
	buffer        []float32
}

// fit gives as many groups of n values as kernels take their codes. Ranges are
// finite, levels up to [kernel.BookLevels].
func (b *books) fit(codes []uint16, values []float32, n, levels, steps int) {
	rows := b.begin(values, n, levels)
	for range steps {
		clear(b.sums)
		clear(b.counts[:len(b.middles)])
		kernel.BookSums(b.sums, b.counts, rows, b.middles)
		if !b.step(n) {
			break
		}
	}
	var middles [kernel.BookLevels - 1]float32
	for lane := range b.lloyds {
		for j := range middles {
			middles[j] = b.middles[j*len(b.lloyds)+lane]
		}
		kernel.BookCodes(codes[lane*n:(lane+1)*n], values[lane*n:(lane+1)*n], middles[:])
	}
}

// begin returns the rows of the groups.
func (b *books) begin(values []float32, n, levels int) []float32 {
	lanes := len(values) / n
	if len(b.lloyds) != lanes {
		*b = books{
			middles: make([]float32, (kernel.BookLevels-1)*lanes), sums: make([]float32, kernel.BookLevels*lanes),
			counts: make([]uint32, kernel.BookLevels*lanes), seen: make([]cell, kernel.BookLevels*lanes), lloyds: make([]Lloyd, lanes), moving: make([]bool, lanes),
		}
	}
	clear(b.seen)
	for i := range lanes {
		b.counts[len(b.middles)+i] = 1
	}
	for i := range b.middles {
		b.middles[i] = float32(math.Inf(1))
	}
	for lane := range b.lloyds {
		lo, hi := kernel.MinMax(values[lane*n : (lane+1)*n])
		b.lloyds[lane].reset(levels, Range{lo, hi})
		b.moving[lane] = true
		b.putMiddles(lane)
	}
	rows := sized(&b.buffer, len(values))
	kernel.BookRows(rows, values, n)
	return rows
}

// step moves the levels of the lanes in which any moves still.
func (b *books) step(n int) (moved bool) {
	for lane := range b.lloyds {
		if !b.moving[lane] {
			continue
		}
		b.feed(lane, n)
		b.moving[lane] = b.lloyds[lane].Step()
		moved = moved || b.moving[lane]
		if b.lloyds[lane].turned {
			b.forget(lane)
		}
		b.putMiddles(lane)
	}
	return moved
}

// feed takes over what a lane was fed, but for levels whose mean is the last
// step's: they are there.
func (b *books) feed(lane, n int) {
	l, lanes := &b.lloyds[lane], len(b.lloyds)
	from := uint32(n) // values that are not below the level
	for j := range l.levels {
		above := uint32(0)
		if j < len(l.levels)-1 {
			above = b.counts[j*lanes+lane]
		}
		c := cell{b.sums[j*lanes+lane], from - above}
		if old := &b.seen[j*lanes+lane]; c.count > 0 && c != *old {
			*old, l.cells[j] = c, c
			l.fed = append(l.fed, int32(j))
		}
		from = above
	}
}

// forget makes the next step look at every level.
func (b *books) forget(lane int) {
	for i := lane; i < len(b.seen); i += len(b.lloyds) {
		b.seen[i] = cell{}
	}
}

func (b *books) putMiddles(lane int) {
	l := &b.lloyds[lane]
	for j, m := range l.middles[:len(l.middles)-1] {
		b.middles[j*len(b.lloyds)+lane] = m
	}
}

// together returns the number of units that are fitted at once, 0 for none:
// those of a tile whose groups lie whole in it.
func (s *Scheme) together(t *Tile) int {
	known := t.known != nil && t.known.books != nil
	if known || s.Inner != 1 || s.Levels > kernel.BookLevels || s.Group%16 != 0 || t.Start%s.Group != 0 {
		return 0
	}
	return kernel.BookGroups()
}

// lookUnits gives the values of units that lie together the codes of their
// groups' levels, and reports false where one is not finite.
func (s *Scheme) lookUnits(codes []uint16, values []float32, scratch *Scratch) bool {
	n := len(values) / s.Group
	lo, hi := sized(&scratch.lo, n), sized(&scratch.hi, n)
	kernel.Ranges(lo, hi, kernel.AsBytes(values), kernel.RawF32, s.Group)
	for i := range lo {
		if !(Range{lo[i], hi[i]}).finite() {
			return false
		}
	}
	b := &scratch.books
	b.fit(codes, values, s.Group, s.Levels, s.steps)
	if !s.exact {
		clampCodes(codes, s.Dtype)
	}
	for lane := range b.lloyds {
		for _, v := range b.lloyds[lane].levels {
			scratch.scales = append(scratch.scales, s.round(v))
		}
	}
	return true
}
