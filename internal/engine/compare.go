package engine

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Comparison is a layer that was quantized again and the one that it comes
// from.
type Comparison struct {
	Name  string // in the report
	Got   *Decoding
	Want  Values
	Found []Sums // by tile
}

// Tasks yields the comparison of every tile.
func (c *Comparison) Tasks(yield func(stream.Task) bool) bool {
	cut, rows, cols := c.Got.Shape()
	c.Found = make([]Sums, cut.Count(rows, cols))
	return c.Got.Compared(c.Found, func(w *stream.Worker, a quant.Area, got []float32) (Sums, error) {
		s := Sums{Nonfinite: -1}
		want, err := c.Want.Read(w, 1, cut.Cols, a)
		if err == nil {
			s.Measure(want, got)
		}
		return s, err
	})(yield)
}

// Sums are what errors are computed from; they are added in a fixed order, so
// that they do not depend on threads.
type Sums struct {
	Squares, Errors float64 // ΣW², Σ(W-Ŵ)²
	MaxAbs          float64
	Nonfinite       int // index of the first value that decodes to no number, -1
	Differs         bool
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

// FiniteOrNil is nil for NaN and infinities, which JSON has not.
func FiniteOrNil(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

// Original is a tensor of the source, or a layer of it restored.
type Original struct {
	Values
	Dtype safetensors.Dtype // 0 for a layer
	Shape []int
	Bytes int64
	Err   error // why a layer cannot be restored
}

// Compared are tasks that find sums of every tile. The very values are read only
// where near ones will not do.
func (d *Decoding) Compared(found []Sums, compare func(w *stream.Worker, a quant.Area, got []float32) (Sums, error)) func(yield func(stream.Task) bool) bool {
	first, exact := d.near(), false
	if first == nil {
		first, exact = d, true
	}
	return func(yield func(stream.Task) bool) bool {
		return d.tiles(yield, func(w *stream.Worker, tile int, a quant.Area) error {
			got, err := first.Read(w, a)
			if err != nil {
				return err
			}
			found[tile], err = compare(w, a, got)
			if err != nil || exact || !Large(got) && found[tile].visible() {
				return err
			}
			if _, err := d.restore(w, got, a); err != nil {
				return err
			}
			found[tile], err = compare(w, a, got)
			return err
		})
	}
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

// MeasureArea adds up the errors of an area of the source.
func (s *Sums) MeasureArea(w *stream.Worker, source *Original, columns int, a quant.Area, got []float32) error {
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
