// Package linalg is the small dense linear algebra that low-rank factors take,
// in double precision. Every sum has one order and every product is rounded, so
// that results are the same bits on every machine; of functions it uses the
// square root alone. Matrices are row-major. Nothing here knows of threads.
package linalg

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// block is how many rows of the right factor stay in the nearest cache.
const block = 256

// AddTimes adds a·b to dst, a being [rows, inner] and b [inner, width].
func AddTimes(dst, a, b []float64, inner, width int) {
	if inner == 0 || width == 0 {
		return
	}
	rows := len(a) / inner
	for from := 0; from < inner; from += block {
		part := b[from*width : min(from+block, inner)*width]
		for i := 0; i < rows; i += 2 {
			pair := min(2, rows-i)
			kernel.AddSums(dst[i*width:(i+pair)*width], kernel.Factors{X: a[i*inner+from:], Row: inner, Term: 1}, part, width)
		}
	}
}

// AddTransposeTimes adds aᵀ·b to dst, a being [rows, height] and b [rows, width].
// Columns of a are gathered where they are far apart: they would not stay in
// the cache together.
func AddTransposeTimes(dst, a, b []float64, height, width int) {
	if height == 0 || width == 0 {
		return
	}
	const near, strip = 32, 8
	var packed [strip * block]float64
	rows := len(a) / height
	for from := 0; from < rows; from += block {
		n := min(block, rows-from)
		part := b[from*width : (from+n)*width]
		for j := 0; j < height; j += 2 {
			f := kernel.Factors{X: a[from*height+j:], Row: 1, Term: height}
			if height > near {
				if j%strip == 0 {
					gather(&packed, f.X, min(strip, height-j), n, height)
				}
				f = kernel.Factors{X: packed[j%strip*block:], Row: block, Term: 1}
			}
			kernel.AddSums(dst[j*width:min(j+2, height)*width], f, part, width)
		}
	}
}

// gather packs n values of so many columns of a.
func gather(packed *[8 * block]float64, a []float64, columns, n, height int) {
	for i := range n {
		for k, v := range a[i*height:][:columns] {
			packed[k*block+i] = v
		}
	}
}

// Dot returns Σ a·b, as four sums of every fourth product.
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

// Norm returns the Euclidean length of x, whatever its range.
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

// exponent returns one near that of x, for which 2^e and 2^-e are normal.
func exponent(x float64) int {
	_, e := math.Frexp(x)
	return min(max(e, -1000), 1000)
}

// Above returns how many eigenvalues of a symmetric [n, n] matrix, of which it
// reads the lower half, are above a bound: as many as pivots of what is left of
// the matrix are positive.
func Above(a []float64, n int, bound float64) int {
	l, d, count := make([]float64, n*n), make([]float64, n), 0
	for i := range n {
		row := l[i*n : i*n+i]
		for j := range row { // row[j] is l[i, j]·d[j] until its turn is over
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

// Inverse returns the inverse of a symmetric positive [n, n] matrix. Rows that
// depend on earlier ones, or are zero, are left out: their part is zero.
func Inverse(a []float64, n int) []float64 {
	l, kept := cholesky(a, n)
	inverse := make([]float64, n*n)
	x := make([]float64, n)
	for c := range n {
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

func cholesky(a []float64, n int) (l []float64, kept []bool) {
	l, kept = make([]float64, n*n), make([]bool, n)
	for i := range n {
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
