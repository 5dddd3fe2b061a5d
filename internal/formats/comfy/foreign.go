package comfy

import (
	"fmt"
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Foreign is a weight as other programs store it: one 8-bit code per value and
// one scale for each block of rows and columns, those at the edges smaller:
// value = code × scale. It is read, and not written.
type Foreign struct {
	shape      []int
	rows, cols int // all but the last dimension, and the last
	blockRows  int
	blockCols  int
	rule       *ScaleRule
	scale      tile.Tensor
}

// foreignCodes are the codes that such weights have.
var foreignCodes = map[safetensors.Dtype]*ScaleRule{
	safetensors.F8_E4M3: E4M3Group, safetensors.F8_E5M2: E5M2Tensor, safetensors.I8: Int8Block,
}

// foreignScales are the dtypes of their scales and the bytes of one.
var foreignScales = map[safetensors.Dtype]int{
	safetensors.F32: 4, safetensors.BF16: 2, safetensors.F16: 2, safetensors.F8_E8M0: 1,
}

// NewForeign describes codes (F8_E4M3, F8_E5M2 or I8) of any shape, taken as a
// matrix of all but the last dimension by the last, with scales (F32, BF16, F16
// or F8_E8M0), row-major, one for each block of that many rows and columns.
func NewForeign(codes, scale tile.Tensor, blockRows, blockCols int) (*Foreign, error) {
	f := &Foreign{shape: codes.Shape, rows: 1, blockRows: blockRows, blockCols: blockCols, rule: foreignCodes[codes.Dtype], scale: scale}
	if f.rule == nil {
		return nil, fmt.Errorf("weight is %s, want F8_E4M3, F8_E5M2 or I8", codes.Dtype)
	}
	if foreignScales[scale.Dtype] == 0 {
		return nil, fmt.Errorf("scale is %s, want F32, BF16, F16 or F8_E8M0", scale.Dtype)
	}
	if len(f.shape) == 0 {
		return nil, fmt.Errorf("weight has no dimensions")
	}
	last := len(f.shape) - 1
	for _, d := range f.shape[:last] {
		f.rows *= d
	}
	f.cols = f.shape[last]
	if err := checkShape([]int{f.rows, f.cols}); err != nil {
		return nil, err
	}
	if n := tile.Numel(scale.Shape); n != tile.CeilDiv(f.rows, blockRows)*tile.CeilDiv(f.cols, blockCols) {
		return nil, fmt.Errorf("%d scales for blocks of %d×%d of shape %v", n, blockRows, blockCols, f.shape)
	}
	return f, nil
}

// Shape is that of the weight.
func (f *Foreign) Shape() []int { return f.shape }

// Tensors returns the codes and the scales.
func (f *Foreign) Tensors() []tile.Tensor {
	return []tile.Tensor{{Role: tile.Weight, Dtype: f.rule.Store, Shape: f.shape}, f.scale}
}

// Cut is by blocks.
func (f *Foreign) Cut() tile.Cut {
	return tile.Cut{Rows: f.rows, Cols: f.cols, UnitRows: 1, UnitCols: 1, GroupRows: f.blockRows, GroupCols: f.blockCols, AnyRows: true}
}

// Needed returns what decoding an area takes: its codes, and the scales of the
// blocks that overlap it.
func (f *Foreign) Needed(i int, a tile.Area) []tile.Span {
	if i == 0 {
		return tile.SpansOf(a, f.cols, 1)
	}
	row, col := a.Row/f.blockRows, a.Col/f.blockCols
	blocks := tile.Area{Row: row, Col: col, Rows: tile.CeilDiv(a.Row+a.Rows, f.blockRows) - row, Cols: tile.CeilDiv(a.Col+a.Cols, f.blockCols) - col}
	return tile.SpansOf(blocks, tile.CeilDiv(f.cols, f.blockCols), foreignScales[f.scale.Dtype])
}

// Decode restores an area from the bytes that Needed names: products in single
// precision, whatever the dtype of the scales.
func (f *Foreign) Decode(dst []float32, src [][]byte, a tile.Area, _ safetensors.Dtype, scratch *tile.Scratch) {
	scales := tile.Sized(&buffersOf(scratch).Scales, len(src[1])/foreignScales[f.scale.Dtype])
	for i := range scales {
		scales[i] = getScale(src[1], i, f.scale.Dtype)
	}
	group.DecodeArea(f.Cut(), dst, src[0], a, scales, f.rule.values())
}

// getScale is [floats.GetFloat] with powers of two besides.
func getScale(src []byte, i int, d safetensors.Dtype) float32 {
	if d != safetensors.F8_E8M0 {
		return floats.GetFloat(src, i, d)
	}
	if src[i] == 0xFF {
		return float32(math.NaN())
	}
	return float32(math.Ldexp(1, int(src[i])-127))
}
