package group

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
)

// Fused encodes groups of consecutive values to codes of at most 8 bits, one byte each,
// directly from the bytes of the values: no intermediate float32 values are stored.
type Fused struct {
	Grid           *Grid
	AllowNonfinite bool
	Ranges         bool // the least value counts, not only the greatest magnitude
	Ints           *kernel.Ints
	Floats         *kernel.Floats
	Groups         Scaling
	Deinterleaved  *Fused // of interleaved groups that were sorted; nil for others
	Search         Search // for better steps; nil for none
	// Found returns the step that a search found for a measured group, and reports
	// false where it found none; nil without a search.
	Found func(group int) (zero, scale float32, ok bool)
}

// Search replaces the steps of groups by others that lose less.
type Search interface {
	// Improve may replace steps of consecutive groups of size values. Scales that
	// kernels cannot scale by are 0, as they must stay.
	Improve(steps kernel.Steps, v tile.Values, size int, s *tile.Scratch)
}

// Scaling is how a format derives scales, and what formats differ in.
type Scaling interface {
	// StepOf sets step i to the one for a group with that range. It reports false for a
	// range that kernels cannot scale by.
	StepOf(steps kernel.Steps, i int, r tile.Range) bool
	// StepAll sets the steps of all groups; lo is zero if only the greatest magnitude
	// counts. If it reports false, each group must be set by StepOf.
	StepAll(steps kernel.Steps, lo, hi []float32) bool
	// Slowly encodes the values of a group that kernels cannot scale. It may change the
	// values.
	Slowly(codes []byte, values []float32, r tile.Range, s *tile.Scratch)
	// Collect appends the scales of the next groups.
	Collect(side *Companions, steps kernel.Steps, hi []float32)
}

// Companions collects the scales and zero points that are stored beside the codes of a
// tile.
type Companions struct {
	Scales, Zeros []float32
}

// Begin empties them.
func (s *Companions) Begin() { s.Scales, s.Zeros = s.Scales[:0], s.Zeros[:0] }

// batch is the buffers for groups that are encoded in one go.
type batch struct {
	*tile.Scratch
	side                *Companions // receives the scales
	lo, hi              []float32
	steps               kernel.Steps
	slow, rotated       []float32
	isSlow              []bool
	sorted, sortedCodes []byte
}

func batchOf(s *tile.Scratch) *batch {
	b := tile.PartOf[batch](s)
	b.Scratch = s
	return b
}

// batchValues is how many values are encoded at a time. They usually stay in a core's
// own cache between the search for their ranges and their encoding.
const batchValues = 16384

// rotatedValues is how many values [rotation.Rotate] is given at a time. It is most
// efficient with many, since it collects those of its groups whose sums are not exact.
const rotatedValues = 64 << 10

// Encode encodes a run of values to one byte each, and collects in side the scales of
// the groups that begin in it. Either all groups lie whole in the run, or measured has
// the ranges of those that overlap it, and they are not interleaved.
func (f *Fused) Encode(codes []byte, v tile.Values, measured []tile.Range, side *Companions, scratch *tile.Scratch) error {
	s := batchOf(scratch)
	s.side = side
	side.Begin()
	switch {
	case f.Deinterleaved != nil:
		return f.encodeInterleaved(codes, v, s)
	case measured != nil:
		return f.encodeMeasured(codes, v, measured, s)
	}
	return f.encodeBatches(codes, v, f.AllowNonfinite, s)
}

// EncodeRotated is Encode of whole groups after their rotation.
func (f *Fused) EncodeRotated(codes []byte, v tile.Values, r rotation.Hadamard, side *Companions, scratch *tile.Scratch) error {
	s := batchOf(scratch)
	s.side = side
	side.Begin()
	size, together := tile.LCM(f.Grid.Group, r.Size), batchValues
	if !r.Once {
		together = rotatedValues
	}
	together = max(together/size, 1) * size
	for at := 0; at < v.Len(); at += together {
		to := min(at+together, v.Len())
		if err := f.encodeSomeRotated(codes[at:to], v.Part(at, to), r, s); err != nil {
			return err
		}
	}
	return nil
}

// encodeSomeRotated rotates and encodes some whole groups.
func (f *Fused) encodeSomeRotated(codes []byte, v tile.Values, r rotation.Hadamard, s *batch) error {
	before, rotated := *s.side, r.Rotated(v, &s.rotated)
	err := f.encodeBatches(codes, rotated, f.AllowNonfinite, s)
	if err == nil {
		return nil
	}
	if err := tile.CheckFinite(v.Col, v.Widen(&s.slow)); err != nil {
		return err // which names the source value: a rotation spreads one NaN over its group
	}
	if !r.Once {
		return err
	}
	*s.side = before // large values may come to infinity
	return f.encodeBatches(codes, rotated, true, s)
}

