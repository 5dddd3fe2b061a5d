package comfy

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Blocks is a weight of one 8-bit code per value and one scale per square
// block: value = code × scale.
type Blocks struct {
	shape          []int
	Size           int // of a block's side
	Rule           *ScaleRule
	AllowNonfinite bool

	fused *group.Fused // of a block's part of a row
}

// NewBlocks resolves a rule for a weight of shape [rows, columns], both whole
// blocks.
func NewBlocks(shape []int, rule *ScaleRule, size int, allowNonfinite bool) (*Blocks, error) {
	if err := checkShape(shape); err != nil {
		return nil, err
	}
	if size < 1 || shape[0]%size != 0 || shape[1]%size != 0 {
		return nil, fmt.Errorf("blocks of %d×%d do not divide shape %v", size, size, shape)
	}
	row := &group.Grid{Group: size, Inner: 1}
	return &Blocks{shape, size, rule, allowNonfinite, rule.fused(row, allowNonfinite)}, nil
}

// Search makes the encoder choose scales that lose least, as [Scaled.Search] does.
func (b *Blocks) Search() { b.fused.Search = b.Rule.search(b.Size*b.Size, nil) }

// Gains reports whether Search finds better scales than the plain ones.
func (b *Blocks) Gains() bool { return b.Rule.search(b.Size*b.Size, nil) != nil }

// Shape is that of the weight.
func (b *Blocks) Shape() []int { return b.shape }

// Tensors returns the codes and the scales, one per block.
func (b *Blocks) Tensors() []tile.Tensor {
	scale := unlessOne(b.shape[0]/b.Size, b.shape[1]/b.Size)
	return []tile.Tensor{{Role: tile.Weight, Dtype: b.Rule.Store, Shape: b.shape}, {Role: tile.Scale, Dtype: safetensors.F32, Shape: scale}}
}

// Cut is by blocks.
func (b *Blocks) Cut() tile.Cut {
	return tile.Cut{Rows: b.shape[0], Cols: b.shape[1], UnitRows: 1, UnitCols: 1, GroupRows: b.Size, GroupCols: b.Size, AnyRows: true}
}

// Written returns what encoding an area fills: its codes, and the scales of
// the blocks that begin in it.
func (b *Blocks) Written(i int, a tile.Area) []tile.Span {
	if i == 0 {
		return tile.SpansOf(a, b.shape[1], 1)
	}
	return tile.SpansOf(b.begin(a), b.shape[1]/b.Size, 4)
}

// begin are the blocks that begin in an area.
func (b *Blocks) begin(a tile.Area) tile.Area {
	row, col := tile.CeilDiv(a.Row, b.Size), tile.CeilDiv(a.Col, b.Size)
	return tile.Area{Row: row, Col: col, Rows: tile.CeilDiv(a.Row+a.Rows, b.Size) - row, Cols: tile.CeilDiv(a.Col+a.Cols, b.Size) - col}
}

// Needed returns what decoding an area takes: its codes, and the scales of the
// blocks that overlap it.
func (b *Blocks) Needed(i int, a tile.Area) []tile.Span {
	if i == 0 {
		return tile.SpansOf(a, b.shape[1], 1)
	}
	return tile.SpansOf(b.overlap(a), b.shape[1]/b.Size, 4)
}

func (b *Blocks) overlap(a tile.Area) tile.Area {
	row, col := a.Row/b.Size, a.Col/b.Size
	return tile.Area{Row: row, Col: col, Rows: tile.CeilDiv(a.Row+a.Rows, b.Size) - row, Cols: tile.CeilDiv(a.Col+a.Cols, b.Size) - col}
}

// NewEncoder prepares to encode in tiles that take at most that many bytes of memory.
func (b *Blocks) NewEncoder(_ safetensors.Dtype, memory int) tile.Encoder {
	return tile.NewRanged(b.Cut(), wholeGroups(tile.RawTile(memory), b.fused.Search, b.Size*b.Size), b.encode, b.measure)
}

// measure returns the range of every block that overlaps an area.
func (b *Blocks) measure(v tile.Values, scratch *tile.Scratch) (ranges []tile.Range, err error) {
	s := buffersOf(scratch)
	b.bands(v.Area, func(_ int, part tile.Area) {
		b.measurePart(v, part, s)
		for i := range s.hi {
			ranges = append(ranges, b.fused.RangeFrom(s.lo[i], s.hi[i]))
		}
	})
	if tile.AllFinite(ranges) {
		return ranges, nil
	}
	return b.slowly(v, scratch)
}

// slowly is measure for blocks with NaN, of which the first counts, or infinity.
func (b *Blocks) slowly(v tile.Values, s *tile.Scratch) ([]tile.Range, error) {
	values, err := floatsOf(v, b.shape[1], b.AllowNonfinite, s)
	if err != nil {
		return nil, err
	}
	return b.Cut().Measure(v.Area, values), nil
}

// bands calls do for parts of an area, and the first block of each: such as lie in one
// row of blocks, and stay in the nearer caches.
func (b *Blocks) bands(a tile.Area, do func(first int, part tile.Area)) {
	cut := b.Cut()
	cut.GroupCols = max(4*tile.TileSize/b.Size/b.Size, 1) * b.Size
	cut.Groups(a, func(_ int, part tile.Area) {
		do(part.Row/b.Size*(b.shape[1]/b.Size)+part.Col/b.Size, part)
	})
}

