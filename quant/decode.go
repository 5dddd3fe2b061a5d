package quant

import (
	"encoding/binary"
	"math"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Cut has no rows: areas are runs of values that can be restored by themselves.
func (s *Scheme) Cut() Cut {
	cut := s.Grid.Cut()
	cut.UnitCols = s.align()
	return cut
}

// align is what tiles must be multiples of.
func (s *Scheme) align() int {
	align := lcm(lcm(s.Block, s.Inner), max(s.Hadamard, 1))
	if s.Transposed || s.Rank > 0 {
		align = lcm(align, s.geometry.rest)
	}
	return align
}

// Decode restores a run of values from the bytes that Needed names, as SDNQ computes them for a model of dtype out, F32, BF16 or F16, before
// they are rounded to it.
func (s *Scheme) Decode(dst []float32, src [][]byte, a Area, out safetensors.Dtype, scratch *Scratch) {
	s.Decoder().Decode(dst, src, a, out, scratch)
}

// Decoder restores the values of a layer as its scheme does.
type Decoder struct {
	*Scheme
	// Near adds up rotations as [RotateOnce] does, which takes a fraction of the
	// time: values differ in their last bits.
	Near bool
	down *panels // nil where every tile takes it from its bytes
	// Straight says that codes are given by rows, see [Scheme.Straighten].
	Straight bool
}

// Decoder returns one.
func (s *Scheme) Decoder() Decoder { return Decoder{Scheme: s} }

// Once returns the number of the tensor that every tile takes all of, and that
// [Decoder.Take] takes once; 0 for none.
func (d Decoder) Once() int {
	if d.Rank == 0 || d.down != nil {
		return 0
	}
	return d.factors + 1
}

// Take returns a decoder of the layer whose tensor, [Decoder.Once], has that
// content: no tile needs it any more.
func (d Decoder) Take(src []byte) Decoder {
	d.down = d.newDown(src, new(Scratch))
	return d
}

// Straighten puts codes that lie by columns, [columns, rows], by rows: dst has all of
// those rows, and src some of their columns, from that one on.
func (s *Scheme) Straighten(dst, src []byte, column int) {
	width, across := s.Bits/8, s.geometry.rest
	rows := len(dst) / (across * width)
	if width == 1 {
		transposeBytes(dst[column:], src, len(src)/rows, rows, across)
		return
	}
	transposeTo(together[[2]byte](dst)[column:], together[[2]byte](src), len(src)/(width*rows), rows, across)
}

// Needed is that of the scheme, but for what was taken.
func (d Decoder) Needed(i int, a Area) []Span {
	if d.down != nil && i == d.factors+1 {
		return Run(0, 0)
	}
	return d.Scheme.Needed(i, a)
}

// Decode is that of the scheme.
func (d Decoder) Decode(dst []float32, src [][]byte, a Area, out safetensors.Dtype, scratch *Scratch) {
	s, near, start := d.Scheme, d.Near, a.Col
	turned := s.Transposed && !d.Straight
	s.Scales(src, start, len(dst), scratch)
	s.ZeroPoints(src, start, len(dst), scratch)
	v := s.byteValues()
	if rotated := s.rotatedDecoder(v, out, near); rotated != nil {
		s.decodeRotated(dst, s.takeBytes(src[0], len(dst), turned, scratch), start, v, rotated, hadamardEntry(s.Hadamard, out), scratch)
		return
	}
	if out == safetensors.BF16 && !near && s.fewLevels(v) {
		s.lookUpRotated(dst, s.takeBytes(src[0], len(dst), turned, scratch), start, v, scratch)
		return
	}
	switch {
	case v != nil:
		s.decodeAll(dst, s.takeBytes(src[0], len(dst), turned, scratch), start, v, scratch)
	case s.Codebook && s.Bits <= 8 && s.Inner == 1:
		s.lookUpBytes(dst, s.takeBytes(src[0], len(dst), turned, scratch), start, scratch.scales)
	default:
		s.decodeUnits(dst, s.takeCodes(src[0], len(dst), turned, scratch), start, scratch)
	}
	roundAll(dst, s.ScaleDtype)
	if s.Rank > 0 {
		if d.down == nil {
			d.down = s.newDown(src[s.factors+1], scratch)
		}
		s.addLowRank(dst, src[s.factors], d.down, scratch)
	}
	if s.Hadamard > 0 {
		s.rotateBack(dst, out, near, scratch)
	}
}

// rotateBack rotates restored values, which it first rounds to the dtype out.
func (s *Scheme) rotateBack(dst []float32, out safetensors.Dtype, near bool, scratch *Scratch) {
	entry := hadamardEntry(s.Hadamard, out)
	if out == safetensors.BF16 && !near {
		raw := sized(&scratch.bytes, 2*len(dst))
		kernel.NarrowBF16(raw, dst)
		kernel.RotateBF16(dst, raw, s.Hadamard, entry)
		return
	}
	roundAll(dst, out)
	if near {
		kernel.RotateOnce(dst, s.Hadamard, entry)
	} else {
		kernel.Rotate(dst, s.Hadamard, entry)
	}
}

// rotatedDecoder returns what decodes, rounds and rotates in one call, if there is
// such a thing.
func (s *Scheme) rotatedDecoder(v *kernel.Values, out safetensors.Dtype, near bool) kernel.RotatedDecoder {
	alone := s.Inner == 1 && s.Rank == 0 && s.zero.part == 0 && s.ScaleDtype == safetensors.F32
	switch {
	case v == nil || !alone || s.Hadamard == 0 || s.Group%s.Hadamard != 0:
		return nil
	case near && out == safetensors.F32:
		return kernel.DecodeRotatedOnce
	case !near && out == safetensors.BF16:
		return kernel.DecodeRotatedBF16
	}
	return nil
}

// decodeRotated restores values of codes of a byte each, and rotates them back.
func (s *Scheme) decodeRotated(dst []float32, codes []byte, start int, v *kernel.Values, decode kernel.RotatedDecoder, entry float32, scratch *Scratch) {
	s.pieces(start, len(dst), func(at, n, size, i int) {
		decode(dst[at:at+n*size], codes[at:at+n*size], scratch.scales[i:i+n], size, v, s.Hadamard, entry)
	})
}

// fewLevels reports whether values are rotated that are one of 16 for a run of codes.
func (s *Scheme) fewLevels(v *kernel.Values) bool {
	return v != nil && s.Hadamard > 0 && s.Bits <= 4 && s.Inner == 1 && s.Rank == 0 &&
		s.Group%kernel.LevelRun == 0 && s.Hadamard%kernel.LevelRun == 0
}

// lookUpRotated restores the levels of every run of codes, rounds them as values
// are, and rotates back what codes choose of them.
func (s *Scheme) lookUpRotated(dst []float32, codes []byte, start int, v *kernel.Values, scratch *Scratch) {
	runs, into := len(dst)/kernel.LevelRun, start%s.Group
	scales, zeros := s.ofRuns(&scratch.runScales, scratch.scales, into, runs), s.ofRuns(&scratch.runZeros, scratch.zeros, into, runs)
	levels, all := scratch.floats(16*runs), sized(&scratch.turnedBytes, 16*runs)
	for i := range 16 {
		all[i] = byte(i & (1<<s.Bits - 1))
	}
	for done := 16; done < len(all); done *= 2 {
		copy(all[done:], all[:done])
	}
	kernel.DecodeBytes(levels, all, scales, zeros, 16, v)
	roundAll(levels, s.ScaleDtype)
	kernel.RoundBF16(levels)
	kernel.LookUpRotated(dst, codes, levels, s.Hadamard, hadamardEntry(s.Hadamard, safetensors.BF16))
}

// ofRuns gives every run of codes the number of its group, of which the first run
// is that far into one.
func (s *Scheme) ofRuns(buffer *[]float32, ofGroups []float32, into, runs int) []float32 {
	if s.Group == kernel.LevelRun || ofGroups == nil {
		return ofGroups
	}
	x := sized(buffer, runs)
	for i := range x {
		x[i] = ofGroups[0]
		if into += kernel.LevelRun; into == s.Group {
			into, ofGroups = 0, ofGroups[1:]
		}
	}
	return x
}

// decodeUnits restores values of codes of any size, unit by unit.
func (s *Scheme) decodeUnits(dst []float32, codes []uint16, start int, scratch *Scratch) {
	if !s.Codebook {
		s.decodeCodes(dst, codes)
	}
	first := start / s.Group
	s.units(start, len(dst), func(unit, from, to int) {
		i := (unit - first) * s.perUnit()
		if s.Codebook {
			s.lookUp(dst[from:to], codes[from:to], scratch.scales[i:i+s.perUnit()])
			return
		}
		s.scaleUnit(dst[from:to], scratch, i)
	})
}

func (s *Scheme) takeCodes(src []byte, n int, turned bool, scratch *Scratch) []uint16 {
	codes := scratch.uint16s(n)
	pack.Unpack(codes, src, s.Bits)
	if turned {
		return turn(&scratch.turned, codes, n/s.geometry.rest)
	}
	return codes
}

// Scales restores those of the units that values [start, start+n) overlap from
// the bytes that Needed names. They are valid until the scratch is used again.
func (s *Scheme) Scales(src [][]byte, start, n int, scratch *Scratch) []float32 {
	scratch.scales = s.takeFloats(scratch.scales, s.scale, src, start, n, scratch)
	return scratch.scales
}

// ZeroPoints is Scales for zero points; nil where there are none.
func (s *Scheme) ZeroPoints(src [][]byte, start, n int, scratch *Scratch) []float32 {
	scratch.zeros = s.takeFloats(scratch.zeros, s.zero, src, start, n, scratch)
	return scratch.zeros
}

// takeFloats restores the scales, or zero points, of the units that a tile
// overlaps.
func (s *Scheme) takeFloats(buffer []float32, f sideData, src [][]byte, start, n int, scratch *Scratch) []float32 {
	if f.part == 0 {
		return nil
	}
	first, last := s.groupsIn(start, start+n)
	if f.store == nil {
		return Widen(sized(&buffer, last-first), src[f.part], s.ScaleDtype)
	}
	from, to := f.store.around(s.groupsIn)(start, start+n)
	x := sized(&buffer, to-from)
	f.store.decode(x, src[f.part:], from, scratch)
	return x[first-from : last-from]
}

// lookUpBytes gives values the levels of their codes of a byte.
func (s *Scheme) lookUpBytes(dst []float32, codes []byte, start int, levels []float32) {
	first := start / s.Group
	s.units(start, len(dst), func(unit, from, to int) {
		i := (unit - first) * s.Levels
		kernel.LookUp(dst[from:to], codes[from:to], levels[i:i+s.Levels])
	})
}

// lookUp gives part of a unit, a multiple of Inner from its start, the levels
// of its codes.
func (s *Scheme) lookUp(dst []float32, codes []uint16, levels []float32) {
	if s.Inner == 1 {
		LookUp(dst, codes, levels)
		return
	}
	for i, c := range codes {
		dst[i] = float32(math.NaN())
		if int(c) < s.Levels {
			dst[i] = levels[int(c)*s.Inner+i%s.Inner]
		}
	}
}

// scaleUnit multiplies part of a unit, a multiple of Inner from its start, by
// the scales from place i on.
func (s *Scheme) scaleUnit(values []float32, scratch *Scratch, i int) {
	if s.Inner == 1 {
		s.rescale(values, scratch, i)
		return
	}
	for j := range s.Inner {
		for k := j; k < len(values); k += s.Inner {
			s.rescale(values[k:k+1], scratch, i+j)
		}
	}
}

func (s *Scheme) rescale(values []float32, scratch *Scratch, i int) {
	if s.Dtype.Unsigned {
		kernel.ScaleFrom(values, scratch.scales[i], scratch.zeros[i])
	} else {
		kernel.ScaleBy(values, scratch.scales[i])
	}
}

func getFloat(src []byte, i int, d safetensors.Dtype) float32 {
	switch d {
	case safetensors.BF16:
		return kernel.BF16.Decode(binary.LittleEndian.Uint16(src[2*i:]))
	case safetensors.F16:
		return kernel.F16.Decode(binary.LittleEndian.Uint16(src[2*i:]))
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
}

// decodeCodes gives the codes' values in the dtype of the scale, in which SDNQ
// also adds a signed type's minimum.
func (s *Scheme) decodeCodes(dst []float32, codes []uint16) {
	if s.ScaleDtype == safetensors.F32 || s.Dtype.Class != dtype.Integer {
		s.numbers.decode(dst, codes)
		roundAll(dst, s.ScaleDtype)
		return
	}
	least := float32(0)
	if s.Dtype.Bitpacked() {
		least = float32(s.Dtype.Min)
		kernel.DecodeInts(dst, codes, 0, 0)
	} else {
		s.numbers.decode(dst, codes)
	}
	for i, v := range dst {
		dst[i] = s.round(s.round(v) + least)
	}
}

// roundAll rounds values to a float dtype; F32 leaves them.
func roundAll(x []float32, to safetensors.Dtype) {
	switch to {
	case safetensors.BF16:
		kernel.RoundBF16(x)
	case safetensors.F16:
		kernel.RoundF16(x)
	}
}
