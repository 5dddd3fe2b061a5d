package codebook

import (
	"math"
	"sort"

	"github.com/tensorpress/tensorpress/internal/tile"
)

// ranked is the values of a group in ascending order, with their prefix sums. The
// values of a level are contiguous in it, so that their sum is the difference of two
// prefix sums and a step need not look at every value. That is the sum that float32
// addition gives in any order, provided it never rounds, which holds for almost all
// levels of values with few significant bits; bound finds out for which.
type ranked struct {
	values []float32 // as they were
	digits int       // most significant bits that any value has
	keys   []uint32  // sort keys: the order in the high bits, the place in the group in the low ones
	spare  []uint32
	sorted []float32 // ascending, with an infinity at either end
	sums   []float64 // prefix sums of sorted, exact
	ends   []int     // where the cells of levels end in sorted

	negative, zeros int // number of values below zero, and up to zero
	below, from     int // cells before below, and those from from on, have the same sum in any order
	around          int // the first cell that ended above the one, in the last step

	near       []float32 // values around zero, in the order of the group
	first, end int       // their places when sorted

	counted [2][256]uint16
}

const (
	digitsBF16 = 8
	digitsF16  = 11
	mostRanked = 1 << 16              // places in a key
	mostSummed = 0x1p126 / mostRanked // so that sums stay finite
)

// rank sorts a group with that range. It reports false if ranking would not help.
func (r *ranked) rank(values []float32, lo, hi float32) bool {
	n, most := len(values), max(-lo, hi)
	if n > mostRanked || !(most < mostSummed) {
		return false
	}
	if r.digits = significant(values); r.digits == 0 {
		return false
	}
	r.values, r.keys, r.spare = values, tile.Sized(&r.keys, n), tile.Sized(&r.spare, n)
	if r.digits == digitsBF16 {
		r.takeBF16()
	} else if !r.takeF16(most) {
		return false
	}
	r.order()
	r.add()
	return r.bound()
}

// significant returns the number of significant bits that suffice for all values: 8 if
// they are BF16, 11 if F16, 0 if they need more.
func significant(values []float32) int {
	all := uint32(0)
	for i, v := range values {
		if all |= math.Float32bits(v); i&15 == 15 && all<<19 != 0 {
			return 0
		}
	}
	switch {
	case all<<16 == 0:
		return digitsBF16
	case all<<19 == 0:
		return digitsF16
	}
	return 0
}

// takeBF16 makes keys: 16 bits that ascend as the values do, and their places.
func (r *ranked) takeBF16() {
	keys := r.keys
	for i, v := range r.values[:len(keys)] {
		bits := math.Float32bits(v)
		keys[i] = (bits^(uint32(int32(bits)>>31)|1<<31))&^0xFFFF | uint32(i)
	}
}

// takeF16 makes them for values of half precision, which has as many: if none but
// zero is more than 30 binary places below the greatest.
func (r *ranked) takeF16(most float32) bool {
	keys, base := r.keys, uint32(0)
	if e := math.Float32bits(most) >> 23; e > 31 {
		base = (e - 31) << 10
	}
	for i, v := range r.values[:len(keys)] {
		bits := math.Float32bits(v)
		size := bits << 1 >> 14
		if size <= base {
			if size != 0 {
				return false
			}
			size = base
		}
		key := (size-base)<<16 | 1<<31
		keys[i] = (key^uint32(int32(bits)>>31))&^0xFFFF | uint32(i)
	}
	return true
}

// order sorts keys, by eight bits at a time.
func (r *ranked) order() {
	low, high := &r.counted[0], &r.counted[1]
	*low, *high = [256]uint16{}, [256]uint16{}
	keys, spare := r.keys, r.spare[:len(r.keys)]
	for _, key := range keys {
		low[uint8(key>>16)]++
		high[uint8(key>>24)]++
	}
	begins(low)
	begins(high)
	for _, key := range keys {
		d := uint8(key >> 16)
		at := low[d]
		low[d] = at + 1
		spare[at] = key
	}
	for _, key := range spare {
		d := uint8(key >> 24)
		at := high[d]
		high[d] = at + 1
		keys[at] = key
	}
}

