package sdnq

import (
	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/search"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Gains reports whether a search for scales finds better ones than the plain ones.
func (s *Scheme) Gains() bool {
	return s.fused != nil && s.Dtype.Class == dtype.Integer && s.Bits <= 7 && (s.scale.store == nil || s.scale.store.levels == 0)
}

// searching returns the scheme's way to encode with a search for scales, nil where it
// gains nothing.
func (e *schemeEncoder) searching() *group.Fused {
	if !e.Gains() {
		return nil
	}
	f := *e.fused
	f.Search = e.lines()
	if f.Deinterleaved != nil {
		apart := *f.Deinterleaved
		apart.Search = f.Search
		f.Deinterleaved = &apart
	}
	return &f
}

// encoder returns what encodes groups of a scheme.
func (k *passResults) encoder(s *Scheme) *group.Fused {
	if k.search != nil {
		return k.search
	}
	return s.fused
}

func (e *schemeEncoder) lines() *search.Lines {
	lo, hi := e.numbers.bounds()
	return &search.Lines{Lo: lo, Hi: hi, Through: !e.Dtype.Unsigned, Stored: storedScales{e}}
}

// storedScales are scales and zero points as the layer stores them.
type storedScales struct{ e *schemeEncoder }

func (d storedScales) Scales(dst, src []float32, s *tile.Scratch) { d.store(0, dst, src, s) }

func (d storedScales) Zeros(dst, src []float32, s *tile.Scratch) { d.store(1, dst, src, s) }

// store rounds scales (which is 0) or zero points (1), or quantizes them and back.
func (d storedScales) store(which int, dst, src []float32, s *tile.Scratch) {
	state := d.e.stored[which]
	if state == nil {
		copy(dst, src)
		floats.RoundAll(dst, d.e.ScaleDtype)
		return
	}
	state.round(dst, src, buffersOf(s))
}

func (d storedScales) Step() float32 {
	state := d.e.stored[0]
	if state == nil || state.scheme.Dtype.Class != dtype.Integer {
		return 0
	}
	step, _ := state.scheme.scaleOf(state.span)
	return step
}

func (d storedScales) Signed() bool {
	return d.e.stored[0] == nil || !d.e.stored[0].scheme.Dtype.Unsigned
}

// round sets dst to what scales are restored as once they are quantized.
func (s *doubleQuantState) round(dst, src []float32, scratch *buffers) {
	n := tile.CeilDiv(len(src), s.scheme.Block) * s.scheme.Block
	padded := make([]float32, n)
	copy(padded, src)
	parts := make([][]byte, len(s.scheme.parts))
	for i := range parts {
		parts[i] = make([]byte, tile.SpanBytes(s.scheme.Written(i, tile.Line(0, n))))
	}
	s.encode(parts, 0, padded, scratch)
	s.scheme.Decode(padded, parts, tile.Line(0, n), safetensors.F32, sub(&scratch.inner))
	copy(dst, padded)
}
