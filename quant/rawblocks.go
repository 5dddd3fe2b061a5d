package quant

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// RawPatch is an area of a weight as a checkpoint stores it, for formats that
// take such: see [RawSheet].
func RawPatch(a Area, raw []byte, d safetensors.Dtype, ranges []Range) Patch {
	return Patch{Area: a, Ranges: ranges, plain: plain{raw, d}}
}

// RawSheet is a format of rows and columns whose Encode takes a [RawPatch].
type RawSheet interface {
	// TakesRaw reports whether it does for values of that dtype.
	TakesRaw(d safetensors.Dtype) bool
	// MeasureRaw returns the ranges of the groups of a patch, or a
	// *[NonfiniteError].
	MeasureRaw(p Patch, s *Scratch) ([]Range, error)
}

// blockRule is how blocks of a row become floats of a few bits.
type blockRule struct {
	floats *kernel.Floats
	small  *kernel.Small
	// scales finds codes of scales and steps for blocks with these greatest
	// magnitudes. A scale of 0 leaves a block to normalize.
	scales func(codes []byte, steps kernel.Steps, amax []float32, s *Scratch)
	// normalize scales the values of a block and returns its scale's code.
	normalize func(block []float32) byte
}

// rawRow gives the values of a row one byte each, and its blocks the codes of
// scales, which it returns. It reports false for NaN and infinity.
func (w *swizzled) rawRow(codes []byte, row plain, rule *blockRule, s *Scratch) (scales []byte, finite bool) {
	data, raw := row.raw(s)
	n, size := len(codes)/w.block, w.block*raw.Bytes()
	amax := sized(&s.hi, n)
	kernel.AbsMax(amax, data[:n*size], raw, w.block)
	scales = sized(&s.scaleCodes, ceilDiv(len(codes), w.block))
	s.steps = s.steps.Sized(n)
	rule.scales(scales[:n], s.steps, amax, s)
	kernel.EncodeFloats(codes[:n*w.block], data, raw, s.steps, w.block, rule.floats)
	finite = true
	for c := range scales {
		if c < n && s.steps.Scales[c] != 0 {
			continue
		}
		to := min((c+1)*w.block, len(codes))
		values := row.slice(c*w.block, to).values(&s.slow)
		lo, hi := kernel.MinMax(values)
		finite = finite && Range{lo, hi}.finite()
		scales[c] = rule.normalize(values)
		wide := s.uint16s(len(values))
		kernel.EncodeSmall(wide, values, rule.small)
		for i, code := range wide {
			codes[c*w.block+i] = byte(code)
		}
	}
	return scales, finite
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

func (m *MXFP8) encodeRaw(dst [][]byte, p Patch, s *Scratch) error {
	wide := m.padded(p.Area).Cols
	rule := &blockRule{floats: e4m3Floats, small: kernel.E4M3, scales: m.rawScales, normalize: m.normalize}
	for i := range p.Rows {
		scales, finite := m.rawRow(dst[0][i*wide:i*wide+p.Cols], p.plain.slice(i*p.Cols, (i+1)*p.Cols), rule, s)
		if !finite && !m.o.AllowNonfinite {
			return CheckArea(p.Area, p.plain.values(&s.slow), m.shape[1])
		}
		m.putScales(dst[1], scales, i, wide)
	}
	return nil
}

// rawScales are powers of 2, which need no rounding.
func (m *MXFP8) rawScales(codes []byte, steps kernel.Steps, amax []float32, _ *Scratch) {
	for c, a := range amax {
		codes[c] = scaleExponent(a)
		scale := math.Float32frombits(uint32(codes[c]) << 23)
		if !steps.Set(c, 0, scale) || a == 0 || !finite(a) {
			steps.Scales[c] = 0
		}
	}
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

// rawRows is encodeRows.
func (n *NVFP4) rawRows(dst [][]byte, p *Patch, tensor float32, s *Scratch) {
	wide := n.padded(p.Area).Cols
	rule := &blockRule{floats: e2m1Floats, small: kernel.E2M1,
		scales: func(codes []byte, steps kernel.Steps, amax []float32, s *Scratch) {
			rawScalesFP4(codes, steps, amax, tensor, s)
		},
		normalize: func(block []float32) byte { return normalizeFP4(block, tensor) },
	}
	codes := sized(&s.bytes, wide)
	clear(codes)
	for i := range p.Rows {
		scales, _ := n.rawRow(codes[:p.Cols], p.plain.slice(i*p.Cols, (i+1)*p.Cols), rule, s)
		n.putScales(dst[1], scales, i, wide)
		kernel.PackFoursHigh(dst[0][i*wide/2:(i+1)*wide/2], codes)
	}
}

// rawScalesFP4 casts a sixth of the greatest magnitudes, in units of the
// tensor's scale, to E4M3, as normalizeFP4 does one by one.
func rawScalesFP4(codes []byte, steps kernel.Steps, amax []float32, tensor float32, s *Scratch) {
	none, sixths := sized(&s.lo, len(amax)), sized(&s.sixths, len(amax))
	clear(none)
	kernel.Spans(sixths, steps.Inverses, none, amax, 6)
	s.one = s.one.Sized(1)
	if !s.one.Set(0, 0, tensor) {
		clear(steps.Scales)
		return
	}
	kernel.EncodeFloats(codes, kernel.AsBytes(sixths), kernel.RawF32, s.one, len(amax), e4m3Floats)
	for c, a := range amax {
		if !steps.Set(c, 0, tensor*e4m3Values[codes[c]]) || !finite(a) {
			steps.Scales[c] = 0
		}
	}
}
