package quant

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// fused encodes groups of consecutive values, codes having 8 bits or less, from
// where they lie to one byte each: no values between are stored.
type fused struct {
	grid           *Grid
	allowNonfinite bool
	ranges         bool // the least value counts, not only the greatest magnitude
	ints           *kernel.Ints
	floats         *kernel.Floats
	groups         grouped
	apart          *fused // of interleaved groups that were sorted; nil for others
}

// grouped is what formats differ in.
type grouped interface {
	// stepOf sets step i to that of a group of that range. It reports false for
	// ranges that kernels cannot scale by.
	stepOf(steps kernel.Steps, i int, r Range) bool
	// stepAll does so for all; lo is zero where ranges do not count. If it
	// reports false, each is to be looked at.
	stepAll(steps kernel.Steps, lo, hi []float32) bool
	// slowly encodes values of a group that kernels cannot scale; it may change
	// them.
	slowly(codes []byte, values []float32, r Range, s *Scratch)
	// begun takes the scales of the next groups.
	begun(side *sides, steps kernel.Steps, hi []float32)
}

// sides collect what is stored beside the codes of a tile.
type sides struct {
	scales, zeros []float32
}

// batchValues is how many values are worked on at a time: as a rule they stay in
// a core's own cache from the search for their range to their codes.
const batchValues = 16384

// turnedValues is how many are rotated at a time by [Rotate], which does best
// with many: those of its groups whose sums are not exact go together.
const turnedValues = 64 << 10

// encode gives a run of values one byte each, and collects the scales of the
// groups that begin in it. Groups lie whole in the run, or else have measured
// ranges and are not interleaved.
func (f *fused) encode(codes []byte, v Values, measured []Range, s *Scratch) error {
	s.sides.scales, s.sides.zeros = s.sides.scales[:0], s.sides.zeros[:0]
	switch {
	case f.apart != nil:
		return f.encodeInterleaved(codes, v, s)
	case measured != nil:
		return f.encodeMeasured(codes, v, measured, s)
	}
	return f.encodeBatches(codes, v, f.allowNonfinite, s)
}

// encodeRotated is encode of whole groups after their rotation.
func (f *fused) encodeRotated(codes []byte, v Values, r rotation, s *Scratch) error {
	s.sides.scales, s.sides.zeros = s.sides.scales[:0], s.sides.zeros[:0]
	size, together := lcm(f.grid.Group, r.n), batchValues
	if !r.once {
		together = turnedValues
	}
	together = max(together/size, 1) * size
	for at := 0; at < v.len(); at += together {
		to := min(at+together, v.len())
		if err := f.encodeTurned(codes[at:to], v.run(at, to), r, s); err != nil {
			return err
		}
	}
	return nil
}

// encodeTurned encodes some groups after their rotation.
func (f *fused) encodeTurned(codes []byte, v Values, r rotation, s *Scratch) error {
	sides, rotated := s.sides, r.rotated(v, &s.turned32)
	err := f.encodeBatches(codes, rotated, f.allowNonfinite, s)
	if err == nil {
		return nil
	}
	if before := CheckFinite(v.Col, v.widen(&s.slow)); before != nil {
		return before // what it was before it spread
	}
	if !r.once {
		return err
	}
	s.sides = sides // large values may come to infinity
	return f.encodeBatches(codes, rotated, true, s)
}

// encodeBatches encodes whole groups, some at a time.
func (f *fused) encodeBatches(codes []byte, v Values, allowNonfinite bool, s *Scratch) error {
	size := f.grid.Group
	batch := max(batchValues/size, 1) * size
	for at := 0; at < v.len(); at += batch {
		to := min(at+batch, v.len())
		if err := f.encodeBatch(codes[at:to], v.run(at, to), allowNonfinite, s); err != nil {
			return err
		}
	}
	return nil
}

