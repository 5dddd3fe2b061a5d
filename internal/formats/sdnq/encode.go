package sdnq

import (
	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codebook"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/lowrank"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
)

// fitsLanes reports whether the codebooks of n values can be fitted in vector lanes:
// the values are whole groups, and there are enough of them for lanes to pay.
func (s *Scheme) fitsLanes(start, n int, k *passResults) bool {
	return k.books == nil && s.steps > 0 && s.Inner == 1 && s.Levels <= kernel.BookLevels && start%s.Group == 0 &&
		n%s.Group == 0 && codebook.WorthLanes(n/s.Group)
}

// lookUpInLanes fits the codebooks of a tile's groups in vector lanes and gives the
// values their codes. It reports false if a value is not finite.
func (s *Scheme) lookUpInLanes(codes []uint16, values []float32, scratch *buffers) bool {
	n := len(values) / s.Group
	lo, hi := tile.Sized(&scratch.lo, n), tile.Sized(&scratch.hi, n)
	kernel.Ranges(lo, hi, kernel.AsBytes(values), kernel.RawF32, s.Group)
	for i := range lo {
		if !(tile.Range{Lo: lo[i], Hi: hi[i]}).Finite() {
			return false
		}
	}
	levels := tile.Sized(&scratch.Scales, n*s.Levels)
	scratch.Scales = levels
	scratch.books.Fit(codebook.Batch{Values: values, Codes: codes, Levels: levels, N: s.Group, Count: s.Levels, Steps: s.steps})
	for i, v := range levels {
		levels[i] = s.round(v)
	}
	if !s.exact {
		clampCodes(codes, s.Dtype)
	}
	return true
}

// encode quantizes a run of values into the bytes that Written names, one slice for
// each tensor. The run must consist of whole groups unless k has the ranges or
// codebooks of all groups. The error is a *[tile.NonfiniteError], or one of the search
// for a low-rank part.
func (s *Scheme) encode(dst [][]byte, v tile.Values, k *passResults, scratch *buffers) error {
	w, err := s.prepared(v, k, scratch)
	if err != nil {
		return err
	}
	if s.fused != nil && (s.Inner == 1 || k.ranges == nil) {
		return s.encodeFused(dst, tile.ValuesOf(v.Area, w), k, nil, scratch)
	}
	codes := scratch.Uint16s(len(w))
	if err := s.quantize(codes, w, v.Col, k, scratch); err != nil {
		return err
	}
	s.putSides(dst, v.Area, k, scratch)
	if s.Transposed {
		codes = transpose.Into(&scratch.transposed, codes, s.geometry.rest)
	}
	pack.Pack(dst[0], codes, s.Bits)
	return nil
}

// encodeFused is encode of values that are prepared, or have to be rotated alone.
func (s *Scheme) encodeFused(dst [][]byte, v tile.Values, k *passResults, r *rotation.Hadamard, scratch *buffers) (err error) {
	codes := dst[0]
	if s.Bits < 8 || s.Transposed {
		codes = tile.Sized(&scratch.bytes, v.Len())
	}
	if r != nil {
		err = k.encoder(s).EncodeRotated(codes, v, *r, &scratch.Companions, scratch.Scratch)
	} else {
		err = k.encoder(s).Encode(codes, v, k.ranges, &scratch.Companions, scratch.Scratch)
	}
	if err != nil {
		return err
	}
	s.putSides(dst, v.Area, k, scratch)
	switch {
	case s.Transposed:
		rows := len(codes) / s.geometry.rest
		transpose.Bytes(dst[0], codes, rows, s.geometry.rest, rows)
	case s.Bits < 8:
		pack.Bytes(dst[0], codes, s.Bits)
	}
	return nil
}

// putSides writes scales, zero points and low-rank factors of a run of values.
func (s *Scheme) putSides(dst [][]byte, a tile.Area, k *passResults, scratch *buffers) {
	s.putFloats(dst, a, k, scratch)
	if s.Rank > 0 {
		s.putFactors(dst, a.Col, k.rank.found, scratch)
	}
}

