package quant

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
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
}

// grouped is what formats differ in.
type grouped interface {
	// step returns how a group of that range is scaled. It reports false for
	// ranges that kernels cannot scale by.
	step(r Range) (kernel.Step, bool)
	// slowly encodes values of such a group, which it may change.
	slowly(codes []byte, values []float32, r Range, s *Scratch)
}

// batchValues is how many values are worked on at a time: as a rule they stay in
// a core's nearest cache from the search for their range to their codes.
const batchValues = 4096

// encode gives the values of a tile one byte each. Their groups lie whole in
// the tile, or else have measured ranges. begun gets the range and the step of
// every group that begins in the tile.
func (f *fused) encode(codes []byte, start int, src plain, measured []Range, s *Scratch, begun func(Range, kernel.Step)) error {
	g := f.grid
	if measured == nil {
		batch := max(batchValues/g.Group, 1) * g.Group
		for at := 0; at < src.len(); at += batch {
			to := min(at+batch, src.len())
			if err := f.encodeBatch(codes[at:to], start+at, src.slice(at, to), s, begun); err != nil {
				return err
			}
		}
		return nil
	}
	var err error
	g.units(start, src.len(), func(unit, from, to int) {
		r := measured[unit]
		step, ok := f.groups.step(r)
		for at := from; at < to && err == nil; at += batchValues {
			end := min(at+batchValues, to)
			part := src.slice(at, end)
			if !r.finite() && !f.allowNonfinite {
				err = CheckFinite(start+at, part.values(&s.slow))
			}
			s.steps = append(s.steps[:0], step)
			if f.run(codes[at:end], part, s.steps, end-at, s); !ok {
				f.groups.slowly(codes[at:end], part.values(&s.slow), r, s)
			}
		}
		if unit*g.Group >= start {
			begun(r, step)
		}
	})
	return err
}

// encodeBatch encodes whole groups.
func (f *fused) encodeBatch(codes []byte, start int, src plain, s *Scratch, begun func(Range, kernel.Step)) error {
	size := f.grid.Group
	ranges := f.measure(src, size, s)
	steps := s.steps[:0]
	slow := s.slowGroups[:0]
	for i, r := range ranges {
		if !r.finite() && !f.allowNonfinite {
			return CheckFinite(start+i*size, src.slice(i*size, (i+1)*size).values(&s.slow))
		}
		step, ok := f.groups.step(r)
		if !ok {
			slow = append(slow, i)
		}
		steps = append(steps, step)
		begun(r, step)
	}
	f.run(codes, src, steps, size, s)
	for _, i := range slow {
		for at := i * size; at < (i+1)*size; at += batchValues {
			end := min(at+batchValues, (i+1)*size)
			f.groups.slowly(codes[at:end], src.slice(at, end).values(&s.slow), ranges[i], s)
		}
	}
	s.steps, s.slowGroups = steps, slow
	return nil
}

// run gives groups of one size their codes. Those of groups that cannot be
// scaled so have no meaning.
func (f *fused) run(codes []byte, src plain, steps []kernel.Step, size int, s *Scratch) {
	data, raw := src.raw(s)
	if f.ints != nil {
		kernel.EncodeInts(codes, data, raw, steps, size, f.ints)
	} else {
		kernel.EncodeFloats(codes, data, raw, steps, size, f.floats)
	}
}

// measure returns the ranges of groups of one size. Where the greatest
// magnitude is all that counts, it is taken for both ends.
func (f *fused) measure(src plain, size int, s *Scratch) []Range {
	n := src.len() / size
	data, raw := src.raw(s)
	lo, hi, ranges := sized(&s.lo, n), sized(&s.hi, n), sized(&s.ranges, n)
	if f.ranges {
		kernel.Ranges(lo, hi, data, raw, size)
		for i := range ranges {
			ranges[i] = Range{lo[i], hi[i]}
		}
		return ranges
	}
	kernel.AbsMax(hi, data, raw, size)
	for i, a := range hi {
		if ranges[i] = (Range{-a, a}); a != a { // the NaN that stands first
			each := data[i*size*raw.Bytes() : (i+1)*size*raw.Bytes()]
			kernel.Ranges(lo[i:i+1], hi[i:i+1], each, raw, size)
			ranges[i] = Range{lo[i], hi[i]}
		}
	}
	return ranges
}

// measureTile returns the range of every group that overlaps a tile, or a
// *[NonfiniteError].
func (f *fused) measureTile(start int, src plain, s *Scratch) (ranges []Range, err error) {
	f.grid.units(start, src.len(), func(_, from, to int) {
		part := src.slice(from, to)
		r := f.measure(part, to-from, s)[0]
		if err == nil && !r.finite() && !f.allowNonfinite {
			err = CheckFinite(start+from, part.values(&s.slow))
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
	if s.Bits <= 8 && s.Inner == 1 && !s.Codebook && s.chances == nil {
		s.fused = f
	}
}

func (s *Scheme) step(r Range) (kernel.Step, bool) {
	scale, zero := s.scaleOf(r)
	step, ok := kernel.Divides(zero, scale)
	return step, ok && r.finite()
}

func (s *Scheme) slowly(codes []byte, values []float32, r Range, scratch *Scratch) {
	s.normalize(values, r)
	wide := scratch.uint16s(len(values))
	s.numbers.encode(wide, values)
	for i, c := range wide {
		codes[i] = byte(c)
	}
}
