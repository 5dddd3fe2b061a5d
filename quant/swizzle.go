package quant

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// swizzled is what the block-scaled formats for tensor cores have in common:
// a weight padded with zeros to whole blocks, and scales of one byte whose
// places follow the hardware: those of 128 rows and four blocks lie together.
type swizzled struct {
	shape      []int
	rows, cols int // with padding
	block      int // values along a row that share a scale
	bits       int // of a code
}

const bandRows, bandBlocks = 128, 4

func newSwizzled(shape []int, align, block, bits int) swizzled {
	return swizzled{shape, roundUp(shape[0], align), roundUp(shape[1], align), block, bits}
}

func roundUp(n, to int) int { return ceilDiv(n, to) * to }

// Shape is that of the weight.
func (s *swizzled) Shape() []int { return s.shape }

// scaleShape is that of the stored scales.
func (s *swizzled) scaleShape() []int {
	return []int{roundUp(s.rows, bandRows), roundUp(s.cols/s.block, bandBlocks)}
}

func (s *swizzled) tensors(store, scales safetensors.Dtype) []Tensor {
	return []Tensor{
		{Weight, store, []int{s.rows, s.cols * s.bits / 8}},
		{Scale, scales, s.scaleShape()},
	}
}

func (s *swizzled) cut() Cut {
	return Cut{s.shape[0], s.shape[1], bandRows, bandBlocks * s.block, 1, s.block, true}
}

// padded is an area with the padding beyond it.
func (s *swizzled) padded(a Area) Area {
	if a.Row+a.Rows == s.shape[0] {
		a.Rows = s.rows - a.Row
	}
	if a.Col+a.Cols == s.shape[1] {
		a.Cols = s.cols - a.Col
	}
	return a
}

// span of the codes (0) or the scales (1) of an area.
func (s *swizzled) span(i int, a Area) []Span {
	a = s.padded(a)
	if i == 0 {
		return rect(a.Row, a.Rows, int64(s.cols*s.bits/8), int64(a.Col*s.bits/8), int64(a.Cols*s.bits/8))
	}
	tile, across := bandBlocks*s.block, ceilDiv(s.cols, bandBlocks*s.block)
	const bytes = bandRows * bandBlocks
	first := a.Row / bandRows
	return rect(first, ceilDiv(a.Row+a.Rows, bandRows)-first, int64(across*bytes), int64(a.Col/tile*bytes), int64(ceilDiv(a.Cols, tile)*bytes))
}

// at returns where the scale of row r, block c of an area lies among those of
// the area, cols wide with padding.
func (s *swizzled) at(r, c, cols int) int {
	tile := r/bandRows*ceilDiv(cols, bandBlocks*s.block) + c/bandBlocks
	return tile*bandRows*bandBlocks + r%32*16 + r%bandRows/32*4 + c%bandBlocks
}

// putScales puts the scales of row r of an area in their places.
func (s *swizzled) putScales(dst, scales []byte, r, cols int) {
	for c := 0; c < len(scales); c += bandBlocks {
		copy(dst[s.at(r, c, cols):][:bandBlocks], scales[c:])
	}
}

// getScales returns the scales of row r of an area, at least n of them.
func (s *swizzled) getScales(buffer *[]float32, src []byte, r, cols, n int, values *scaleTable) []float32 {
	scales := sized(buffer, roundUp(n, bandBlocks))
	src = src[s.at(r, 0, cols):]
	for c := 0; c < len(scales); c += bandBlocks {
		to, from := scales[c:c+bandBlocks], src[c*bandRows:][:bandBlocks]
		for i, code := range from {
			to[i] = values[code]
		}
	}
	return scales
}

// decodeRows restores an area from codes of a byte each and the scales as they
// are stored.
func (s *swizzled) decodeRows(dst []float32, codes, scales []byte, a Area, values *scaleTable, v *kernel.Values, scratch *Scratch) {
	wide, grid := s.padded(a).Cols, Grid{Group: s.block}
	n := ceilDiv(a.Cols, s.block)
	for i := range a.Rows {
		row := s.getScales(&scratch.sides.scales, scales, a.Row%bandRows+i, wide, n, values)
		grid.decodeBytes(dst[i*a.Cols:(i+1)*a.Cols], codes[i*wide:], 0, row[:n], nil, v)
	}
}