// prepared returns the values that are scaled: rounded, rotated, and without the
// low-rank part. The caller may change them.
func (s *Scheme) prepared(v tile.Values, k *passResults, scratch *buffers) ([]float32, error) {
	w := v.Floats(scratch.Scratch)
	if err := s.roundAndRotate(v.Col, w); err != nil || s.Rank == 0 {
		return w, err
	}
	f, err := k.rank.factors(s, scratch.Cancelled)
	switch {
	case err != nil:
		return nil, err
	case f == nil:
		return nil, lowrank.ErrGivenUp
	}
	if s.rest != nil {
		s.refit(w, f, scratch)
	} else {
		s.subtract(w, f, scratch)
	}
	return w, nil
}

// takesNonfinite reports whether NaN and infinity are stored: not where there is a
// low-rank part, which no weight with them has.
func (s *Scheme) takesNonfinite() bool { return s.AllowNonfinite && s.Rank == 0 }

// roundAndRotate rounds values to the model's dtype and rotates them.
func (s *Scheme) roundAndRotate(start int, values []float32) error {
	floats.RoundAll(values, s.rounded)
	if s.Hadamard == 0 {
		return nil
	}
	if !s.takesNonfinite() { // before they spread
		if r := tile.RangeOf(values); !r.Finite() {
			return s.checkFinite(start, values)
		}
	}
	rotation.Rotate(values, s.Hadamard)
	return nil
}

// quantize gives prepared values, from index start on, their codes, and collects the
// scales and zero points of the units that begin among them.
func (s *Scheme) quantize(codes []uint16, w []float32, start int, k *passResults, scratch *buffers) error {
	scratch.Begin()
	if s.Codebook {
		return s.lookAll(codes, w, start, k, scratch)
	}
	err := s.ranged(w, start, k, scratch, func(unit, from, to int, ranges []tile.Range) {
		s.normalizeUnit(w[from:to], ranges, scratch)
		if unit*s.Group >= start {
			s.collect(ranges, scratch)
		}
	})
	if err != nil {
		return err
	}
	if s.chances != nil {
		s.chances.Round(w, start, s.Dtype)
	}
	s.numbers.encode(codes, w)
	return nil
}

// ranged calls f for the units of a run of values with the ranges of their groups.
// Its error is a *[tile.NonfiniteError].
func (s *Scheme) ranged(w []float32, start int, k *passResults, scratch *buffers, f func(unit, from, to int, ranges []tile.Range)) (err error) {
	s.Units(start, len(w), func(unit, from, to int) {
		ranges := s.rangesOf(k, unit, w[from:to], scratch)
		if err == nil && !s.AllowNonfinite && !tile.AllFinite(ranges) {
			err = tile.CheckFinite(start+from, w[from:to])
		}
		f(unit, from, to, ranges)
	})
	return err
}

// lookAll gives values the codes of their groups' levels.
func (s *Scheme) lookAll(codes []uint16, w []float32, start int, k *passResults, scratch *buffers) error {
	if s.fitsLanes(start, len(w), k) && s.lookUpInLanes(codes, w, scratch) {
		return nil
	}
	scratch.Scales = scratch.Scales[:0]
	return s.ranged(w, start, k, scratch, func(unit, from, to int, _ []tile.Range) {
		s.lookUnit(codes[from:to], w[from:to], k, unit, unit*s.Group >= start, scratch)
	})
}

// collect appends the scales and zero points of groups with these ranges.
func (s *Scheme) collect(ranges []tile.Range, scratch *buffers) {
	for _, r := range ranges {
		scale, zero := s.scaleOf(r)
		scratch.Scales = append(scratch.Scales, scale)
		if s.Dtype.Unsigned {
			scratch.Zeros = append(scratch.Zeros, zero)
		}
	}
}

// scaleOf returns a group's scale and zero point: max|w| / max, or for
// unsigned types (max - min) / max from the minimum on.
func (s *Scheme) scaleOf(r tile.Range) (scale, zero float32) {
	divisor := float32(s.Dtype.Divisor)
	if s.Dtype.Unsigned {
		return s.round(float32(r.Hi-r.Lo) / divisor), s.round(r.Lo)
	}
	if r.Lo != r.Lo {
		return r.Lo, 0
	}
	return s.round(r.AbsMax() / divisor), 0
}

