package published

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	widen "github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Rows is bitsandbytes' int8: codes (I8 [rows, columns]) and for each row the greatest
// magnitude (F32 [rows]), of which the code 127 is: value = (code × it) × 1/127, each
// product rounded to single precision.
type Rows struct {
	shape   []int
	tensors []tile.Tensor
}

// per127 is 1/127 as bitsandbytes has it.
const per127 = float32(7.874015718698502e-3)

// NewRows describes codes and the magnitudes of rows.
func NewRows(t Tensors) (*Rows, error) {
	codes, err := t.want(tile.Weight, 2, safetensors.I8)
	if err != nil {
		return nil, err
	}
	scale, err := t.want(tile.Scale, max(len(t[tile.Scale].Shape), 1), safetensors.F32, safetensors.F16, safetensors.BF16)
	if err != nil {
		return nil, err
	}
	if tile.Numel(scale.Shape) != codes.Shape[0] {
		return nil, fmt.Errorf("its SCB has shape %v for a weight of %v", scale.Shape, codes.Shape)
	}
	return &Rows{codes.Shape, []tile.Tensor{codes, scale}}, nil
}

// Shape is that of the weight.
func (w *Rows) Shape() []int { return w.shape }

// Tensors are the codes and the magnitudes.
func (w *Rows) Tensors() []tile.Tensor { return w.tensors }

// Cut is by rows.
func (w *Rows) Cut() tile.Cut {
	return tile.Cut{Rows: w.shape[0], Cols: w.shape[1], UnitRows: 1, UnitCols: 1, GroupRows: 1, GroupCols: w.shape[1], AnyRows: true}
}

// Needed names the bytes of an area.
func (w *Rows) Needed(i int, a tile.Area) []tile.Span {
	if i == 0 {
		return tile.SpansOf(a, w.shape[1], 1)
	}
	width := int64(w.tensors[1].Dtype.Bits() / 8)
	return tile.Run(int64(a.Row)*width, int64(a.Rows)*width)
}

// Decode restores an area.
func (w *Rows) Decode(dst []float32, src [][]byte, a tile.Area, s *tile.Scratch) {
	b := tile.PartOf[buffers](s)
	scales := tile.Sized(&b.scales, a.Rows)
	widen.Widen(scales, src[1], w.tensors[1].Dtype)
	kernel.DecodeBytes(dst, src[0], scales, nil, a.Cols, signed)
	kernel.ScaleBy(dst, per127)
}

// Levels is bitsandbytes' 4-bit format: codes, two to a byte, the first in the high bits,
// of levels (those of nf4 or fp4), in blocks of the flattened weight with a scale each.
// The scales may be codes themselves: scale = level × scale of 256 scales + offset.
type Levels struct {
	shape   []int
	values  int
	block   int
	levels  []float32
	tensors []tile.Tensor
	nested  bool
	offset  float32
	held    *nestedScales
}

// nestedScales are what scales that are codes are made of.
type nestedScales struct{ levels, scales []float32 }

// State is what bitsandbytes keeps of a weight beside its tensors.
type State struct {
	Type                string // nf4 or fp4
	Shape               []int
	Block, NestedBlock  int
	NestedOffset        float64
	Nested, NestedKnown bool // the scales are codes; it is said how
}

var minusZero = float32(math.Copysign(0, -1))

// levelsOf are the values of codes, as bitsandbytes has them.
var levelsOf = map[string][]float32{
	"nf4": {
		-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
		0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
	},
	"fp4": {
		0, 0.0052083334885537624, 0.6666666865348816, 1, 0.3333333432674408, 0.5, 0.1666666716337204, 0.25,
		minusZero, -0.0052083334885537624, -0.6666666865348816, -1, -0.3333333432674408, -0.5, -0.1666666716337204, -0.25,
	},
}

// nestedBlock is how many scales that are codes share a scale.
const nestedBlock = 256

