package sdnq

import (
	"math"
	"sync"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codebook"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/lowrank"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
	"github.com/tensorpress/tensorpress/safetensors"
)

// byteValues are those of codes of at most 8 bits of a dtype.
type byteValues struct {
	*kernel.Values
	exact map[safetensors.Dtype]bool // no value is rounded in that dtype
}

var allByteValues sync.Map // by *dtype.Type

func valuesOf(t *dtype.Type) *byteValues {
	if v, ok := allByteValues.Load(t); ok {
		return v.(*byteValues)
	}
	v := &byteValues{newNumbers(t, false).values(), map[safetensors.Dtype]bool{}}
	for _, d := range []safetensors.Dtype{safetensors.F32, safetensors.BF16, safetensors.F16} {
		v.exact[d] = true
		for code := range 1 << t.Bits {
			value := v.At(byte(code))
			rounded := floats.RoundTo(value, d)
			v.exact[d] = v.exact[d] && (rounded == value || value != value)
		}
	}
	allByteValues.Store(t, v)
	return v
}

// byteValues returns those of the codes where a call can decode and scale many
// of them, else nil.
func (s *Scheme) byteValues() *kernel.Values {
	if s.Bits > 8 || s.Codebook || s.Transposed && s.Inner > 1 {
		return nil
	}
	if v := valuesOf(s.Dtype); v.exact[s.ScaleDtype] {
		return v.Values
	}
	return nil
}

// decodeAll restores values of codes of a byte each.
func (s *Scheme) decodeAll(dst []float32, codes []byte, start int, v *kernel.Values, scratch *buffers) {
	if s.Inner == 1 {
		s.Grid.DecodeBytes(dst, codes, start, scratch.Scales, scratch.Zeros, v)
		return
	}
	first := start / s.Group
	s.Units(start, len(dst), func(unit, from, to int) {
		i, n := (unit-first)*s.Inner, (to-from)/s.Inner
		var zeros []float32
		if scratch.Zeros != nil {
			zeros = scratch.Zeros[i : i+s.Inner]
		}
		sorted := scratch.Floats(to - from)
		kernel.DecodeBytes(sorted, transpose.BytesInto(&scratch.transposedBytes, codes[from:to], s.Inner), scratch.Scales[i:i+s.Inner], zeros, n, v)
		transpose.All(dst[from:to], sorted, s.Inner, n)
	})
}

// takeBytes returns codes of at most 8 bits, one a byte.
func (s *Scheme) takeBytes(src []byte, n int, transposed bool, scratch *buffers) []byte {
	codes := src
	if s.Bits < 8 {
		codes = tile.Sized(&scratch.bytes, n)
		pack.SplitBytes(codes, src, s.Bits)
	}
	if transposed {
		return transpose.BytesInto(&scratch.transposedBytes, codes, n/s.geometry.rest)
	}
	return codes
}

// Cut has no rows: areas are runs of values that can be restored by themselves.
func (s *Scheme) Cut() tile.Cut {
	cut := s.Grid.Cut()
	cut.UnitCols = s.align()
	return cut
}

// align is what tiles must be multiples of.
func (s *Scheme) align() int {
	align := tile.LCM(tile.LCM(s.Block, s.Inner), max(s.Hadamard, 1))
	if s.Transposed || s.Rank > 0 {
		align = tile.LCM(align, s.geometry.rest)
	}
	return align
}

// Decode restores a run of values from the bytes that Needed names, as SDNQ computes
// them for a model of dtype out (F32, BF16 or F16), before they are rounded to it.
func (s *Scheme) Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, scratch *tile.Scratch) {
	s.Decoder().Decode(dst, src, a, out, scratch)
}

// Decoder restores the values of a layer of a scheme.
type Decoder struct {
	*Scheme
	// Approximate computes rotations as [rotation.RotateOnce] does, in a fraction of
	// the time: values differ in their last bits.
	Approximate bool
	down        *lowrank.Panels // nil where every tile takes it from its bytes
	// ByRows says that codes are given in row-major order, see [Scheme.Transpose].
	ByRows bool
}

// Decoder returns the decoder that computes exactly what SDNQ does.
func (s *Scheme) Decoder() Decoder { return Decoder{Scheme: s} }

// SharedTensor returns the index of the stored tensor that every tile needs whole
// (svd_down), until [Decoder.WithShared] was given it; 0 for none.
func (d Decoder) SharedTensor() int {
	if d.Rank == 0 || d.down != nil {
		return 0
	}
	return d.factors + 1
}

// WithShared returns a decoder that holds the content of [Decoder.SharedTensor], so
// that no tile needs to read it.
func (d Decoder) WithShared(src []byte) Decoder {
	d.down = d.newDown(src, buffersOf(new(tile.Scratch)))
	return d
}

// Transpose writes codes that are stored column by column to dst in row-major order.
// dst has all columns of some rows; src has a few columns of the same rows, the first
// of which is column.
func (s *Scheme) Transpose(dst, src []byte, column int) {
	width, across := s.Bits/8, s.geometry.rest
	rows := len(dst) / (across * width)
	if width == 1 {
		transpose.Bytes(dst[column:], src, len(src)/rows, rows, across)
		return
	}
	transpose.Strided(transpose.AsArrays[[2]byte](dst)[column:], transpose.AsArrays[[2]byte](src), len(src)/(width*rows), rows, across)
}

