// Package linalg is the dense linear algebra for low-rank factors, in double precision.
// Results have the same bits on every machine: every sum has a fixed order, products
// are either all rounded or all fused, and the only function used is the square root.
// Matrices are row-major. Nothing here uses more than one thread.
package linalg

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// block is how many rows of the right factor stay in the first-level cache.
const block = 128

// AddTimes adds a·b to dst, where a is [rows, inner] and b is [inner, width].
func AddTimes(dst, a, b []float64, inner, width int) {
	if inner == 0 || width == 0 {
		return
	}
	const some = kernel.SumRows
	rows := len(a) / inner
	for from := 0; from < inner; from += block {
		part := b[from*width : min(from+block, inner)*width]
		for i := 0; i < rows; i += some {
			f := kernel.Factors{X: a[i*inner+from:], Row: inner, Term: 1}
			kernel.AddSums(dst[i*width:min(i+some, rows)*width], f, part, width, width)
		}
	}
}

// AddTransposeTimes adds aᵀ·b to dst, where a is [rows, height] and b is [rows, width].
func AddTransposeTimes(dst, a, b []float64, height, width int) {
	addTransposeTimes(dst, a, b, height, width, func(int) int { return width })
}

// AddSquare adds the lower half of aᵀ·a to dst, where a is [rows, n]. Some of the upper
// half is added, too.
func AddSquare(dst, a []float64, n int) {
	const lanes = 16
	addTransposeTimes(dst, a, a, n, n, func(end int) int { return min((end+lanes-1)/lanes*lanes, n) })
}

// addTransposeTimes adds aᵀ·b; for the rows before end it leaves out the columns from
// used(end) on. Columns of a that are far apart in memory are first copied side by
// side, since they would evict each other from the cache.
func addTransposeTimes(dst, a, b []float64, height, width int, used func(end int) int) {
	if height == 0 || width == 0 {
		return
	}
	const near, some = 32, kernel.SumRows
	var packed []float64
	if height > near {
		packed = make([]float64, some*block)
	}
	rows := len(a) / height
	for from := 0; from < rows; from += block {
		n := min(block, rows-from)
		part := b[from*width : (from+n)*width]
		for j := 0; j < height; j += some {
			end := min(j+some, height)
			f := kernel.Factors{X: a[from*height+j:], Row: 1, Term: height}
			if height > near {
				gather(packed, f.X, end-j, n, height)
				f = kernel.Factors{X: packed, Row: block, Term: 1}
			}
			kernel.AddSums(dst[j*width:end*width], f, part, width, used(end))
		}
	}
}

// gather copies n values of each of that many columns of a side by side.
func gather(packed, a []float64, columns, n, height int) {
	for i := range n {
		for k, v := range a[i*height:][:columns] {
			packed[k*block+i] = v
		}
	}
}

// Transposed returns the transpose of a, which is [rows, columns].
func Transposed(a []float64, rows, columns int) []float64 {
	turned := make([]float64, len(a))
	for i := range rows {
		for j, v := range a[i*columns : (i+1)*columns] {
			turned[j*rows+i] = v
		}
	}
	return turned
}

// ColumnSquares returns the squared lengths of the columns of a, which is [rows, n].
func ColumnSquares(a []float64, n int) []float64 {
	s := make([]float64, n)
	for i := 0; i < len(a); i += n {
		for c, v := range a[i : i+n] {
			s[c] += float64(v * v)
		}
	}
	return s
}

// Dot returns Σ a·b, computed as four sums of every fourth product.
func Dot(a, b []float64) float64 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float64
	for len(a) >= 4 {
		s0 += float64(a[0] * b[0])
		s1 += float64(a[1] * b[1])
		s2 += float64(a[2] * b[2])
		s3 += float64(a[3] * b[3])
		a, b = a[4:], b[4:]
	}
	for i, v := range a {
		s0 += float64(v * b[i])
	}
	return (s0 + s1) + (s2 + s3)
}

// AddScaled adds f·x to dst.
func AddScaled(dst, x []float64, f float64) {
	x = x[:len(dst)]
	for i, v := range x {
		dst[i] += float64(f * v)
	}
}

// Scale multiplies x by f.
func Scale(x []float64, f float64) {
	for i := range x {
		x[i] *= f
	}
}

// Norm returns the Euclidean length of x without overflow or underflow.
func Norm(x []float64) float64 {
	if s := Dot(x, x); s > 0x1p-900 && s < 0x1p900 {
		return math.Sqrt(s)
	}
	greatest := 0.0
	for _, v := range x {
		greatest = max(greatest, math.Abs(v))
	}
	if greatest == 0 || math.IsInf(greatest, 0) || greatest != greatest {
		return greatest
	}
	e := exponent(greatest)
	down, s := math.Ldexp(1, -e), 0.0
	for _, v := range x {
		v *= down
		s += float64(v * v)
	}
	return math.Ldexp(math.Sqrt(s), e)
}