// NewLevels describes codes (of any dtype, as many bytes as they need), scales (F32, or U8
// if they are codes), the levels (F32 [16]) and, of scales that are codes, their levels
// (F32 [256]) and scales (F32).
func NewLevels(t Tensors, o State) (*Levels, error) {
	w := &Levels{shape: o.Shape, values: 1, block: o.Block, levels: levelsOf[o.Type], nested: o.Nested, offset: float32(o.NestedOffset)}
	if w.levels == nil {
		return nil, fmt.Errorf("its quant_state says quant_type %q, want nf4 or fp4", o.Type)
	}
	if len(o.Shape) == 0 || o.Block < 2 || o.Block%2 > 0 {
		return nil, fmt.Errorf("its quant_state says shape %v and blocksize %d", o.Shape, o.Block)
	}
	for _, n := range o.Shape {
		if n < 1 || w.values > math.MaxInt32*1024/n {
			return nil, fmt.Errorf("its quant_state says shape %v", o.Shape)
		}
		w.values *= n
	}
	codes := t[tile.Weight]
	if size, err := safetensors.ByteSize(codes.Dtype, codes.Shape); err != nil || size != int64(w.values+1)/2 {
		return nil, fmt.Errorf("its quant_state says shape %v, and its codes are %s %v", o.Shape, codes.Dtype, codes.Shape)
	}
	blocks := tile.CeilDiv(w.values, w.block)
	scale, err := t.want(tile.Scale, 1, map[bool]safetensors.Dtype{true: safetensors.U8, false: safetensors.F32}[o.Nested])
	if err != nil {
		return nil, err
	}
	levels, err := t.want(tile.Codebook, 1, safetensors.F32)
	if err != nil {
		return nil, err
	}
	w.tensors = []tile.Tensor{codes, scale, levels}
	if err := shaped(scale, blocks); err != nil {
		return nil, err
	}
	if err := shaped(levels, 16); err != nil || !o.Nested {
		return w, err
	}
	if !o.NestedKnown {
		return nil, errors.New("its absmax are codes, and its quant_state says no nested_offset that is a number")
	}
	if o.NestedBlock != nestedBlock {
		return nil, fmt.Errorf("its absmax are codes, and its quant_state says nested_blocksize %d, want %d", o.NestedBlock, nestedBlock)
	}
	scale2, err := t.want(tile.Scale2, 1, safetensors.F32)
	if err != nil {
		return nil, err
	}
	levels2, err := t.want(tile.NestedCodebook, 1, safetensors.F32)
	if err != nil {
		return nil, err
	}
	w.tensors = append(w.tensors, scale2, levels2)
	if err := shaped(scale2, tile.CeilDiv(blocks, nestedBlock)); err != nil {
		return nil, err
	}
	return w, shaped(levels2, 256)
}

// Shape is that of the weight.
func (w *Levels) Shape() []int { return w.shape }

// Tensors are the codes, the scales, the levels and what scales that are codes are made
// of.
func (w *Levels) Tensors() []tile.Tensor { return w.tensors }

// Block is the number of consecutive values that share a scale.
func (w *Levels) Block() int { return w.block }

// Cut takes the weight for a single row.
func (w *Levels) Cut() tile.Cut {
	return tile.Cut{Rows: 1, Cols: w.values, UnitRows: 1, UnitCols: min(w.block, w.values), GroupRows: 1, GroupCols: w.block}
}

// Needed names the bytes of an area.
func (w *Levels) Needed(i int, a tile.Area) []tile.Span {
	first, last := a.Col/w.block, tile.CeilDiv(a.Col+a.Cols, w.block)
	switch {
	case i == 0:
		return tile.Run(int64(a.Col/2), int64((a.Cols+1)/2))
	case i == 1 && w.nested:
		return tile.Run(int64(first), int64(last-first))
	case i == 1:
		return tile.Run(int64(first)*4, int64(last-first)*4)
	case w.held != nil:
		return tile.Run(0, 0)
	}
	return tile.Run(0, int64(tile.Numel(w.tensors[i].Shape))*4)
}

// Shared are the levels and what scales that are codes are made of.
func (w *Levels) Shared() (indices []int) {
	if w.held == nil {
		for i := 2; i < len(w.tensors); i++ {
			indices = append(indices, i)
		}
	}
	return indices
}

// WithShared compares the levels with those of their name.
func (w *Levels) WithShared(src [][]byte) (Weight, error) {
	for i, level := range w.levels {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(src[0][4*i:])); !(math.Abs(float64(got-level)) < 1e-5) {
			return nil, fmt.Errorf("its quant_map has %v for code %d, and its quant_type has %v", got, i, level)
		}
	}
	held := *w
	held.held = w.hold(src)
	return &held, nil
}

func (w *Levels) hold(src [][]byte) *nestedScales {
	if !w.nested {
		return &nestedScales{}
	}
	n := &nestedScales{scales: make([]float32, len(src[1])/4), levels: make([]float32, len(src[2])/4)}
	widen.Widen(n.scales, src[1], safetensors.F32)
	widen.Widen(n.levels, src[2], safetensors.F32)
	return n
}

// Decode restores an area.
func (w *Levels) Decode(dst []float32, src [][]byte, a tile.Area, s *tile.Scratch) {
	b := tile.PartOf[buffers](s)
	scales := w.scales(src, a, b)
	codes := tile.Sized(&b.codes, (len(dst)+1)&^1)
	kernel.SplitFoursHigh(codes, src[0])
	kernel.LookUp(dst, codes[:len(dst)], w.levels)
	for at := 0; at < len(dst); {
		end := min(w.block-(a.Col+at)%w.block+at, len(dst))
		kernel.ScaleBy(dst[at:end], scales[0])
		scales, at = scales[1:], end
	}
}

// scales are those of an area's blocks.
func (w *Levels) scales(src [][]byte, a tile.Area, b *buffers) []float32 {
	if !w.nested {
		scales := tile.Sized(&b.scales, len(src[1])/4)
		return widen.Widen(scales, src[1], safetensors.F32)
	}
	n := w.held
	if n == nil {
		n = w.hold(src[2:])
	}
	scales, first := tile.Sized(&b.scales, len(src[1])), a.Col/w.block
	for i, code := range src[1] {
		scales[i] = float32(n.levels[code]*n.scales[(first+i)/nestedBlock]) + w.offset
	}
	return scales
}
