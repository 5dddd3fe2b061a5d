package quant

import (
	"encoding/binary"
	"math"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Encode quantizes a tile into the bytes that Written names, one slice per
// tensor. The error is a *[NonfiniteError].
func (s *Scheme) Encode(dst [][]byte, t Tile, scratch *Scratch) error {
	if err := s.prepare(t.Start, t.Values, t.known, scratch); err != nil {
		return err
	}
	if s.fuses(&t) {
		t.plain = widened(t.Values)
		return s.encodePlain(dst, t, scratch)
	}
	codes := scratch.uint16s(len(t.Values))
	if err := s.quantize(codes, t, scratch); err != nil {
		return err
	}
	s.putSides(dst, t, scratch)
	if s.Transposed {
		codes = turn(&scratch.turned, codes, s.geometry.rest)
	}
	pack.Pack(dst[0], codes, s.Bits)
	return nil
}

// encodePlain is Encode for tiles that are prepared or need not be.
func (s *Scheme) encodePlain(dst [][]byte, t Tile, scratch *Scratch) error {
	codes := dst[0]
	if s.Bits < 8 || s.Transposed {
		codes = sized(&scratch.bytes, t.len())
	}
	if err := s.fused.encode(codes, t.Start, t.plain, t.Ranges, scratch); err != nil {
		return err
	}
	s.putSides(dst, t, scratch)
	switch {
	case s.Transposed:
		rows := len(codes) / s.geometry.rest
		transposeBytes(dst[0], codes, rows, s.geometry.rest, rows)
	case s.Bits < 8:
		pack.Bytes(dst[0], codes, s.Bits)
	}
	return nil
}

// putSides stores what goes with the codes of a tile.
func (s *Scheme) putSides(dst [][]byte, t Tile, scratch *Scratch) {
	s.putFloats(dst, t, scratch)
	if s.Rank > 0 {
		s.putFactors(dst, t.Start, t.known.rank.found, scratch)
	}
}

// prepare turns values into what is scaled.
func (s *Scheme) prepare(start int, values []float32, k *known, scratch *Scratch) error {
	if err := s.turnOver(start, values); err != nil || s.Rank == 0 {
		return err
	}
	f, err := k.rank.factors(s.factorDtype, scratch)
	switch {
	case err != nil:
		return err
	case f == nil:
		return errGivenUp
	}
	s.subtract(values, f, scratch)
	return nil
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

// quantize gives prepared values their codes, and collects the scales and zero
// points of the units that begin in the tile.
func (s *Scheme) quantize(codes []uint16, t Tile, scratch *Scratch) error {
	scratch.scales, scratch.zeros = scratch.scales[:0], scratch.zeros[:0]
	if s.Codebook {
		return s.lookAll(codes, t, scratch)
	}
	err := s.ranged(t, scratch, func(unit, from, to int, ranges []Range) {
		s.normalizeUnit(t.Values[from:to], ranges, scratch)
		if unit*s.Group >= t.Start {
			s.collect(ranges, scratch)
		}
	})
	if err != nil {
		return err
	}
	if s.chances != nil {
		s.chances.Round(t.Values, t.Start, s.Dtype)
	}
	s.numbers.encode(codes, t.Values)
	return nil
}

// ranged calls f for the units of a tile with the ranges of their groups. Its
// error is a *[NonfiniteError].
func (s *Scheme) ranged(t Tile, scratch *Scratch, f func(unit, from, to int, ranges []Range)) (err error) {
	s.units(t.Start, len(t.Values), func(unit, from, to int) {
		ranges := s.rangesOf(&t, unit, t.Values[from:to], scratch)
		if err == nil && !s.AllowNonfinite && !Finite(ranges) {
			err = CheckFinite(t.Start+from, t.Values[from:to])
		}
		f(unit, from, to, ranges)
	})
	return err
}

// lookAll gives the values of a tile the codes of their groups' levels.
func (s *Scheme) lookAll(codes []uint16, t Tile, scratch *Scratch) error {
	if s.together(&t) && s.lookTogether(codes, t.Values, scratch) {
		return nil
	}
	scratch.scales = scratch.scales[:0]
	return s.ranged(t, scratch, func(unit, from, to int, _ []Range) {
		s.lookUnit(codes[from:to], t.Values[from:to], t, unit, unit*s.Group >= t.Start, scratch)
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
func (s *Scheme) putFloats(dst [][]byte, t Tile, scratch *Scratch) {
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
			first, last := f.store.blocks(s.groupsFrom)(t.Start, t.Start+t.len())
			x = s.blockFloats(x, first, last, i, t)
			t.known.stored[i].encode(dst[f.part:], first, x, scratch)
		}
	}
}

// blockFloats are the scales of whole blocks: those collected, or where groups
// are larger than tiles, what follows from all that is known.
func (s *Scheme) blockFloats(collected []float32, first, last, which int, t Tile) []float32 {
	if t.Ranges == nil {
		return collected
	}
	return t.known.floats(s, which)[first:last:last]
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
func (s *Scheme) lookUnit(codes []uint16, values []float32, t Tile, unit int, begins bool, scratch *Scratch) {
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
		if t.known != nil && t.known.books != nil {
			book = t.known.books[unit*s.Inner+j]
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
