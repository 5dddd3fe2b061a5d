package quant

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/tensorpress/tensorpress/safetensors"
)

// Blocks is a weight of one 8-bit code per value and one scale per square
// block: value = code × scale.
type Blocks struct {
	shape          []int
	Size           int // of a block's side
	Rule           *Rule
	AllowNonfinite bool
}

// NewBlocks resolves a rule for a weight of shape [rows, columns], both whole
// blocks.
func NewBlocks(shape []int, rule *Rule, size int, allowNonfinite bool) (*Blocks, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	if size < 1 || shape[0]%size != 0 || shape[1]%size != 0 {
		return nil, fmt.Errorf("blocks of %d×%d do not divide shape %v", size, size, shape)
	}
	return &Blocks{shape, size, rule, allowNonfinite}, nil
}

// Shape is that of the weight.
func (b *Blocks) Shape() []int { return b.shape }

// Tensors returns the codes and the scales, one per block.
func (b *Blocks) Tensors() []Tensor {
	scale := unlessOne(b.shape[0]/b.Size, b.shape[1]/b.Size)
	return []Tensor{{Weight, b.Rule.Store, b.shape}, {Scale, safetensors.F32, scale}}
}

// Cut is by blocks.
func (b *Blocks) Cut() Cut {
	return Cut{b.shape[0], b.shape[1], 1, 1, b.Size, b.Size, true}
}

// Written returns what encoding an area fills: its codes, and the scales of
// the blocks that begin in it.
func (b *Blocks) Written(i int, a Area) []Span {
	if i == 0 {
		return AreaSpans(a, b.shape[1], 1)
	}
	return AreaSpans(b.begin(a), b.shape[1]/b.Size, 4)
}

// begin are the blocks that begin in an area.
func (b *Blocks) begin(a Area) Area {
	row, col := ceilDiv(a.Row, b.Size), ceilDiv(a.Col, b.Size)
	return Area{row, col, ceilDiv(a.Row+a.Rows, b.Size) - row, ceilDiv(a.Col+a.Cols, b.Size) - col}
}

// Needed returns what decoding an area takes: its codes, and the scales of the
// blocks that overlap it.
func (b *Blocks) Needed(i int, a Area) []Span {
	if i == 0 {
		return AreaSpans(a, b.shape[1], 1)
	}
	return AreaSpans(b.overlap(a), b.shape[1]/b.Size, 4)
}

func (b *Blocks) overlap(a Area) Area {
	row, col := a.Row/b.Size, a.Col/b.Size
	return Area{row, col, ceilDiv(a.Row+a.Rows, b.Size) - row, ceilDiv(a.Col+a.Cols, b.Size) - col}
}

// Measure returns the range of every block that overlaps an area.
func (b *Blocks) Measure(a Area, values []float32) []Range { return b.Cut().measure(a, values) }

// Encode quantizes an area into the bytes that Written names.
func (b *Blocks) Encode(dst [][]byte, p Patch, scratch *Scratch) error {
	if !b.AllowNonfinite {
		if err := p.checkFinite(b.shape[1]); err != nil {
			return err
		}
	}
	cut, scales := b.Cut(), dst[1]
	cut.groups(p.Area, func(group int, part Area) {
		factor, scale := b.Rule.scaleOf(p.rangeOf(group, part))
		if cut.begins(part) {
			binary.LittleEndian.PutUint32(scales, math.Float32bits(scale))
			scales = scales[4:]
		}
		for i := range part.Rows {
			b.Rule.normalize(p.part(part, i), factor)
		}
	})
	b.Rule.encodeBytes(dst[0], p.Values, scratch)
	return nil
}

// Decode restores an area from the bytes that Needed names.
func (b *Blocks) Decode(dst []float32, src [][]byte, a Area, _ safetensors.Dtype, scratch *Scratch) {
	scales := Widen(sized(&scratch.sides.scales, len(src[1])/4), src[1], safetensors.F32)
	b.Cut().decodeBytes(dst, src[0], a, scales, b.Rule.values())
}
