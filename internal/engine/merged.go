package engine

import (
	"cmp"
	"errors"
	"math"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/lora"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// MergedValues are values of a weight into which adapters are merged, in single
// precision, as they are read.
type MergedValues struct {
	Values
	Patch    *lora.Patch
	most     int       // of how many weights factors are held
	resident *resident // holds the merged values from the first pass on; nil where they are merged each time
}

// Merged returns values with what a patch changes, or the values themselves where there
// is none.
func Merged(v Values, p *lora.Patch, r Resources) Values {
	if p == nil {
		return v
	}
	return &MergedValues{Values: v, Patch: p, most: cmp.Or(r.factors, stream.MaxShared)}
}

// Float buffers of a worker, beside those of other readers.
const (
	normBuffer = 4 // rows whose norms are measured
	baseBuffer = 5 // values before the merge
)

// Read implements [Values]. What is resident must not be changed.
func (m *MergedValues) Read(w *stream.Worker, buffer, columns int, a tile.Area) ([]float32, error) {
	if m.resident == nil {
		return m.merge(w, buffer, columns, a)
	}
	m.resident.once.Do(func() { m.resident.Take(w.Cancelled()) })
	const width = 4
	run := tile.SpansOf(a, columns, width)[0]
	size := int64(len(m.resident.Data))
	part := m.resident.Data[min(run.Offset, size):min(run.Offset+run.Size, size)]
	switch plain, ok := m.Values.(*PlainValues); {
	case m.resident.read.Load() && int64(len(part)) == run.Size:
		return kernel.AsFloats(part), nil
	case ok && int64(len(part)) == run.Size:
		x := kernel.AsFloats(part)
		return x, m.mergeIn(w, x, func() error { return plain.into(w, x, columns, a) }, columns, a)
	}
	x, err := m.merge(w, buffer, columns, a)
	if n := len(part) / width; err == nil && !m.resident.read.Load() { // all that is held, of which later areas may be smaller
		kernel.NarrowF32(part[:n*width], x[:n])
	}
	return x, err
}

// mergeIn merges adapters into x once it is read.
func (m *MergedValues) mergeIn(w *stream.Worker, x []float32, read func() error, columns int, a tile.Area) error {
	ready, err := m.ready(w)
	if err == nil {
		err = read()
	}
	if err == nil {
		err = ready.Area(x, columns, a)
	}
	return err
}

// merge reads an area and merges adapters into it.
func (m *MergedValues) merge(w *stream.Worker, buffer, columns int, a tile.Area) ([]float32, error) {
	ready, err := m.ready(w)
	if err != nil {
		return nil, err
	}
	x, err := m.Values.Read(w, buffer, columns, a)
	if err == nil {
		err = ready.Area(x, columns, a)
	}
	return x, err
}

// both reads an area merged and, in a buffer of its own, as it was.
func (m *MergedValues) both(w *stream.Worker, buffer, columns int, a tile.Area) (merged, base []float32, err error) {
	ready, err := m.ready(w)
	if err != nil {
		return nil, nil, err
	}
	if base, err = m.Values.Read(w, baseBuffer, columns, a); err != nil {
		return nil, nil, err
	}
	merged = w.Floats(buffer, len(base))
	copy(merged, base)
	return merged, base, ready.Area(merged, columns, a)
}

// ready are the factors, read for all tiles of the weight, and let go of with it.
func (m *MergedValues) ready(w *stream.Worker) (*lora.Ready, error) {
	return stream.SharedFew(w, m.Patch, m.most, func() (*lora.Ready, error) {
		columns := m.Patch.Columns()
		return m.Patch.Ready(func(row, n int) ([]float32, error) {
			a := tile.Area{Row: row, Rows: n, Cols: columns}
			if plain, ok := m.Values.(*PlainValues); ok {
				return plain.apart(w, a)
			}
			return m.Values.Read(w, normBuffer, columns, a)
		})
	})
}

// apart reads whole rows from the file, whatever is resident, into no buffer in which
// other tensors may be waiting.
func (p *PlainValues) apart(w *stream.Worker, a tile.Area) ([]float32, error) {
	width := p.Tensor.Dtype.Bits() / 8
	raw, x := make([]byte, a.Values()*width), w.Floats(normBuffer, a.Values())
	err := readSpans(p.Source, p.Tensor, tile.SpansOf(a, a.Cols, width), raw)
	codec.Widen(x, raw, p.Tensor.Dtype)
	return x, err
}

// checkMerged refuses values that are not finite once adapters are merged, and those that
// the dtype of a kept tensor does not hold then. a is an area of the weight seen as a
// matrix of that many columns.
func (e *encoding) checkMerged(a tile.Area, values []float32, columns int) error {
	var n *tile.NonfiniteError
	if errors.As(tile.CheckArea(a, values, columns), &n) {
		return e.mergedError(n)
	}
	if e.step.Action != plan.Keep {
		return nil
	}
	t, d := e.step.Source, e.step.Codec.Tensors()[0].Dtype
	if v, ok := beyond(values, d); ok {
		return usage.SourceErrorf("%s: tensor %s: with `Lora` it has a value of %g, which %s does not hold", e.Source.File(t), t.Name, v, d)
	}
	return nil
}

// mergedError says of a value that is not finite that adapters are merged into it.
func (e *encoding) mergedError(n *tile.NonfiniteError) error {
	t := e.step.Source
	row, col := rowAndColumn(t.Shape, n.Index)
	return usage.SourceErrorf("%s: tensor %s: with `Lora` value [%d, %d] is %v: use less strength, or leave the adapter out, if the source alone has no such value",
		e.Source.File(t), t.Name, row, col, n.Value)
}

// change adds what is left of a change: base are the values before it, want those with it,
// and got what was stored.
func (s *Sums) change(base, want, got []float32) {
	for i, w := range want {
		d := float64(w) - float64(base[i])
		s.Changes += float64(d * d)
		s.Kept += float64((float64(got[i]) - float64(base[i])) * d)
	}
}

// Merged is what a report says of the change, nil where there is none.
func (s *Sums) Merged() *report.Merged {
	if s.Changes == 0 {
		return nil
	}
	return &report.Merged{
		Change: FiniteOrNil(s.Changes / s.Squares), Kept: FiniteOrNil(s.Kept / s.Changes),
		SNR: FiniteOrNil(10 * math.Log10(s.Changes/s.Errors)),
	}
}

// Holding returns resources of which factors take their part, that of a weight at most so
// many bytes: those of as many weights as fit a quarter of the memory.
func (r Resources) Holding(one int64) Resources {
	r.held, r.factors = 0, 0
	if one > 0 {
		r.factors = int(min(max(limit(r)/4/one, 1), stream.MaxShared))
		r.held = int64(r.factors) * one
	}
	return r
}