// encodeInterleaved encodes whole units of groups that lie interleaved, some at a
// time: sorted, one group lies after the other.
func (f *fused) encodeInterleaved(codes []byte, v Values, s *Scratch) error {
	unit, inner := f.grid.Group, f.grid.Inner
	some := max(batchValues/unit, 1) * unit
	for at := 0; at < v.len(); at += some {
		part := v.run(at, min(at+some, v.len()))
		n, sorted := part.len(), part
		sorted.Bytes = sized(&s.sortedBytes, len(part.Bytes))
		for from := 0; from < n; from += unit {
			transposeValues(sorted.run(from, from+unit), part.run(from, from+unit), unit/inner, inner)
		}
		sortedCodes := sized(&s.sortedCodes, n)
		if err := f.apart.encodeBatches(sortedCodes, sorted, f.allowNonfinite, s); err != nil {
			return CheckFinite(part.Col, part.widen(&s.slow)) // which names its place
		}
		for from := 0; from < n; from += unit {
			transposeBytes(codes[at+from:][:unit], sortedCodes[from:from+unit], inner, unit/inner, inner)
		}
	}
	return nil
}

// transposeValues is transpose of values as they are stored.
func transposeValues(dst, src Values, rows, columns int) {
	if src.shift() == 1 {
		transpose(together[[2]byte](dst.Bytes), together[[2]byte](src.Bytes), rows, columns)
	} else {
		transpose(together[[4]byte](dst.Bytes), together[[4]byte](src.Bytes), rows, columns)
	}
}

// encodeMeasured encodes parts of groups.
func (f *fused) encodeMeasured(codes []byte, v Values, measured []Range, s *Scratch) (err error) {
	f.grid.units(v.Col, v.len(), func(unit, from, to int) {
		r := measured[unit]
		s.steps = s.steps.Sized(1)
		ok := f.groups.stepOf(s.steps, 0, r)
		for at := from; at < to && err == nil; at += batchValues {
			end := min(at+batchValues, to)
			part := v.run(at, end)
			if !r.finite() && !f.allowNonfinite {
				err = CheckFinite(part.Col, part.widen(&s.slow))
			}
			if f.run(codes[at:end], part, s.steps, end-at, s); !ok {
				f.groups.slowly(codes[at:end], part.widen(&s.slow), r, s)
			}
		}
		if unit*f.grid.Group >= v.Col {
			s.hi = append(s.hi[:0], f.greatest(r))
			f.groups.begun(&s.sides, s.steps, s.hi)
		}
	})
	return err
}

// greatest is what stands for a range in a slice of greatest values, or of
// greatest magnitudes.
func (f *fused) greatest(r Range) float32 {
	if f.ranges || r.Lo != r.Lo {
		return r.Hi
	}
	return r.absMax()
}

// encodeBatch encodes whole groups.
func (f *fused) encodeBatch(codes []byte, v Values, allowNonfinite bool, s *Scratch) error {
	size := f.grid.Group
	n := v.len() / size
	f.measure(v, size, n, s)
	s.steps = s.steps.Sized(n)
	fast := f.groups.stepAll(s.steps, s.lo[:n], s.hi[:n])
	if !fast {
		f.firstNaNs(v, size, s)
	}
	if !fast && !allowNonfinite {
		if err := f.checkBatch(v, s); err != nil {
			return err
		}
	}
	f.run(codes, v, s.steps, size, s)
	for i := 0; i < n && !fast; i++ {
		r := f.rangeAt(i, s)
		if f.groups.stepOf(s.steps, i, r) {
			continue
		}
		for at := i * size; at < (i+1)*size; at += batchValues {
			end := min(at+batchValues, (i+1)*size)
			f.groups.slowly(codes[at:end], v.run(at, end).widen(&s.slow), r, s)
		}
	}
	f.groups.begun(&s.sides, s.steps, s.hi[:n])
	return nil
}

// checkBatch reports the first value of a batch that is not finite.
func (f *fused) checkBatch(v Values, s *Scratch) error {
	size := f.grid.Group
	for i := range v.len() / size {
		if r := f.rangeAt(i, s); !r.finite() {
			group := v.run(i*size, (i+1)*size)
			return CheckFinite(group.Col, group.widen(&s.slow))
		}
	}
	return nil
}

// run gives groups of one size their codes. Those of groups that cannot be
// scaled so have no meaning.
func (f *fused) run(codes []byte, v Values, steps kernel.Steps, size int, s *Scratch) {
	data, raw := v.raw(s)
	if f.ints != nil {
		kernel.EncodeInts(codes, data, raw, steps, size, f.ints)
	} else {
		kernel.EncodeFloats(codes, data, raw, steps, size, f.floats)
	}
}