// measurePart finds the greatest magnitude of every block that overlaps a part, with
// any NaN for one that holds some.
func (b *Blocks) measurePart(v tile.Values, part tile.Area, s *buffers) {
	overlap := b.overlap(part).Cols
	s.lo, s.hi = tile.Sized(&s.lo, overlap), tile.Sized(&s.hi, overlap)
	clear(s.lo)
	clear(s.hi)
	row := tile.Sized(&s.row, overlap)
	b.Rows(v, part, func(at, n, size, first int, v tile.Values) {
		data, raw := v.Raw(s.Scratch)
		kernel.AbsMax(row[:n], data, raw, size)
		for i, amax := range row[:n] {
			s.hi[first+i] = max(s.hi[first+i], amax)
		}
	})
}

// Rows calls do for the rows of a part, each as n blocks that are whole across, or as
// one that is not, from one of the part's blocks on: the values, and where they lie
// in the area.
func (b *Blocks) Rows(v tile.Values, part tile.Area, do func(at, n, size, first int, v tile.Values)) {
	for i := range part.Rows {
		from := v.At(part, i)
		b.fused.Grid.Pieces(part.Col, part.Cols, func(at, n, size, first int) {
			at += from
			do(at, n, size, first, v.Part(at, at+n*size))
		})
	}
}

func (b *Blocks) encode(dst [][]byte, v tile.Values, ranges []tile.Range, scratch *tile.Scratch) (err error) {
	s := buffersOf(scratch)
	begin := b.begin(v.Area)
	b.bands(v.Area, func(first int, part tile.Area) {
		if err == nil {
			err = b.encodePart(dst[0], v, part, ranges, first, s)
		}
		if err != nil || part.Row%b.Size != 0 {
			return
		}
		at := (part.Row/b.Size-begin.Row)*begin.Cols + tile.CeilDiv(part.Col, b.Size) - begin.Col
		floats.PutFloats(dst[1][4*at:], s.Scales[tile.CeilDiv(part.Col, b.Size)-part.Col/b.Size:], safetensors.F32)
	})
	return err
}

// encodePart gives a part its codes, and takes the scales of its blocks.
func (b *Blocks) encodePart(codes []byte, v tile.Values, part tile.Area, ranges []tile.Range, first int, s *buffers) error {
	f, rule := b.fused, b.Rule
	if ranges == nil {
		b.measurePart(v, part, s)
	} else {
		s.lo, s.hi = s.lo[:0], s.hi[:0]
		for _, r := range ranges[first:][:b.overlap(part).Cols] {
			s.lo, s.hi = append(s.lo, 0), append(s.hi, f.Greatest(r))
		}
	}
	s.steps, s.Scales = s.steps.Sized(len(s.hi)), s.Scales[:0]
	if !rule.StepAll(s.steps, s.lo, s.hi) {
		return b.encodeSlowly(codes, v, part, ranges, first, s)
	}
	if f.Search != nil {
		b.improve(v, part, s)
	}
	b.Rows(v, part, func(at, n, size, first int, v tile.Values) {
		steps := kernel.Steps{Zeros: s.steps.Zeros[first:][:n], Scales: s.steps.Scales[first:][:n], Inverses: s.steps.Inverses[first:][:n]}
		f.Run(codes[at:at+n*size], v, steps, size, s.Scratch)
	})
	rule.Collect(&s.Companions, s.steps, s.hi)
	return nil
}

// improve replaces the scales of the blocks of a part.
func (b *Blocks) improve(v tile.Values, part tile.Area, s *buffers) {
	for i := range s.steps.Scales {
		block := tile.Sized(&s.slow, b.Size*b.Size)
		s.slow = block
		for r := range b.Size {
			at := v.At(part, r) + i*b.Size
			floats.Widen(block[r*b.Size:(r+1)*b.Size], v.Part(at, at+b.Size).Bytes, v.Dtype)
		}
		b.fused.Search.Improve(s.steps.Part(i, i+1), tile.ValuesOf(tile.Line(0, len(block)), block), len(block), s.Scratch)
	}
}

// encodeSlowly is encodePart for blocks that kernels cannot scale.
func (b *Blocks) encodeSlowly(codes []byte, v tile.Values, part tile.Area, ranges []tile.Range, first int, s *buffers) error {
	values, err := floatsOf(v, b.shape[1], b.AllowNonfinite, s.Scratch)
	if err != nil {
		return err
	}
	cut := b.Cut()
	cut.Groups(part, func(group int, block tile.Area) {
		r := tile.RangeIn(v.Area, values, block)
		if ranges != nil {
			r = ranges[group]
		}
		factor, scale := b.Rule.scaleOf(r)
		s.Scales = append(s.Scales, scale)
		for i := range block.Rows {
			at := v.At(block, i)
			row := values[at : at+block.Cols]
			b.Rule.normalize(row, factor)
			b.Rule.encodeBytes(codes[at:at+block.Cols], row, s.Scratch)
		}
	})
	return nil
}

// Decode restores an area from the bytes that Needed names.
func (b *Blocks) Decode(dst []float32, src [][]byte, a tile.Area, _ safetensors.Dtype, scratch *tile.Scratch) {
	scales := floats.Widen(tile.Sized(&buffersOf(scratch).Scales, len(src[1])/4), src[1], safetensors.F32)
	group.DecodeArea(b.Cut(), dst, src[0], a, scales, b.Rule.values())
}
