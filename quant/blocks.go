package quant

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Blocks is a weight of one 8-bit code per value and one scale per square
// block: value = code × scale.
type Blocks struct {
	shape          []int
	Size           int // of a block's side
	Rule           *Rule
	AllowNonfinite bool

	fused *fused // of a block's part of a row
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
	row := &Grid{Group: size, Inner: 1}
	return &Blocks{shape, size, rule, allowNonfinite, rule.fused(row, allowNonfinite)}, nil
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

// NewEncoder prepares to encode in tiles that take at most that many bytes of memory.
func (b *Blocks) NewEncoder(_ safetensors.Dtype, memory int) Encoder {
	return newRanged(b.Cut(), rawTile(memory), b.encode, b.measure)
}

// measure returns the range of every block that overlaps an area.
func (b *Blocks) measure(v Values, s *Scratch) (ranges []Range, err error) {
	b.bands(v.Area, func(_ int, part Area) {
		b.measurePart(v, part, s)
		for i := range s.hi {
			ranges = append(ranges, b.fused.rangeAt(i, s))
		}
	})
	if Finite(ranges) {
		return ranges, nil
	}
	return b.slowly(v, s)
}

// slowly is measure for blocks with NaN, of which the first counts, or infinity.
func (b *Blocks) slowly(v Values, s *Scratch) ([]Range, error) {
	values := v.Floats(s)
	if !b.AllowNonfinite {
		if err := CheckArea(v.Area, values, b.shape[1]); err != nil {
			return nil, err
		}
	}
	return b.Cut().measure(v.Area, values), nil
}

// bands calls do for parts of an area, and the first block of each: such as lie in one
// row of blocks, and stay in the nearer caches.
func (b *Blocks) bands(a Area, do func(first int, part Area)) {
	cut := b.Cut()
	cut.GroupCols = max(4*TileSize/b.Size/b.Size, 1) * b.Size
	cut.groups(a, func(_ int, part Area) {
		do(part.Row/b.Size*(b.shape[1]/b.Size)+part.Col/b.Size, part)
	})
}

// measurePart finds the greatest magnitude of every block that overlaps a part, with
// any NaN for one that holds some.
func (b *Blocks) measurePart(v Values, part Area, s *Scratch) {
	overlap := b.overlap(part).Cols
	s.lo, s.hi = sized(&s.lo, overlap), sized(&s.hi, overlap)
	clear(s.lo)
	clear(s.hi)
	row := sized(&s.row, overlap)
	b.rows(v, part, func(at, n, size, first int, v Values) {
		data, raw := v.raw(s)
		kernel.AbsMax(row[:n], data, raw, size)
		for i, amax := range row[:n] {
			s.hi[first+i] = max(s.hi[first+i], amax)
		}
	})
}

// rows calls do for the rows of a part, each as n blocks that are whole across, or as
// one that is not, from one of the part's blocks on: the values, and where they lie
// in the area.
func (b *Blocks) rows(v Values, part Area, do func(at, n, size, first int, v Values)) {
	for i := range part.Rows {
		from := v.at(part, i)
		b.fused.grid.pieces(part.Col, part.Cols, func(at, n, size, first int) {
			at += from
			do(at, n, size, first, v.run(at, at+n*size))
		})
	}
}

func (b *Blocks) encode(dst [][]byte, v Values, ranges []Range, s *Scratch) (err error) {
	begin := b.begin(v.Area)
	b.bands(v.Area, func(first int, part Area) {
		if err == nil {
			err = b.encodePart(dst[0], v, part, ranges, first, s)
		}
		if err != nil || part.Row%b.Size != 0 {
			return
		}
		at := (part.Row/b.Size-begin.Row)*begin.Cols + ceilDiv(part.Col, b.Size) - begin.Col
		putFloats(dst[1][4*at:], s.scales[ceilDiv(part.Col, b.Size)-part.Col/b.Size:], safetensors.F32)
	})
	return err
}

// encodePart gives a part its codes, and takes the scales of its blocks.
func (b *Blocks) encodePart(codes []byte, v Values, part Area, ranges []Range, first int, s *Scratch) error {
	f, rule := b.fused, b.Rule
	if ranges == nil {
		b.measurePart(v, part, s)
	} else {
		s.lo, s.hi = s.lo[:0], s.hi[:0]
		for _, r := range ranges[first:][:b.overlap(part).Cols] {
			s.lo, s.hi = append(s.lo, 0), append(s.hi, f.greatest(r))
		}
	}
	s.steps, s.scales = s.steps.Sized(len(s.hi)), s.scales[:0]
	if !rule.stepAll(s.steps, s.lo, s.hi) {
		return b.encodeSlowly(codes, v, part, ranges, first, s)
	}
	b.rows(v, part, func(at, n, size, first int, v Values) {
		steps := kernel.Steps{Zeros: s.steps.Zeros[first:][:n], Scales: s.steps.Scales[first:][:n], Inverses: s.steps.Inverses[first:][:n]}
		f.run(codes[at:at+n*size], v, steps, size, s)
	})
	rule.begun(&s.sides, s.steps, s.hi)
	return nil
}

// encodeSlowly is encodePart for blocks that kernels cannot scale.
func (b *Blocks) encodeSlowly(codes []byte, v Values, part Area, ranges []Range, first int, s *Scratch) error {
	values, cut := v.Floats(s), b.Cut()
	if !b.AllowNonfinite {
		if err := CheckArea(v.Area, values, b.shape[1]); err != nil {
			return err
		}
	}
	cut.groups(part, func(group int, block Area) {
		r := rangeIn(v.Area, values, block)
		if ranges != nil {
			r = ranges[group]
		}
		factor, scale := b.Rule.scaleOf(r)
		s.scales = append(s.scales, scale)
		for i := range block.Rows {
			at := v.at(block, i)
			row := values[at : at+block.Cols]
			b.Rule.normalize(row, factor)
			b.Rule.encodeBytes(codes[at:at+block.Cols], row, s)
		}
	})
	return nil
}

// Decode restores an area from the bytes that Needed names.
func (b *Blocks) Decode(dst []float32, src [][]byte, a Area, _ safetensors.Dtype, scratch *Scratch) {
	scales := Widen(sized(&scratch.sides.scales, len(src[1])/4), src[1], safetensors.F32)
	b.Cut().decodeBytes(dst, src[0], a, scales, b.Rule.values())
}