// encodeBatches encodes whole groups, some at a time.
func (f *Fused) encodeBatches(codes []byte, v tile.Values, allowNonfinite bool, s *batch) error {
	size := f.Grid.Group
	batch := max(batchValues/size, 1) * size
	for at := 0; at < v.Len(); at += batch {
		to := min(at+batch, v.Len())
		if err := f.encodeBatch(codes[at:to], v.Part(at, to), allowNonfinite, s); err != nil {
			return err
		}
	}
	return nil
}

// encodeInterleaved encodes whole units of interleaved groups, a few at a time: the
// values of each unit are transposed first, so that each group is contiguous.
func (f *Fused) encodeInterleaved(codes []byte, v tile.Values, s *batch) error {
	unit, inner := f.Grid.Group, f.Grid.Inner
	some := max(batchValues/unit, 1) * unit
	for at := 0; at < v.Len(); at += some {
		part := v.Part(at, min(at+some, v.Len()))
		n, sorted := part.Len(), part
		sorted.Bytes = tile.Sized(&s.sorted, len(part.Bytes))
		for from := 0; from < n; from += unit {
			transposeValues(sorted.Part(from, from+unit), part.Part(from, from+unit), unit/inner, inner)
		}
		sortedCodes := tile.Sized(&s.sortedCodes, n)
		if err := f.Deinterleaved.encodeBatches(sortedCodes, sorted, f.AllowNonfinite, s); err != nil {
			return tile.CheckFinite(part.Col, part.Widen(&s.slow)) // which names its place
		}
		for from := 0; from < n; from += unit {
			transpose.Bytes(codes[at+from:][:unit], sortedCodes[from:from+unit], inner, unit/inner, inner)
		}
	}
	return nil
}

// transposeValues transposes a matrix of values in their own dtype.
func transposeValues(dst, src tile.Values, rows, columns int) {
	if src.Shift() == 1 {
		transpose.All(transpose.AsArrays[[2]byte](dst.Bytes), transpose.AsArrays[[2]byte](src.Bytes), rows, columns)
	} else {
		transpose.All(transpose.AsArrays[[4]byte](dst.Bytes), transpose.AsArrays[[4]byte](src.Bytes), rows, columns)
	}
}

// encodeMeasured encodes parts of groups.
func (f *Fused) encodeMeasured(codes []byte, v tile.Values, measured []tile.Range, s *batch) (err error) {
	f.Grid.Units(v.Col, v.Len(), func(unit, from, to int) {
		r := measured[unit]
		s.steps = s.steps.Sized(1)
		ok := f.Groups.StepOf(s.steps, 0, r)
		if f.Found != nil {
			if zero, scale, found := f.Found(unit); found {
				s.steps.Set(0, zero, scale)
			}
		}
		for at := from; at < to && err == nil; at += batchValues {
			end := min(at+batchValues, to)
			part := v.Part(at, end)
			if !r.Finite() && !f.AllowNonfinite {
				err = tile.CheckFinite(part.Col, part.Widen(&s.slow))
			}
			if f.Run(codes[at:end], part, s.steps, end-at, s.Scratch); !ok {
				f.Groups.Slowly(codes[at:end], part.Widen(&s.slow), r, s.Scratch)
			}
		}
		if unit*f.Grid.Group >= v.Col {
			hi := tile.Sized(&s.hi, 1)
			hi[0] = f.Greatest(r)
			f.Groups.Collect(s.side, s.steps, hi)
		}
	})
	return err
}

// Greatest returns the entry for a range in a slice of greatest values or, if ranges do
// not count, of greatest magnitudes.
func (f *Fused) Greatest(r tile.Range) float32 {
	if f.Ranges || r.Lo != r.Lo {
		return r.Hi
	}
	return r.AbsMax()
}

