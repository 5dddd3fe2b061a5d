package quant

import (
	"fmt"
	"math"
	"sync"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/linalg"
	"github.com/tensorpress/tensorpress/safetensors"
)

// LowRank finds the low-rank part of a weight W that is read several times in
// tiles of whole rows: W = up·down + rest, where down is [Rank, Columns], up
// [Rows, Rank], and the rest is near the least there is. The factors are the
// same bits for any number of goroutines, any window and any machine.
//
// For every pass from 0 to Passes, give each of the Tiles to [LowRank.Add], in
// this order or from goroutines that start in it. Then [LowRank.Factors] splits
// tiles of any number of rows.
//
// Memory, in values of eight bytes: 2·Columns·width·Passes for the space, for a
// moment at the end half as much again, and Columns·width for every tile of the
// window. The width is 16 up to rank 32 and half the rank beyond. Where all of
// the Gram matrix is taken (up to 512 columns, or too few for that space) it is
// 3·Columns² and Columns² for every tile of the window.
type LowRank struct {
	Rows, Columns int
	Rank          int // at most Rows and Columns
	passes        int
	width         int // columns of a product
	window        int

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when next moves
	next    int           // the tile to be added next, counted over all passes
	slots   []partial
	sum     []float64
	space   space
	err     error

	finish sync.Once
	rows   []float64
}

// partial is the product of one tile.
type partial struct {
	y     []float64
	scale []float64 // powers of two that its columns are to be multiplied by
	ready bool
}

// NewLowRank plans the rank-r part of a weight of that shape. The window is how
// many tiles may be under way: at least the number of goroutines, better a few
// more.
func NewLowRank(rows, columns, rank, window int) (*LowRank, error) {
	return NewLowRankSteps(rows, columns, rank, SVDSteps, window)
}

// NewLowRankSteps is [NewLowRank] with another number of steps: fewer read the
// weight less often and leave a little more. Where the Gram matrix is taken
// they make no difference. Beyond 16 they are as 16.
func NewLowRankSteps(rows, columns, rank, steps, window int) (*LowRank, error) {
	if rows < 1 || columns < 1 || rows > math.MaxInt/columns/8 {
		return nil, fmt.Errorf("shape [%d, %d] is empty or too large", rows, columns)
	}
	if rank < 1 || window < 1 {
		return nil, fmt.Errorf("rank %d, window %d: want 1 or more", rank, window)
	}
	if steps < 0 {
		return nil, fmt.Errorf("%d steps: want 0 or more", steps)
	}
	l := &LowRank{Rows: rows, Columns: columns, Rank: min(rank, rows, columns), changed: make(chan struct{})}
	l.width, l.passes = blocks(l.Rank, steps)
	if columns <= gramColumns || l.width*l.passes > columns {
		l.width, l.passes = columns, 1
		l.space = &gram{columns: columns}
	} else {
		l.space = newKrylov(columns, l.width, l.passes)
	}
	l.window = min(window, l.Tiles())
	l.slots = make([]partial, l.window)
	return l, nil
}

// gramColumns is the greatest width at which all of WᵀW is taken.
const gramColumns = 512

// SVDSteps is the number of iterations of SDNQ's search for a low-rank part.
const SVDSteps = 8

// mostSteps bounds the space: what more of them bring is lost in rounding.
const mostSteps = 16

// blocks returns the width and number of Krylov blocks for a rank and a number
// of steps. For every number of steps they leave at most what as many
// iterations of SDNQ's search leave; see docs/lowrank.md.
func blocks(rank, steps int) (width, depth int) {
	steps = min(steps, mostSteps)
	more := max(steps-SVDSteps, 0)
	switch known := steps - more; {
	case rank <= 8:
		return 16, smallDepths[known] + more
	case steps < 2: // the space has to hold the rank
		return max(16, (rank+7)/8*8), depths[known]
	default:
		return max(16, (rank+7)/8*4), depths[known] + more
	}
}