// Needed is that of the scheme, less the shared tensor.
func (d Decoder) Needed(i int, a tile.Area) []tile.Span {
	if d.down != nil && i == d.factors+1 {
		return tile.Run(0, 0)
	}
	return d.Scheme.Needed(i, a)
}

// Decode is that of the scheme.
func (d Decoder) Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, own *tile.Scratch) {
	scratch := buffersOf(own)
	s, approximate, start := d.Scheme, d.Approximate, a.Col
	transposed := s.Transposed && !d.ByRows
	s.takeSides(src, start, len(dst), scratch)
	v := s.byteValues()
	if rotated := s.rotatedDecoder(v, out, approximate); rotated != nil {
		s.decodeRotated(dst, s.takeBytes(src[0], len(dst), transposed, scratch), start, v, rotated, rotation.Entry(s.Hadamard, out), scratch)
		return
	}
	if out == safetensors.BF16 && !approximate && s.fewLevels(v) {
		s.lookUpRotated(dst, s.takeBytes(src[0], len(dst), transposed, scratch), start, v, scratch)
		return
	}
	switch {
	case v != nil:
		s.decodeAll(dst, s.takeBytes(src[0], len(dst), transposed, scratch), start, v, scratch)
	case s.Codebook && s.Bits <= 8 && s.Inner == 1:
		s.lookUpBytes(dst, s.takeBytes(src[0], len(dst), transposed, scratch), start, scratch.Scales)
	default:
		s.decodeUnits(dst, s.takeCodes(src[0], len(dst), transposed, scratch), start, scratch)
	}
	floats.RoundAll(dst, s.restored)
	if s.Rank > 0 {
		if d.down == nil {
			d.down = s.newDown(src[s.factors+1], scratch)
		}
		s.addLowRank(dst, src[s.factors], d.down, scratch)
	}
	if s.Hadamard > 0 {
		s.rotateBack(dst, out, approximate, scratch)
	}
}

// rotateBack rotates restored values, which it first rounds to the dtype out.
func (s *Scheme) rotateBack(dst []float32, out safetensors.Dtype, approximate bool, scratch *buffers) {
	entry := rotation.Entry(s.Hadamard, out)
	if out == safetensors.BF16 && !approximate {
		raw := tile.Sized(&scratch.bytes, 2*len(dst))
		kernel.NarrowBF16(raw, dst)
		kernel.RotateBF16(dst, raw, s.Hadamard, entry)
		return
	}
	floats.RoundAll(dst, out)
	if approximate {
		kernel.RotateOnce(dst, s.Hadamard, entry)
	} else {
		kernel.Rotate(dst, s.Hadamard, entry)
	}
}

// rotatedDecoder returns what decodes, rounds and rotates in one call, if there is
// such a thing.
func (s *Scheme) rotatedDecoder(v *kernel.Values, out safetensors.Dtype, approximate bool) kernel.RotatedDecoder {
	alone := s.Inner == 1 && s.Rank == 0 && s.zero.part == 0 && s.ScaleDtype == safetensors.F32
	switch {
	case v == nil || !alone || s.Hadamard == 0 || s.Group%s.Hadamard != 0:
		return nil
	case approximate && out == safetensors.F32:
		return kernel.DecodeRotatedOnce
	case !approximate && out == safetensors.BF16:
		return kernel.DecodeRotatedBF16
	}
	return nil
}

// decodeRotated restores values of codes of a byte each, and rotates them back.
func (s *Scheme) decodeRotated(dst []float32, codes []byte, start int, v *kernel.Values, decode kernel.RotatedDecoder, entry float32, scratch *buffers) {
	s.Pieces(start, len(dst), func(at, n, size, i int) {
		decode(dst[at:at+n*size], codes[at:at+n*size], scratch.Scales[i:i+n], size, v, s.Hadamard, entry)
	})
}

// fewLevels reports whether values are rotated that are one of 16 for a run of codes.
func (s *Scheme) fewLevels(v *kernel.Values) bool {
	return v != nil && s.Hadamard > 0 && s.Bits <= 4 && s.Inner == 1 && s.Rank == 0 &&
		s.Group%kernel.LevelRun == 0 && s.Hadamard%kernel.LevelRun == 0
}

// lookUpRotated restores the levels of every run of codes, rounds them as values
// are, and rotates back what codes choose of them.
func (s *Scheme) lookUpRotated(dst []float32, codes []byte, start int, v *kernel.Values, scratch *buffers) {
	runs, into := len(dst)/kernel.LevelRun, start%s.Group
	scales, zeros := s.ofRuns(&scratch.runScales, scratch.Scales, into, runs), s.ofRuns(&scratch.runZeros, scratch.Zeros, into, runs)
	levels, all := scratch.Floats(16*runs), tile.Sized(&scratch.transposedBytes, 16*runs)
	for i := range 16 {
		all[i] = byte(i & (1<<s.Bits - 1))
	}
	for done := 16; done < len(all); done *= 2 {
		copy(all[done:], all[:done])
	}
	kernel.DecodeBytes(levels, all, scales, zeros, 16, v)
	floats.RoundAll(levels, s.ScaleDtype)
	kernel.RoundBF16(levels)
	kernel.LookUpRotated(dst, codes, levels, s.Hadamard, rotation.Entry(s.Hadamard, safetensors.BF16))
}

