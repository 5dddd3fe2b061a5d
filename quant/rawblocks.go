package quant

import (
	"bytes"
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// RawPatch is an area of a weight as a checkpoint stores it, for formats that
// take such: see [RawSheet].
func RawPatch(a Area, raw []byte, d safetensors.Dtype, ranges []Range) Patch {
	return RawPiece(a, a, raw, d, ranges)
}

// RawPiece is a [RawPatch] of some whole rows of a tile, for a [PieceSheet].
func RawPiece(tile, a Area, raw []byte, d safetensors.Dtype, ranges []Range) Patch {
	return Patch{Area: a, Ranges: ranges, plain: plain{data: raw, dtype: d}, tile: tile}
}

// RawSheet is a format of rows and columns whose Encode takes a [RawPatch].
type RawSheet interface {
	// TakesRaw reports whether it does for values of that dtype.
	TakesRaw(d safetensors.Dtype) bool
	// MeasureRaw returns the ranges of the groups of a patch, or a
	// *[NonfiniteError].
	MeasureRaw(p Patch, s *Scratch) ([]Range, error)
}

// PieceSheet is a raw sheet whose areas have so many rows that they leave the nearer
// caches. Its Encode takes a [RawPiece] too: all of a tile, in order, fill the bytes
// that the tile does.
type PieceSheet interface {
	RawSheet
	// PieceRows is how many rows of that many columns a piece should have.
	PieceRows(cols int) int
}

// PieceRows is how many rows of that many columns a piece should have.
func (w *swizzled) PieceRows(cols int) int { return max(TileSize/max(cols, 1), 1) }

// blockRule is how blocks of a row become floats of a few bits.
type blockRule struct {
	floats *kernel.Floats
	small  *kernel.Small
	// scales finds codes of scales and steps for blocks with these greatest
	// magnitudes. A scale of 0 leaves a block to normalize; it reports whether
	// there is none.
	scales func(codes []byte, steps kernel.Steps, amax []float32, s *Scratch) bool
	// normalize scales the values of a block and returns its scale's code.
	normalize func(block []float32) byte
	// whole, if not nil, stores whole blocks of bfloat16 at once: codes as they
	// are packed, and those of scales. A scale of 0 leaves a block to normalize.
	whole func(packed, scales, src []byte)
}

// one gives the values of a block codes of a byte each, and returns its scale's code.
// It reports false for NaN and infinity.
func (r *blockRule) one(codes []byte, values plain, s *Scratch) (scale byte, finite bool) {
	block := values.values(&s.slow)
	lo, hi := kernel.MinMax(block)
	finite = Range{lo, hi}.finite()
	scale = r.normalize(block)
	wide := s.uint16s(len(block))
	kernel.EncodeSmall(wide, block, r.small)
	for i, code := range wide {
		codes[i] = byte(code)
	}
	return scale, finite
}

// encodeRaw encodes a patch of raw values, some rows at a time. It reports
// false for NaN and infinity.
func (w *swizzled) encodeRaw(dst [][]byte, p *Patch, rule *blockRule, s *Scratch) (finite bool) {
	from, wide := p.Row-p.tile.Row, w.padded(p.tile).Cols
	rows, stride := p.Rows, w.stride(wide)
	codes := dst[0][from*wide*w.bits/8:]
	if from+rows == p.tile.Rows {
		clear(codes[rows*wide*w.bits/8:])
		rows = roundUp(p.tile.Rows, bandRows) - from
	}
	sides := sideCodes(rows, stride, s)
	finite = w.rawRows(codes, sides, p, rule, s)
	putScales(dst[1], sides, from, stride)
	return finite
}

// rawRows gives rows of values, padded to whole blocks, their codes, and the codes of
// scales row by row. It reports false for NaN and infinity.
func (w *swizzled) rawRows(dst, sides []byte, p *Patch, rule *blockRule, s *Scratch) (finite bool) {
	wide := w.padded(p.tile).Cols
	stride := w.stride(wide)
	finite = true
	for i, rows := 0, w.together(p.Area); i < p.Rows; i += rows {
		rows = min(rows, p.Rows-i)
		line := dst[i*wide*w.bits/8 : (i+rows)*wide*w.bits/8]
		n := rows * p.Cols
		scales, values, left := sides[i*stride:][:ceilDiv(n, w.block)], p.plain.slice(i*p.Cols, i*p.Cols+n), rows*wide
		if rule.whole != nil {
			blocks := n / w.block
			done := blocks * w.block
			finite = w.wholeBlocks(line[:done*w.bits/8], scales[:blocks], values.slice(0, done), rule, s) && finite
			line, scales, values, n, left = line[done*w.bits/8:], scales[blocks:], values.slice(done, n), n-done, left-done
		}
		codes := line
		if w.bits == 4 {
			codes = sized(&s.bytes, left)
		}
		clear(codes[n:])
		finite = w.rawBlocks(codes[:n], scales, values, rule, s) && finite
		if w.bits == 4 {
			kernel.PackFoursHigh(line, codes)
		}
	}
	return finite
}

// wholeBlocks stores whole blocks of bfloat16, codes as they are packed. It reports
// false for NaN and infinity.
func (w *swizzled) wholeBlocks(packed, scales []byte, values plain, rule *blockRule, s *Scratch) (finite bool) {
	rule.whole(packed, scales, values.data)
	finite = true
	for c := 0; ; c++ {
		next := bytes.IndexByte(scales[c:], 0)
		if next < 0 {
			return finite
		}
		c += next
		block, size := sized(&s.bytes, w.block), w.block*w.bits/8
		scale, ok := rule.one(block, values.slice(c*w.block, (c+1)*w.block), s)
		scales[c], finite = scale, ok && finite
		if to := packed[c*size : (c+1)*size]; w.bits == 4 {
			kernel.PackFoursHigh(to, block)
		} else {
			copy(to, block)
		}
	}
}

// rawBlocks gives consecutive values one byte each, and blocks of them, of which
// the last may be short, the codes of scales. It reports false for NaN and
// infinity.
func (w *swizzled) rawBlocks(codes, scales []byte, values plain, rule *blockRule, s *Scratch) (finite bool) {
	data, raw := values.raw(s)
	n, size := len(codes)/w.block, w.block*raw.Bytes()
	amax := sized(&s.hi, n)
	kernel.AbsMax(amax, data[:n*size], raw, w.block)
	s.steps = s.steps.Sized(n)
	all := rule.scales(scales[:n], s.steps, amax, s)
	kernel.EncodeFloats(codes[:n*w.block], data, raw, s.steps, w.block, rule.floats)
	finite = true
	if all && n == len(scales) {
		return finite
	}
	for c := range scales {
		if c < n && s.steps.Scales[c] != 0 {
			continue
		}
		from, to := c*w.block, min((c+1)*w.block, len(codes))
		scale, ok := rule.one(codes[from:to], values.slice(from, to), s)
		scales[c], finite = scale, ok && finite
	}
	return finite
}

// rawRange is the range of a whole patch, by its greatest magnitude.
func (p *Patch) rawRange(s *Scratch) Range {
	data, raw := p.plain.raw(s)
	amax := sized(&s.hi, 1)
	if kernel.AbsMax(amax, data, raw, p.plain.len()); amax[0] == amax[0] {
		return Range{-amax[0], amax[0]}
	}
	return rangeOf(p.plain.values(&s.slow))
}

// TakesRaw reports whether Encode takes raw values.
func (m *MXFP8) TakesRaw(d safetensors.Dtype) bool { return readable(d) && m.o.asStored(d) }

// MeasureRaw is not needed: blocks lie whole in areas.
func (m *MXFP8) MeasureRaw(p Patch, s *Scratch) ([]Range, error) {
	return m.Measure(p.Area, p.plain.values(&s.slow)), nil
}

// rawRule is how blocks are encoded.
func (m *MXFP8) rawRule(d safetensors.Dtype) *blockRule {
	rule := &blockRule{floats: e4m3Floats, small: kernel.E4M3, scales: rawScalesFP8, normalize: m.normalize}
	if d == safetensors.BF16 && kernel.HasEightBlocks() {
		rule.whole = kernel.EncodeEightBlocks
	}
	return rule
}

// rawScalesFP8 are powers of 2, which need no rounding.
func rawScalesFP8(codes []byte, steps kernel.Steps, amax []float32, _ *Scratch) bool {
	clear(steps.Zeros)
	if kernel.PowerSteps(codes, steps.Scales, steps.Inverses, amax, 448) {
		return true
	}
	for c, a := range amax {
		codes[c] = scaleExponent(a)
		scale := math.Float32frombits(uint32(codes[c]) << 23)
		if !steps.Set(c, 0, scale) || a == 0 || !finite(a) {
			steps.Scales[c] = 0
		}
	}
	return false
}

var (
	e4m3Floats = kernel.SmallFloats(kernel.E4M3, 448, false)
	e2m1Floats = kernel.SmallFloats(kernel.E2M1, 6, false)
)

// TakesRaw reports whether Encode takes raw values.
func (n *NVFP4) TakesRaw(d safetensors.Dtype) bool { return readable(d) && n.o.asStored(d) }

// MeasureRaw returns the range of a patch.
func (n *NVFP4) MeasureRaw(p Patch, s *Scratch) ([]Range, error) {
	r := p.rawRange(s)
	if !r.finite() && !n.o.AllowNonfinite {
		return nil, CheckArea(p.Area, p.plain.values(&s.slow), n.shape[1])
	}
	return []Range{r}, nil
}

// rawRule is how blocks are encoded in units of the tensor's scale.
func (n *NVFP4) rawRule(tensor float32, p *Patch, s *Scratch) *blockRule {
	rule := &blockRule{floats: e2m1Floats, small: kernel.E2M1,
		scales: func(codes []byte, steps kernel.Steps, amax []float32, s *Scratch) bool {
			return rawScalesFP4(codes, steps, amax, tensor, s)
		},
		normalize: func(block []float32) byte { return normalizeFP4(block, tensor) },
	}
	if p.plain.dtype == safetensors.BF16 && kernel.HasFourBlocks() && s.fours.set(tensor, s) {
		rule.whole = s.fours.encode
	}
	return rule
}

// rawScalesFP4 casts a sixth of the greatest magnitudes, in units of the
// tensor's scale, to E4M3, as normalizeFP4 does one by one. Where that scale is
// one to divide by, all magnitudes are finite.
func rawScalesFP4(codes []byte, steps kernel.Steps, amax []float32, tensor float32, s *Scratch) bool {
	s.one = s.one.Sized(1)
	if !s.one.Set(0, 0, tensor) {
		clear(steps.Scales)
		return false
	}
	s.castScales(codes, amax)
	kernel.DecodeBytes(steps.Scales, codes, s.one.Scales, nil, len(codes), smallValues[kernel.E4M3])
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
func (s *Scratch) castScales(codes []byte, amax []float32) {
	kernel.Divide(amax, 0, 6, 0, math.MaxFloat32)
	kernel.EncodeFloats(codes, kernel.AsBytes(amax), kernel.RawF32, s.one, len(amax), e4m3Floats)
}