// round takes a scale to the dtype it is stored in.
func (s *Scheme) round(x float32) float32 { return floats.RoundTo(x, s.ScaleDtype) }

// putFloats stores the scales and zero points that were collected.
func (s *Scheme) putFloats(dst [][]byte, a tile.Area, k *passResults, scratch *buffers) {
	for i, f := range []sideData{s.scale, s.zero} {
		x := scratch.Scales
		if i == 1 {
			x = scratch.Zeros
		}
		switch {
		case f.part == 0:
		case f.store == nil:
			floats.PutFloats(dst[f.part], x, s.ScaleDtype)
		default:
			first, last := f.store.blocks(s.GroupsFrom)(a.Col, a.Col+a.Cols)
			if k.ranges != nil { // groups are larger than tiles
				x = k.floats(s, i)[first:last:last]
			}
			k.stored[i].encode(dst[f.part:], first, x, scratch)
		}
	}
}

// normalizeUnit divides the groups of a unit by their scales.
func (s *Scheme) normalizeUnit(values []float32, ranges []tile.Range, scratch *buffers) {
	if s.Inner == 1 {
		s.normalize(values, ranges[0])
		return
	}
	n := len(values) / s.Inner
	sorted := scratch.Floats(len(values))
	transpose.All(sorted, values, n, s.Inner)
	for j, r := range ranges {
		s.normalize(sorted[j*n:(j+1)*n], r)
	}
	transpose.All(values, sorted, s.Inner, n)
}

// normalize divides by the scale and clamps to the codes' range. Only a zero
// or non-finite scale gives NaN, which floats store as zero.
func (s *Scheme) normalize(values []float32, r tile.Range) {
	scale, zero := s.scaleOf(r)
	lo, hi := s.numbers.bounds()
	kernel.Divide(values, zero, scale, lo, hi)
	if s.Dtype.Class == dtype.Integer || (scale != 0 && floats.Finite(scale)) {
		return
	}
	for i, v := range values {
		if v != v {
			values[i] = 0
		}
	}
}

// lookUnit gives the values of a unit the codes of their groups' levels.
func (s *Scheme) lookUnit(codes []uint16, values []float32, k *passResults, unit int, begins bool, scratch *buffers) {
	n := len(values) / s.Inner
	sorted := values
	if s.Inner > 1 {
		sorted = scratch.Floats(len(values))
		transpose.All(sorted, values, n, s.Inner)
	}
	levels := s.unitLevels(begins, scratch)
	column := tile.Sized(&scratch.column, n)
	for j := range s.Inner {
		book := &scratch.book
		group := sorted[j*n : (j+1)*n]
		if k.books != nil {
			book = k.books[unit*s.Inner+j]
			book.Codes(column, group)
		} else {
			book.Fit(column, group, s.Levels, s.steps)
		}
		if !s.exact {
			clampCodes(column, s.Dtype)
		}
		for i, c := range column {
			codes[i*s.Inner+j] = c
		}
		for l, v := range book.Levels() {
			if begins {
				levels[l*s.Inner+j] = s.round(v)
			}
		}
	}
}

// unitLevels makes room for a unit's levels among what is collected.
func (s *Scheme) unitLevels(begins bool, scratch *buffers) []float32 {
	if !begins {
		return nil
	}
	at, n := len(scratch.Scales), s.PerUnit()
	for range n {
		scratch.Scales = append(scratch.Scales, 0)
	}
	return scratch.Scales[at:]
}

// rangesOf returns the measured ranges of a unit, or those of its values.
func (s *Scheme) rangesOf(k *passResults, unit int, values []float32, scratch *buffers) []tile.Range {
	if k.ranges != nil {
		return k.ranges[unit*s.Inner : (unit+1)*s.Inner]
	}
	scratch.ranges = s.Grid.AppendRanges(scratch.ranges[:0], values, scratch.Scratch)
	return scratch.ranges
}

// checkFinite is CheckFinite for values of the scheme.
func (s *Scheme) checkFinite(start int, values []float32) error {
	err := tile.CheckFinite(start, values)
	if n, ok := err.(*tile.NonfiniteError); ok {
		n.LowRank = s.Rank > 0
	}
	return err
}
