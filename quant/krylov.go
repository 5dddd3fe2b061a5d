package quant

import (
	"errors"
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/linalg"
)

// errNonfinite says why a weight has no low-rank part.
var errNonfinite = errors.New("a weight with NaN or infinity has no low-rank part")

// A space gathers, pass by pass, what the row space of a weight W follows from:
// sums of WᵀW·x for the x that it chooses.
type space interface {
	// newSum is room for the sum of a pass.
	newSum() []float64
	// product returns what adds the product of a tile to a sum.
	product(w []float32, s *Scratch) func(sum []float64)
	// end takes the sum of a pass. All but the last are used again.
	end(sum []float64)
	// rows returns up to rank directions, [rank, columns], the most important
	// first; missing ones are zero.
	rows(rank int) []float64
}

// gram is the whole of WᵀW: one pass, then its eigenvectors.
type gram struct {
	columns int
	y       []float64
}

func (g *gram) product(w []float32, s *Scratch) func(sum []float64) {
	x := sized(&s.doubles, len(w))
	for i, v := range w {
		x[i] = float64(v)
	}
	return func(sum []float64) { linalg.AddTransposeTimes(sum, x, x, g.columns, g.columns) }
}

func (g *gram) newSum() []float64 { return make([]float64, g.columns*g.columns) }

func (g *gram) end(sum []float64) { g.y = sum }

func (g *gram) rows(rank int) []float64 {
	n := g.columns
	values, vectors := linalg.Eigen(g.y, n)
	for i, v := range values[:rank] {
		if v <= 1e-15*values[0] {
			clear(vectors[i*n : (i+1)*n])
		}
	}
	return vectors[:rank*n]
}

// krylov is a block Krylov space: every x is what the product before added to
// the space. All blocks and their products are kept, and together they give a
// Nyström approximation of WᵀW.
type krylov struct {
	columns, width, depth int
	x                     [][]float32 // blocks so far, [columns, width], made small
	y                     [][]float64 // their products
	precision             precision
	narrow                bool        // for tiles in BF16, see productBF16
	strips                [][]float32 // the last block for them
	c                     []float64   // XᵀY of all blocks, the lower half
	columnsRoom, rowsRoom []float64   // for a block
	wideRoom              [2][]float64
}

// small is what factors of products are made, so that no sum of 256 weights
// overflows.
const small = 0x1p-16

func newKrylov(columns, width, depth int) *krylov {
	all := width * depth
	k := &krylov{columns: columns, width: width, depth: depth, precision: singlePrecision, c: make([]float64, all*all)}
	k.extend(make([]float64, columns*width))
	return k
}

// product is in single precision. In between, each column of W·x is scaled by a
// power of two so that it fits.
func (k *krylov) product(w []float32, s *Scratch) func(sum []float64) {
	n := len(w) / k.columns * k.width
	seen, y, scale := sized(&s.doubles, n), sized(&s.row, n), make([]float64, k.width)
	kernel.Project(seen, w, k.x[len(k.x)-1], k.columns, k.width)
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
	return make([]float64, ceilDiv(k.columns, n)*n*k.width)
}

func (k *krylov) end(sum []float64) {
	y := k.fromStrips(sum)
	k.correct(y)
	k.y = append(k.y, y)
	if len(k.y) < k.depth {
		k.extend(y)
	}
}

// fromStrips returns a sum as [columns, width].
func (k *krylov) fromStrips(sum []float64) []float64 {
	const n = kernel.StripColumns
	y := make([]float64, k.columns*k.width)
	for j := range k.columns {
		for c := range k.width {
			y[j*k.width+c] = sum[(j/n*k.width+c)*n+j%n]
		}
	}
	return y
}

