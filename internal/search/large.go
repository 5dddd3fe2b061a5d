package search

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// Most is how many values a group may have to be searched in one piece. Of larger ones
// a sample is.
const Most = 1 << 16

// run is how many consecutive values of a sample lie together.
const run = 1024

// Sample appends the values of a group's sample that lie in a part of it, from value at
// of the group on, which has size values: runs at equal distances.
func Sample(dst, part []float32, at, size int) []float32 {
	stride := tile.CeilDiv(size, Most/run) / run * run
	for i := at / run * run; i < at+len(part); i += run {
		if i/run*run%max(stride, run) != 0 {
			continue
		}
		from, to := max(i, at), min(i+run, at+len(part))
		dst = append(dst, part[from-at:to-at]...)
	}
	return dst
}

// Large searches the scale of one group on a sample of its values, and then tells from
// the errors of all of them whether it is better.
type Large struct {
	lines  *Lines
	plain  kernel.Steps
	found  kernel.Steps
	sample []float32
	counts []float32  // how much the values of the sample count; nil if all do alike
	errors [2]float64 // of the plain scale and of the one found
}

// NewLarge prepares to search for a group with that plain step.
func NewLarge(l *Lines, zero, scale float32) *Large {
	g := &Large{lines: l, plain: kernel.Steps{}.Sized(1), found: kernel.Steps{}.Sized(1)}
	g.plain.Set(0, zero, scale)
	return g
}

// Add takes the next values of the sample, and how much they count.
func (g *Large) Add(sample, counts []float32) {
	g.sample, g.counts = append(g.sample, sample...), append(g.counts, counts...)
}

// Counts returns how much the values of a sample count that [Sample] takes of a part of
// a group: v is the part.
func (l *Lines) Counts(v tile.Values, at, size int, s *tile.Scratch) []float32 {
	if l.Weights == nil {
		return nil
	}
	return Sample(nil, l.weightsOf(v.Col, v.Len(), s), at, size)
}

// Search finds a scale from the sample.
func (g *Large) Search(s *tile.Scratch) {
	g.found.Set(0, g.plain.Zeros[0], g.plain.Scales[0])
	l := g.lines
	ofSample := Lines{Lo: l.Lo, Hi: l.Hi, Through: l.Through, Stored: l.Stored, Restored: l.Restored, Weights: g.counts}
	ofSample.Improve(g.found, tile.ValuesOf(tile.Line(0, len(g.sample)), g.sample), len(g.sample), s)
	g.sample, g.counts = nil, nil
}

// Errors returns the errors that the plain scale and the one found leave to a part of
// the group.
func (g *Large) Errors(v tile.Values, s *tile.Scratch) (errors [2]float64) {
	b := tile.PartOf[lines](s)
	for from := 0; from < v.Len(); from += Most {
		part := v.Part(from, min(from+Most, v.Len()))
		b.load(g.lines, part, part.Len(), s)
		for i, step := range []kernel.Steps{g.plain, g.found} {
			errors[i] += float64(b.leftBy(step, g.lines, s))
		}
	}
	return errors
}

// leftBy returns the error of the one group of a batch.
func (b *lines) leftBy(step kernel.Steps, l *Lines, s *tile.Scratch) float32 {
	k := b.block(0)
	b.scales, b.zeros = tile.Sized(&b.scales, 1), tile.Sized(&b.zeros, 1)
	l.Stored.Scales(b.scales[:1], step.Scales, s)
	l.Stored.Zeros(b.zeros[:1], step.Zeros, s)
	by, restored := k.line(step), k.line(kernel.Steps{Zeros: b.zeros[:1], Scales: b.scales[:1]})
	k.errors(&k.work.least, &by, &restored, l)
	return k.work.least[0]
}

// Weigh adds the errors of a part. Parts come in order.
func (g *Large) Weigh(errors [2]float64) {
	g.errors[0] += errors[0]
	g.errors[1] += errors[1]
}

// Step returns the step that was found, and reports false where the plain one is to
// stay.
func (g *Large) Step() (zero, scale float32, ok bool) {
	return g.found.Zeros[0], g.found.Scales[0], g.errors[1] < g.errors[0]*Gain
}
