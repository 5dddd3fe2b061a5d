package sdnq

import (
	"github.com/tensorpress/tensorpress/internal/group"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// fuse decides whether a scheme's codes can be made so.
func (s *Scheme) fuse() {
	f := &group.Fused{Grid: &s.Grid, AllowNonfinite: s.AllowNonfinite, Ranges: s.Dtype.Unsigned, Groups: s}
	switch n := s.numbers.(type) {
	case ints:
		f.Ints = &kernel.Ints{Lo: n.lo, Hi: n.hi, Offset: n.offset}
		if n.hi != float32(s.Dtype.Max) {
			return // the largest code has a bit too many
		}
	case native:
		f.Floats = kernel.SmallFloats(n.f, n.max, false)
	case packed:
		lo, hi := n.bounds()
		f.Floats = kernel.PackedFloats(n.f, lo, hi)
	}
	if s.Inner > 1 {
		apart := *f
		apart.Grid = &group.Grid{Group: s.Group / s.Inner}
		f.Deinterleaved = &apart
	}
	if s.Bits <= 8 && !s.Codebook && s.chances == nil {
		s.fused = f
	}
}

func (s *Scheme) StepOf(steps kernel.Steps, i int, r tile.Range) bool {
	scale, zero := s.scaleOf(r)
	return steps.Set(i, zero, scale) && r.Finite()
}

func (s *Scheme) StepAll(steps kernel.Steps, lo, hi []float32) bool {
	copy(steps.Zeros, lo)
	all := kernel.Spans(steps.Scales, steps.Inverses, lo, hi, float32(s.Dtype.Divisor))
	if s.ScaleDtype == safetensors.F32 {
		return all
	}
	all = true
	for i := range hi {
		all = steps.Set(i, s.round(steps.Zeros[i]), s.round(steps.Scales[i])) && all
	}
	return all
}

func (s *Scheme) Collect(side *group.Companions, steps kernel.Steps, _ []float32) {
	side.Scales = append(side.Scales, steps.Scales...)
	if s.Dtype.Unsigned {
		side.Zeros = append(side.Zeros, steps.Zeros...)
	}
}

func (s *Scheme) Slowly(codes []byte, values []float32, r tile.Range, scratch *tile.Scratch) {
	s.normalize(values, r)
	wide := scratch.Uint16s(len(values))
	s.numbers.encode(wide, values)
	for i, c := range wide {
		codes[i] = byte(c)
	}
}
