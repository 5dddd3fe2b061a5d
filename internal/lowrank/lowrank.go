// Package lowrank finds a low-rank part of a weight that is read several times in tiles of
// whole rows. The factors are the same bits for any number of goroutines and on any machine.
package lowrank

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/linalg"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Search finds the low-rank part of a weight W that is read several times in
// tiles of whole rows: W = up·down + rest, where down is [Rank, Columns], up
// [Rows, Rank], and the rest is near the least there is. The factors are the
// same bits for any number of goroutines and on any machine.
//
// For every pass from 0 to Passes, give each of the Tiles to [Search.Add], in
// this order or from goroutines that start in it. Then [Search.Factors] splits
// tiles of any number of rows.
//
// The width of a pass is 16 columns up to rank 32 and half the rank beyond, or
// all of the Gram matrix (up to 384 columns, or too few beside that space).
type Search struct {
	Rows, Columns int
	Rank          int // at most Rows and Columns
	passes        int
	width         int // columns of a product
	space         space
	spillFile     tile.Spill // nil for none

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when a tile is added
	pass    int           // passes that are over
	added   [chains]int   // tiles of this pass
	left    int           // tiles of this pass that are not added
	sums    [chains][]float64
	err     error

	once  sync.Once   // for BF16
	facts []tileFacts // of its tiles

	rows []float32 // of down
}

// chains is how many sums a pass makes, each of every chains-th tile, so that
// as many tiles can be added at the same time. The bytes depend on it.
const chains = 4

// New plans the rank-r part of a weight of that shape, found in so many steps, [SVDSteps]
// by default: fewer read the weight less often and leave a little more. Where the Gram
// matrix is taken they make no difference. Beyond 16 they are as 16.
func New(rows, columns, rank, steps int) (*Search, error) {
	if rows < 1 || columns < 1 || rows > math.MaxInt/columns/8 {
		return nil, fmt.Errorf("shape [%d, %d] is empty or too large", rows, columns)
	}
	if rank < 1 {
		return nil, fmt.Errorf("rank %d: want 1 or more", rank)
	}
	if steps < 0 {
		return nil, fmt.Errorf("%d steps: want 0 or more", steps)
	}
	l := &Search{Rows: rows, Columns: columns, Rank: min(rank, rows, columns), changed: make(chan struct{})}
	l.width, l.passes = blocks(l.Rank, steps)
	if steps >= SVDSteps {
		l.passes += morePasses(columns)
	}
	if columns <= gramColumns || 2*columns <= 3*l.width*l.passes {
		l.width, l.passes = columns, 1
		l.space = &gram{columns: columns}
	} else {
		l.space = newKrylov(columns, l.width, l.passes)
	}
	l.left, l.facts = l.Tiles(), make([]tileFacts, l.Tiles())
	return l, nil
}

// gramColumns is the greatest width at which all of WᵀW is taken, whatever the
// rank: beyond, a space takes less time, unless it is nearly as large.
const gramColumns = 384

// morePasses of narrow weights cost little, and leave about as little as there is.
func morePasses(columns int) int { return min(max((1024-columns)/128, 0), 4) }

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
func (l *Search) Passes() int { return l.passes }

// Memory returns how many bytes a search holds at most, not counting its tiles: in
// values of eight bytes, Columns·width for each of 4 sums, and 1.5·Columns·width for
// each pass, or for a single one with a spill file.
func (l *Search) Memory() int64 {
	kept := l.passes
	if l.spillFile != nil {
		kept = 1
	}
	return 4 * int64(l.Columns) * int64(l.width) * int64(2*chains+3*kept)
}

// Spill makes the search keep in a file what it does not need all the time. It writes
// 12·Columns·width bytes for each pass; the results are the same. It returns false if
// there is little to gain, and does not open the file then.
func (l *Search) Spill(open func() (tile.Spill, error)) (bool, error) {
	k, ok := l.space.(*krylov)
	if !ok || l.spillFile != nil {
		return false, nil
	}
	s, err := open()
	if err != nil {
		return false, err
	}
	k.spillTo(s)
	l.spillFile = s
	return true, nil
}

// TileRows returns the number of rows of every tile but the last. It follows
// from the shape alone: the bytes depend on it.
func (l *Search) TileRows() int {
	const values = 3 << 19 // fewer would take longer to add to the sums
	return min(max(values/l.Columns/32*32, 32), 256)
}

// Tiles returns the number of tiles of a pass.
func (l *Search) Tiles() int { return tile.CeilDiv(l.Rows, l.TileRows()) }