// begins turns counts into the places at which each key begins.
func begins(counted *[256]uint16) {
	sum := uint16(0)
	for i, n := range counted {
		counted[i] = sum
		sum += n
	}
}

// add sorts the values by their keys, and sums them up.
func (r *ranked) add() {
	n := len(r.keys)
	r.sorted, r.sums = tile.Sized(&r.sorted, n+2), tile.Sized(&r.sums, n+1)
	r.sorted[0], r.sorted[n+1], r.sums[0] = float32(math.Inf(-1)), float32(math.Inf(1)), 0
	keys, values := r.keys, r.values
	x, sums, sum := r.sorted[1:][:len(keys)], r.sums[1:][:len(keys)], 0.0
	for ; len(keys) >= 4 && len(x) >= 4 && len(sums) >= 4; keys, x, sums = keys[4:], x[4:], sums[4:] {
		x[0], x[1], x[2], x[3] = values[keys[0]&0xFFFF], values[keys[1]&0xFFFF], values[keys[2]&0xFFFF], values[keys[3]&0xFFFF]
		a, b, c, d := float64(x[0]), float64(x[1]), float64(x[2]), float64(x[3])
		sums[0], sums[1], sums[2] = sum+a, sum+(a+b), sum+(a+b)+c
		sum += a + b + (c + d) // exact, so that the next need not wait for each
		sums[3] = sum
	}
	for i, key := range keys {
		v := values[key&0xFFFF]
		sum += float64(v)
		x[i], sums[i] = v, sum
	}
}

// bound finds the cells whose sums do not depend on the order of addition: all their
// partial sums are multiples of the last place of the smallest value, and too small to
// be rounded. It reports false if the prefix sums themselves may have been rounded.
func (r *ranked) bound() bool {
	n, x := len(r.values), r.sorted[1:]
	r.negative = sort.Search(n, func(i int) bool { return x[i] >= 0 })
	r.zeros = r.negative
	for x[r.zeros] == 0 {
		r.zeros++
	}
	r.from, r.below = r.zeros, r.negative
	for r.from < n && !r.exact(r.from, n) {
		r.from++
	}
	for r.below > 0 && !r.exact(0, r.below) {
		r.below--
	}
	r.around, r.first, r.end = 0, 0, 0
	total, least := r.size(0, n)
	return total <= reach(least, r.digits)*(1<<(52-24))
}

// exactLimit is the largest prefix sum at both ends of a cell for which the cell's own
// sum is provably exact, whatever values around zero the cell has.
func (r *ranked) exactLimit() float64 {
	_, least := r.size(0, len(r.values))
	return 2*r.sums[r.negative] + reach(least, r.digits)
}

// exact reports whether float32 addition of sorted values [a, b) never rounds, in
// whatever order.
func (r *ranked) exact(a, b int) bool {
	total, least := r.size(a, b)
	return total <= reach(least, r.digits)
}

// size returns the sum of the magnitudes of sorted values [a, b), and the least
// magnitude that is not zero.
func (r *ranked) size(a, b int) (total float64, least float32) {
	least = r.sorted[len(r.sorted)-1]
	if end := min(b, r.negative); a < end {
		total = r.sums[a] - r.sums[end]
		least = -r.sorted[end]
	}
	if begin := max(a, r.zeros); begin < b {
		total += r.sums[b] - r.sums[begin]
		least = min(least, r.sorted[begin+1])
	}
	return total, least
}

// reach is 2^24 units in the last place of a value with that many digits.
func reach(v float32, digits int) float64 {
	e := max(int(math.Float32bits(v)>>23&0xFF), 1) - 127
	return math.Float64frombits(uint64(e+1-digits+24+1023) << 52)
}

// fitRanked is [Lloyd.Fit] for values that have been ranked.
func (l *Lloyd) fitRanked(codes []uint16, steps int) {
	r, middles := &l.ranked, l.middles[:len(l.levels)-1]
	r.find(middles)
	for range steps {
		if l.means(); !r.follow(middles) {
			break // nor will any level move
		}
	}
	r.spread(codes)
}

