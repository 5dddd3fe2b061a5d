package quant

import (
	"encoding/binary"
	"math"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/safetensors"
)

// encode quantizes a run of values into the bytes that Written names, one slice per
// tensor. Groups lie whole in it where their ranges, or codebooks, are not known. The
// error is a *[NonfiniteError], or of the search for a low-rank part.
func (s *Scheme) encode(dst [][]byte, v Values, k *known, scratch *Scratch) error {
	w, err := s.prepared(v, k, scratch)
	if err != nil {
		return err
	}
	if s.fused != nil && (s.Inner == 1 || k.ranges == nil) {
		return s.encodeFused(dst, ValuesOf(v.Area, w), k, nil, scratch)
	}
	codes := scratch.uint16s(len(w))
	if err := s.quantize(codes, w, v.Col, k, scratch); err != nil {
		return err
	}
	s.putSides(dst, v.Area, k, scratch)
	if s.Transposed {
		codes = turn(&scratch.turned, codes, s.geometry.rest)
	}
	pack.Pack(dst[0], codes, s.Bits)
	return nil
}

// encodeFused is encode of values that are prepared, or have to be rotated alone.
func (s *Scheme) encodeFused(dst [][]byte, v Values, k *known, r *rotation, scratch *Scratch) (err error) {
	codes := dst[0]
	if s.Bits < 8 || s.Transposed {
		codes = sized(&scratch.bytes, v.len())
	}
	if r != nil {
		err = s.fused.encodeRotated(codes, v, *r, scratch)
	} else {
		err = s.fused.encode(codes, v, k.ranges, scratch)
	}
	if err != nil {
		return err
	}
	s.putSides(dst, v.Area, k, scratch)
	switch {
	case s.Transposed:
		rows := len(codes) / s.geometry.rest
		transposeBytes(dst[0], codes, rows, s.geometry.rest, rows)
	case s.Bits < 8:
		pack.Bytes(dst[0], codes, s.Bits)
	}
	return nil
}

// putSides stores what goes with the codes of a run of values.
func (s *Scheme) putSides(dst [][]byte, a Area, k *known, scratch *Scratch) {
	s.putFloats(dst, a, k, scratch)
	if s.Rank > 0 {
		s.putFactors(dst, a.Col, k.rank.found, scratch)
	}
}

// prepared returns what is scaled of values, which may be changed.
func (s *Scheme) prepared(v Values, k *known, scratch *Scratch) ([]float32, error) {
	w := v.Floats(scratch)
	if err := s.turnOver(v.Col, w); err != nil || s.Rank == 0 {
		return w, err
	}
	f, err := k.rank.factors(s.factorDtype, scratch)
	switch {
	case err != nil:
		return nil, err
	case f == nil:
		return nil, errGivenUp
	}
	s.subtract(w, f, scratch)
	return w, nil
}

// takesNonfinite reports whether NaN and infinity are stored: not where there is a
// low-rank part, which no weight with them has.
func (s *Scheme) takesNonfinite() bool { return s.AllowNonfinite && s.Rank == 0 }

// turnOver rounds values to the model's dtype and rotates them.
func (s *Scheme) turnOver(start int, values []float32) error {
	roundAll(values, s.rounded)
	if s.Hadamard == 0 {
		return nil
	}
	if !s.takesNonfinite() { // before they spread
		if r := rangeOf(values); !r.finite() {
			return s.checkFinite(start, values)
		}
	}
	Rotate(values, s.Hadamard)
	return nil
}

