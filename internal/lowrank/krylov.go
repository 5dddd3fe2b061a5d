package lowrank

import (
	"cmp"
	"errors"
	"math"
	"slices"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/linalg"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// Why a weight has no low-rank part.
var (
	errNonfinite = errors.New("a weight with NaN or infinity has no low-rank part")
	ErrGivenUp   = errors.New("the search for a low-rank part was given up")
)

// A space gathers, pass by pass, what the row space of a weight W follows from:
// sums of WᵀW·x for the x that it chooses.
type space interface {
	// newSum returns a zeroed sum for a pass.
	newSum() []float64
	// Product returns a function that adds the product of a tile to a sum.
	Product(w []float32, s *tile.Scratch) func(sum []float64)
	// end takes the sum of a pass, whose memory is then reused. It fails if the spill
	// file does. Once cancelled is closed, the results are useless.
	end(sum []float64, cancelled <-chan struct{}) error
	// Rows returns up to rank directions, [rank, columns], the most important first;
	// missing ones are zero. It fails if the spill file does.
	Rows(rank int, cancelled <-chan struct{}) ([]float32, error)
}

// gram is the whole of WᵀW: one pass, then its eigenvectors.
type gram struct {
	columns int
	y       []float64
}

func (g *gram) Product(w []float32, s *tile.Scratch) func(sum []float64) {
	x := tile.Sized(&tile.PartOf[buffers](s).seen, len(w))
	for i, v := range w {
		x[i] = float64(v)
	}
	return func(sum []float64) { linalg.AddSquare(sum, x, g.columns) }
}

func (g *gram) newSum() []float64 { return doubles.zeros(g.columns * g.columns) }

func (g *gram) end(sum []float64, _ <-chan struct{}) error {
	g.y = slices.Clone(sum)
	return nil
}

func (g *gram) Rows(rank int, cancelled <-chan struct{}) ([]float32, error) {
	n := g.columns
	values, vectors := linalg.Leading(g.y, n, rank, cancelled)
	if values == nil {
		return nil, ErrGivenUp
	}
	for i, v := range values {
		if v <= 1e-14*values[0] { // rounding
			clear(vectors[i*n : (i+1)*n])
		}
	}
	rows := make([]float32, rank*n)
	for i, v := range vectors[:rank*n] {
		rows[i] = float32(v)
	}
	return rows, nil
}

// krylov is a block Krylov space: every x is what the product before added to
// the space. All blocks and their products are kept, and together they give a
// Nyström approximation of WᵀW.
type krylov struct {
	columns, width, depth int
	x                     blockStack[float32] // so far, [columns, width], made small
	y                     blockStack[float64] // their products
	precision             precision
	narrow                bool        // for tiles in BF16, see productBF16
	strips                [][]float32 // the last block for them
	c                     []float64   // XᵀY of all blocks, the lower half
	wideRoom              []float64
	xRoom                 []float32
	yRooms                [][]float64 // for parts of y, by block
	cancelled             <-chan struct{}
}

// small is what factors of products are made, so that no sum of 256 weights
// overflows.
const small = 0x1p-16

func newKrylov(columns, width, depth int) *krylov {
	all := width * depth
	k := &krylov{columns: columns, width: width, depth: depth, precision: singlePrecision, c: make([]float64, all*all)}
	k.x.pool, k.y.pool, k.yRooms = &singles, &doubles, make([][]float64, depth)
	none := doubles.zeros(columns * width)
	k.extend(none, nil)
	doubles.give(none)
	return k
}

// Product is in single precision. In between, each column of W·x is scaled by a
// power of two so that it fits.
func (k *krylov) Product(w []float32, s *tile.Scratch) func(sum []float64) {
	n := len(w) / k.columns * k.width
	own := tile.PartOf[buffers](s)
	seen, y, scale := tile.Sized(&own.seen, n), tile.Sized(&own.y, n), make([]float64, k.width)
	kernel.Project(seen, w, k.x.last(), k.columns, k.width)
	fit(y, seen, scale)
	return func(sum []float64) { kernel.Collect(sum, w, y, scale, k.columns, k.width) }
}

// fit sets y to the columns of x divided by powers of two, so that they are
// small. scale is what makes up for that, and for x having been small.
func fit(y []float32, x, scale []float64) {
	clear(scale)
	for i := 0; i < len(x); i += len(scale) {
		for c, v := range x[i : i+len(scale)] {
			scale[c] = max(scale[c], math.Abs(v))
		}
	}
	down := make([]float64, len(scale))
	for c, v := range scale {
		_, e := math.Frexp(v) // of NaN and infinity 0
		down[c], scale[c] = math.Ldexp(small, -e), math.Ldexp(1/(small*small), e)
	}
	for i := 0; i < len(x); i += len(scale) {
		for c, v := range x[i : i+len(scale)] {
			y[i+c] = float32(v * down[c])
		}
	}
}

// newSum: in strips, see [kernel.Collect].
func (k *krylov) newSum() []float64 {
	const n = kernel.StripColumns
	return doubles.zeros(tile.CeilDiv(k.columns, n) * n * k.width)
}

func (k *krylov) end(sum []float64, cancelled <-chan struct{}) error {
	k.cancelled = cancelled
	y := k.fromStrips(sum)
	has := k.correct(y)
	k.y.add(y)
	if len(k.y.list) < k.depth {
		k.extend(y, has)
	}
	k.y.spill()
	return k.failure()
}

// spillTo makes blocks that are not in use go to a file.
func (k *krylov) spillTo(s tile.Spill) {
	k.x.file, k.y.file = s, s
	k.y.place = 4 * int64(k.columns) * int64(k.width) * int64(k.depth) // behind all of x
}

func (k *krylov) failure() error { return cmp.Or(k.x.err, k.y.err) }

// yPart returns rows of block i of y, until the next call for that block.
func (k *krylov) yPart(i, from, to int) []float64 {
	return k.y.part(i, k.columns*k.width, from*k.width, to*k.width, &k.yRooms[i])
}

// fromStrips returns a sum as [columns, width].
func (k *krylov) fromStrips(sum []float64) []float64 {
	const n = kernel.StripColumns
	y := doubles.take(k.columns * k.width)
	for j := range k.columns {
		for c := range k.width {
			y[j*k.width+c] = sum[(j/n*k.width+c)*n+j%n]
		}
	}
	return y
}

// parts calls do for rows that stay in the nearer caches, one part after the
// other, while the work is wanted.
func (k *krylov) parts(do func(from, to int)) {
	const some = 128
	for from := 0; from < k.columns && !tile.Closed(k.cancelled); from += some {
		do(from, min(from+some, k.columns))
	}
}

// through calls do for corresponding rows of every block so far, in parts that stay in
// the nearer caches. rows are the part of y next to x.
func (k *krylov) through(y []float64, do func(i int, x, rows []float64, from, to int)) {
	k.parts(func(from, to int) {
		for i := range k.x.list {
			do(i, k.wide(i, from, to), y[from*k.width:to*k.width], from, to)
		}
	})
}

// wide returns rows of block i of x in double precision, until the next call.
func (k *krylov) wide(i, from, to int) []float64 {
	x := k.x.part(i, k.columns*k.width, from*k.width, to*k.width, &k.xRoom)
	wide := tile.Sized(&k.wideRoom, len(x))
	clear(wide)
	kernel.AddWide(wide, x, 1/small)
	return wide
}

// squares are as many matrices as there are blocks so far, for each of its
// columns and of another block's.
func (k *krylov) squares() [][]float64 {
	all := make([][]float64, len(k.x.list))
	for i := range all {
		all[i] = make([]float64, k.width*k.width)
	}
	return all
}

// correct computes the rows of c that belong to the last block, and takes off y
// what rounding has put there. An error of W·x is multiplied by W again, most
// of all along the earlier, greater directions X: there it drowns what a small
// x has. But Xᵀ(WᵀW·x) is (WᵀW·X)ᵀx, and that product's error along x is small.
// It returns Xᵀy for every block.
func (k *krylov) correct(y []float64) (has [][]float64) {
	w, last := k.width, len(k.y.list)
	got, known := k.squares(), k.squares()
	k.through(y, func(i int, x, y []float64, from, to int) {
		linalg.AddTransposeTimes(got[i], x, y, w, w)
		if i == last {
			for j := range k.y.list {
				linalg.AddTransposeTimes(known[j], k.yPart(j, from, to), x, w, w)
			}
		}
	})
	for i := range last {
		for j, v := range known[i] {
			got[i][j] = v - got[i][j]
		}
	}
	k.through(y, func(i int, x, y []float64, _, _ int) {
		if i < last {
			linalg.AddTimes(y, x, got[i], w, w)
		}
	})
	known[last] = got[last]
	k.note(known)
	return known
}

// note keeps what the last product has of all blocks so far.
func (k *krylov) note(has [][]float64) {
	w, last := k.width, len(has)-1
	row := w * k.depth
	for r := range w {
		to := k.c[(last*w+r)*row:]
		for i, block := range has {
			for s := range w {
				if i < last {
					to[i*w+s] = block[s*w+r]
				} else if s <= r {
					to[i*w+s] = (block[s*w+r] + block[r*w+s]) / 2
				}
			}
		}
	}
}

// extend adds a block: y orthogonal to all before it, of which it has so much,
// and its columns to each other. What is next to nothing of a column, or little
// of what was left of it and is taken off once more, is rounding: blocks are only
// as orthonormal as they are precise. Such columns are replaced by random ones,
// and these, if they bring nothing either, by zero.
func (k *krylov) extend(y []float64, has [][]float64) {
	p := doubles.take(len(y))
	defer doubles.give(p)
	copy(p, y)
	floor := linalg.ColumnSquares(p, k.width)
	linalg.Scale(floor, nothing)
	k.takeOff(p, has)
	replaced := make([]bool, k.width)
	for try := 1; ; try++ {
		settled := k.orthonormalize(p, floor, replaced)
		if try == mostTries || try > 1 && settled {
			break
		}
		has := k.squares()
		k.through(p, func(i int, x, p []float64, _, _ int) { linalg.AddTransposeTimes(has[i], x, p, k.width, k.width) })
		k.takeOff(p, has)
	}
	next := singles.take(len(p))
	for i, v := range p {
		next[i] = float32(v) * small
	}
	k.x.spill()
	k.x.add(next)
	if k.narrow {
		k.roundLast()
	}
}

const (
	nothing, little = 1e-24, 1e-4 // squared lengths of parts
	mostTries       = 8           // two are usual
)

// takeOff takes off columns what they have of the blocks so far.
func (k *krylov) takeOff(p []float64, has [][]float64) {
	for _, block := range has {
		linalg.Scale(block, -1)
	}
	k.through(p, func(i int, x, p []float64, _, _ int) { linalg.AddTimes(p, x, has[i], k.width, k.width) })
}

// orthonormalize makes columns orthonormal whose squared lengths are above the
// floor, and sets the next one. It reports whether they were nearly so.
func (k *krylov) orthonormalize(p, floor []float64, replaced []bool) (settled bool) {
	w := k.width
	products := make([]float64, w*w)
	k.parts(func(from, to int) { linalg.AddSquare(products, p[from*w:to*w], w) })
	for c, v := range floor {
		if at := c*w + c; products[at] <= v {
			products[at] = 0
		}
	}
	turn, parts := linalg.Orthonormal(products, w)
	k.parts(func(from, to int) {
		rows := p[from*w : to*w]
		turned := tile.Sized(&k.wideRoom, len(rows))
		clear(turned)
		linalg.AddTimes(turned, rows, turn, w, w)
		copy(rows, turned)
	})
	settled = true
	for c, part := range parts {
		if part == 0 && !k.revive(p, c, replaced) {
			continue
		}
		if floor[c] = little; part < 0.5 { // what it has of blocks has grown with it
			floor[c] = nothing
		}
		settled = settled && part > 0.5 && products[c*w+c] > 0.25
	}
	return settled
}

// revive makes what is left of a column as long as the others, or replaces it
// once. It reports whether there is anything now.
func (k *krylov) revive(p []float64, c int, replaced []bool) bool {
	square := 0.0
	for i := c; i < len(p); i += k.width {
		square += float64(p[i] * p[i])
	}
	switch {
	case square > nothing:
		by := 1 / math.Sqrt(square)
		for i := c; i < len(p); i += k.width {
			p[i] *= by
		}
		return true
	case !replaced[c]:
		k.random(p, c)
		replaced[c] = true
		return true
	}
	for i := c; i < len(p); i += k.width {
		p[i] = 0
	}
	return false
}

// random fills column c of the next block with ±1 from a counter, of length 1.
func (k *krylov) random(p []float64, c int) {
	first, size := uint64(len(k.x.list)*k.width+c)<<32, 1/math.Sqrt(float64(k.columns))
	for j := range k.columns {
		bit := splitmix(first+uint64(j/64)) >> (j % 64) & 1
		p[j*k.width+c] = size * (1 - 2*float64(bit))
	}
}

// splitmix is the number at a place of Steele, Lea and Flood's sequence.
func splitmix(at uint64) uint64 {
	z := 0x243F6A8885A308D3 + at*0x9E3779B97F4A7C15 // a key: the digits of π
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// Rows finishes. Where the last block has little beside the directions that are
// asked for, these lie in the space, and are eigenvectors of C = XᵀWᵀW·X: with
// singular values that fall so steeply the products, in single precision, have
// lost too much for a power more.
func (k *krylov) Rows(rank int, cancelled <-chan struct{}) ([]float32, error) {
	k.cancelled = cancelled
	all, most, last := k.width*k.depth, 0.0, 0.0
	for i := range all {
		square := k.c[i*all+i]
		if most = max(most, square); i >= all-k.width {
			last = max(last, square)
		}
	}
	singles.give(k.strips...)
	if k.depth < leastDepth || linalg.Above(k.c, all, found*last) < rank {
		rows := k.nystrom(rank, most)
		return rows, k.failure()
	}
	k.y.free()
	_, vectors := linalg.Leading(k.c, all, rank, cancelled)
	if vectors == nil {
		return nil, ErrGivenUp
	}
	rows := k.directions(k.wide, vectors)
	k.x.free()
	return rows, k.failure()
}

const (
	found      = 16 // times what is outside of the space
	leastDepth = 4  // of a space that shows it
)

// directions returns all blocks times vectors, which are rows.
func (k *krylov) directions(block func(i, from, to int) []float64, vectors []float64) []float32 {
	w, n := k.width, k.columns
	all := w * k.depth
	rank := len(vectors) / all
	var room []float64
	by, down := linalg.Transposed(vectors, rank, all), make([]float32, rank*n)
	k.parts(func(from, to int) {
		some := tile.Sized(&room, (to-from)*rank)
		clear(some)
		for i := range k.depth {
			linalg.AddTimes(some, block(i, from, to), by[i*w*rank:(i+1)*w*rank], w, rank)
		}
		for i, v := range some {
			down[i%rank*n+from+i/rank] = float32(v)
		}
	})
	return down
}

// nystrom: with C = XᵀY = XᵀWᵀW·X, F = Y·C^(-1/2) has F·Fᵀ near WᵀW, and its
// left singular vectors are the directions.
func (k *krylov) nystrom(rank int, most float64) []float32 {
	k.x.free()
	defer k.y.free()
	root, m := k.root(most)
	all := k.width * k.depth
	half, h := make([]float64, m*all), make([]float64, m*m)
	linalg.AddTimes(half, root, k.products(), all, all)
	linalg.AddTimes(h, half, linalg.Transposed(root, m, all), all, m)
	used := min(rank, m)
	values, vectors := linalg.Leading(h, m, used, k.cancelled)
	if vectors == nil {
		return nil // nobody asks for them
	}
	for i, value := range values {
		by := 0.0
		if value > 1e-15*values[0] {
			by = 1 / math.Sqrt(value)
		}
		linalg.Scale(vectors[i*m:(i+1)*m], by)
	}
	rows := make([]float64, rank*all)
	linalg.AddTimes(rows[:used*all], vectors, root, m, all)
	return k.directions(k.yPart, rows)
}

// products returns YᵀY of all blocks.
func (k *krylov) products() []float64 {
	w, all := k.width, k.width*k.depth
	g, blocks := make([]float64, all*all), make([]float64, all*all)
	parts := make([][]float64, k.depth)
	k.parts(func(from, to int) {
		for i := range parts {
			parts[i] = k.yPart(i, from, to)
			for j, other := range parts[:i+1] {
				linalg.AddTransposeTimes(blocks[(i*k.depth+j)*w*w:][:w*w], parts[i], other, w, w)
			}
		}
	})
	for at, v := range blocks {
		block, r, s := at/(w*w), at/w%w, at%w
		if i, j := block/k.depth, block%k.depth; j <= i {
			g[(i*w+r)*all+j*w+s], g[(j*w+s)*all+i*w+r] = v, v
		}
	}
	return g
}

// root returns S, [m, all columns of X], with Sᵀ·S the inverse of C where C is
// more than rounding. C is scaled to a diagonal of ones before: its blocks
// differ in size as much as the squares of singular values.
func (k *krylov) root(most float64) (s []float64, m int) {
	c, all := k.c, k.width*k.depth
	scale := make([]float64, all)
	for i := range scale {
		if v := c[i*all+i]; v > k.precision.square*most {
			scale[i] = 1 / math.Sqrt(v)
		}
	}
	for i := range all {
		for j := range i + 1 {
			c[i*all+j] *= scale[i] * scale[j]
		}
	}
	s, m = linalg.Root(c, all, k.precision.part, k.cancelled)
	for i := range s {
		s[i] *= scale[i%all]
	}
	return s, m
}

// precision is what is taken for more than the rounding of products.
type precision struct {
	square float64 // of the greatest |W·x|²
	part   float64 // of a column of C beside those before
}

var (
	singlePrecision  = precision{1e-13, 1e-7}
	sixteenPrecision = precision{1e-9, 1e-5}
)