// encodeBatch encodes whole groups.
func (f *Fused) encodeBatch(codes []byte, v tile.Values, allowNonfinite bool, s *batch) error {
	size := f.Grid.Group
	n := v.Len() / size
	f.measure(v, size, n, s)
	s.steps = s.steps.Sized(n)
	fast := f.Groups.StepAll(s.steps, s.lo[:n], s.hi[:n])
	if !fast {
		f.firstNaNs(v, size, s)
	}
	if !fast && !allowNonfinite {
		if err := f.checkBatch(v, s); err != nil {
			return err
		}
	}
	var slow []bool
	if !fast {
		slow = f.stepEach(s.steps, s)
	}
	if f.Search != nil {
		f.Search.Improve(s.steps, v, size, s.Scratch)
	}
	f.Run(codes, v, s.steps, size, s.Scratch)
	for i, isSlow := range slow {
		if !isSlow {
			continue
		}
		r := f.rangeAt(i, s)
		for at := i * size; at < (i+1)*size; at += batchValues {
			end := min(at+batchValues, (i+1)*size)
			f.Groups.Slowly(codes[at:end], v.Part(at, end).Widen(&s.slow), r, s.Scratch)
		}
	}
	f.Groups.Collect(s.side, s.steps, s.hi[:n])
	return nil
}

// stepEach sets the steps of a batch one by one, and tells which groups kernels cannot
// scale.
func (f *Fused) stepEach(steps kernel.Steps, s *batch) []bool {
	slow := tile.Sized(&s.isSlow, len(steps.Scales))
	for i := range slow {
		slow[i] = !f.Groups.StepOf(steps, i, f.rangeAt(i, s))
	}
	return slow
}

// checkBatch reports the first value of a batch that is not finite.
func (f *Fused) checkBatch(v tile.Values, s *batch) error {
	size := f.Grid.Group
	for i := range v.Len() / size {
		if r := f.rangeAt(i, s); !r.Finite() {
			group := v.Part(i*size, (i+1)*size)
			return tile.CheckFinite(group.Col, group.Widen(&s.slow))
		}
	}
	return nil
}

// Run encodes groups of one size. The codes of groups that kernels cannot scale are
// meaningless.
func (f *Fused) Run(codes []byte, v tile.Values, steps kernel.Steps, size int, s *tile.Scratch) {
	data, raw := v.Raw(s)
	if f.Ints != nil {
		kernel.EncodeInts(codes, data, raw, steps, size, f.Ints)
	} else {
		kernel.EncodeFloats(codes, data, raw, steps, size, f.Floats)
	}
}

// measure finds the ranges of n groups of one size. If only the greatest magnitude
// counts, it is in hi, where a group with NaN has any of its NaNs.
func (f *Fused) measure(v tile.Values, size, n int, s *batch) {
	data, raw := v.Raw(s.Scratch)
	lo, hi := tile.Sized(&s.lo, n), tile.Sized(&s.hi, n)
	if f.Ranges {
		kernel.Ranges(lo, hi, data, raw, size)
		return
	}
	kernel.AbsMax(hi, data, raw, size)
	clear(lo)
}

// firstNaNs replaces the NaN of a group by the first one in it. That is slow, but NaN
// occurs in few groups, because kernels cannot scale by it.
func (f *Fused) firstNaNs(v tile.Values, size int, s *batch) {
	if f.Ranges {
		return
	}
	data, raw := v.Raw(s.Scratch)
	for i, a := range s.hi[:v.Len()/size] {
		if a != a {
			each := data[i*size*raw.Bytes() : (i+1)*size*raw.Bytes()]
			kernel.Ranges(s.lo[i:i+1], s.hi[i:i+1], each, raw, size)
		}
	}
}

// rangeAt returns the measured range of group i of a batch.
func (f *Fused) rangeAt(i int, s *batch) tile.Range { return f.RangeFrom(s.lo[i], s.hi[i]) }

// RangeFrom returns the range for the lo and hi that Fused.measure found; lo is
// ignored if only the greatest magnitude counts.
func (f *Fused) RangeFrom(lo, hi float32) tile.Range {
	switch {
	case f.Ranges:
		return tile.Range{Lo: lo, Hi: hi}
	case hi != hi:
		return tile.Range{Lo: hi, Hi: hi}
	default:
		return tile.Range{Lo: -hi, Hi: hi}
	}
}

// RangesOf returns the range of every group that overlaps a run of values, or a
// *[tile.NonfiniteError].
func (f *Fused) RangesOf(v tile.Values, scratch *tile.Scratch) (ranges []tile.Range, err error) {
	s := batchOf(scratch)
	f.Grid.Units(v.Col, v.Len(), func(_, from, to int) {
		part := v.Part(from, to)
		f.measure(part, to-from, 1, s)
		f.firstNaNs(part, to-from, s)
		r := f.rangeAt(0, s)
		if err == nil && !r.Finite() && !f.AllowNonfinite {
			err = tile.CheckFinite(part.Col, part.Widen(&s.slow))
		}
		ranges = append(ranges, r)
	})
	return ranges, err
}