// depths are the numbers of blocks by steps, up to rank 8 and beyond.
var (
	smallDepths = [SVDSteps + 1]int{1, 2, 3, 3, 4, 4, 5, 6, 6}
	depths      = [SVDSteps + 1]int{1, 2, 4, 5, 6, 6, 7, 7, 8}
)

// Passes returns how often the weight is read before factors are known.
func (l *LowRank) Passes() int { return l.passes }

// TileRows returns the number of rows of every tile but the last. It follows
// from the shape alone: the bytes depend on it.
func (l *LowRank) TileRows() int {
	const values = 1 << 18
	return min(max(values/l.Columns/32*32, 32), 256)
}

// Tiles returns the number of tiles of a pass.
func (l *LowRank) Tiles() int { return ceilDiv(l.Rows, l.TileRows()) }

// Add takes the rows of one tile in one pass; w is not changed. It may wait
// for earlier tiles, at most until cancelled is closed, which is reported as
// false. Products are added in the order of tiles whatever the order in which
// they are ready.
func (l *LowRank) Add(pass, tile int, w []float32, s *Scratch, cancelled <-chan struct{}) bool {
	index := pass*l.Tiles() + tile
	if !l.wait(max(index-l.window+1, pass*l.Tiles()), cancelled) {
		return false
	}
	p := &l.slots[index%l.window] // ours until it is added
	l.multiply(p, w, s)
	l.mu.Lock()
	defer l.mu.Unlock()
	p.ready = true
	if index == l.next {
		l.drain()
		close(l.changed)
		l.changed = make(chan struct{})
	}
	return true
}

// wait returns when that many tiles are added.
func (l *LowRank) wait(count int, cancelled <-chan struct{}) bool {
	for {
		l.mu.Lock()
		next, changed := l.next, l.changed
		l.mu.Unlock()
		if next >= count {
			return true
		}
		select {
		case <-changed:
		case <-cancelled:
			return false
		}
	}
}

// multiply sets p to the product of a tile with what the pass asks for. In
// between, w·x is rounded to single precision, each of its columns scaled by a
// power of two so that it fits.
func (l *LowRank) multiply(p *partial, w []float32, s *Scratch) {
	rows := len(w) / l.Columns
	grow(&p.y, l.Columns*l.width)
	grow(&p.scale, l.width)
	y := grow(&s.doubles, rows*l.width)
	if x := l.space.asked(); x != nil {
		kernel.Project(y, w, x, l.Columns, l.width)
		fit(y, p.scale)
	} else {
		for i, v := range w {
			y[i] = float64(v)
		}
		for i := range p.scale {
			p.scale[i] = 1
		}
	}
	kernel.Collect(p.y, w, y, l.Columns, l.width)
}

func grow(s *[]float64, n int) []float64 {
	if cap(*s) < n {
		*s = make([]float64, n)
	}
	*s = (*s)[:n]
	return *s
}

// fit divides the columns of y by powers of two, scale, to magnitudes up to 1
// and rounds to single precision.
func fit(y, scale []float64) {
	clear(scale)
	for i := 0; i < len(y); i += len(scale) {
		for c, v := range y[i : i+len(scale)] {
			scale[c] = max(scale[c], math.Abs(v))
		}
	}
	down := make([]float64, len(scale))
	for c, v := range scale {
		_, e := math.Frexp(v) // of NaN and infinity 0
		scale[c], down[c] = math.Ldexp(1, e), math.Ldexp(1, -e)
	}
	for i := 0; i < len(y); i += len(scale) {
		for c, v := range y[i : i+len(scale)] {
			y[i+c] = float64(float32(v * down[c]))
		}
	}
}

