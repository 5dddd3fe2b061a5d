package comfy

import (
	"bytes"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// blockRule is how the blocks of a row are scaled and encoded to floats of a few bits.
type blockRule struct {
	floats *kernel.Floats
	small  *kernel.Small
	// scales finds codes of scales and steps for blocks with these greatest
	// magnitudes. A scale of 0 leaves a block to normalize; it reports whether
	// there is none.
	scales func(codes []byte, steps kernel.Steps, amax []float32, s *buffers) bool
	// improve replaces what scales found by codes and steps that lose less; nil for none.
	improve func(codes []byte, steps kernel.Steps, v tile.Values, s *tile.Scratch)
	// normalize scales the values of a block and returns its scale's code.
	normalize func(block []float32) byte
	// whole, if not nil, encodes whole blocks of bfloat16 in one go, to packed codes
	// and the codes of scales. The scale of a block that it leaves to normalize is 0.
	whole func(packed, scales, src []byte)
}

// one encodes a single block to a byte for each value, and returns the code of its
// scale. It reports false for NaN and infinity.
func (r *blockRule) one(codes []byte, v tile.Values, s *buffers) (scale byte, finite bool) {
	block := v.Widen(&s.slow)
	lo, hi := kernel.MinMax(block)
	finite = tile.Range{Lo: lo, Hi: hi}.Finite()
	scale = r.normalize(block)
	wide := s.Uint16s(len(block))
	kernel.EncodeSmall(wide, block, r.small)
	for i, code := range wide {
		codes[i] = byte(code)
	}
	return scale, finite
}

// pieceRows is how many rows of a tile, which is one band where it is large, are
// encoded at a time.
func pieceRows(n tile.Needs) int { return max(tile.TileSize/n.Cols, 1) }

// encodeBlocks encodes an area, or some rows of one. It reports false for NaN and
// infinity.
func (w *swizzled) encodeBlocks(dst [][]byte, v tile.Values, rule *blockRule, s *buffers) (finite bool) {
	wide, from, rows := w.padded(v.Area).Cols, v.Row%bandRows, v.Rows
	stride, codes := w.stride(wide), dst[0][from*wide*w.bits/8:]
	if v.Row+v.Rows == w.shape[0] {
		clear(codes[rows*wide*w.bits/8:])
		rows = roundUp(from+rows, bandRows) - from
	}
	sides := sideCodes(rows, stride, s)
	finite = w.encodeRows(codes, sides, v, rule, s)
	putScales(dst[1], sides, from, stride)
	return finite
}

// encodeRows gives rows of values, padded to whole blocks, their codes, and the codes
// of scales row by row. It reports false for NaN and infinity.
func (w *swizzled) encodeRows(dst, sides []byte, v tile.Values, rule *blockRule, s *buffers) (finite bool) {
	wide := w.padded(v.Area).Cols
	stride := w.stride(wide)
	finite = true
	for i, rows := 0, w.rowsAtOnce(v.Area); i < v.Rows; i += rows {
		rows = min(rows, v.Rows-i)
		line := dst[i*wide*w.bits/8 : (i+rows)*wide*w.bits/8]
		n := rows * v.Cols
		scales, values, left := sides[i*stride:][:tile.CeilDiv(n, w.block)], v.Part(i*v.Cols, i*v.Cols+n), rows*wide
		if rule.whole != nil {
			blocks := n / w.block
			done := blocks * w.block
			finite = w.wholeBlocks(line[:done*w.bits/8], scales[:blocks], values.Part(0, done), rule, s) && finite
			line, scales, values, n, left = line[done*w.bits/8:], scales[blocks:], values.Part(done, n), n-done, left-done
		}
		codes := line
		if w.bits == 4 {
			codes = tile.Sized(&s.bytes, left)
		}
		clear(codes[n:])
		finite = w.someBlocks(codes[:n], scales, values, rule, s) && finite
		if w.bits == 4 {
			kernel.PackFoursHigh(line, codes)
		}
	}
	return finite
}

// wholeBlocks stores whole blocks of bfloat16, codes as they are packed. It reports
// false for NaN and infinity.
func (w *swizzled) wholeBlocks(packed, scales []byte, v tile.Values, rule *blockRule, s *buffers) (finite bool) {
	rule.whole(packed, scales, v.Bytes)
	finite = true
	for c := 0; ; c++ {
		next := bytes.IndexByte(scales[c:], 0)
		if next < 0 {
			return finite
		}
		c += next
		block, size := tile.Sized(&s.bytes, w.block), w.block*w.bits/8
		scale, ok := rule.one(block, v.Part(c*w.block, (c+1)*w.block), s)
		scales[c], finite = scale, ok && finite
		if to := packed[c*size : (c+1)*size]; w.bits == 4 {
			kernel.PackFoursHigh(to, block)
		} else {
			copy(to, block)
		}
	}
}

// someBlocks gives consecutive values one byte each, and blocks of them, of which
// the last may be short, the codes of scales. It reports false for NaN and
// infinity.
func (w *swizzled) someBlocks(codes, scales []byte, v tile.Values, rule *blockRule, s *buffers) (finite bool) {
	data, raw := v.Raw(s.Scratch)
	n, size := len(codes)/w.block, w.block*raw.Bytes()
	amax := tile.Sized(&s.hi, n)
	kernel.AbsMax(amax, data[:n*size], raw, w.block)
	s.steps = s.steps.Sized(n)
	all := rule.scales(scales[:n], s.steps, amax, s)
	if rule.improve != nil {
		rule.improve(scales[:n], s.steps, v.Part(0, n*w.block), s.Scratch)
	}
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
		scale, ok := rule.one(codes[from:to], v.Part(from, to), s)
		scales[c], finite = scale, ok && finite
	}
	return finite
}

var (
	e4m3Floats = kernel.SmallFloats(kernel.E4M3, 448, false)
	e2m1Floats = kernel.SmallFloats(kernel.E2M1, 6, false)
)
