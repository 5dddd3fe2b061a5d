//go:build (amd64 || arm64) && !purego

package kernel

import (
	"math"
	"math/bits"
	"sync"
)

// lanes rotates as many groups at a time as vectors have lanes; value k of all
// of them is a row. The rest of a call goes along with groups of zeros.
type lanes struct {
	count        int
	interleave   func(dst, src *float32, stride, blocks int)
	deinterleave func(dst, src *float32, stride, blocks int, signs *uint32, factor float32)
	begin        beginning
	first        int // rows that it multiplied, as the first stages would
	products     func(x *float32, rows int, entry float32) (exact uint32)
	chainSums    chainFunc // of products, for an entry of 1
	chainFours   chainFunc
	chainTwos    chainFunc
	singles      stages[float32]
	once         wideSums
}

// chainFunc goes through steps.
type chainFunc func(sums, x *float32, steps *int32, n int, entry float32)

// beginning is interleave that goes on with butterflies where it can, and tells
// the lanes in which sums of the chain are exact.
type beginning func(dst, src *float32, stride, blocks int, entry float32) (sums uint32)

// wideSums are the functions for sums in double precision: of half of each row,
// or with begin and end, of all of it.
type wideSums struct {
	stages[float64]
	widen  func(dst *float64, src *float32, rows int)
	narrow func(dst *float32, src *float64, rows int, factor float64)
	begin  func(dst *float64, src *float32, stride, blocks int)
	end    func(dst *float32, src *float64, distance int, factor float64)
}

// rotateBlock is the rows that assembly adds up together.
const rotateBlock = 16

// fewGroups are done faster one by one.
const fewGroups = 2

// stages are those of butterflies: one, and two at a time, or nil.
type stages[T float32 | float64] struct {
	pass4, pass16 func(x *T, sets, distance int)
}

// run does those of distances from at to end, in the order of the portable
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

// rotation is what one call works with.
type rotation struct {
	*lanes
	n         int
	entry     float32
	rows      []float32   // [n, count]
	sums      []float32   // [n + rotateBlock, count], of chains, and zeros
	doubles   []float64   // [n, count], or half of it
	padded    []float32   // [count, n], where there are fewer groups
	pending   []float32   // [count, n], groups that need the chain
	places    [][]float32 // where they go
	unchanged []uint32    // signs of blocks
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

// batches calls do for groups that fit the lanes, and few for others.
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

// most is the size of the largest groups whose sums are proved exact, see
// beginSingles of the generator.
const most = 1 << 14

// rotate goes the ways of the portable function: that of exact sums where the
// size is a power of 4, else the definition, fused steps.
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

// inexact is rotate for groups whose sums are not exact, as a rule.
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

// fours sets groups aside whose sums are not exact.
func (r *rotation) fours(x []float32) {
	inexact := ^r.start(x) & r.all()
	if inexact == r.all() || inexact != 0 && &x[0] == &r.padded[0] { // which does not stay
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

// start begins with groups, and tells those whose sums are exact.
func (r *rotation) start(x []float32) (sums uint32) {
	return r.begin(&r.rows[0], &x[0], 4*r.n, r.n/rotateBlock, r.entry)
}

// all has a bit for every lane.
func (r *rotation) all() uint32 { return 1<<r.count - 1 }

// flush does what was set aside.
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

// addUp adds products in order where all are exact, and fuses steps where not.
func (r *rotation) addUp(x []float32) {
	r.take(x)
	if r.products(&r.rows[0], r.n, r.entry) != r.all() {
		r.take(x)
		r.chain(x, r.chainFours, r.entry)
		return
	}
	r.chain(x, r.chainSums, 1)
}

// chain adds up blocks of the rows in order, and writes the results to x.
func (r *rotation) chain(x []float32, add chainFunc, entry float32) {
	order := chainOf(r.n)
	clear(r.sums[r.n*r.count:])
	add(&r.sums[0], &r.rows[0], &order.steps[0].dst, len(order.steps), entry)
	r.put(x, r.sums, order.signs, 1)
}

// chainSteps are the order in which blocks of rows are added to blocks of sums.
type chainSteps struct {
	steps []chainStep
	signs []uint32 // by which the blocks of sums differ from the results
}

// chainStep sets block dst of the sums to block src and block row of the rows,
// times the matrix's block. The sums of one step that the next one takes need
// neither be stored nor loaded.
type chainStep struct {
	dst, src, row int32
	sign          uint32 // of the matrix's block
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

// newChain adds once what several blocks of results begin with, or begin with
// but for the sign, which rounding respects: that saves a third of the steps.
func newChain(n int) *chainSteps {
	blocks := n / rotateBlock
	minus := func(row, j int) bool { return bits.OnesCount(uint(row&j))&1 == 1 }
	if n&0x55555555 != 0 {
		minus = func(row, j int) bool { return minusFours(row ^ j) }
	}
	c := &chainSteps{signs: make([]uint32, blocks)}
	with := make([]int, blocks) // the least block whose sums are the same so far
	turned := make([]bool, blocks)
	for j := range turned {
		turned[j] = minus(0, j)
		c.signs[j] = signOf(turned[j])
	}
	sign := func(row, j int) bool { return minus(row, j) != turned[j] }
	c.run(0, blocks, 0, 1, sign) // zeros
	for row := 1; row < blocks; {
		fresh := part(with, func(j int) bool { return sign(row, j) })
		end := row + 1
		for end < blocks && !parts(with, func(j int) bool { return sign(end, j) }) {
			end++
		}
		for j, src := range fresh { // before what they part from goes on
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

// run adds some rows to one block of sums.
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

// parts reports whether blocks whose sums are the same so far part.
func parts(with []int, minus func(j int) bool) bool {
	for j, first := range with {
		if minus(j) != minus(first) {
			return true
		}
	}
	return false
}

// part sets the least block whose sums are the same with a further row, and
// returns what a block parts from, or -1.
func part(with []int, minus func(j int) bool) []int {
	apart := map[int]int{} // the least block of those that part, by what they part from
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
