package linalg

import (
	"math"
	"slices"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// Leading is [Eigen] for only the count greatest eigenvalues. Inverse iteration
// computes just the eigenvectors that are asked for. If cancelled is closed it stops
// and returns nil.
func Leading(matrix []float64, n, count int, cancelled <-chan struct{}) (values, vectors []float64) {
	a := slices.Clone(matrix)
	up := normalize(a, n)
	r := reduce(a, n, cancelled)
	t := newTridiagonal(r.d, r.e)
	if values = t.values(cancelled); values != nil {
		values = values[:count]
		vectors = t.vectors(values, r, cancelled)
	}
	if vectors == nil {
		if values, vectors = Eigen(matrix, n, cancelled); values == nil {
			return nil, nil
		}
		return values[:count], vectors[:count*n]
	}
	Scale(values, up)
	return values, vectors
}

// tridiagonalMatrix is symmetric; d is its diagonal, and e from index 1 on the diagonal
// beside it. e[0] is 0.
type tridiagonalMatrix struct {
	d, e        []float64
	norm, least float64 // a bound of the eigenvalues' magnitudes, and what is negligible beside it
}

func newTridiagonal(d, e []float64) *tridiagonalMatrix {
	t := &tridiagonalMatrix{d: d, e: e}
	for i := range d {
		beside := math.Abs(e[i])
		if i+1 < len(d) {
			beside += math.Abs(e[i+1])
		}
		t.norm = max(t.norm, math.Abs(d[i])+beside)
	}
	t.norm = max(t.norm, 0x1p-500)
	t.least = 0x1p-53 * t.norm
	return t
}

// values returns all eigenvalues, greatest first, by Pal, Walker and Kahan's QL without
// square roots. It returns nil if one does not converge, or if cancelled is closed.
func (t *tridiagonalMatrix) values(cancelled <-chan struct{}) []float64 {
	n := len(t.d)
	d, squares := slices.Clone(t.d), make([]float64, n)
	for i := 1; i < n; i++ {
		squares[i-1] = float64(t.e[i] * t.e[i])
	}
	nothing := float64(t.least * t.least)
	for l := range n {
		for try := 0; ; try++ { // two are usual
			m := l
			for m < n-1 && squares[m] > nothing {
				m++
			}
			if m == l {
				break
			}
			if try == 60 || over(cancelled) {
				return nil
			}
			sweepSquares(d[l:m+1], squares[l:m+1])
		}
	}
	slices.Sort(d)
	slices.Reverse(d)
	return d
}

// sweepSquares does one QL step. squares are the squares of the second diagonal,
// followed by a 0.
func sweepSquares(d, squares []float64) {
	last := len(d) - 1
	root := math.Sqrt(squares[0])
	shift := (d[1] - d[0]) / (2 * root)
	shift = d[0] - root/(shift+math.Copysign(hypotenuse(shift, 1), shift))
	c, s, gamma := 1.0, 0.0, d[last]-shift
	p := float64(gamma * gamma)
	for i := last - 1; i >= 0; i-- {
		square, before, was := squares[i], c, gamma
		r := p + square
		squares[i+1] = float64(s * r)
		c, s = p/r, square/r
		gamma = float64(c*(d[i]-shift)) - float64(s*was)
		d[i+1] = was + (d[i] - gamma)
		if c != 0 {
			p = float64(gamma*gamma) / c
		} else {
			p = float64(before * square)
		}
	}
	squares[0], squares[last] = float64(s*p), 0
	d[0] = shift + gamma
}

// vectors returns eigenvectors of the matrix before its reduction, as rows, by inverse
// iteration. Each is made orthogonal to all before it, because eigenvectors of close
// eigenvalues do not come out orthogonal by themselves. It returns nil if one does not
// converge, or if cancelled is closed.
func (t *tridiagonalMatrix) vectors(values []float64, r *reduction, cancelled <-chan struct{}) []float64 {
	n, count := len(t.d), len(values)
	width := (count + lanes - 1) / lanes * lanes
	b := &basis{size: r.size, width: width, rows: make([]float64, count*r.size), columns: make([]float64, r.size*width)}
	s := newSolver(n)
	for i, value := range values {
		if over(cancelled) {
			return nil
		}
		x := b.rows[i*r.size:][:n]
		for k := range x {
			x[k] = float64(int64(splitmix(uint64(i*n+k)))) * 0x1p-63
		}
		s.factor(t, value)
		if !t.invert(x, value, s, func() { b.takeOff(i) }) {
			return nil
		}
		b.keep(i)
	}
	r.back(b.columns, width, cancelled)
	if over(cancelled) {
		return nil
	}
	vectors := make([]float64, count*n)
	for i := range count {
		for k := range n {
			vectors[i*n+k] = b.columns[k*width+i]
		}
	}
	return vectors
}

// invert turns x into the eigenvector of an eigenvalue by inverse iteration. takeOff
// makes x orthogonal to earlier vectors after each step. invert reports false if the
// iteration does not converge.
func (t *tridiagonalMatrix) invert(x []float64, value float64, s *solver, takeOff func()) bool {
	const usual, most = 2, 6
	for try := 1; try <= most; try++ {
		if s.solve(x); !unit(x) {
			return false
		}
		takeOff()
		left := Norm(x)
		takeOff() // once more: if little of x is left, its rounding errors count
		settled := Norm(x) > left/2
		if !unit(x) {
			return false
		}
		if try >= usual && settled && t.misses(x, value) <= 2e-14*t.norm {
			return true
		}
	}
	return false
}

// splitmix returns the number at an index of Steele, Lea and Flood's SplitMix sequence.
func splitmix(at uint64) uint64 {
	z := (at + 1) * 0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// unit scales x to length 1, and reports false if its length is too small or too large
// for that.
func unit(x []float64) bool {
	length := Norm(x)
	if !(length > 0x1p-500 && length < 0x1p1000) {
		return false
	}
	Scale(x, 1/length)
	return true
}

// misses returns the length of T·x - value·x.
func (t *tridiagonalMatrix) misses(x []float64, value float64) float64 {
	squares, before := 0.0, 0.0
	for i, v := range x {
		rest := float64((t.d[i]-value)*v) + float64(t.e[i]*before)
		if i+1 < len(x) {
			rest += float64(t.e[i+1] * x[i+1])
		}
		before = v
		squares += float64(rest * rest)
	}
	return math.Sqrt(squares)
}

// basis holds the vectors found so far, as rows [count, size] and as columns [size,
// width].
type basis struct {
	size, width   int
	rows, columns []float64
}

// keep copies row i to the columns.
func (b *basis) keep(i int) {
	for k, v := range b.rows[i*b.size:][:b.size] {
		b.columns[k*b.width+i] = v
	}
}

// takeOff makes row i orthogonal to the rows before it.
func (b *basis) takeOff(i int) {
	if i == 0 {
		return
	}
	x, has := b.rows[i*b.size:][:b.size], make([]float64, b.width)
	kernel.AddSums(has, kernel.Factors{X: x, Term: 1}, b.columns, b.width, (i+lanes-1)/lanes*lanes)
	Scale(has, -1)
	kernel.AddSums(x, kernel.Factors{X: has, Term: 1}, b.rows[:i*b.size], b.size, b.size)
}

// solver solves (T - value)·x = b by elimination. It exchanges two rows if the next one
// has the greater pivot.
type solver struct {
	inverse, next, after []float64 // three diagonals of the upper triangle, the first one inverted
	factors              []float64
	exchanged            []bool
}

func newSolver(n int) *solver {
	return &solver{make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n), make([]bool, n)}
}

func (s *solver) factor(t *tridiagonalMatrix, value float64) {
	n := len(t.d)
	pivot, next := t.d[0]-value, 0.0
	if n > 1 {
		next = t.e[1]
	}
	for i := range n - 1 {
		below, diagonal, beside := t.e[i+1], t.d[i+1]-value, 0.0
		if i+2 < n {
			beside = t.e[i+2]
		}
		if s.exchanged[i] = math.Abs(below) > math.Abs(pivot); s.exchanged[i] {
			f := pivot / below
			s.inverse[i], s.next[i], s.after[i], s.factors[i] = 1/below, diagonal, beside, f
			pivot, next = next-float64(f*diagonal), -float64(f*beside)
			continue
		}
		pivot = t.atLeast(pivot)
		f := below / pivot
		s.inverse[i], s.next[i], s.after[i], s.factors[i] = 1/pivot, next, 0, f
		pivot, next = diagonal-float64(f*next), beside
	}
	s.inverse[n-1], s.next[n-1], s.after[n-1] = 1/t.atLeast(pivot), 0, 0
}

// atLeast replaces a pivot near 0 by the least one that is not negligible.
func (t *tridiagonalMatrix) atLeast(pivot float64) float64 {
	if math.Abs(pivot) < t.least {
		return math.Copysign(t.least, pivot)
	}
	return pivot
}

func (s *solver) solve(x []float64) {
	n := len(x)
	v := x[0]
	for i, f := range s.factors[:n-1] {
		next := x[i+1]
		if s.exchanged[i] {
			v, next = next, v
		}
		x[i] = v
		v = next - float64(f*v)
	}
	x[n-1] = v
	one, two := 0.0, 0.0 // the two values of x after i
	for i := n - 1; i >= 0; i-- {
		v := (x[i] - float64(s.after[i]*two) - float64(s.next[i]*one)) * s.inverse[i]
		x[i], one, two = v, v, one
	}
}
