//go:build (amd64 || arm64) && !purego

package kernel

import (
	"math"
	"math/bits"
	"sync"
)

// lanes rotates as many groups at a time as vectors have lanes. Row k has value k of
// each group. If a call has fewer groups left, groups of zeros fill the lanes.
type lanes struct {
	count        int
	interleave   func(dst, src *float32, stride, blocks int)
	deinterleave func(dst, src *float32, stride, blocks int, signs *uint32, factor float32)
	begin        beginning
	first        int // rows that begin multiplies, like the first stages
	products     func(x *float32, rows int, entry float32) (exact uint32)
	chainSums    chainFunc // adds up products, for an entry of 1
	chainFours   chainFunc
	chainTwos    chainFunc
	singles      stages[float32]
	once         wideSums
}

// chainFunc runs n steps of a chain.
type chainFunc func(sums, x *float32, steps *int32, n int, entry float32)

// beginning interleaves groups, does the first butterflies if it can, and returns a bit
// for each lane in which the sums of the chain are exact.
type beginning func(dst, src *float32, stride, blocks int, entry float32) (sums uint32)

// wideSums are the functions for sums in double precision. They take half of each row,
// or with begin and end, the whole row.
type wideSums struct {
	stages[float64]
	widen  func(dst *float64, src *float32, rows int)
	narrow func(dst *float32, src *float64, rows int, factor float64)
	begin  func(dst *float64, src *float32, stride, blocks int)
	end    func(dst *float32, src *float64, distance int, factor float64)
}

// rotateBlock is how many rows assembly adds up together.
const rotateBlock = 16

// fewGroups is the number of groups up to which rotating them one by one is faster.
const fewGroups = 2

// stages are the butterflies of one stage, and of two stages at a time or nil.
type stages[T float32 | float64] struct {
	pass4, pass16 func(x *T, sets, distance int)
}

// run does the stages of distances from at to end, in the order of the portable
// function.
func (s stages[T]) run(x []T, at, end, rows, width int) {
	for at < end {
		if s.pass16 != nil && 16*at <= end {
			s.pass16(&x[0], rows/(16*at), at*width)
			at *= 16
		} else {
			s.pass4(&x[0], rows/(4*at), at*width)
			at *= 4
		}
	}
}

// rotation holds the buffers of a call.
type rotation struct {
	*lanes
	n         int
	entry     float32
	rows      []float32   // [n, count]
	sums      []float32   // [n + rotateBlock, count]: sums of chains, then zeros
	doubles   []float64   // [n, count], or [n, count/2]
	padded    []float32   // [count, n], for a call's last groups if they are fewer
	pending   []float32   // [count, n], groups that need the chain
	places    [][]float32 // destinations of the pending groups
	unchanged []uint32    // signs of blocks, none of which is turned
}

var rotations = sync.Pool{New: func() any { return new(rotation) }}

func (l *lanes) rotation(n int, entry float32) *rotation {
	r := rotations.Get().(*rotation)
	r.lanes, r.n, r.entry = l, n, entry
	fit(&r.rows, n*l.count)
	fit(&r.padded, n*l.count)
	fit(&r.unchanged, n/rotateBlock)
	return r
}

func fit[T any](s *[]T, n int) {
	if cap(*s) < n {
		*s = make([]T, n)
	}
	*s = (*s)[:n]
}

// batches calls do with as many groups as there are lanes, and few with what is left if
// that is little.
func (r *rotation) batches(x []float32, do func(x []float32), few func(x []float32, n int, entry float32)) {
	size := r.n * r.count
	for ; len(x) >= size; x = x[size:] {
		do(x[:size])
	}
	switch {
	case len(x) == 0:
	case len(x) <= fewGroups*r.n:
		few(x, r.n, r.entry)
	default:
		clear(r.padded[copy(r.padded, x):])
		do(r.padded)
		copy(x, r.padded)
	}
}

func (r *rotation) take(x []float32) {
	r.interleave(&r.rows[0], &x[0], 4*r.n, r.n/rotateBlock)
}

func (r *rotation) put(x, rows []float32, signs []uint32, factor float32) {
	r.deinterleave(&x[0], &rows[0], 4*r.n, r.n/rotateBlock, &signs[0], factor)
}

