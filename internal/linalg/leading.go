package linalg

import (
	"math"
	"slices"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// Leading is [Eigen] for the greatest count eigenvalues alone, by bisection and
// inverse iteration: of vectors that are not asked for nothing is computed. Once
// cancelled is closed it returns nil.
func Leading(matrix []float64, n, count int, cancelled <-chan struct{}) (values, vectors []float64) {
	a := slices.Clone(matrix)
	up := normalize(a, n)
	r := reduce(a, n, cancelled)
	t := newTridiagonal(r.d, r.e)
	values = t.greatest(count, cancelled)
	if vectors = t.vectors(values, r, cancelled); vectors == nil {
		if values, vectors = Eigen(matrix, n, cancelled); values == nil {
			return nil, nil
		}
		return values[:count], vectors[:count*n]
	}
	Scale(values, up)
	return values, vectors
}

// tridiagonalMatrix is symmetric, with its diagonal and the one beside it, which
// begins with a zero.
type tridiagonalMatrix struct {
	d, e, squares []float64
	norm, least   float64 // a bound of eigenvalues, and what is nothing beside it
}

func newTridiagonal(d, e []float64) *tridiagonalMatrix {
	t := &tridiagonalMatrix{d: d, e: e, squares: make([]float64, len(d))}
	for i := range d {
		beside := math.Abs(e[i])
		if i+1 < len(d) {
			beside += math.Abs(e[i+1])
		}
		t.norm = max(t.norm, math.Abs(d[i])+beside)
		t.squares[i] = float64(e[i] * e[i])
	}
	t.norm = max(t.norm, 0x1p-1000)
	t.least = 0x1p-53 * t.norm
	return t
}

// chains is how many eigenvalues are sought at a time: a processor has to wait for
// a division, and does others meanwhile.
const chains = 4

// halvings of what is between the bounds of eigenvalues leave what is nothing.
const halvings = 54

// greatest returns the greatest eigenvalues, in order.
func (t *tridiagonalMatrix) greatest(count int, cancelled <-chan struct{}) []float64 {
	values := make([]float64, count)
	for from := 0; from < count && !over(cancelled); from += chains {
		var lo, hi [chains]float64
		for c := range chains {
			lo[c], hi[c] = -t.norm, t.norm
		}
		for range halvings {
			var middle [chains]float64
			for c := range chains {
				middle[c] = lo[c] + (hi[c]-lo[c])/2
			}
			for c, above := range t.above(middle) {
				if above > from+c {
					lo[c] = middle[c]
				} else {
					hi[c] = middle[c]
				}
			}
		}
		for c := range min(chains, count-from) {
			values[from+c] = lo[c] + (hi[c]-lo[c])/2
		}
	}
	return values
}

// above returns how many eigenvalues are above each bound: as many as pivots of
// what is left of the matrix are positive.
func (t *tridiagonalMatrix) above(bounds [chains]float64) (count [chains]int) {
	var p [chains]float64
	for c := range p {
		p[c] = 1
	}
	const tiny = 0x1p-1000
	squares := t.squares[:len(t.d)]
	for i, d := range t.d {
		square := squares[i]
		for c := range p {
			v := d - bounds[c] - square/p[c]
			if math.Abs(v) < tiny {
				v = -tiny
			}
			p[c] = v
			count[c] += int(^math.Float64bits(v) >> 63)
		}
	}
	return count
}

// vectors returns eigenvectors of the matrix that was reduced, as rows, by inverse
// iteration. Each is made orthogonal to all before it, which those of eigenvalues
// close to each other are not by themselves. It returns nil where one is not found,
// or is not sought any more.
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
		left := 0.0
		for range inversions {
			if s.solve(x); !unit(x) {
				return nil
			}
			b.takeOff(i)
			left = Norm(x)
			b.takeOff(i) // once more: it may be little
			if !unit(x) {
				return nil
			}
		}
		if left < 1e-4 || t.misses(x, value) > 1e-13*t.norm {
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

const inversions = 3 // two are usual

// splitmix is the number at a place of Steele, Lea and Flood's sequence.
func splitmix(at uint64) uint64 {
	z := (at + 1) * 0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// unit makes x one long, and reports false where that cannot be.
func unit(x []float64) bool {
	length := Norm(x)
	if !(length > 0x1p-500 && length < 0x1p1000) {
		return false
	}
	Scale(x, 1/length)
	return true
}

// misses returns how far T·x is from value·x.
func (t *tridiagonalMatrix) misses(x []float64, value float64) float64 {
	rest := make([]float64, len(x))
	for i, v := range x {
		rest[i] = float64((t.d[i] - value) * v)
		if i > 0 {
			rest[i] += float64(t.e[i] * x[i-1])
			rest[i-1] += float64(t.e[i] * v)
		}
	}
	return Norm(rest)
}

// basis is vectors so far, as rows [count, size] and as columns [size, width].
type basis struct {
	size, width   int
	rows, columns []float64
}

// keep takes row i among the columns.
func (b *basis) keep(i int) {
	for k, v := range b.rows[i*b.size:][:b.size] {
		b.columns[k*b.width+i] = v
	}
}

// takeOff takes off row i what it has of those before it.
func (b *basis) takeOff(i int) {
	if i == 0 {
		return
	}
	x, has := b.rows[i*b.size:][:b.size], make([]float64, b.width)
	kernel.AddSums(has, kernel.Factors{X: x, Term: 1}, b.columns, b.width, (i+lanes-1)/lanes*lanes)
	Scale(has, -1)
	kernel.AddSums(x, kernel.Factors{X: has, Term: 1}, b.rows[:i*b.size], b.size, b.size)
}

// solver solves (T - value)·x = b by elimination, with rows exchanged where the
// next one has the greater pivot.
type solver struct {
	pivots, next, after []float64 // three diagonals of the triangle
	factors             []float64
	exchanged           []bool
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
			s.pivots[i], s.next[i], s.after[i], s.factors[i] = below, diagonal, beside, f
			pivot, next = next-float64(f*diagonal), -float64(f*beside)
			continue
		}
		pivot = t.atLeast(pivot)
		f := below / pivot
		s.pivots[i], s.next[i], s.after[i], s.factors[i] = pivot, next, 0, f
		pivot, next = diagonal-float64(f*next), beside
	}
	s.pivots[n-1], s.next[n-1], s.after[n-1] = t.atLeast(pivot), 0, 0
}

// atLeast keeps a pivot from being nothing.
func (t *tridiagonalMatrix) atLeast(pivot float64) float64 {
	if math.Abs(pivot) < t.least {
		return math.Copysign(t.least, pivot)
	}
	return pivot
}

func (s *solver) solve(x []float64) {
	n := len(x)
	for i := range n - 1 {
		if s.exchanged[i] {
			x[i], x[i+1] = x[i+1], x[i]
		}
		x[i+1] -= float64(s.factors[i] * x[i])
	}
	for i := n - 1; i >= 0; i-- {
		v := x[i]
		if i+1 < n {
			v -= float64(s.next[i] * x[i+1])
		}
		if i+2 < n {
			v -= float64(s.after[i] * x[i+2])
		}
		x[i] = v / s.pivots[i]
	}
}
