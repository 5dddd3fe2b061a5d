package quant

import (
	"errors"
	"math"

	"github.com/tensorpress/tensorpress/internal/linalg"
)

// errNonfinite says why a weight has no low-rank part.
var errNonfinite = errors.New("a weight with NaN or infinity has no low-rank part")

// A space gathers, pass by pass, what the row space of a weight W follows from:
// products WᵀW·x for the x it asks for, of values that fit single precision.
type space interface {
	// asked returns the x of the present pass, [columns, width], or nil for
	// the rows of W themselves, width columns.
	asked() []float64
	// end takes the sum of the products, [columns, width].
	end(y []float64)
	// rows returns up to rank directions, [rank, columns], the most important
	// first; missing ones are zero.
	rows(rank int) []float64
}

// gram is the whole of WᵀW: one pass, then its eigenvectors.
type gram struct {
	columns int
	y       []float64
}

func (g *gram) asked() []float64 { return nil }

func (g *gram) end(y []float64) { g.y = y }

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
	x, y                  [][]float64 // blocks so far, [columns, width]
}

func newKrylov(columns, width, depth int) *krylov {
	k := &krylov{columns: columns, width: width, depth: depth}
	k.extend(make([]float64, columns*width))
	return k
}

func (k *krylov) asked() []float64 { return k.x[len(k.x)-1] }

func (k *krylov) end(y []float64) {
	k.y = append(k.y, y)
	if len(k.y) < k.depth {
		k.extend(y)
	}
}

// extend adds a block: y orthogonal to all before it. Columns that bring
// nothing new are replaced by random ones.
func (k *krylov) extend(y []float64) {
	n := k.columns
	block := columnsOf(y, n, k.width)
	for _, c := range block {
		normalize(c)
	}
	for range 2 {
		k.project(block)
	}
	for i, c := range block {
		if normalize(c); independent(c, block[:i]) {
			continue
		}
		k.random(c, i)
		normalize(c)
		for range 2 {
			k.project(block[i : i+1])
		}
		if normalize(c); !independent(c, block[:i]) {
			clear(c)
		}
	}
	next := make([]float64, n*k.width)
	for c, column := range block {
		for j, v := range column {
			next[j*k.width+c] = float64(float32(v))
		}
	}
	k.x = append(k.x, next)
}

func columnsOf(y []float64, n, width int) [][]float64 {
	columns := make([][]float64, width)
	for c := range columns {
		columns[c] = make([]float64, n)
		for j := range columns[c] {
			columns[c][j] = y[j*width+c]
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
	for i, v := range c {
		c[i] = v / length
	}
}

// project makes columns orthogonal to the blocks so far. What is left of a
// column of length 1 is zero when it is only rounding.
func (k *krylov) project(block [][]float64) {
	n, w := k.columns, len(block)
	p := make([]float64, n*w)
	for c, column := range block {
		for j, v := range column {
			p[j*w+c] = v
		}
	}
	g := make([]float64, k.width*w)
	for _, x := range k.x {
		clear(g)
		linalg.AddTransposeTimes(g, x, p, k.width, w)
		linalg.AddTimes(p, x, g, k.width, w, -1)
	}
	for c, column := range block {
		for j := range column {
			column[j] = p[j*w+c]
		}
		if linalg.Norm(column) < 1e-12 {
			clear(column)
		}
	}
}

// independent makes c orthogonal to the earlier columns, of length 1 or 0, and
// reports whether enough of it is left.
func independent(c []float64, earlier [][]float64) bool {
	for range 2 {
		for _, e := range earlier {
			linalg.AddScaled(c, e, -linalg.Dot(c, e))
		}
		if linalg.Norm(c) < 1e-12 {
			return false
		}
		normalize(c)
	}
	return true
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

// rows finishes: with C = XᵀY = XᵀWᵀW·X, F = Y·C^(-1/2) has F·Fᵀ near WᵀW, and
// its left singular vectors are the directions.
func (k *krylov) rows(rank int) []float64 {
	root, m := k.root()
	k.x = nil
	f := make([]float64, k.columns*m)
	for i, y := range k.y {
		linalg.AddTimes(f, y, root[i*k.width*m:(i+1)*k.width*m], k.width, m, 1)
	}
	k.y = nil
	h := make([]float64, m*m)
	linalg.AddTransposeTimes(h, f, f, m, m)
	values, vectors := linalg.Eigen(h, m)
	turn := make([]float64, m*rank)
	for c := range min(rank, m) {
		if values[c] <= 1e-15*values[0] {
			break
		}
		length := math.Sqrt(values[c])
		for i := range m {
			turn[i*rank+c] = vectors[c*m+i] / length
		}
	}
	v := make([]float64, k.columns*rank)
	linalg.AddTimes(v, f, turn, m, rank, 1)
	down := make([]float64, len(v))
	for i, x := range v {
		down[i%rank*k.columns+i/rank] = x
	}
	return down
}

// root returns S, [all columns of X, m], with S·Sᵀ the inverse of C where C is
// more than rounding. C is scaled to a diagonal of ones before: its blocks
// differ in size as much as the squares of singular values.
func (k *krylov) root() (s []float64, m int) {
	w, all := k.width, k.width*k.depth
	c := make([]float64, all*all)
	part := make([]float64, w*w)
	for i, x := range k.x {
		for j, y := range k.y {
			clear(part)
			linalg.AddTransposeTimes(part, x, y, w, w)
			for r := range w {
				copy(c[(i*w+r)*all+j*w:][:w], part[r*w:(r+1)*w])
			}
		}
	}
	scale := make([]float64, all)
	for i := range scale {
		if v := c[i*all+i]; v > 0 {
			scale[i] = 1 / math.Sqrt(v)
		}
	}
	for i := range all {
		for j := range i + 1 {
			v := (c[i*all+j] + c[j*all+i]) / 2
			c[i*all+j] = v * scale[i] * scale[j]
		}
	}
	values, vectors := linalg.Eigen(c, all)
	for m < all && values[m] > leastPart*values[0] {
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

// leastPart of C's greatest eigenvalue is taken for more than rounding.
const leastPart = 1e-10
