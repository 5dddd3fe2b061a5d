package sdnq

import (
	"fmt"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codebook"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// doubleQuant stores the scales, or zero points, of a layer as SDNQ's double
// quantization does: quantized as a weight with a single group, in their own shape, or
// by a single codebook.
type doubleQuant struct {
	scheme *Scheme // how the scales are quantized, all as one row
	levels int     // of the codebook, 0 without one
	steps  int
	roles  [3]tile.Role
}

func newStore(role tile.Role, n int, t *dtype.Type, o Options) (*doubleQuant, error) {
	s := &doubleQuant{roles: [3]tile.Role{role, tile.Scale2, tile.ScaleZeroPoint}, steps: o.codebookSteps()}
	if role == tile.ZeroPoint {
		s.roles = [3]tile.Role{role, tile.ZeroPointScale, tile.ZeroPoint2}
	}
	if o.CodebookScale {
		if t.Class != dtype.Integer || !t.Unsigned {
			return nil, fmt.Errorf("%s has no codebook: only unsigned integers have", t)
		}
		s.levels = codebook.CodebookLevels(t)
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
func (s *doubleQuant) parts(shape []int, written, needed func(start, end int) (first, last int)) []part {
	t := s.scheme.Dtype
	if t.Bitpacked() {
		shape = s.scheme.weightShape()
	}
	codes := func(groups func(start, end int) (int, int)) func(start, end int) tile.Span {
		return func(start, end int) tile.Span { return s.scheme.CodesSpan(groups(start, end)) }
	}
	parts := []part{{tile.Tensor{Role: s.roles[0], Dtype: t.Storage, Shape: shape}, codes(s.blocks(written)), codes(s.around(needed))}}
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
func oncePart(role tile.Role, d safetensors.Dtype, n int) part {
	all := tile.One(0, int64(n*d.Bits()/8))
	return part{
		tile.Tensor{Role: role, Dtype: d, Shape: []int{n}},
		func(start, _ int) tile.Span {
			if start > 0 {
				return tile.One(0, 0)
			}
			return all
		},
		func(int, int) tile.Span { return all },
	}
}

// blocks are the packed blocks whose first scale is in the range.
func (s *doubleQuant) blocks(groups func(start, end int) (int, int)) func(start, end int) (int, int) {
	return func(start, end int) (int, int) {
		first, last := groups(start, end)
		b := s.scheme.Block
		return tile.CeilDiv(first, b) * b, tile.CeilDiv(last, b) * b
	}
}

// around are the packed blocks that hold the range.
func (s *doubleQuant) around(groups func(start, end int) (int, int)) func(start, end int) (int, int) {
	return func(start, end int) (int, int) {
		first, last := groups(start, end)
		b := s.scheme.Block
		return first / b * b, tile.CeilDiv(last, b) * b
	}
}

// doubleQuantState is what the passes find out about all scales of a layer, before
// these are quantized.
type doubleQuantState struct {
	*doubleQuant
	span  tile.Range // of all
	any   bool       // span is set
	all   []float32  // with a codebook
	codes []uint16   // of all, with a codebook
	book  codebook.Lloyd
}

// add takes the next scales of the layer.
func (s *doubleQuantState) add(scales []float32) {
	if len(scales) == 0 {
		return
	}
	if s.levels > 0 {
		s.all = append(s.all, scales...)
		return
	}
	found := tile.RangeOf(scales)
	if s.any {
		found = s.span.Join(found)
	}
	s.span, s.any = found, true
}

// finish fits the codebook of all scales, if there is one.
func (s *doubleQuantState) finish(exact bool) {
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

// encode quantizes scales first, first+1, … of the layer, which are whole packing
// blocks.
func (s *doubleQuantState) encode(dst [][]byte, first int, scales []float32, scratch *buffers) {
	if s.levels == 0 {
		span := &passResults{ranges: []tile.Range{s.span}}
		s.scheme.encode(dst, tile.ValuesOf(tile.Line(first, first+len(scales)), scales), span, buffersOf(sub(&scratch.inner)))
		return
	}
	pack.Pack(dst[0], s.codes[first:first+len(scales)], s.scheme.Bits)
	if first == 0 {
		floats.PutFloats(dst[1], s.book.Levels(), safetensors.F32)
	}
}

// decode restores scales from first on; codes[0] begins a packing block.
func (s *doubleQuant) decode(dst []float32, src [][]byte, first int, scratch *buffers) {
	inner := sub(&scratch.inner)
	if s.levels == 0 {
		s.scheme.Decode(dst, src, tile.Line(first, first+len(dst)), safetensors.F32, inner)
		return
	}
	codes := inner.Uint16s(len(dst))
	pack.Unpack(codes, src[0], s.scheme.Bits)
	codebook.LookUp(dst, codes, floats.Widen(inner.Floats(s.levels), src[1], safetensors.F32))
}

func sub(s **tile.Scratch) *tile.Scratch {
	if *s == nil {
		*s = new(tile.Scratch)
	}
	return *s
}