// find sets the ends of cells for the first time.
func (r *ranked) find(middles []float32) {
	r.ends = tile.Sized(&r.ends, len(middles)+1)
	p := 0
	for j, m := range middles {
		for r.sorted[p+1] <= m {
			p++
		}
		r.ends[j] = p
	}
	r.ends[len(middles)] = len(r.keys)
}

// follow moves the ends of cells to the middles of levels, where most of them are
// already, and reports whether any moved.
func (r *ranked) follow(middles []float32) bool {
	moved := false
	ends, sorted := r.ends[:len(middles)], r.sorted
	for j, m := range middles {
		p := ends[j]
		if sorted[p] <= m && m < sorted[p+1] {
			continue
		}
		for sorted[p+1] <= m {
			p++
		}
		for sorted[p] > m {
			p--
		}
		ends[j], moved = p, true
	}
	return moved
}

// spread gives every value the code of its cell.
func (r *ranked) spread(codes []uint16) {
	a := 0
	for j, b := range r.ends {
		for _, key := range r.keys[a:b] {
			codes[key&0xFFFF] = uint16(j)
		}
		a = b
	}
}

// means moves levels to the means of their cells, and sets the middles between them.
func (l *Lloyd) means() {
	r, levels := &l.ranked, l.levels[:len(l.ranked.ends)]
	a, begin := 0, 0.0
	for j, b := range r.ends {
		end := r.sums[b]
		if a < b {
			levels[j] = float32(end-begin) / float32(b-a)
		}
		a, begin = b, end
	}
	l.meansAround()
	ordered, before, middles := true, levels[0], l.middles[:len(levels)-1]
	for j, level := range levels[1:] {
		ordered = ordered && before <= level
		middles[j] = float32(level+before) * 0.5
		before = level
	}
	if !ordered {
		l.sort()
	}
}

// meansAround is means for the cells around zero, whose sums depend on the order.
func (l *Lloyd) meansAround() {
	r := &l.ranked
	j := r.around
	for j > 0 && r.ends[j-1] > r.below {
		j--
	}
	for j < len(r.ends)-1 && r.ends[j] <= r.below {
		j++
	}
	r.around = j
	for a := r.begin(j); j < len(r.ends) && a < r.from; j++ {
		b := r.ends[j]
		if a < b && !r.exact(a, b) {
			l.levels[j] = r.sumInOrder(a, b) / float32(b-a)
		}
		a = b
	}
}

// begin returns where cell j begins in sorted.
func (r *ranked) begin(j int) int {
	if j == 0 {
		return 0
	}
	return r.ends[j-1]
}

// sumInOrder adds up sorted values [a, b) in float32, in the order in which they stand
// in the group.
func (r *ranked) sumInOrder(a, b int) float32 {
	const margin = 16 // for steps to come
	if a < r.first || b > r.end {
		r.first, r.end = max(a-margin, 0), min(b+margin, len(r.values))
		r.near = inRange(&r.near, r.values, r.sorted[r.first+1], r.sorted[r.end])
	}
	in, sum := spanOf(r.sorted[a+1], r.sorted[b]), float32(0)
	for _, v := range r.near {
		sum += math.Float32frombits(math.Float32bits(v) & uint32(-in.has(v))) // or zero, which changes nothing
	}
	return sum
}

// inRange sets dst to those of values that lie between lo and hi.
func inRange(dst *[]float32, values []float32, lo, hi float32) []float32 {
	in, near, n := spanOf(lo, hi), tile.Sized(dst, len(values)), 0
	for _, v := range values {
		near[n] = v
		n += in.has(v)
	}
	return near[:n]
}

// span tests whether a value lies between two others without a branch, because which
// values of a group do cannot be predicted.
type span struct {
	from int32
	size uint32
}

func spanOf(lo, hi float32) span {
	from := ascending(lo)
	return span{from, uint32(ascending(hi) - from)}
}

// has returns 1 for a value in the span, else 0.
func (s span) has(v float32) int {
	return int(uint64(int64(uint32(ascending(v)-s.from))-int64(s.size)-1) >> 63)
}

// ascending returns whole numbers that ascend as values do.
func ascending(v float32) int32 {
	bits := int32(math.Float32bits(v))
	return bits ^ int32(uint32(bits>>31)>>1)
}