func (l *lanes) rotateOnce(x []float32, n int, entry float32) {
	if n < rotateBlock || n&0x55555555 == 0 {
		rotateOnce(x, n, entry)
		return
	}
	r := l.rotation(n, entry)
	if l.once.begin != nil {
		fit(&r.doubles, n*l.count)
		r.batches(x, r.onceWhole, rotateOnce)
	} else {
		fit(&r.doubles, n*l.count/2)
		r.batches(x, r.onceHalves, rotateOnce)
	}
	rotations.Put(r)
}

func (r *rotation) onceHalves(x []float32) {
	r.take(x)
	for half := range 2 {
		part := &r.rows[half*r.count/2]
		r.once.widen(&r.doubles[0], part, r.n)
		r.once.run(r.doubles, 1, r.n, r.n, 4*r.count)
		r.once.narrow(part, &r.doubles[0], r.n, float64(r.entry))
	}
	r.put(x, r.rows, r.unchanged, 1)
}

func (r *rotation) onceWhole(x []float32) {
	r.once.begin(&r.doubles[0], &x[0], 4*r.n, r.n/rotateBlock)
	factor, width := float64(r.entry), 8*r.count
	if at := r.n / 16; at >= 16 {
		r.once.run(r.doubles, 16, at, r.n, width)
		r.once.end(&r.rows[0], &r.doubles[0], at*width, factor)
	} else {
		r.once.run(r.doubles, 16, r.n, r.n, width)
		r.once.narrow(&r.rows[0], &r.doubles[0], r.n, factor)
	}
	r.put(x, r.rows, r.unchanged, 1)
}

// most is the size of the largest groups whose sums can be proved exact, see
// beginSingles of the generator.
const most = 1 << 14

// rotate chooses as the portable function does: sums that are exact if the size is a
// power of 4, otherwise the definition, fused steps.
func (l *lanes) rotate(x []float32, n int, entry float32) {
	fours := n&0x55555555 != 0
	if mantissa, _ := math.Frexp(float64(entry)); n < rotateBlock || fours && (mantissa != 0.5 || entry > 1 || n > most) {
		rotate(x, n, entry)
		return
	}
	r := l.rotation(n, entry)
	fit(&r.sums, (n+rotateBlock)*l.count)
	if fours {
		fit(&r.pending, n*l.count)
		r.places = r.places[:0]
		r.batches(x, r.fours, rotate)
		r.flush()
	} else {
		r.batches(x, r.twos, rotate)
	}
	rotations.Put(r)
}

// inexact is rotate for groups whose sums are usually not exact.
func (l *lanes) inexact(x []float32, n int, entry float32) {
	r := l.rotation(n, entry)
	fit(&r.sums, (n+rotateBlock)*l.count)
	r.batches(x, r.addUp, rotate)
	rotations.Put(r)
}

func (r *rotation) twos(x []float32) {
	r.take(x)
	r.chain(x, r.chainTwos, r.entry)
}

// fours rotates groups, and sets those aside whose sums are not exact.
func (r *rotation) fours(x []float32) {
	inexact := ^r.start(x) & r.all()
	if inexact == r.all() || inexact != 0 && &x[0] == &r.padded[0] { // padded is reused, so such groups cannot be set aside
		r.addUp(x)
		return
	}
	if len(r.places)+bits.OnesCount32(inexact) > r.count {
		r.flush()
		r.start(x)
	}
	for ; inexact != 0; inexact &= inexact - 1 {
		at := bits.TrailingZeros32(inexact) * r.n
		copy(r.pending[len(r.places)*r.n:], x[at:at+r.n])
		r.places = append(r.places, x[at:at+r.n])
	}
	r.singles.run(r.rows, r.first, r.n, r.n, 4*r.count)
	r.put(x, r.rows, r.unchanged, r.entry)
}

// start interleaves groups and returns a bit for each whose sums are exact.
func (r *rotation) start(x []float32) (sums uint32) {
	return r.begin(&r.rows[0], &x[0], 4*r.n, r.n/rotateBlock, r.entry)
}

// all returns a bit for every lane.
func (r *rotation) all() uint32 { return 1<<r.count - 1 }

// flush rotates the groups that were set aside.
func (r *rotation) flush() {
	if len(r.places) == 0 {
		return
	}
	clear(r.pending[len(r.places)*r.n:])
	r.addUp(r.pending)
	for i, place := range r.places {
		copy(place, r.pending[i*r.n:])
	}
	r.places = r.places[:0]
}

