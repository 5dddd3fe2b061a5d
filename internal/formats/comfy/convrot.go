package comfy

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/pack"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Rotated is a weight whose rows are rotated in groups and then stored as
// integers of 8 or 4 bits with one scale each.
type Rotated struct {
	shape          []int
	Group          int // of the rotation
	Rule           *ScaleRule
	bits           int
	scaleShape     []int
	AllowNonfinite bool

	fused *group.Fused // of whole rows
}

// Rules of rotated rows: convert_to_quant's for its primary type and
// comfy-kitchen's, convert_to_quant's for other types, and that of four bits.
var (
	Int8Rotated    = &ScaleRule{Store: safetensors.I8, max: 127, scale: int8Rotated, divide: true}
	Int8RotatedRow = Int8Row
	int4Rotated    = &ScaleRule{Store: safetensors.I8, max: 7, scale: int4Scale, divide: true}
)

// int8Rotated: s = max(amax / 127, 1e-30), q = w / s.
func int8Rotated(amax float32) (factor, scale float32) {
	s := max(amax/127, 1e-30)
	return s, s
}

// int4Scale: s = max(amax, 1e-10) / 7, q = w / s.
func int4Scale(amax float32) (factor, scale float32) {
	s := max(amax, 1e-10) / 7
	return s, s
}

// NewRotated stores a weight of shape [rows, columns] by a rule of 8 bits. The
// group is any that [rotation.Rotates].
func NewRotated(shape []int, group int, rule *ScaleRule, allowNonfinite bool) (*Rotated, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	if !rotation.Rotates(group) || shape[1]%group != 0 {
		return nil, fmt.Errorf("rotation groups of %d do not divide %d columns, or are no power of 2", group, shape[1])
	}
	return newRotated(shape, group, rule, 8, unlessOne(shape[0], 1), allowNonfinite), nil
}

// NewConvRotW4A4 stores a weight of shape [rows, columns] in 4 bits, two values
// a byte.
func NewConvRotW4A4(shape []int, group int, allowNonfinite bool) (*Rotated, error) {
	if err := checkRotated(shape, group); err != nil {
		return nil, err
	}
	if shape[1]%64 != 0 {
		return nil, fmt.Errorf("%d columns, want a multiple of 64", shape[1])
	}
	return newRotated(shape, group, int4Rotated, 4, []int{shape[0]}, allowNonfinite), nil
}

func newRotated(shape []int, size int, rule *ScaleRule, bits int, scaleShape []int, allowNonfinite bool) *Rotated {
	rows := &group.Grid{Values: shape[0] * shape[1], Group: shape[1], Inner: 1, Levels: 1, Bits: 8, Block: 1, ScaleBytes: 4}
	return &Rotated{shape, size, rule, bits, scaleShape, allowNonfinite, rule.fused(rows, allowNonfinite)}
}

func checkRotated(shape []int, group int) error {
	if err := checkShape(shape); err != nil {
		return err
	}
	return rotation.CheckConvRot(shape[1], group)
}

// Search makes the encoder choose scales that lose least, where the rule gains by it.
// Errors of columns count by the moments, nil if all count alike.
func (r *Rotated) Search(moments []float32) {
	r.fused.Search = r.Rule.search(r.shape[1], rotation.Moments(moments, r.Group))
}

// Gains reports whether Search finds better scales than the plain ones.
func (r *Rotated) Gains() bool { return r.Rule.search(r.shape[1], nil) != nil }

// Shape is that of the weight.
func (r *Rotated) Shape() []int { return r.shape }

// Tensors returns the codes and the rows' scales.
func (r *Rotated) Tensors() []tile.Tensor {
	return []tile.Tensor{
		{Role: tile.Weight, Dtype: r.Rule.Store, Shape: []int{r.shape[0], r.shape[1] * r.bits / 8}},
		{Role: tile.Scale, Dtype: safetensors.F32, Shape: r.scaleShape},
	}
}

// Cut is by groups of the rotation.
func (r *Rotated) Cut() tile.Cut {
	return tile.Cut{Rows: r.shape[0], Cols: r.shape[1], UnitRows: 1, UnitCols: r.Group, GroupRows: 1, GroupCols: r.shape[1], AnyRows: true}
}