// Add takes the rows of one tile in one pass. It may wait for earlier tiles, at most
// until cancelled is closed, which is reported as false. All tiles have the same
// dtype. Those in BF16 have other factors than the same values in single precision:
// products are rounded to 16 significant bits before they are multiplied again.
func (l *Search) Add(pass, tile int, v tile.Values, s *tile.Scratch, cancelled <-chan struct{}) bool {
	return l.add(pass, tile, func() func(sum []float64) {
		k, ok := l.space.(*krylov)
		if !ok || v.Dtype != safetensors.BF16 {
			return l.space.Product(v.Floats(s), s)
		}
		l.Look(tile, v, s) // earlier passes are done with it
		l.once.Do(k.takeBF16)
		return k.productBF16(v.Bytes, l.facts[tile], s)
	}, cancelled)
}

// Look reports whether a tile is finite. Of a tile in BF16 it also records, once, what
// the products need to know.
func (l *Search) Look(at int, v tile.Values, s *tile.Scratch) (finite bool) {
	if v.Dtype != safetensors.BF16 {
		return tile.RangeOf(v.Floats(s)).Finite()
	}
	f := &l.facts[at]
	if !f.known {
		*f = factsOf(v)
	}
	return f.finite
}

// add waits twice: for the pass to begin, and for earlier tiles of the same sum before
// it adds the tile's product.
func (l *Search) add(pass, tile int, product func() (addTo func(sum []float64)), cancelled <-chan struct{}) (added bool) {
	if !l.wait(func() bool { return l.pass == pass }, cancelled) {
		return false
	}
	chain := tile % chains
	addTo := product()
	if !l.wait(func() bool { return l.added[chain] == tile/chains }, cancelled) {
		return false
	}
	if l.sums[chain] == nil {
		l.sums[chain] = l.space.newSum()
	}
	addTo(l.sums[chain]) // ours until the tile is added
	if l.count(chain) {
		l.endPass(cancelled)
	}
	return true
}

// count takes note of a tile and reports whether it was the last of the pass.
func (l *Search) count(chain int) (last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.added[chain]++
	l.left--
	l.announce()
	return l.left == 0
}

// announce wakes those who wait.
func (l *Search) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// wait returns when it is so.
func (l *Search) wait(so func() bool, cancelled <-chan struct{}) bool {
	for {
		l.mu.Lock()
		now, changed := so(), l.changed
		l.mu.Unlock()
		if now {
			return true
		}
		select {
		case <-changed:
		case <-cancelled:
			return false
		}
	}
}