// addUp adds products in order if all products are exact, and else runs fused steps.
func (r *rotation) addUp(x []float32) {
	r.take(x)
	if r.products(&r.rows[0], r.n, r.entry) != r.all() {
		r.take(x)
		r.chain(x, r.chainFours, r.entry)
		return
	}
	r.chain(x, r.chainSums, 1)
}

// chain adds up blocks of rows in order and writes the results to x.
func (r *rotation) chain(x []float32, add chainFunc, entry float32) {
	order := chainOf(r.n)
	clear(r.sums[r.n*r.count:])
	add(&r.sums[0], &r.rows[0], &order.steps[0].dst, len(order.steps), entry)
	r.put(x, r.sums, order.signs, 1)
}

// chainSteps are the order in which blocks of rows are added to blocks of sums.
type chainSteps struct {
	steps []chainStep
	signs []uint32 // signs by which the blocks of sums differ from the results
}

// chainStep sets block dst of the sums to block src plus the matrix's block times block
// row of the rows. Sums that the next step continues with are neither stored nor
// loaded.
type chainStep struct {
	dst, src, row int32
	sign          uint32 // sign of the matrix's block
	load, store   uint32 // 1 or 0
}

var chains sync.Map // by size

func chainOf(n int) *chainSteps {
	if c, ok := chains.Load(n); ok {
		return c.(*chainSteps)
	}
	c, _ := chains.LoadOrStore(n, newChain(n))
	return c.(*chainSteps)
}

// newChain computes only once what several blocks of results begin with, up to the
// sign, which rounding respects. That saves a third of the steps.
func newChain(n int) *chainSteps {
	blocks := n / rotateBlock
	minus := func(row, j int) bool { return bits.OnesCount(uint(row&j))&1 == 1 }
	if n&0x55555555 != 0 {
		minus = func(row, j int) bool { return minusFours(row ^ j) }
	}
	c := &chainSteps{signs: make([]uint32, blocks)}
	with := make([]int, blocks) // for each block, the least block with the same sums so far
	turned := make([]bool, blocks)
	for j := range turned {
		turned[j] = minus(0, j)
		c.signs[j] = signOf(turned[j])
	}
	sign := func(row, j int) bool { return minus(row, j) != turned[j] }
	c.run(0, blocks, 0, 1, sign) // begins with the block of zeros
	for row := 1; row < blocks; {
		fresh := part(with, func(j int) bool { return sign(row, j) })
		end := row + 1
		for end < blocks && !parts(with, func(j int) bool { return sign(end, j) }) {
			end++
		}
		for j, src := range fresh { // before the block from which they part continues
			if src >= 0 {
				c.run(j, src, row, end, sign)
			}
		}
		for j, first := range with {
			if first == j && fresh[j] < 0 {
				c.run(j, j, row, end, sign)
			}
		}
		row = end
	}
	return c
}

// run adds the rows from row to end to one block of sums.
func (c *chainSteps) run(dst, src, row, end int, minus func(row, j int) bool) {
	for i := row; i < end; i++ {
		step := chainStep{dst: int32(dst), src: int32(dst), row: int32(i), sign: signOf(minus(i, dst))}
		if i == row {
			step.src, step.load = int32(src), 1
		}
		if i == end-1 {
			step.store = 1
		}
		c.steps = append(c.steps, step)
	}
}

// parts reports whether any blocks whose sums were the same so far now differ.
func parts(with []int, minus func(j int) bool) bool {
	for j, first := range with {
		if minus(j) != minus(first) {
			return true
		}
	}
	return false
}

// part updates with for a further row. For each block it returns the block from which
// it parts, or -1.
func part(with []int, minus func(j int) bool) []int {
	apart := map[int]int{} // the least block that parts from each block
	from := make([]int, len(with))
	for j, first := range with {
		from[j] = -1
		if minus(j) == minus(first) {
			continue
		}
		if _, ok := apart[first]; !ok {
			apart[first], from[j] = j, first
		}
		with[j] = apart[first]
	}
	return from
}

func signOf(minus bool) uint32 {
	if minus {
		return 1 << 31
	}
	return 0
}