// Written returns what encoding an area fills: its codes, and the scales of
// the rows that begin in it.
func (r *Rotated) Written(i int, a tile.Area) []tile.Span {
	if i == 1 && a.Col > 0 {
		return nil
	}
	return r.Needed(i, a)
}

// Needed returns what decoding an area takes.
func (r *Rotated) Needed(i int, a tile.Area) []tile.Span {
	if i == 1 {
		return tile.Run(int64(4*a.Row), int64(4*a.Rows))
	}
	return tile.Rect(a.Row, a.Rows, int64(r.shape[1]*r.bits/8), int64(a.Col*r.bits/8), int64(a.Cols*r.bits/8))
}

// NewEncoder prepares to encode in tiles that take at most that many bytes of memory.
func (r *Rotated) NewEncoder(_ safetensors.Dtype, memory int) tile.Encoder {
	return tile.NewRanged(r.Cut(), wholeGroups(tile.RawTile(memory), r.fused.Search, r.shape[1]), r.encode, r.measure)
}

// measure returns the ranges of parts of rotated rows.
func (r *Rotated) measure(v tile.Values, s *tile.Scratch) ([]tile.Range, error) {
	values, err := r.rotated(v, s)
	if err != nil {
		return nil, err
	}
	return r.Cut().Measure(v.Area, values), nil
}

// rotated returns the values of an area after their rotation.
func (r *Rotated) rotated(v tile.Values, s *tile.Scratch) ([]float32, error) {
	values, err := floatsOf(v, r.shape[1], r.AllowNonfinite, s)
	if err != nil {
		return nil, err
	}
	rotation.RotateOnce(values, r.Group)
	return values, nil
}

func (r *Rotated) encode(dst [][]byte, v tile.Values, ranges []tile.Range, s *tile.Scratch) (err error) {
	codes, own := dst[0], buffersOf(s)
	if r.bits == 4 {
		codes = tile.Sized(&own.bytes, v.Len())
	}
	if ranges == nil {
		err = r.fused.EncodeRotated(codes, v, rotation.Hadamard{Size: r.Group, Once: true}, &own.Companions, s)
		floats.PutFloats(dst[1], own.Scales, safetensors.F32)
	} else {
		err = r.encodeParts(codes, dst[1], v, ranges, s)
	}
	if err == nil && r.bits == 4 {
		kernel.PackFours(dst[0], codes)
	}
	return err
}

// encodeParts encodes parts of rows, whose ranges were measured.
func (r *Rotated) encodeParts(codes, scales []byte, v tile.Values, ranges []tile.Range, s *tile.Scratch) error {
	values, err := r.rotated(v, s)
	if err != nil {
		return err
	}
	for i := range v.Rows {
		factor, scale := r.Rule.scaleOf(ranges[v.Row+i])
		if v.Col == 0 {
			binary.LittleEndian.PutUint32(scales[4*i:], math.Float32bits(scale))
		}
		r.Rule.normalize(values[i*v.Cols:(i+1)*v.Cols], factor)
	}
	r.Rule.encodeBytes(codes, values, s)
	return nil
}

// packNibbles puts two codes into a byte, the first in the low half.
func packNibbles(dst []byte, codes []uint16) {
	for i := range dst {
		dst[i] = byte(codes[2*i]&15 | codes[2*i+1]<<4)
	}
}

// Decode restores an area from the bytes that Needed names.
func (r *Rotated) Decode(dst []float32, src [][]byte, a tile.Area, _ safetensors.Dtype, scratch *tile.Scratch) {
	codes, values, own := src[0], r.Rule.values(), buffersOf(scratch)
	if r.bits == 4 {
		codes, values = tile.Sized(&own.bytes, len(dst)), group.Int4Values
		pack.SplitBytes(codes, src[0], 4)
	}
	scales := floats.Widen(tile.Sized(&own.Scales, a.Rows), src[1], safetensors.F32)
	kernel.DecodeRotatedOnce(dst, codes, scales, a.Cols, values, r.Group, rotation.Entry(r.Group, safetensors.F32))
}
