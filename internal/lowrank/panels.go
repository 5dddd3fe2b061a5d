package lowrank

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
)

// Panels is the factor down of a low-rank part, laid out for products with rows of
// up: some columns of all its rows lie together, so that they stay in the nearest
// cache.
type Panels struct {
	rank, columns int
	x             []float32
	least, most   float32 // magnitudes, but zeros
}

// panelColumns is how many columns lie together.
const panelColumns = 32

// NewPanels takes down, [rank, columns].
func NewPanels(down []float32, rank, columns int) Panels {
	p := Panels{rank: rank, columns: columns, x: make([]float32, 0, rank*columns)}
	for j := 0; j < columns; j += panelColumns {
		for r := range rank {
			p.x = append(p.x, down[r*columns+j:r*columns+min(j+panelColumns, columns)]...)
		}
	}
	p.least, p.most = magnitudes(down)
	return p
}

// Some calls do for a few rows at a time, so that their product stays in the nearer
// caches.
func (p *Panels) Some(rows int, do func(from, n int)) {
	const near = 32 << 10
	n := max(near/p.columns/4*4, 4)
	for from := 0; from < rows; from += n {
		do(from, min(n, rows-from))
	}
}

// Product sets dst, [rows, columns], to up·down by a function of the kernel.
func (p *Panels) Product(dst, up []float32, multiply func(dst kernel.Rows, up, down []float32)) {
	for j := 0; j < p.columns; j += panelColumns {
		n := min(panelColumns, p.columns-j)
		to := kernel.Rows{X: dst[j:], Stride: p.columns, Count: len(dst) / p.columns, Values: n}
		multiply(to, up, p.x[j*p.rank:(j+n)*p.rank])
	}
}

// Multiplier returns the fastest function that rounds products and sums of up as
// [kernel.Product] does. Values of up have 16 bits, as those of down.
func (p *Panels) Multiplier(up []float32) func(dst kernel.Rows, up, down []float32) {
	if least, most := magnitudes(up); float64(least)*float64(p.least) > 0x1p-120 && float64(most)*float64(p.most) < 0x1p120 {
		return kernel.ProductExact // single precision holds every product
	}
	return kernel.Product
}

// magnitudes returns the least magnitude but zero, and the greatest.
func magnitudes(x []float32) (least, most float32) {
	least = math.MaxFloat32
	for _, v := range x {
		v = floats.Abs(v) // without a branch on the sign
		if most = max(most, v); v > 0 {
			least = min(least, v)
		}
	}
	return least, most
}
