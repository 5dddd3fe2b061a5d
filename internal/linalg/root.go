package linalg

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
)

// Root returns S [m, n] such that Sᵀ·S is the inverse of a symmetric [n, n] matrix
// restricted to m of its columns: the inverse of a pivoted Cholesky factor. It reads
// the lower half. Columns are taken in the order of how much of them earlier columns
// leave; once that is at most least, the others are left out. The matrix is
// overwritten. If cancelled is closed the results are useless.
func Root(a []float64, n int, least float64, cancelled <-chan struct{}) (s []float64, m int) {
	for i := range n {
		for j := range i {
			a[j*n+i] = a[i*n+j]
		}
	}
	p := pivoted{a: a, n: n, chosen: make([]bool, n), left: make([]float64, n)}
	for i := range n {
		p.left[i] = a[i*n+i]
	}
	for p.add(least) {
		if len(p.order)%panel == 0 {
			if over(cancelled) {
				return nil, 0
			}
			p.follow()
		}
	}
	return p.inverse(), len(p.order)
}

// pivoted is a Cholesky factor under way: rows has a row of n for each chosen column.
// From the matrix a, the contributions of whole panels are subtracted.
type pivoted struct {
	a, rows []float64
	n       int
	order   []int
	chosen  []bool
	left    []float64 // what is left of the diagonal
}

// add chooses the column of which most is left. It reports false if that is at most
// least.
func (p *pivoted) add(least float64) bool {
	at, most := -1, least
	for i, v := range p.left {
		if v > most && !p.chosen[i] {
			at, most = i, v
		}
	}
	if at < 0 {
		return false
	}
	n, k := p.n, len(p.order)
	row := append([]float64(nil), p.a[at*n:(at+1)*n]...)
	p.takeOff(row, at, k/panel*panel)
	Scale(row, 1/math.Sqrt(most))
	for _, i := range p.order {
		row[i] = 0
	}
	row[at] = math.Sqrt(most)
	for i, v := range row {
		p.left[i] -= float64(v * v)
	}
	p.rows, p.order, p.chosen[at] = append(p.rows, row...), append(p.order, at), true
	return true
}

// takeOff subtracts from row number at of the matrix the contributions of the factor's
// rows from number from on.
func (p *pivoted) takeOff(row []float64, at, from int) {
	if from == len(p.order) {
		return
	}
	by := make([]float64, 0, panel)
	for k := from; k < len(p.order); k++ {
		by = append(by, -p.rows[k*p.n+at])
	}
	kernel.AddSums(row, kernel.Factors{X: by, Term: 1}, p.rows[from*p.n:], p.n, p.n)
}

// follow subtracts the contributions of the last panel from the rows that are not
// chosen.
func (p *pivoted) follow() {
	for i, chosen := range p.chosen {
		if !chosen {
			p.takeOff(p.a[i*p.n:(i+1)*p.n], i, len(p.order)-panel)
		}
	}
}

// inverse inverts the factor row by row. What the rows of a panel take from rows before
// the panel is computed for all of them together.
func (p *pivoted) inverse() []float64 {
	n, m := p.n, len(p.order)
	s := make([]float64, m*n)
	for from := 0; from < m; from += panel {
		to := min(from+panel, m)
		by := make([]float64, (to-from)*from)
		for k := from; k < to; k++ {
			for j := range from {
				by[(k-from)*from+j] = -p.rows[j*n+p.order[k]]
			}
		}
		AddTimes(s[from*n:to*n], by, s[:from*n], from, n)
		for k := from; k < to; k++ {
			row, at := s[k*n:(k+1)*n], p.order[k]
			row[at] = 1
			for j := from; j < k; j++ {
				AddScaled(row, s[j*n:(j+1)*n], -p.rows[j*n+at])
			}
			Scale(row, 1/p.rows[k*n+at])
		}
	}
	return s
}
