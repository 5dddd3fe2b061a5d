package engine

import (
	"cmp"
	"errors"
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Comparison compares what a layer decodes to with the weight that it was made from.
// Without such a weight it only checks that all values are finite.
type Comparison struct {
	got   *Decoding
	want  *Original // or nil
	Found []Sums    // by tile
}

// NewComparison prepares the comparison of a layer.
func NewComparison(got *Decoding, want *Original) *Comparison {
	cut, rows, cols := got.Shape()
	return &Comparison{got, want, make([]Sums, cut.Count(rows, cols))}
}

// Original is a tensor of the source, or one of its layers, restored.
type Original struct {
	Values
	Dtype safetensors.Dtype // 0 for a layer
	Shape []int
	Bytes int64
	Err   error // why a layer cannot be restored
}

// Tasks yields a task for every tile. If the layer has a faster approximate decoder,
// the exact values are computed only for tiles where the approximate ones cannot
// decide.
func (c *Comparison) Tasks(yield func(stream.Task) bool) bool {
	first, exact := c.got.approximate(), false
	if first == nil {
		first, exact = c.got, true
	}
	return c.got.tiles(yield, func(w *stream.Worker, tile int, a tile.Area) error {
		s := &c.Found[tile]
		got, err := first.Read(w, a)
		if err == nil {
			err = c.compare(w, s, a, got)
		}
		if unsound := (unsoundError{}); errors.As(err, &unsound) {
			*s = Sums{Nonfinite: -1, Unsound: unsound.Error()}
			return nil
		}
		if err != nil || exact || !MayOverflow(got) && s.exceedRounding() {
			return err
		}
		if _, err := c.got.restore(w, got, a); err != nil {
			return err
		}
		return c.compare(w, s, a, got)
	})
}

// compare computes the sums of a tile.
func (c *Comparison) compare(w *stream.Worker, s *Sums, a tile.Area, got []float32) error {
	*s = Sums{Nonfinite: -1}
	columns := c.got.Layer.Codec.Cut().Cols
	if c.want != nil {
		if err := s.measureArea(w, c.want, columns, a, got); err != nil {
			return err
		}
	}
	var n *tile.NonfiniteError
	// a value that is not finite makes the sum of errors not finite
	if (c.want == nil || FiniteOrNil(s.Errors) == nil) && errors.As(tile.CheckArea(a, got, columns), &n) {
		s.Nonfinite = n.Index
	}
	return nil
}

// Sums are the figures from which errors are computed. They are added in a fixed order,
// so that the result does not depend on the number of threads.
type Sums struct {
	Squares, Errors float64 // ΣW², Σ(W-Ŵ)²
	MaxAbs          float64
	// Changes and Kept are those of what adapters change, Δ: ΣΔ² and Σ(Ŵ-W+Δ)·Δ, where W
	// has the change in it.
	Changes, Kept float64
	Nonfinite     int // index of the first value that decodes to NaN or infinity, -1 for none
	Differs       bool
	Unsound       string // why nothing can be decoded, "" where it can
}

// Total adds up the sums of tiles, in order.
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
	s.Changes += t.Changes
	s.Kept += t.Kept
	s.MaxAbs = math.Max(s.MaxAbs, t.MaxAbs)
	if s.Nonfinite < 0 {
		s.Nonfinite = t.Nonfinite
	}
	s.Differs = s.Differs || t.Differs
	s.Unsound = cmp.Or(s.Unsound, t.Unsound)
}

// Relative returns the error relative to the weights.
func (s *Sums) Relative() report.Error {
	rel := s.Errors / s.Squares
	if s.Errors == 0 {
		rel = 0
	}
	return report.Error{RelMSE: FiniteOrNil(rel), SQNR: FiniteOrNil(-10 * math.Log10(rel))}
}

// Figures returns what a report says about a layer.
func (s *Sums) Figures() report.Figures {
	return report.Figures{Error: s.Relative(), MaxAbs: FiniteOrNil(s.MaxAbs), Merged: s.Merged()}
}

// FiniteOrNil returns nil for NaN and infinities, which JSON cannot represent.
func FiniteOrNil(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

// MayOverflow reports whether the exact decoder could overflow float32 on its way to
// values of which these are approximations. Below 2^96 it cannot: a sum of even 2^30
// such terms stays finite.
func MayOverflow(values []float32) bool {
	lo, hi := kernel.MinMax(values)
	return !(max(-lo, hi) <= 0x1p96)
}

// exceedRounding reports whether the errors are so large that the rounding of an
// approximate decoder, about 2^-24 of the values, cannot matter; or there is nothing to
// compare with.
func (s *Sums) exceedRounding() bool { return s.Squares == 0 || s.Errors > 1e-8*s.Squares }

// measureArea adds the errors of an area, whose original values it reads.
func (s *Sums) measureArea(w *stream.Worker, source *Original, columns int, a tile.Area, got []float32) error {
	if plain, ok := source.Values.(*PlainValues); ok && source.Dtype == safetensors.BF16 { // the usual one
		want, err := plain.raw(w, columns, a)
		if err == nil {
			s.measureRaw(want, kernel.RawBF16, got)
		}
		return err
	}
	if m, ok := source.Values.(*MergedValues); ok {
		want, base, err := m.both(w, 1, columns, a)
		if err == nil {
			s.Measure(want, got)
			s.change(base, want, got)
		}
		return err
	}
	want, err := source.Read(w, 1, columns, a)
	if err == nil {
		s.Measure(want, got)
	}
	return err
}

// Measure adds the errors of got compared with want.
func (s *Sums) Measure(want, got []float32) { s.measureRaw(kernel.AsBytes(want), kernel.RawF32, got) }

// measureRaw is [Sums.Measure] with the wanted values in the dtype of their file.
func (s *Sums) measureRaw(want []byte, raw kernel.Raw, got []float32) {
	var e kernel.Errors
	e.Add(want, raw, got)
	squares, errors, most := e.Sums()
	s.Squares += squares
	s.Errors += errors
	s.MaxAbs = math.Max(s.MaxAbs, most)
}