// drain adds all products that are next in order and ends the pass after its
// last.
func (l *LowRank) drain() {
	for p := &l.slots[l.next%l.window]; p.ready; p = &l.slots[l.next%l.window] {
		p.ready = false
		if l.sum == nil {
			l.sum = make([]float64, l.Columns*l.width)
		}
		for i := 0; i < len(p.y); i += l.width {
			to := l.sum[i : i+l.width]
			for c, v := range p.y[i : i+l.width] {
				to[c] += float64(v * p.scale[c]) // exact but for the addition
			}
		}
		if l.next++; l.next%l.Tiles() == 0 {
			l.endPass()
			return // slots hold nothing of the next pass yet
		}
	}
}

func (l *LowRank) endPass() {
	sum := l.sum
	l.sum = nil
	for _, v := range sum {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			l.err = errNonfinite
		}
	}
	if l.err == nil {
		l.space.end(sum)
	}
	if l.next == l.passes*l.Tiles() {
		l.slots = nil
	}
}

// Factors waits for the last tile and returns the factors as they are stored
// in that dtype: F32, BF16 or F16. The error is that of a weight with NaN or
// infinity; without factors and error, cancelled was closed.
func (l *LowRank) Factors(to safetensors.Dtype, cancelled <-chan struct{}) (*Factors, error) {
	if !l.wait(l.passes*l.Tiles(), cancelled) {
		return nil, nil
	}
	l.finish.Do(func() {
		if l.err == nil {
			l.rows = l.space.rows(l.Rank)
		}
		l.space = nil
	})
	if l.err != nil {
		return nil, l.err
	}
	return newFactors(l.rows, l.Rank, l.Columns, to), nil
}

// Factors is a weight's low-rank part: down is known, and a row of up follows
// from down and the row of the weight.
type Factors struct {
	Rank, Columns int
	Dtype         safetensors.Dtype
	Down          []float32 // [Rank, Columns], values of the dtype
	across        []float64 // Down transposed
	inverse       []float64 // of Down·Downᵀ
}

func newFactors(rows []float64, rank, columns int, to safetensors.Dtype) *Factors {
	f := &Factors{
		Rank: rank, Columns: columns, Dtype: to,
		Down: make([]float32, rank*columns), across: make([]float64, rank*columns),
	}
	for i, v := range rows {
		f.Down[i] = RoundTo(float32(v), to)
		f.across[i%columns*rank+i/columns] = float64(f.Down[i])
	}
	g := make([]float64, rank*rank)
	linalg.AddTransposeTimes(g, f.across, f.across, rank, rank)
	f.inverse = linalg.Inverse(g, rank)
	return f
}

// Split sets up to the rows of the factor that belong to rows w of the weight,
// the least-squares fit rounded to the dtype, and w to what is left: w less
// up·down, the product a chain of fused multiply-adds in single precision, as
// SDNQ's comes about, rounded to the dtype. A
// row whose product overflows has zeros in up.
func (f *Factors) Split(up, w []float32, s *Scratch) {
	rows := len(w) / f.Columns
	y := grow(&s.doubles, 2*rows*f.Rank)
	seen, fit := y[:rows*f.Rank], y[rows*f.Rank:]
	kernel.Project(seen, w, f.across, f.Columns, f.Rank)
	clear(fit)
	linalg.AddTimes(fit, seen, f.inverse, f.Rank, f.Rank, 1)
	for i, v := range fit {
		up[i] = RoundTo(float32(v), f.Dtype)
	}
	product := sized(&s.row, f.Columns)
	multiply := kernel.Product
	if f.Dtype == safetensors.F32 {
		multiply = kernel.ProductFused
	}
	for i := range rows {
		u := up[i*f.Rank : (i+1)*f.Rank]
		multiply(product, u, f.Down, f.Columns)
		if !f.round(product) {
			clear(u)
			continue
		}
		for j, v := range w[i*f.Columns : (i+1)*f.Columns] {
			w[i*f.Columns+j] = v - product[j]
		}
	}
}

// round takes a product to the dtype and reports whether it is finite.
func (f *Factors) round(x []float32) bool {
	ok := true
	for i, v := range x {
		x[i] = RoundTo(v, f.Dtype)
		ok = ok && finite(x[i])
	}
	return ok
}
