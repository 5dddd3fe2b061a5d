package comfy

import (
	"encoding/binary"
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// NVFP4 is a weight of E2M1 codes in blocks of 16, each with an E4M3 scale,
// and one more scale for the tensor.
type NVFP4 struct {
	swizzled
	o BlockOptions
}

// NewNVFP4 resolves the format for a weight of shape [rows, columns].
func NewNVFP4(shape []int, o BlockOptions) (*NVFP4, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	return &NVFP4{newSwizzled(shape, 16, 16, 4), o}, nil
}

// Tensors returns the codes, the scales of the blocks and that of the tensor.
func (n *NVFP4) Tensors() []tile.Tensor {
	return append(n.tensors(safetensors.U8, safetensors.F8_E4M3), tile.Tensor{Role: tile.Scale2, Dtype: safetensors.F32, Shape: []int{}})
}

// Gains reports that a search finds better scales than the plain ones.
func (n *NVFP4) Gains() bool { return true }

// Cut is by the tiles of the scales; the tensor's scale follows from all.
func (n *NVFP4) Cut() tile.Cut {
	c := n.cut()
	c.GroupRows, c.GroupCols = c.Rows, c.Cols
	return c
}

// Written returns what encoding an area fills.
func (n *NVFP4) Written(i int, a tile.Area) []tile.Span {
	switch {
	case i < 2:
		return n.span(i, a)
	case a.First():
		return tile.Run(0, 4)
	}
	return nil
}

// Needed returns what decoding an area takes.
func (n *NVFP4) Needed(i int, a tile.Area) []tile.Span {
	if i < 2 {
		return n.span(i, a)
	}
	return tile.Run(0, 4)
}

// NewEncoder prepares to encode in tiles that take at most that many bytes of memory.
func (n *NVFP4) NewEncoder(_ safetensors.Dtype, memory int) tile.Encoder {
	e := tile.NewRanged(n.Cut(), tile.RawTile(memory), n.encode, n.measure)
	if e.Ranges != nil { // else all of the weight tells the scale
		e.Wants.PieceRows = pieceRows(e.Wants)
	}
	return e
}

// measure returns the range of an area, by its greatest magnitude.
func (n *NVFP4) measure(v tile.Values, s *tile.Scratch) ([]tile.Range, error) {
	data, raw := v.Raw(s)
	own := buffersOf(s)
	amax := tile.Sized(&own.hi, 1)
	if kernel.AbsMax(amax, data, raw, v.Len()); floats.Finite(amax[0]) {
		return []tile.Range{{Lo: -amax[0], Hi: amax[0]}}, nil
	}
	values := v.Widen(&own.slow)
	if !n.o.AllowNonfinite {
		return nil, tile.CheckArea(v.Area, values, n.shape[1])
	}
	return []tile.Range{tile.RangeOf(values)}, nil
}

func (n *NVFP4) encode(dst [][]byte, v tile.Values, ranges []tile.Range, s *tile.Scratch) (err error) {
	if ranges == nil {
		if ranges, err = n.measure(v, s); err != nil {
			return err
		}
	}
	tensor := ranges[0].AbsMax() / 2688 // the largest scale times the largest value
	if ranges[0].Lo != ranges[0].Lo {
		tensor = ranges[0].Lo
	}
	zero := tensor == 0
	if v.First() {
		stored := tensor
		if zero { // nothing to be told from zero
			stored = 1
		}
		binary.LittleEndian.PutUint32(dst[2], math.Float32bits(stored))
	}
	if zero {
		clear(dst[0])
		clear(dst[1])
		return nil
	}
	v = n.o.rounded(v, s)
	own := buffersOf(s)
	n.encodeBlocks(dst, v, n.rule(tensor, v, own), own)
	return nil
}

// rule is how blocks of an area are encoded in units of the tensor's scale.
func (n *NVFP4) rule(tensor float32, v tile.Values, s *buffers) *blockRule {
	d, area := v.Dtype, v.Area
	rule := &blockRule{floats: e2m1Floats, small: kernel.E2M1,
		scales: func(codes []byte, steps kernel.Steps, amax []float32, s *buffers) bool {
			return nvScales(codes, steps, amax, tensor, s)
		},
		normalize: func(block []float32) byte { return normalizeFP4(block, tensor) },
	}
	switch {
	case n.o.Search && s.search.set(tensor):
		rule.improve = s.search.improve
		s.search.moments, s.search.area = n.o.Moments, area
	case n.o.Search:
	case d == safetensors.BF16 && kernel.HasNVFP4() && s.fours.set(tensor, s):
		rule.whole = s.fours.encode
	}
	return rule
}

// nvScales casts a sixth of the greatest magnitudes, in units of the tensor's scale,
// to E4M3, as normalizeFP4 does one by one. Where that scale is one to divide by, all
// magnitudes are finite.
func nvScales(codes []byte, steps kernel.Steps, amax []float32, tensor float32, s *buffers) bool {
	s.one = s.one.Sized(1)
	if !s.one.Set(0, 0, tensor) {
		clear(steps.Scales)
		return false
	}
	s.castScales(codes, amax)
	kernel.DecodeBytes(steps.Scales, codes, s.one.Scales, nil, len(codes), group.SmallValues[kernel.E4M3])
	clear(steps.Zeros)
	if kernel.Spans(steps.Scales, steps.Inverses, steps.Zeros, steps.Scales, 1) {
		return true
	}
	for c, scale := range steps.Scales {
		if !steps.Set(c, 0, scale) {
			steps.Scales[c] = 0
		}
	}
	return false
}

// castScales makes magnitudes codes of scales, in units of the step s.one.
func (s *buffers) castScales(codes []byte, amax []float32) {
	kernel.Divide(amax, 0, 6, 0, math.MaxFloat32)
	kernel.EncodeFloats(codes, kernel.AsBytes(amax), kernel.RawF32, s.one, len(amax), e4m3Floats)
}

// normalizeFP4 divides a block by its scale and returns the scale's code.
func normalizeFP4(block []float32, tensor float32) byte {
	lo, hi := kernel.MinMax(block)
	amax := tile.Range{Lo: lo, Hi: hi}.AbsMax()
	if lo != lo {
		amax = lo
	}
	scale := float32(amax/6) / tensor
	if scale > 448 {
		scale = 448
	}
	code := kernel.E4M3.Encode(scale)
	total := tensor * kernel.E4M3.Decode(code)
	if total == 0 {
		clear(block)
	} else {
		kernel.Divide(block, 0, total, -6, 6)
	}
	return byte(code)
}

// Decode restores an area from the bytes that Needed names. Scales are
// multiplied, and values by them, in the dtype out.
func (n *NVFP4) Decode(dst []float32, src [][]byte, a tile.Area, out safetensors.Dtype, scratch *tile.Scratch) {
	tensor := floats.RoundTo(math.Float32frombits(binary.LittleEndian.Uint32(src[2])), out)
	scales := func(dst []float32, codes []byte) {
		kernel.DecodeBytes(dst, codes, []float32{tensor}, nil, len(codes), group.SmallValues[kernel.E4M3])
		floats.RoundAll(dst, out)
	}
	n.decodeRows(dst, src, a, scales, group.SmallValues[kernel.E2M1], buffersOf(scratch))
}

// PutScales fills what Written names of the scales of an area, whose rows begin with a
// band, from scales by rows.
func (n *NVFP4) PutScales(dst, scales []byte, a tile.Area) {
	across, stride := a.Cols/n.block, n.stride(n.padded(a).Cols)
	clear(dst)
	rows := make([]byte, a.Rows*stride)
	for r := range a.Rows {
		copy(rows[r*stride:(r+1)*stride], scales[r*across:(r+1)*across])
	}
	putScales(dst, rows, 0, stride)
}