// exponent returns an e near the exponent of x for which 2^e and 2^-e are normal
// numbers.
func exponent(x float64) int {
	_, e := math.Frexp(x)
	return min(max(e, -1000), 1000)
}

// Above returns how many eigenvalues of a symmetric [n, n] matrix are greater than
// bound. It reads the lower half. The count is that of positive pivots in the
// elimination of the matrix less bound·I.
func Above(a []float64, n int, bound float64) int {
	l, d, count := make([]float64, n*n), make([]float64, n), 0
	for i := range n {
		row := l[i*n : i*n+i]
		for j := range row { // row[j] holds l[i, j]·d[j] until it is divided
			row[j] = a[i*n+j] - Dot(row[:j], l[j*n:j*n+j])
		}
		d[i] = a[i*n+i] - bound
		for j, v := range row {
			row[j] = v / d[j]
			d[i] -= float64(v * row[j])
		}
		if d[i] == 0 {
			d[i] = -0x1p-1000
		}
		if d[i] > 0 {
			count++
		}
	}
	return count
}

// Inverse returns the inverse of a symmetric positive [n, n] matrix. Rows that depend
// on earlier ones, or are zero, are left out: their part of the inverse is zero. If
// cancelled is closed it stops and returns nil.
func Inverse(a []float64, n int, cancelled <-chan struct{}) []float64 {
	l, kept := cholesky(a, n, cancelled)
	inverse := make([]float64, n*n)
	x := make([]float64, n)
	for c := range n {
		if over(cancelled) {
			return nil
		}
		if !kept[c] {
			continue
		}
		clear(x)
		x[c] = 1
		for i := c; i < n; i++ { // L·y = unit vector c
			if !kept[i] {
				x[i] = 0
				continue
			}
			x[i] = (x[i] - Dot(l[i*n+c:i*n+i], x[c:i])) / l[i*n+i]
		}
		for i := n - 1; i >= 0; i-- { // Lᵀ·x = y
			if !kept[i] {
				continue
			}
			s := x[i]
			for k := i + 1; k < n; k++ {
				s -= float64(l[k*n+i] * x[k])
			}
			x[i] = s / l[i*n+i]
		}
		for i, v := range x {
			inverse[i*n+c] = v
		}
	}
	return inverse
}

// Orthonormal returns the upper triangle that makes columns orthonormal, and for each
// column the part of it that was not in the columns before it. products are the
// products of the columns with each other, of which it reads the lower half. If next to
// nothing is left of a column, its part is 0, and the triangle turns it into that
// remainder divided by the column's own length.
func Orthonormal(products []float64, n int) (turn, parts []float64) {
	l, columns := make([]float64, n*n), make([]float64, n*n) // columns of the triangle, stored as rows
	parts = make([]float64, n)
	for i := range n {
		g, row, column := products[i*n:(i+1)*n], l[i*n:(i+1)*n], columns[i*n:(i+1)*n]
		if g[i] == 0 {
			continue
		}
		column[i] = 1
		for j := range i {
			if parts[j] > 0 {
				row[j] = (g[j] - Dot(row[:j], l[j*n:j*n+j])) / l[j*n+j]
				AddScaled(column, columns[j*n:(j+1)*n], -row[j])
			}
		}
		length := math.Sqrt(g[i])
		if rest := g[i] - Dot(row[:i], row[:i]); rest > 1e-12*g[i] {
			row[i] = math.Sqrt(rest)
			parts[i], length = row[i]/length, row[i]
		}
		Scale(column, 1/length)
	}
	return Transposed(columns, n, n), parts
}

func cholesky(a []float64, n int, cancelled <-chan struct{}) (l []float64, kept []bool) {
	l, kept = make([]float64, n*n), make([]bool, n)
	for i := range n {
		if over(cancelled) {
			break
		}
		for j := range i {
			if kept[j] {
				l[i*n+j] = (a[i*n+j] - Dot(l[i*n:i*n+j], l[j*n:j*n+j])) / l[j*n+j]
			}
		}
		rest := a[i*n+i] - Dot(l[i*n:i*n+i], l[i*n:i*n+i])
		if kept[i] = rest > 1e-12*a[i*n+i]; kept[i] {
			l[i*n+i] = math.Sqrt(rest)
		} else {
			clear(l[i*n : i*n+i])
		}
	}
	return l, kept
}