// correct computes the rows of c that belong to the last block, and takes off y
// what rounding has put there. An error of W·x is multiplied by W again, most
// of all along the earlier, greater directions X: there it drowns what a small
// x has. But Xᵀ(WᵀW·x) is (WᵀW·X)ᵀx, and that product's error along x is small.
func (k *krylov) correct(y []float64) {
	w, last := k.width, k.wide(len(k.x)-1, 0)
	for j := range k.x {
		x := k.wide(j, 1)
		got := make([]float64, w*w)
		linalg.AddTransposeTimes(got, x, y, w, w)
		at := len(k.y)*w*w*k.depth + j*w // of the block in c
		if j == len(k.y) {
			for r := range w {
				for s := range r + 1 {
					k.c[at+r*w*k.depth+s] = (got[r*w+s] + got[s*w+r]) / 2
				}
			}
			return
		}
		known := make([]float64, w*w)
		linalg.AddTransposeTimes(known, last, k.y[j], w, w)
		for r := range w {
			copy(k.c[at+r*w*k.depth:], known[r*w:(r+1)*w])
			for s := range w {
				got[s*w+r] = known[r*w+s] - got[s*w+r]
			}
		}
		linalg.AddTimes(y, x, got, w, w)
	}
}

// extend adds a block: y orthogonal to all before it. Columns that bring
// nothing new are replaced by random ones.
func (k *krylov) extend(y []float64) {
	n := k.columns
	block := k.columnsOf(y)
	for _, c := range block {
		normalize(c)
	}
	k.project(block)
	for i, c := range block {
		part := independent(c, block[:i])
		for range k.precision.tries {
			if part == 0 || part >= k.precision.again {
				break
			}
			k.project(block[i : i+1]) // what it has of blocks has grown
			part = independent(c, block[:i])
		}
		if part >= 1e-3 {
			continue
		}
		k.random(c, i)
		normalize(c)
		k.project(block[i : i+1])
		if independent(c, block[:i]) == 0 {
			clear(c)
		}
	}
	next := make([]float32, n*k.width)
	for c, column := range block {
		for j, v := range column {
			next[j*k.width+c] = float32(v) * small
		}
	}
	k.x = append(k.x, next)
	if k.narrow {
		k.roundLast()
	}
}

// wide returns block i of x in double precision, until the next call for that
// room.
func (k *krylov) wide(i, room int) []float64 {
	x := sized(&k.wideRoom[room], len(k.x[i]))
	clear(x)
	kernel.AddWide(x, k.x[i], 1/small)
	return x
}

// columnsOf returns the columns of a block, until the next call.
func (k *krylov) columnsOf(y []float64) [][]float64 {
	columns, room := make([][]float64, k.width), sized(&k.columnsRoom, len(y))
	for c := range columns {
		columns[c] = room[c*k.columns : (c+1)*k.columns]
		for j := range columns[c] {
			columns[c][j] = y[j*k.width+c]
		}
	}
	return columns
}

// normalize gives c length 1 unless it is next to nothing, which becomes zero.
func normalize(c []float64) {
	length := linalg.Norm(c)
	if length < 0x1p-1000 {
		clear(c)
		return
	}
	linalg.Scale(c, 1/length)
}

// project makes columns of length 1 orthogonal to the blocks so far, and of
// length 1 again. Where only rounding is left of one it is zero: the first time
// next to nothing, then what is in the blocks still, which are only as
// orthonormal as single precision allows.
func (k *krylov) project(block [][]float64) {
	floor := 1e-12
	for range 3 {
		k.takeOff(block)
		least := 1.0
		for _, c := range block {
			length := linalg.Norm(c)
			if length < floor {
				clear(c)
				continue
			}
			least = min(least, length)
			normalize(c)
		}
		if floor > 1e-12 && least > 0.5 {
			return
		}
		floor = 0.01
	}
}

// takeOff takes off columns what they have of the blocks so far.
func (k *krylov) takeOff(block [][]float64) {
	n, w := k.columns, len(block)
	p := sized(&k.rowsRoom, n*w)
	for c, column := range block {
		for j, v := range column {
			p[j*w+c] = v
		}
	}
	g := make([]float64, k.width*w)
	for i := range k.x {
		x := k.wide(i, 0)
		clear(g)
		linalg.AddTransposeTimes(g, x, p, k.width, w)
		linalg.Scale(g, -1)
		linalg.AddTimes(p, x, g, k.width, w)
	}
	for c, column := range block {
		for j := range column {
			column[j] = p[j*w+c]
		}
	}
}

// independent makes c, of length 1, orthogonal to the earlier columns and of
// length 1 again. It returns the part of it that was left, 0 where that is only
// rounding and c of no use.
func independent(c []float64, earlier [][]float64) float64 {
	part := 1.0
	for range 2 {
		for _, e := range earlier {
			linalg.AddScaled(c, e, -linalg.Dot(c, e))
		}
		length := linalg.Norm(c)
		if length < 1e-12 {
			return 0
		}
		part *= length
		normalize(c)
	}
	return part
}

