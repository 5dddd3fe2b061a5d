package linalg

import "github.com/tensorpress/tensorpress/internal/kernel"

const (
	lanes = 16 // columns of a strip
	panel = 16 // columns that are reduced before the rest of the matrix follows
	pairs = 2 * panel
)

// reduction is Householder's reduction by panels of columns, so that most of the work
// is products of matrices. The matrix is stored in strips of 16 columns, one after the
// other, padded with zeros.
type reduction struct {
	n, size    int // columns without and with padding
	strips     []float64
	reflectors []float64 // [n, size], one per row
	factors    []float64
	d, e       []float64 // as in tridiagonal

	// v and w of each column of the panel, stored as rows and as columns. The rest of
	// the matrix still lacks the subtraction of v·wᵀ + w·vᵀ.
	rows, columns []float64
	stride        int            // of rows; a power of two would map them to the same cache lines
	by            [pairs]float64 // factors of rows
	x, w          []float64
}

// reduce brings a symmetric [n, n] matrix with magnitudes up to 1 to the
// diagonals d and e.
func reduce(a []float64, n int, cancelled <-chan struct{}) *reduction {
	size := (n + lanes - 1) / lanes * lanes
	stride := size + lanes
	r := &reduction{n: n, size: size, stride: stride, strips: make([]float64, size*size), d: make([]float64, n), e: make([]float64, n),
		reflectors: make([]float64, n*size), factors: make([]float64, n),
		rows: make([]float64, (pairs+1)*stride), columns: make([]float64, pairs*size),
		x: make([]float64, 2*stride), w: make([]float64, 2*stride)}
	for i := range n {
		for j := 0; j < n; j += lanes {
			copy(r.row(j/lanes, i), a[i*n+j:i*n+min(j+lanes, n)])
		}
	}
	for from := 0; from < n && !over(cancelled); from += panel {
		to := min(from+panel, n)
		for k := from; k < to; k++ {
			r.column(k, k-from)
		}
		if to < n {
			r.follow(to)
		}
	}
	return r
}

// row returns row i of a strip.
func (r *reduction) row(strip, i int) []float64 {
	return r.strips[(strip*r.size+i)*lanes:][:lanes]
}

// column reduces column k, the column number at of the panel: it finds the reflector
// and its v and w.
func (r *reduction) column(k, at int) {
	x, w := r.x, r.w[:r.size]
	clear(r.w)
	for i := k; i < r.n; i++ {
		x[i] = r.row(k/lanes, i)[k%lanes]
	}
	r.takeOff(x, r.columns[k*pairs:], at, k)
	r.d[k] = x[k]
	if k+1 == r.n {
		return
	}
	v := r.reflectors[k*r.size:][:r.size]
	copy(v[k+1:r.n], x[k+1:r.n])
	multiple, f := reflector(v[k+1 : r.n])
	r.e[k+1], r.factors[k] = multiple, f
	if f != 0 {
		r.multiply(w, v, k+1)
		has := make([]float64, pairs)
		kernel.AddSums(has, kernel.Factors{X: v, Term: 1}, r.columns, pairs, pairs)
		r.takeOff(r.w, has, at, k)
		clear(w[:k+1])
		Scale(w, f)
		AddScaled(w, v, -f/2*Dot(w, v))
	}
	copy(r.rows[2*at*r.stride:], v)
	copy(r.rows[(2*at+1)*r.stride:], w)
	for i, u := range v {
		r.columns[i*pairs+2*at], r.columns[i*pairs+2*at+1] = u, w[i]
	}
}

// multiply sets w to the product of the matrix, as it was before the panel, and v,
// which is zero before from.
func (r *reduction) multiply(w, v []float64, from int) {
	first := from / lanes
	for s := first; s < r.size/lanes; s++ {
		strip := r.strips[(s*r.size+first*lanes)*lanes:][:(r.size-first*lanes)*lanes]
		kernel.AddSums(w[s*lanes:(s+1)*lanes], kernel.Factors{X: v[first*lanes:], Term: 1}, strip, lanes, lanes)
	}
}

// takeOff subtracts from x, a row or vector, the contributions of the panel's first
// columns, beginning at or shortly before index from. has are the products of x's row
// or vector with each v and w.
func (r *reduction) takeOff(x, has []float64, columns, from int) {
	for j := 0; j < 2*columns; j += 2 {
		r.by[j], r.by[j+1] = -has[j+1], -has[j]
	}
	if columns > 0 {
		from = from / lanes * lanes
		rows := r.rows[from:][:2*columns*r.stride]
		kernel.AddSums(x[from:][:r.stride], kernel.Factors{X: r.by[:], Term: 1}, rows, r.stride, r.size-from)
	}
}

// follow subtracts the contributions of a whole panel from the rest of the matrix.
func (r *reduction) follow(from int) {
	crossed := make([]float64, pairs*lanes)
	for s := from / lanes; s < r.size/lanes; s++ {
		for j := range pairs {
			for c, v := range r.rows[(j^1)*r.stride+s*lanes:][:lanes] {
				crossed[j*lanes+c] = -v
			}
		}
		AddTimes(r.strips[(s*r.size+from)*lanes:][:(r.size-from)*lanes], r.columns[from*pairs:], crossed, pairs, lanes)
	}
	clear(r.rows)
	clear(r.columns)
}

// back transforms vectors of the tridiagonal matrix, the columns of y [size, width],
// into vectors of the original matrix. It applies a panel of reflectors at a time, the
// last first. The product of a panel is I - Vᵀ·T·V, with the reflectors as rows of V.
func (r *reduction) back(y []float64, width int, cancelled <-chan struct{}) {
	last := max(r.n-2, 0) / panel * panel
	v, turned := make([]float64, panel*r.size), make([]float64, panel*r.size)
	for k := last; k >= 0 && !over(cancelled); k -= panel {
		n := min(panel, r.n-k)
		first := (k + 1) / lanes * lanes
		rest := r.size - first
		for i := range n {
			copy(v[i*rest:], r.reflectors[(k+i)*r.size+first:(k+i+1)*r.size])
		}
		for i := range n * rest {
			turned[i%rest*n+i/rest] = v[i]
		}
		has, by := make([]float64, n*width), make([]float64, n*width)
		AddTimes(has, v[:n*rest], y[first*width:], rest, width)
		AddTimes(by, r.joined(v, turned, k, n), has, n, width)
		AddTimes(y[first*width:], turned[:n*rest], by, n, width)
	}
}

// joined returns -T for n reflectors from k on, given as the rows of v and as columns.
func (r *reduction) joined(v, columns []float64, k, n int) []float64 {
	rest := r.size - (k+1)/lanes*lanes
	products, t := make([]float64, n*n), make([]float64, n*n)
	AddTimes(products, v[:n*rest], columns, rest, n)
	for j := range n {
		f := r.factors[k+j]
		for i := range j { // overlap of the earlier reflectors with this one
			has := 0.0
			for l := i; l < j; l++ {
				has += float64(t[i*n+l] * products[l*n+j])
			}
			t[i*n+j] = -float64(f * has)
		}
		t[j*n+j] = -f
	}
	return t
}