// endPass adds up the sums, in order, and with the last finds the directions:
// then whoever asks for factors first need not.
func (l *Search) endPass(cancelled <-chan struct{}) {
	sum := l.sums[0]
	if !l.addUp(sum) {
		l.err = errNonfinite
	} else if l.err == nil {
		l.err = l.space.end(sum, cancelled)
	}
	if l.pass == l.passes-1 {
		l.finish(cancelled)
	} else {
		clear(sum)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pass++
	l.left, l.added = l.Tiles(), [chains]int{}
	l.announce()
}

// addUp adds the other sums to the first, gives their memory to what becomes of
// that, and reports whether all is finite now.
func (l *Search) addUp(sum []float64) (finite bool) {
	const near = 1 << 10 // values that stay in the nearest cache
	beside := 0.0
	for from := 0; from < len(sum); from += near {
		part := sum[from:min(from+near, len(sum))]
		for _, other := range l.sums[1:] {
			if other == nil {
				continue
			}
			other = other[from:][:len(part)]
			for i, v := range other {
				part[i] += v
			}
		}
		for _, v := range part {
			beside += float64(v * 0) // of NaN and infinity NaN
		}
	}
	doubles.give(l.sums[1:]...)
	clear(l.sums[1:])
	return beside == 0
}

func (l *Search) finish(cancelled <-chan struct{}) {
	doubles.give(l.sums[:]...)
	l.sums = [chains][]float64{}
	if l.err == nil {
		l.rows, l.err = l.space.Rows(l.Rank, cancelled)
	}
	if tile.Closed(cancelled) {
		l.rows, l.err = nil, cmp.Or(l.err, ErrGivenUp)
	}
	l.space = nil
	if l.spillFile != nil {
		l.err = cmp.Or(l.err, l.spillFile.Close())
	}
}

// Release lets go of what [Search.Factors] has returned.
func (l *Search) Release() { l.rows = nil }

// Factors waits for the last tile and returns the factors as they are stored in that
// dtype: F32, BF16 or F16. The error says that the weight has NaN or infinity, or that
// the spill file failed; without factors and error, cancelled was closed.
func (l *Search) Factors(to safetensors.Dtype, cancelled <-chan struct{}) (*Factors, error) {
	return l.FactorsIn(Storage{Dtype: to}, cancelled)
}

// FactorsIn is [Search.Factors] for factors that are stored that way.
func (l *Search) FactorsIn(way Storage, cancelled <-chan struct{}) (*Factors, error) {
	if !l.wait(func() bool { return l.pass == l.passes }, cancelled) {
		return nil, nil
	}
	if l.err != nil {
		return nil, l.err
	}
	return newFactors(slices.Clone(l.rows), l.Rank, l.Columns, way, cancelled), nil
}

// Storage is how factors are stored and multiplied.
type Storage struct {
	Dtype     safetensors.Dtype // F32, BF16 or F16
	Unrounded bool              // the product is not rounded to the dtype
	// Smooth is by what the columns of the weight were multiplied, values of 16 bits: down
	// is stored divided by it. nil is for nothing.
	Smooth []float32
}

// Factors is a weight's low-rank part: down is known, and a row of up follows
// from down and the row of the weight.
type Factors struct {
	Storage
	Rank, Columns int
	Down          []float32 // [Rank, Columns], as it is restored
	across        []float32 // Down transposed
	panels        Panels    // Down
	inverse       []float64 // of Down·Downᵀ
}

// newFactors rounds down, which it keeps. Once cancelled is closed it returns nil.
func newFactors(down []float32, rank, columns int, way Storage, cancelled <-chan struct{}) *Factors {
	f := &Factors{Storage: way, Rank: rank, Columns: columns, Down: down, across: make([]float32, rank*columns)}
	f.round()
	transpose.All(f.across, f.Down, rank, columns)
	f.panels = NewPanels(f.Down, rank, columns)
	g := make([]float64, rank*rank)
	const some = 128 // columns that stay in the nearer caches
	wide := make([]float64, some*rank)
	for from := 0; from < len(f.across); from += len(wide) {
		part := f.across[from:min(from+len(wide), len(f.across))]
		clear(wide)
		kernel.AddWide(wide[:len(part)], part, 1)
		linalg.AddSquare(g, wide[:len(part)], rank)
	}
	if f.inverse = linalg.Inverse(g, rank, cancelled); f.inverse == nil {
		return nil
	}
	return f
}

// round leaves in Down what it restores to once it is stored.
func (f *Factors) round() {
	if f.Smooth != nil {
		for i, v := range f.Stored() {
			f.Down[i] = v * f.Smooth[i%f.Columns]
		}
		return
	}
	floats.RoundAll(f.Down, f.Dtype)
}

// Stored returns down as it is stored, [Rank, Columns], values of the dtype. Single
// precision holds what such values restore to, so that they are the same each time.
func (f *Factors) Stored() []float32 {
	if f.Smooth == nil {
		return f.Down
	}
	stored := make([]float32, len(f.Down))
	for i, v := range f.Down {
		stored[i] = floats.RoundTo(v/f.Smooth[i%f.Columns], f.Dtype)
	}
	return stored
}

// Split sets up to the rows of the factor that belong to rows w of the weight,
// the least-squares fit rounded to the dtype, and w to what is left: w less
// up·down, the product a chain of fused multiply-adds in single precision, as
// SDNQ's comes about, rounded to the dtype unless it is to stay. A row whose product overflows has
// zeros in up.
func (f *Factors) Split(up, w []float32, s *tile.Scratch) {
	rows := len(w) / f.Columns
	own := tile.PartOf[buffers](s)
	y := tile.Sized(&own.seen, 2*rows*f.Rank)
	seen, fit := y[:rows*f.Rank], y[rows*f.Rank:]
	kernel.ProjectFused(seen, w, f.across, f.Columns, f.Rank)
	clear(fit)
	linalg.AddTimes(fit, seen, f.inverse, f.Rank, f.Rank)
	for i, v := range fit {
		up[i] = floats.RoundTo(float32(v), f.Dtype)
	}
	f.panels.Some(rows, func(from, n int) {
		f.takeOff(up[from*f.Rank:(from+n)*f.Rank], w[from*f.Columns:(from+n)*f.Columns], own)
	})
}

// takeOff sets rows of w to what is left of them.
func (f *Factors) takeOff(up, w []float32, s *buffers) {
	product, multiply := tile.Sized(&s.rows, len(w)), kernel.ProductFused
	if f.Dtype != safetensors.F32 && f.Smooth == nil {
		multiply = f.panels.Multiplier(up)
	}
	f.panels.Product(product, up, multiply)
	if !f.Unrounded {
		floats.RoundAll(product, f.Dtype)
	}
	for i := range len(w) / f.Columns {
		part := product[i*f.Columns : (i+1)*f.Columns]
		if !tile.RangeOf(part).Finite() {
			clear(up[i*f.Rank : (i+1)*f.Rank])
			continue
		}
		kernel.Subtract(w[i*f.Columns:(i+1)*f.Columns], part)
	}
}
