package linalg

import (
	"math"
	"slices"
)

// Eigen returns the eigenvalues of a symmetric [n, n] matrix, greatest first, and their
// eigenvectors as rows in the same order. It reads the lower half and the diagonal,
// which must be finite. It uses Householder's reduction, then QL with implicit shifts.
// If cancelled is closed it stops and returns nil.
func Eigen(matrix []float64, n int, cancelled <-chan struct{}) (values, vectors []float64) {
	a := slices.Clone(matrix)
	up := normalize(a, n)
	d, e, q := tridiagonal(a, n, cancelled)
	implicitQL(d, e, q, n, cancelled)
	if over(cancelled) {
		return nil, nil
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch {
		case d[i] > d[j]:
			return -1
		case d[i] < d[j]:
			return 1
		}
		return 0
	})
	values, vectors = make([]float64, n), make([]float64, n*n)
	for i, from := range order {
		values[i] = d[from] * up
		copy(vectors[i*n:(i+1)*n], q[from*n:(from+1)*n])
	}
	return values, vectors
}

// over reports whether the work is cancelled.
func over(cancelled <-chan struct{}) bool {
	select {
	case <-cancelled:
		return true
	default:
		return false
	}
}

// normalize mirrors the lower half and scales the matrix by a power of two, so that
// magnitudes are at most 1. It returns the power of two that undoes the scaling.
func normalize(a []float64, n int) float64 {
	greatest := 0.0
	for i := range n {
		for j := range i + 1 {
			greatest = max(greatest, math.Abs(a[i*n+j]))
		}
	}
	if greatest == 0 {
		clear(a)
		return 1
	}
	e := exponent(greatest)
	down := math.Ldexp(1, -e)
	for i := range n {
		for j := range i + 1 {
			v := a[i*n+j] * down
			a[i*n+j], a[j*n+i] = v, v
		}
	}
	return math.Ldexp(1, e)
}

// tridiagonal reduces a to a tridiagonal matrix with diagonal d and, from index 1 on,
// second diagonal e. The rows of q are the basis in which a has that form.
func tridiagonal(a []float64, n int, cancelled <-chan struct{}) (d, e, q []float64) {
	d, e = make([]float64, n), make([]float64, n)
	reflectors, factors := make([][]float64, n), make([]float64, n)
	for k := 0; k+1 < n && !over(cancelled); k++ {
		d[k] = a[k*n+k]
		v := slices.Clone(a[k*n+k+1 : (k+1)*n]) // the column below the diagonal, which equals the row
		e[k+1], factors[k] = reflector(v)
		reflectors[k] = v
		reflect(a, n, k+1, v, factors[k])
	}
	if n > 0 {
		d[n-1] = a[n*n-1]
	}
	q = make([]float64, n*n)
	for i := range n {
		q[i*n+i] = 1
	}
	// Row i of q is H₀·H₁·…·unit i, with the last reflector applied first.
	for k := n - 2; k >= 0 && !over(cancelled); k-- {
		v := reflectors[k]
		for i := k + 1; i < n; i++ {
			row := q[i*n+k+1 : (i+1)*n]
			AddScaled(row, v, -factors[k]*Dot(row, v))
		}
	}
	return d, e, q
}

// reflector replaces v by the vector of the reflection I - f·v·vᵀ that turns the old v
// into a multiple of the first unit vector.
func reflector(v []float64) (multiple, f float64) {
	first := v[0]
	if Norm(v[1:]) < 0x1p-1000 { // negligible: magnitudes are about 1
		clear(v)
		return first, 0
	}
	length := Norm(v)
	multiple = -math.Copysign(length, first)
	Scale(v, 1/length)
	v[0] -= math.Copysign(1, multiple)
	return multiple, 2 / Dot(v, v)
}

// reflect applies a reflection from both sides to the rows and columns from k on.
func reflect(a []float64, n, k int, v []float64, f float64) {
	if f == 0 {
		return
	}
	p := make([]float64, n-k)
	for i := range p { // p = f·A·v
		AddScaled(p, a[(k+i)*n+k:(k+i+1)*n], f*v[i])
	}
	AddScaled(p, v, -f/2*Dot(p, v))
	for i, vi := range v {
		row, pi := a[(k+i)*n+k:(k+i+1)*n], p[i]
		p := p[:len(row)]
		for j, vj := range v[:len(row)] {
			row[j] -= float64(vi*p[j]) + float64(pi*vj)
		}
	}
}

// implicitQL diagonalizes the tridiagonal matrix and applies its rotations to the rows
// of q.
func implicitQL(d, e, q []float64, n int, cancelled <-chan struct{}) {
	if n == 0 {
		return
	}
	copy(e, e[1:])
	e[n-1] = 0
	least := 0.0 // the rounding error of the reduction
	for i := range n {
		least = max(least, 0x1p-54*(math.Abs(d[i])+math.Abs(e[i])))
	}
	for l := range n {
		for range 60 { // two or three are usual
			if over(cancelled) {
				return
			}
			m := l
			for ; m < n-1; m++ {
				if near := math.Abs(d[m]) + math.Abs(d[m+1]); math.Abs(e[m]) <= 0x1p-53*near || math.Abs(e[m]) <= least {
					break
				}
			}
			if m == l {
				break
			}
			sweep(d, e, q, n, l, m)
		}
	}
}

// sweep does one QL step with Wilkinson's shift on the entries l to m.
func sweep(d, e, q []float64, n, l, m int) {
	g := (d[l+1] - d[l]) / (2 * e[l])
	r := hypotenuse(g, 1)
	g = d[m] - d[l] + e[l]/(g+math.Copysign(r, g))
	s, c, p := 1.0, 1.0, 0.0
	for i := m - 1; i >= l; i-- {
		f, b := float64(s*e[i]), float64(c*e[i]) // the conversions keep the compiler from fusing, even across assignments
		r = hypotenuse(f, g)
		e[i+1] = r
		if r == 0 {
			d[i+1] -= p
			e[m] = 0
			return
		}
		s, c = f/r, g/r
		g = d[i+1] - p
		r = float64((d[i]-g)*s) + float64(2*c*b)
		p = float64(s * r)
		d[i+1] = g + p
		g = float64(c*r) - b
		rotate(q[i*n:(i+1)*n], q[(i+1)*n:(i+2)*n], s, c)
	}
	d[l] -= p
	e[l], e[m] = g, 0
}

func rotate(x, y []float64, s, c float64) {
	y = y[:len(x)]
	for k, u := range x {
		v := y[k]
		y[k] = float64(s*u) + float64(c*v)
		x[k] = float64(c*u) - float64(s*v)
	}
}

// hypotenuse replaces math.Hypot, whose last bits depend on the machine.
func hypotenuse(x, y float64) float64 {
	x, y = math.Abs(x), math.Abs(y)
	if x < y {
		x, y = y, x
	}
	if x == 0 || math.IsInf(x, 0) {
		return x
	}
	y /= x
	return x * math.Sqrt(1+float64(y*y))
}