// ofRuns gives every run of codes the number of its group, of which the first run
// is that far into one.
func (s *Scheme) ofRuns(buffer *[]float32, ofGroups []float32, into, runs int) []float32 {
	if s.Group == kernel.LevelRun || ofGroups == nil {
		return ofGroups
	}
	x := tile.Sized(buffer, runs)
	for i := range x {
		x[i] = ofGroups[0]
		if into += kernel.LevelRun; into == s.Group {
			into, ofGroups = 0, ofGroups[1:]
		}
	}
	return x
}

// decodeUnits restores values of codes of any size, unit by unit.
func (s *Scheme) decodeUnits(dst []float32, codes []uint16, start int, scratch *buffers) {
	if !s.Codebook {
		s.decodeCodes(dst, codes)
	}
	first := start / s.Group
	s.Units(start, len(dst), func(unit, from, to int) {
		i := (unit - first) * s.PerUnit()
		if s.Codebook {
			s.lookUp(dst[from:to], codes[from:to], scratch.Scales[i:i+s.PerUnit()])
			return
		}
		s.scaleUnit(dst[from:to], scratch, i)
	})
}

func (s *Scheme) takeCodes(src []byte, n int, transposed bool, scratch *buffers) []uint16 {
	codes := scratch.Uint16s(n)
	pack.Unpack(codes, src, s.Bits)
	if transposed {
		return transpose.Into(&scratch.transposed, codes, n/s.geometry.rest)
	}
	return codes
}

// takeSides restores the scales and zero points of the units that values [start,
// start+n) overlap.
func (s *Scheme) takeSides(src [][]byte, start, n int, scratch *buffers) {
	scratch.Scales = s.takeFloats(scratch.Scales, s.scale, src, start, n, scratch)
	scratch.Zeros = s.takeFloats(scratch.Zeros, s.zero, src, start, n, scratch)
}

// Scales restores those of the units that values [start, start+n) overlap from
// the bytes that Needed names. They are valid until the scratch is used again.
func (s *Scheme) Scales(src [][]byte, start, n int, scratch *tile.Scratch) []float32 {
	own := buffersOf(scratch)
	s.takeSides(src, start, n, own)
	return own.Scales
}

// ZeroPoints is Scales for zero points; nil where there are none.
func (s *Scheme) ZeroPoints(src [][]byte, start, n int, scratch *tile.Scratch) []float32 {
	own := buffersOf(scratch)
	s.takeSides(src, start, n, own)
	return own.Zeros
}

// takeFloats restores the scales, or zero points, of the units that a tile
// overlaps.
func (s *Scheme) takeFloats(buffer []float32, f sideData, src [][]byte, start, n int, scratch *buffers) []float32 {
	if f.part == 0 {
		return nil
	}
	first, last := s.GroupsIn(start, start+n)
	if f.store == nil {
		return floats.Widen(tile.Sized(&buffer, last-first), src[f.part], s.ScaleDtype)
	}
	from, to := f.store.around(s.GroupsIn)(start, start+n)
	x := tile.Sized(&buffer, to-from)
	f.store.decode(x, src[f.part:], from, scratch)
	return x[first-from : last-from]
}

// lookUpBytes gives values the levels of their codes of a byte.
func (s *Scheme) lookUpBytes(dst []float32, codes []byte, start int, levels []float32) {
	first := start / s.Group
	s.Units(start, len(dst), func(unit, from, to int) {
		i := (unit - first) * s.Levels
		kernel.LookUp(dst[from:to], codes[from:to], levels[i:i+s.Levels])
	})
}

// lookUp gives part of a unit, a multiple of Inner from its start, the levels
// of its codes.
func (s *Scheme) lookUp(dst []float32, codes []uint16, levels []float32) {
	if s.Inner == 1 {
		codebook.LookUp(dst, codes, levels)
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
func (s *Scheme) scaleUnit(values []float32, scratch *buffers, i int) {
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

func (s *Scheme) rescale(values []float32, scratch *buffers, i int) {
	if s.Dtype.Unsigned {
		kernel.ScaleFrom(values, scratch.Scales[i], scratch.Zeros[i])
	} else {
		kernel.ScaleBy(values, scratch.Scales[i])
	}
}

// decodeCodes gives the codes' values in the dtype of the scale, in which SDNQ
// also adds a signed type's minimum.
func (s *Scheme) decodeCodes(dst []float32, codes []uint16) {
	if s.ScaleDtype == safetensors.F32 || s.Dtype.Class != dtype.Integer {
		s.numbers.decode(dst, codes)
		floats.RoundAll(dst, s.ScaleDtype)
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