// quantize gives prepared values, from index start on, their codes, and collects the
// scales and zero points of the units that begin among them.
func (s *Scheme) quantize(codes []uint16, w []float32, start int, k *known, scratch *Scratch) error {
	scratch.scales, scratch.zeros = scratch.scales[:0], scratch.zeros[:0]
	if s.Codebook {
		return s.lookAll(codes, w, start, k, scratch)
	}
	err := s.ranged(w, start, k, scratch, func(unit, from, to int, ranges []Range) {
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
// Its error is a *[NonfiniteError].
func (s *Scheme) ranged(w []float32, start int, k *known, scratch *Scratch, f func(unit, from, to int, ranges []Range)) (err error) {
	s.units(start, len(w), func(unit, from, to int) {
		ranges := s.rangesOf(k, unit, w[from:to], scratch)
		if err == nil && !s.AllowNonfinite && !Finite(ranges) {
			err = CheckFinite(start+from, w[from:to])
		}
		f(unit, from, to, ranges)
	})
	return err
}

// lookAll gives values the codes of their groups' levels.
func (s *Scheme) lookAll(codes []uint16, w []float32, start int, k *known, scratch *Scratch) error {
	if s.together(start, len(w), k) && s.lookTogether(codes, w, scratch) {
		return nil
	}
	scratch.scales = scratch.scales[:0]
	return s.ranged(w, start, k, scratch, func(unit, from, to int, _ []Range) {
		s.lookUnit(codes[from:to], w[from:to], k, unit, unit*s.Group >= start, scratch)
	})
}

// collect appends the scales and zero points of groups with these ranges.
func (s *Scheme) collect(ranges []Range, scratch *Scratch) {
	for _, r := range ranges {
		scale, zero := s.scaleOf(r)
		scratch.scales = append(scratch.scales, scale)
		if s.Dtype.Unsigned {
			scratch.zeros = append(scratch.zeros, zero)
		}
	}
}

// scaleOf returns a group's scale and zero point: max|w| / max, or for
// unsigned types (max - min) / max from the minimum on.
func (s *Scheme) scaleOf(r Range) (scale, zero float32) {
	divisor := float32(s.Dtype.Divisor)
	if s.Dtype.Unsigned {
		return s.round(float32(r.Hi-r.Lo) / divisor), s.round(r.Lo)
	}
	if r.Lo != r.Lo {
		return r.Lo, 0
	}
	return s.round(r.absMax() / divisor), 0
}

// round takes a scale to the dtype it is stored in.
func (s *Scheme) round(x float32) float32 { return RoundTo(x, s.ScaleDtype) }

// putFloats stores the scales and zero points that were collected.
func (s *Scheme) putFloats(dst [][]byte, a Area, k *known, scratch *Scratch) {
	for i, f := range []sideData{s.scale, s.zero} {
		x := scratch.scales
		if i == 1 {
			x = scratch.zeros
		}
		switch {
		case f.part == 0:
		case f.store == nil:
			putFloats(dst[f.part], x, s.ScaleDtype)
		default:
			first, last := f.store.blocks(s.groupsFrom)(a.Col, a.Col+a.Cols)
			if k.ranges != nil { // groups are larger than tiles
				x = k.floats(s, i)[first:last:last]
			}
			k.stored[i].encode(dst[f.part:], first, x, scratch)
		}
	}
}

func putFloat(dst []byte, i int, x float32, d safetensors.Dtype) {
	switch d {
	case safetensors.BF16:
		binary.LittleEndian.PutUint16(dst[2*i:], kernel.BF16.Encode(x))
	case safetensors.F16:
		binary.LittleEndian.PutUint16(dst[2*i:], kernel.F16.Encode(x))
	default:
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
	}
}

// normalizeUnit divides the groups of a unit by their scales.
func (s *Scheme) normalizeUnit(values []float32, ranges []Range, scratch *Scratch) {
	if s.Inner == 1 {
		s.normalize(values, ranges[0])
		return
	}
	n := len(values) / s.Inner
	sorted := scratch.floats(len(values))
	transpose(sorted, values, n, s.Inner)
	for j, r := range ranges {
		s.normalize(sorted[j*n:(j+1)*n], r)
	}
	transpose(values, sorted, s.Inner, n)
}

// normalize divides by the scale and clamps to the codes' range. Only a zero
// or non-finite scale gives NaN, which floats store as zero.
func (s *Scheme) normalize(values []float32, r Range) {
	scale, zero := s.scaleOf(r)
	lo, hi := s.numbers.bounds()
	kernel.Divide(values, zero, scale, lo, hi)
	if s.Dtype.Class == dtype.Integer || (scale != 0 && finite(scale)) {
		return
	}
	for i, v := range values {
		if v != v {
			values[i] = 0
		}
	}
}

// lookUnit gives the values of a unit the codes of their groups' levels.
func (s *Scheme) lookUnit(codes []uint16, values []float32, k *known, unit int, begins bool, scratch *Scratch) {
	n := len(values) / s.Inner
	sorted := values
	if s.Inner > 1 {
		sorted = scratch.floats(len(values))
		transpose(sorted, values, n, s.Inner)
	}
	levels := s.unitLevels(begins, scratch)
	column := sized(&scratch.column, n)
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
func (s *Scheme) unitLevels(begins bool, scratch *Scratch) []float32 {
	if !begins {
		return nil
	}
	at, n := len(scratch.scales), s.perUnit()
	for range n {
		scratch.scales = append(scratch.scales, 0)
	}
	return scratch.scales[at:]
}
