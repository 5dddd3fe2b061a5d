package comfy

import (
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
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

func roundUp(n, to int) int { return tile.CeilDiv(n, to) * to }

// Shape is that of the weight.
func (s *swizzled) Shape() []int { return s.shape }

// scaleShape is that of the stored scales.
func (s *swizzled) scaleShape() []int {
	return []int{roundUp(s.rows, bandRows), roundUp(s.cols/s.block, bandBlocks)}
}

func (s *swizzled) tensors(store, scales safetensors.Dtype) []tile.Tensor {
	return []tile.Tensor{
		{Role: tile.Weight, Dtype: store, Shape: []int{s.rows, s.cols * s.bits / 8}},
		{Role: tile.Scale, Dtype: scales, Shape: s.scaleShape()},
	}
}

func (s *swizzled) cut() tile.Cut {
	return tile.Cut{Rows: s.shape[0], Cols: s.shape[1], UnitRows: bandRows, UnitCols: bandBlocks * s.block, GroupRows: 1, GroupCols: s.block, AnyRows: true}
}

// padded is an area with the padding beyond it.
func (s *swizzled) padded(a tile.Area) tile.Area {
	if a.Row+a.Rows == s.shape[0] {
		a.Rows = s.rows - a.Row
	}
	if a.Col+a.Cols == s.shape[1] {
		a.Cols = s.cols - a.Col
	}
	return a
}

// span of the codes (0) or the scales (1) of an area.
func (s *swizzled) span(i int, a tile.Area) []tile.Span {
	a = s.padded(a)
	if i == 0 {
		return tile.Rect(a.Row, a.Rows, int64(s.cols*s.bits/8), int64(a.Col*s.bits/8), int64(a.Cols*s.bits/8))
	}
	width, across := bandBlocks*s.block, tile.CeilDiv(s.cols, bandBlocks*s.block)
	const bytes = bandRows * bandBlocks
	first := a.Row / bandRows
	return tile.Rect(first, tile.CeilDiv(a.Row+a.Rows, bandRows)-first, int64(across*bytes), int64(a.Col/width*bytes), int64(tile.CeilDiv(a.Cols, width)*bytes))
}

// stride is the number of scales that a row of an area has with padding, the
// area being so many columns wide.
func (s *swizzled) stride(cols int) int { return bandBlocks * tile.CeilDiv(cols, bandBlocks*s.block) }

// sideCodes is room for the scales of rows; all are zero.
func sideCodes(rows, stride int, scratch *buffers) []byte {
	codes := tile.Sized(&scratch.scaleCodes, rows*stride)
	clear(codes)
	return codes
}

// The scales of rows that are a quarter of a band apart lie together, those of
// four blocks each.
const quarter = bandRows / 4

// putScales puts the scales of rows, from one of the first band on, in their
// places.
func putScales(dst, scales []byte, from, stride int) {
	for len(scales) > 0 {
		rows := min(bandRows-from%bandRows, len(scales)/stride)
		putBand(dst[from/bandRows*bandRows*stride:], scales[:rows*stride], from%bandRows, stride)
		from, scales = from+rows, scales[rows*stride:]
	}
}

// putBand puts scales of one band.
func putBand(band, scales []byte, from, stride int) {
	for c := 0; c < stride; c += bandBlocks {
		tile := (*[bandRows * bandBlocks]byte)(band[c*bandRows:])
		for r, i := from, c; i < len(scales); r, i = r+1, i+stride {
			to := tile[r%quarter*4*bandBlocks+r/quarter*bandBlocks:]
			*(*[bandBlocks]byte)(to) = [bandBlocks]byte(scales[i:])
		}
	}
}

// getScales takes the scales of rows, from one of the first band on, out of
// their places.
func getScales(scales, src []byte, from, stride int) {
	for r := from; len(scales) > 0; r, scales = r+1, scales[stride:] {
		band := src[r/bandRows*bandRows*stride:]
		at := r%quarter*4*bandBlocks + r%bandRows/quarter*bandBlocks
		for c := 0; c < stride; c += bandBlocks {
			*(*[bandBlocks]byte)(scales[c:]) = [bandBlocks]byte(band[c*bandRows+at:])
		}
	}
}

// sheetValues is about how many values are encoded or decoded at a time: their
// bytes stay in the nearest cache.
const sheetValues = 8 << 10

// rowsAtOnce returns how many rows of an area are worked on at a time: rows of whole
// blocks can be treated as one long row.
func (s *swizzled) rowsAtOnce(a tile.Area) int {
	if a.Cols != s.stride(a.Cols)*s.block {
		return 1
	}
	return max(sheetValues/a.Cols, 1)
}

// decodeRows restores an area from its codes and the scales as they are stored.
func (s *swizzled) decodeRows(dst []float32, src [][]byte, a tile.Area, values func(dst []float32, codes []byte), v *kernel.Values, scratch *buffers) {
	wide, grid := s.padded(a).Cols, group.Grid{Group: s.block}
	stride, n := s.stride(wide), tile.CeilDiv(a.Cols, s.block)
	sides := tile.Sized(&scratch.scaleCodes, a.Rows*stride)
	getScales(sides, src[1], a.Row%bandRows, stride)
	for i, rows := 0, s.rowsAtOnce(a); i < a.Rows; i += rows {
		rows = min(rows, a.Rows-i)
		scales := tile.Sized(&scratch.Scales, rows*stride)
		values(scales, sides[i*stride:(i+rows)*stride])
		codes := src[0][i*wide*s.bits/8 : (i+rows)*wide*s.bits/8]
		if s.bits == 4 {
			codes = tile.Sized(&scratch.bytes, rows*wide)
			kernel.SplitFoursHigh(codes, src[0][i*wide/2:(i+rows)*wide/2])
		}
		grid.DecodeBytes(dst[i*a.Cols:(i+rows)*a.Cols], codes, 0, scales[:(rows-1)*stride+n], nil, v)
	}
}
