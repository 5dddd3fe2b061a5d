package lowrank

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/linalg"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// Refit finds by least squares the factor down that, with rows of up as they are, comes
// nearest to what quantization has left of a weight: (upᵀ·up)⁻¹·upᵀ·left. Parts are
// added in order.
type Refit struct {
	rank, columns int
	square        []float64 // upᵀ·up
	product       []float64 // leftᵀ·up, [columns, rank]
}

// NewRefit prepares for factors like those.
func (f *Factors) NewRefit() *Refit {
	return &Refit{f.Rank, f.Columns, make([]float64, f.Rank*f.Rank), make([]float64, f.Columns*f.Rank)}
}

// Part returns what some rows add: up is [rows, Rank], left [rows, Columns].
func (r *Refit) Part(up, left []float32, s *tile.Scratch) []float64 {
	found := make([]float64, r.rank*r.rank+r.columns*r.rank)
	own := tile.PartOf[buffers](s)
	wide := tile.Sized(&own.seen, len(up))
	for i, v := range up {
		wide[i] = float64(v)
	}
	linalg.AddSquare(found[:r.rank*r.rank], wide, r.rank)
	strips := make([]float64, tile.CeilDiv(r.columns, kernel.StripColumns)*r.rank*kernel.StripColumns)
	ones := make([]float64, r.rank)
	for i := range ones {
		ones[i] = 1
	}
	kernel.Collect(strips, left, up, ones, r.columns, r.rank)
	to := found[r.rank*r.rank:]
	for j := range r.columns {
		strip := strips[j/kernel.StripColumns*r.rank*kernel.StripColumns+j%kernel.StripColumns:]
		for c := range r.rank {
			to[j*r.rank+c] = strip[c*kernel.StripColumns]
		}
	}
	return found
}

// Add adds a part.
func (r *Refit) Add(found []float64) {
	square, product := found[:len(r.square)], found[len(r.square):]
	for i, v := range square {
		r.square[i] += v
	}
	for i, v := range product {
		r.product[i] += v
	}
}

// Factors returns the factors with the new down, stored as old; old where
// single precision does not hold it, and nil once cancelled is closed.
func (r *Refit) Factors(old *Factors, cancelled <-chan struct{}) *Factors {
	inverse := linalg.Inverse(r.square, r.rank, cancelled)
	if inverse == nil {
		return nil
	}
	across := make([]float64, len(r.product))
	linalg.AddTimes(across, r.product, inverse, r.rank, r.rank)
	down := make([]float32, len(across))
	for j := range r.columns {
		for c := range r.rank {
			down[c*r.columns+j] = float32(across[j*r.rank+c])
		}
	}
	if !tile.RangeOf(down).Finite() {
		return old
	}
	return newFactors(down, r.rank, r.columns, old.Storage, cancelled)
}
