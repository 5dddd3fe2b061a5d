package sdnq

import (
	"fmt"
	"sync"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/rotation"
	"github.com/tensorpress/tensorpress/internal/search"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Gains reports whether a search for scales finds better ones than the plain ones.
func (s *Scheme) Gains() bool {
	if s.fused == nil || s.scale.store != nil && s.scale.store.levels > 0 {
		return false
	}
	return GainsIn(s.Dtype) && (s.Dtype.Class == dtype.Integer || s.Group <= search.Most)
}

// GainsIn reports whether a search gains something in a dtype: not where it has more
// than 8 bits, and loses next to nothing.
func GainsIn(t *dtype.Type) bool { return t.Bits <= 8 }

// searching makes the encoder look for scales, and returns the limit of tiles. Groups
// that are searched in one piece lie within one tile, however little memory there is;
// larger ones are always larger than tiles: bytes do not depend on memory.
func (e *schemeEncoder) searching(limit, unit int) int {
	f, lines := *e.fused, e.lines()
	e.search = &f
	switch {
	case e.Dtype.Class != dtype.Integer:
		f.Search = e.floats()
		limit = max(limit, unit)
	case e.Group <= search.Most:
		f.Search = lines
		limit = max(limit, unit)
	case e.Inner == 1:
		e.large = &largeSearch{lines: lines, all: make([]*search.Large, e.Groups())}
		f.Found = e.large.step
		limit = 0
	}
	if f.Deinterleaved != nil {
		apart := *f.Deinterleaved
		apart.Search = f.Search
		f.Deinterleaved = &apart
	}
	return limit
}

// columnMoments are the moments of the columns that are encoded, nil if they are all
// the same. Only what multiplies its columns by inputs has any.
func (s *Scheme) columnMoments(o Options) ([]float32, error) {
	switch columns := s.geometry.rest; {
	case len(o.Moments) == 0 || o.Kind != Linear:
		return nil, nil
	case len(o.Moments) != columns:
		return nil, fmt.Errorf("moments of %d inputs, and the weight has %d columns", len(o.Moments), columns)
	}
	return rotation.Moments(o.Moments, s.Hadamard), nil
}

// Moments are how much errors count by columns, in effect; nil if all count alike.
func (s *Scheme) Moments() []float32 { return s.moments }

// encoder returns what encodes groups of a scheme.
func (k *passResults) encoder(s *Scheme) *group.Fused {
	if k.search != nil {
		return k.search
	}
	return s.fused
}

func (e *schemeEncoder) lines() *search.Lines {
	lo, hi := e.numbers.bounds()
	return &search.Lines{Lo: lo, Hi: hi, Through: !e.Dtype.Unsigned, Stored: storedScales{e}, Restored: e.restored, Weights: e.moments}
}

// floats searches the scales of floats. What is lost is told by rounding alone where
// codes are made by it and restored with the scales that they are made with.
func (e *schemeEncoder) floats() *search.Floats {
	t := e.Dtype
	f := &search.Floats{Ratios: search.Octave, From: t.Unsigned, Weights: e.moments}
	f.Rounding = kernel.RoundingOf(uint32(t.Mantissa), 1<<(t.Exponent-1)-1, float32(t.Max))
	if t.Bits <= 4 {
		f.Ratios = search.Around
	}
	native, is := e.numbers.(native)
	if is {
		f.Rounding = kernel.RoundingOf(native.f.Mantissa, native.f.Bias, native.max)
	}
	if e.ScaleDtype != safetensors.F32 || e.stored != [2]*doubleQuantState{} {
		f.Stored = storedScales{e}
	}
	if f.Stored != nil || !is {
		f.Exact = &search.Restoring{Codes: e.fused.Floats, Values: e.numbers.values(), Dtype: e.ScaleDtype}
	}
	return f
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

// largeSearch is the search for the scales of groups larger than tiles.
type largeSearch struct {
	lines *search.Lines
	all   []*search.Large
	once  sync.Once
}

// step returns what was found for a group.
func (l *largeSearch) step(group int) (zero, scale float32, ok bool) { return l.all[group].Step() }

// replace puts what was found into the scales and zero points of all groups.
func (l *largeSearch) replace(scratch *buffers) {
	if l == nil {
		return
	}
	for i := range l.all {
		if zero, scale, ok := l.step(i); ok {
			scratch.Scales[i] = scale
			if len(scratch.Zeros) > 0 {
				scratch.Zeros[i] = zero
			}
		}
	}
}

// sampling is the pass that takes a sample of every group, on which its scale is
// searched.
type sampling struct{ *schemeEncoder }

// sample is that of a part of a group, and how much its values count.
type sample struct{ values, counts []float32 }

func (p *sampling) Read(v tile.Values, s *tile.Scratch) (any, error) {
	w, err := p.prepared(v, &p.passResults, buffersOf(s))
	if err != nil {
		return nil, err
	}
	var samples []sample
	p.Units(v.Col, len(w), func(unit, from, to int) {
		at := v.Col + from - unit*p.Group
		samples = append(samples, sample{
			values: search.Sample(nil, w[from:to], at, p.Group),
			counts: p.large.lines.Counts(tile.ValuesOf(tile.Line(v.Col+from, v.Col+to), w[from:to]), at, p.Group, s),
		})
	})
	return samples, nil
}

func (p *sampling) Join(a tile.Area, found any) error {
	first := a.Col / p.Group
	for i, sample := range found.([]sample) {
		g := &p.large.all[first+i]
		if *g == nil {
			zero, scale := p.plainStep(first + i)
			*g = search.NewLarge(p.large.lines, zero, scale)
		}
		(*g).Add(sample.values, sample.counts)
	}
	return nil
}

func (e *schemeEncoder) plainStep(group int) (zero, scale float32) {
	scale, zero = e.scaleOf(e.ranges[group])
	return zero, scale
}

// weighing is the pass that compares what was found on samples with the plain scales.
type weighing struct{ *schemeEncoder }

func (p *weighing) Read(v tile.Values, s *tile.Scratch) (any, error) {
	w, err := p.prepared(v, &p.passResults, buffersOf(s))
	if err != nil {
		return nil, err
	}
	p.large.once.Do(func() {
		for _, g := range p.large.all {
			g.Search(s)
		}
	})
	var errors [][2]float64
	p.Units(v.Col, len(w), func(unit, from, to int) {
		errors = append(errors, p.large.all[unit].Errors(tile.ValuesOf(tile.Line(v.Col+from, v.Col+to), w[from:to]), s))
	})
	return errors, nil
}

func (p *weighing) Join(a tile.Area, found any) error {
	for i, e := range found.([][2]float64) {
		p.large.all[a.Col/p.Group+i].Weigh(e)
	}
	return nil
}
