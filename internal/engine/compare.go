package engine

import (
	"errors"
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Comparison is of what a layer decodes to: with the weight that it was made of, where
// there is one, and else only whether all of it are numbers.
type Comparison struct {
	got   *Decoding
	want  *Original // or nil
	Found []Sums    // by tile
}

// NewComparison prepares that of a layer.
func NewComparison(got *Decoding, want *Original) *Comparison {
	cut, rows, cols := got.Shape()
	return &Comparison{got, want, make([]Sums, cut.Count(rows, cols))}
}

// Original is a tensor of the source, or a layer of it restored.
type Original struct {
	Values
	Dtype safetensors.Dtype // 0 for a layer
	Shape []int
	Bytes int64
	Err   error // why a layer cannot be restored
}

// Tasks yields the comparison of every tile. The very values are read only where near
// ones will not do.
func (c *Comparison) Tasks(yield func(stream.Task) bool) bool {
	first, exact := c.got.near(), false
	if first == nil {
		first, exact = c.got, true
	}
	return c.got.tiles(yield, func(w *stream.Worker, tile int, a tile.Area) error {
		s := &c.Found[tile]
		got, err := first.Read(w, a)
		if err == nil {
			err = c.compare(w, s, a, got)
		}
		if err != nil || exact || !Large(got) && s.visible() {
			return err
		}
		if _, err := c.got.restore(w, got, a); err != nil {
			return err
		}
		return c.compare(w, s, a, got)
	})
}

// compare finds the sums of a tile.
func (c *Comparison) compare(w *stream.Worker, s *Sums, a tile.Area, got []float32) error {
	*s = Sums{Nonfinite: -1}
	columns := c.got.Layer.Codec.Cut().Cols
	if c.want != nil {
		if err := s.measureArea(w, c.want, columns, a, got); err != nil {
			return err
		}
	}
	var n *tile.NonfiniteError
	// a value that is not finite makes the sum so
	if (c.want == nil || FiniteOrNil(s.Errors) == nil) && errors.As(tile.CheckArea(a, got, columns), &n) {
		s.Nonfinite = n.Index
	}
	return nil
}

// Sums are what errors are computed from; they are added in a fixed order, so
// that they do not depend on threads.
type Sums struct {
	Squares, Errors float64 // ΣW², Σ(W-Ŵ)²
	MaxAbs          float64
	Nonfinite       int // index of the first value that decodes to no number, -1
	Differs         bool
}

// Total adds up those of tiles.
func Total(found []Sums) Sums {
	total := Sums{Nonfinite: -1}
	for _, s := range found {
		total.Add(s)
	}
	return total
}

// Add adds the sums of the next tile.
func (s *Sums) Add(t Sums) {
	s.Squares += t.Squares
	s.Errors += t.Errors
	s.MaxAbs = math.Max(s.MaxAbs, t.MaxAbs)
	if s.Nonfinite < 0 {
		s.Nonfinite = t.Nonfinite
	}
	s.Differs = s.Differs || t.Differs
}

// Relative is the error in proportion to the weights.
func (s *Sums) Relative() report.Error {
	rel := s.Errors / s.Squares
	if s.Errors == 0 {
		rel = 0
	}
	return report.Error{RelMSE: FiniteOrNil(rel), SQNR: FiniteOrNil(-10 * math.Log10(rel))}
}

// Figures are what a report has of a layer.
func (s *Sums) Figures() report.Figures {
	return report.Figures{Error: s.Relative(), MaxAbs: FiniteOrNil(s.MaxAbs)}
}

// FiniteOrNil is nil for NaN and infinities, which JSON has not.
func FiniteOrNil(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

// Large reports whether values, near those that a sum in single precision comes to,
// leave it possible that this goes to infinity on its way: not even 2^30 of 2^96
// do.
func Large(values []float32) bool {
	lo, hi := kernel.MinMax(values)
	return !(max(-lo, hi) <= 0x1p96)
}

// visible reports whether errors are so much larger than the rounding of single
// precision, 2^-24 of the values, that this does not show; or there is nothing to
// compare with.
func (s *Sums) visible() bool { return s.Squares == 0 || s.Errors > 1e-8*s.Squares }

// measureArea adds up the errors of an area of the source.
func (s *Sums) measureArea(w *stream.Worker, source *Original, columns int, a tile.Area, got []float32) error {
	if plain, ok := source.Values.(*PlainValues); ok && source.Dtype == safetensors.BF16 { // the usual one
		want, err := plain.raw(w, columns, a)
		if err == nil {
			s.measureRaw(want, kernel.RawBF16, got)
		}
		return err
	}
	want, err := source.Read(w, 1, columns, a)
	if err == nil {
		s.Measure(want, got)
	}
	return err
}

// Measure adds up the errors of values.
func (s *Sums) Measure(want, got []float32) { s.measureRaw(kernel.AsBytes(want), kernel.RawF32, got) }

// measureRaw is measure for wanted values as they are stored.
func (s *Sums) measureRaw(want []byte, raw kernel.Raw, got []float32) {
	var e kernel.Errors
	e.Add(want, raw, got)
	squares, errors, most := e.Sums()
	s.Squares += squares
	s.Errors += errors
	s.MaxAbs = math.Max(s.MaxAbs, most)
}
