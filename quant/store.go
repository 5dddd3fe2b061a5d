package quant

import (
	"fmt"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Roles of scales and zero points that are quantized themselves (double quantization).
const (
	Scale2         Role = "scale_2"          // scale = code × scale_2 + scale_zero_point, or levels; also nvfp4's
	ScaleZeroPoint Role = "scale_zero_point" // only with unsigned dtypes
	ZeroPointScale Role = "zero_point_scale" // zero point = code × it + zero_point_2, or levels
	ZeroPoint2     Role = "zero_point_2"     // only with unsigned dtypes
)

// store keeps the scales, or zero points, of a layer as SDNQ's double
// quantization does: as codes of a weight with a single group, in their own
// shape, or as codes of one codebook.
type store struct {
	scheme *Scheme // of all scales in a row
	levels int     // of the codebook, 0 without one
	steps  int
	roles  [3]Role
}

func newStore(role Role, n int, t *dtype.Type, o Options) (*store, error) {
	s := &store{roles: [3]Role{role, Scale2, ScaleZeroPoint}, steps: o.codebookSteps()}
	if role == ZeroPoint {
		s.roles = [3]Role{role, ZeroPointScale, ZeroPoint2}
	}
	if o.CodebookScale {
		if t.Class != dtype.Integer || !t.Unsigned {
			return nil, fmt.Errorf("%s has no codebook: only unsigned integers have", t)
		}
		s.levels = CodebookLevels(t)
	}
	var err error
	s.scheme, err = NewScheme([]int{1, n}, Options{
		Dtype: t, GroupSize: -2, ScaleDtype: safetensors.F32, ExactReference: o.ExactReference, AllowNonfinite: true,
	})
	if err != nil {
		return nil, fmt.Errorf("%s of the %s: %w", t, role, err)
	}
	return s, nil
}

// parts are the codes and what they are restored with. groups gives the
// places of the scales that a tile writes and takes.
func (s *store) parts(shape []int, written, needed func(start, end int) (first, last int)) []part {
	t := s.scheme.Dtype
	if t.Bitpacked() {
		shape = s.scheme.weightShape()
	}
	codes := func(groups func(start, end int) (int, int)) func(start, end int) Span {
		return func(start, end int) Span { return s.scheme.codesSpan(groups(start, end)) }
	}
	parts := []part{{Tensor{s.roles[0], t.Storage, shape}, codes(s.blocks(written)), codes(s.around(needed))}}
	if s.levels > 0 {
		return append(parts, oncePart(s.roles[1], safetensors.F32, s.levels))
	}
	parts = append(parts, oncePart(s.roles[1], safetensors.F32, 1))
	if t.Unsigned {
		parts = append(parts, oncePart(s.roles[2], safetensors.F32, 1))
	}
	return parts
}

// oncePart is a vector that the first tile writes and every one takes.
func oncePart(role Role, d safetensors.Dtype, n int) part {
	all := one(0, int64(n*d.Bits()/8))
	return part{
		Tensor{role, d, []int{n}},
		func(start, _ int) Span {
			if start > 0 {
				return one(0, 0)
			}
			return all
		},
		func(int, int) Span { return all },
	}
}

// blocks are the packed blocks whose first scale is in the range.
func (s *store) blocks(groups func(start, end int) (int, int)) func(start, end int) (int, int) {
	return func(start, end int) (int, int) {
		first, last := groups(start, end)
		b := s.scheme.Block
		return ceilDiv(first, b) * b, ceilDiv(last, b) * b
	}
}

// around are the packed blocks that hold the range.
func (s *store) around(groups func(start, end int) (int, int)) func(start, end int) (int, int) {
	return func(start, end int) (int, int) {
		first, last := groups(start, end)
		b := s.scheme.Block
		return first / b * b, ceilDiv(last, b) * b
	}
}

// stored is what is known of all scales of a layer before they are stored.
type stored struct {
	*store
	span  Range     // of all
	any   bool      // span is set
	all   []float32 // with a codebook
	codes []uint16  // of all, with a codebook
	book  Lloyd
}

// add takes the next scales of the layer.
func (s *stored) add(scales []float32) {
	if len(scales) == 0 {
		return
	}
	if s.levels > 0 {
		s.all = append(s.all, scales...)
		return
	}
	found := rangeOf(scales)
	if s.any {
		found = s.span.Join(found)
	}
	s.span, s.any = found, true
}

// finish fits the codebook of all scales.
func (s *stored) finish(exact bool) {
	if s.levels == 0 {
		return
	}
	s.codes = make([]uint16, len(s.all))
	s.book.Fit(s.codes, s.all, s.levels, s.steps)
	if !exact {
		clampCodes(s.codes, s.scheme.Dtype)
	}
}

// clampCodes keeps codes within their bits, where SDNQ has a level too many.
func clampCodes(codes []uint16, t *dtype.Type) {
	if t.Divisor == t.Max {
		return
	}
	for i, c := range codes {
		codes[i] = min(c, uint16(t.Max))
	}
}

// encode writes scales first, first+1, … of the layer, whole blocks.
func (s *stored) encode(dst [][]byte, first int, scales []float32, scratch *Scratch) {
	if s.levels == 0 {
		inner := sub(&scratch.inner)
		span := &known{ranges: []Range{s.span}}
		s.scheme.encode(dst, ValuesOf(Line(first, first+len(scales)), scales), span, inner)
		return
	}
	pack.Pack(dst[0], s.codes[first:first+len(scales)], s.scheme.Bits)
	if first == 0 {
		putFloats(dst[1], s.book.Levels(), safetensors.F32)
	}
}

// decode restores scales first to last, which lie in whole blocks from
// codes[0] on.
func (s *store) decode(dst []float32, src [][]byte, first int, scratch *Scratch) {
	inner := sub(&scratch.inner)
	if s.levels == 0 {
		s.scheme.Decode(dst, src, Line(first, first+len(dst)), safetensors.F32, inner)
		return
	}
	codes := inner.uint16s(len(dst))
	pack.Unpack(codes, src[0], s.scheme.Bits)
	LookUp(dst, codes, Widen(inner.floats(s.levels), src[1], safetensors.F32))
}

func sub(s **Scratch) *Scratch {
	if *s == nil {
		*s = new(Scratch)
	}
	return *s
}

func putFloats(dst []byte, x []float32, d safetensors.Dtype) {
	if d == safetensors.F32 {
		kernel.NarrowF32(dst, x)
		return
	}
	for i, v := range x {
		putFloat(dst, i, v, d)
	}
}