// random fills column c of the next block with ±1 from a counter.
func (k *krylov) random(c []float64, column int) {
	first := uint64(len(k.x)*k.width+column) << 32
	for j := range c {
		bit := splitmix(first+uint64(j/64)) >> (j % 64) & 1
		c[j] = 1 - 2*float64(bit)
	}
}

// splitmix is the number at a place of Steele, Lea and Flood's sequence.
func splitmix(at uint64) uint64 {
	z := 0x243F6A8885A308D3 + at*0x9E3779B97F4A7C15 // a key: the digits of π
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// rows finishes. Where the last block has little beside the directions that are
// asked for, these lie in the space, and are eigenvectors of C = XᵀWᵀW·X: with
// singular values that fall so steeply the products, in single precision, have
// lost too much for a power more.
func (k *krylov) rows(rank int) []float64 {
	all, most, last := k.width*k.depth, 0.0, 0.0
	for i := range all {
		square := k.c[i*all+i]
		if most = max(most, square); i >= all-k.width {
			last = max(last, square)
		}
	}
	k.columnsRoom, k.rowsRoom = nil, nil
	if k.depth < leastDepth || linalg.Above(k.c, all, found*last) < rank {
		return k.nystrom(rank, most)
	}
	k.y = nil
	_, vectors := linalg.Eigen(k.c, all)
	vectors = vectors[:rank*all]
	return k.directions(func(i int) []float64 { return k.wide(i, 0) }, k.depth, vectors, rank)
}

const (
	found      = 16 // times what is outside of the space
	leastDepth = 4  // of a space that shows it
)

// directions returns that many blocks times vectors.
func (k *krylov) directions(block func(i int) []float64, blocks int, vectors []float64, rank int) []float64 {
	n := len(vectors) / rank
	w, turn := n/blocks, make([]float64, n*rank)
	for i := range turn {
		turn[i] = vectors[i%rank*n+i/rank]
	}
	v := make([]float64, k.columns*rank)
	for i := range blocks {
		linalg.AddTimes(v, block(i), turn[i*w*rank:(i+1)*w*rank], w, rank)
	}
	down := make([]float64, len(v))
	for i, x := range v {
		down[i%rank*k.columns+i/rank] = x
	}
	return down
}

// nystrom: with C = XᵀY = XᵀWᵀW·X, F = Y·C^(-1/2) has F·Fᵀ near WᵀW, and its
// left singular vectors are the directions.
func (k *krylov) nystrom(rank int, most float64) []float64 {
	root, m := k.root(most)
	k.x, k.wideRoom = nil, [2][]float64{}
	f := make([]float64, k.columns*m)
	for i, y := range k.y {
		linalg.AddTimes(f, y, root[i*k.width*m:(i+1)*k.width*m], k.width, m)
	}
	k.y = nil
	h := make([]float64, m*m)
	linalg.AddTransposeTimes(h, f, f, m, m)
	values, vectors := linalg.Eigen(h, m)
	rows := make([]float64, rank*m)
	for c := range min(rank, m) {
		if values[c] <= 1e-15*values[0] {
			break
		}
		length := math.Sqrt(values[c])
		for i, v := range vectors[c*m : (c+1)*m] {
			rows[c*m+i] = v / length
		}
	}
	return k.directions(func(int) []float64 { return f }, 1, rows, rank)
}

// root returns S, [all columns of X, m], with S·Sᵀ the inverse of C where C is
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
	values, vectors := linalg.Eigen(c, all)
	for m < all && values[m] > k.precision.part*values[0] {
		m++
	}
	s = make([]float64, all*m)
	for i := range all {
		for j := range m {
			s[i*m+j] = vectors[j*all+i] * scale[i] / math.Sqrt(values[j])
		}
	}
	return s, m
}

// precision is what is taken for more than the rounding of products.
type precision struct {
	square float64 // of the greatest |W·x|²
	part   float64 // of C's greatest eigenvalue
	again  float64 // what has to be left of a column for it not to be projected again
	tries  int
}

var (
	singlePrecision  = precision{1e-13, 1e-7, 1e-3, 1}
	sixteenPrecision = precision{1e-9, 1e-5, 0.25, 3}
)