// measure finds the ranges of n groups of one size. Where the greatest magnitude
// is all that counts, it is that of hi, with any NaN for a group that holds one.
func (f *fused) measure(v Values, size, n int, s *Scratch) {
	data, raw := v.raw(s)
	lo, hi := sized(&s.lo, n), sized(&s.hi, n)
	if f.ranges {
		kernel.Ranges(lo, hi, data, raw, size)
		return
	}
	kernel.AbsMax(hi, data, raw, size)
	clear(lo)
}

// firstNaNs puts the NaN that stands first in a group in the place of any. No
// step follows from one, so that this is done for few.
func (f *fused) firstNaNs(v Values, size int, s *Scratch) {
	if f.ranges {
		return
	}
	data, raw := v.raw(s)
	for i, a := range s.hi[:v.len()/size] {
		if a != a {
			each := data[i*size*raw.Bytes() : (i+1)*size*raw.Bytes()]
			kernel.Ranges(s.lo[i:i+1], s.hi[i:i+1], each, raw, size)
		}
	}
}

// rangeAt returns a range that was measured.
func (f *fused) rangeAt(i int, s *Scratch) Range {
	switch hi := s.hi[i]; {
	case f.ranges:
		return Range{s.lo[i], hi}
	case hi != hi:
		return Range{hi, hi}
	default:
		return Range{-hi, hi}
	}
}

// rangesOf returns the range of every group that overlaps a run of values, or a
// *[NonfiniteError].
func (f *fused) rangesOf(v Values, s *Scratch) (ranges []Range, err error) {
	f.grid.units(v.Col, v.len(), func(_, from, to int) {
		part := v.run(from, to)
		f.measure(part, to-from, 1, s)
		f.firstNaNs(part, to-from, s)
		r := f.rangeAt(0, s)
		if err == nil && !r.finite() && !f.allowNonfinite {
			err = CheckFinite(part.Col, part.widen(&s.slow))
		}
		ranges = append(ranges, r)
	})
	return ranges, err
}

// fuse decides whether a scheme's codes can be made so.
func (s *Scheme) fuse() {
	f := &fused{grid: &s.Grid, allowNonfinite: s.AllowNonfinite, ranges: s.Dtype.Unsigned, groups: s}
	switch n := s.numbers.(type) {
	case ints:
		f.ints = &kernel.Ints{Lo: n.lo, Hi: n.hi, Offset: n.offset}
		if n.hi != float32(s.Dtype.Max) {
			return // the largest code has a bit too many
		}
	case native:
		f.floats = kernel.SmallFloats(n.f, n.max, false)
	case packed:
		lo, hi := n.bounds()
		f.floats = kernel.PackedFloats(n.f, lo, hi)
	}
	if s.Inner > 1 {
		apart := *f
		apart.grid = &Grid{Group: s.Group / s.Inner}
		f.apart = &apart
	}
	if s.Bits <= 8 && !s.Codebook && s.chances == nil {
		s.fused = f
	}
}

func (s *Scheme) stepOf(steps kernel.Steps, i int, r Range) bool {
	scale, zero := s.scaleOf(r)
	return steps.Set(i, zero, scale) && r.finite()
}

func (s *Scheme) stepAll(steps kernel.Steps, lo, hi []float32) bool {
	copy(steps.Zeros, lo)
	all := kernel.Spans(steps.Scales, steps.Inverses, lo, hi, float32(s.Dtype.Divisor))
	if s.ScaleDtype == safetensors.F32 {
		return all
	}
	all = true
	for i := range hi {
		all = steps.Set(i, s.round(steps.Zeros[i]), s.round(steps.Scales[i])) && all
	}
	return all
}

func (s *Scheme) begun(side *sides, steps kernel.Steps, _ []float32) {
	side.scales = append(side.scales, steps.Scales...)
	if s.Dtype.Unsigned {
		side.zeros = append(side.zeros, steps.Zeros...)
	}
}

func (s *Scheme) slowly(codes []byte, values []float32, r Range, scratch *Scratch) {
	s.normalize(values, r)
	wide := scratch.uint16s(len(values))
	s.numbers.encode(wide, values)
	for i, c := range wide {
		codes[i] = byte(c)
	}
}
