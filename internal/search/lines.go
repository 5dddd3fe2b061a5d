// Package search chooses scales and zero points that lose less than those between the
// smallest and the largest value: the same codes' format, and the same bytes of it,
// with other numbers in them. No group is restored worse than without the search.
package search

import (
	"sync"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Lines searches the scales of groups of integer codes, which restore the code q as
// zero + scale·q. It starts from several lines with the ends of the range drawn in,
// each of its own, moves each by least squares to where it restores its codes best, and
// goes on from the best two.
type Lines struct {
	Lo, Hi float32 // the codes
	// Through says that there are no zero points. Scales may then be negative, so that
	// the one code more on the negative side serves whichever side needs it.
	Through bool
	// Stored tells what scales and zero points are once they are stored.
	Stored Stored
	// Restored is the dtype in which values are restored, 0 for F32.
	Restored safetensors.Dtype
	// Weights are how much the squared error of a value counts, by its column; nil if
	// all count alike.
	Weights []float32

	once   sync.Once
	whole  *kernel.WholeCodes // for groups of whole numbers; nil if there are too many
	starts []start
}

func (l *Lines) prepare() {
	l.whole, l.starts = kernel.NewWholeCodes(l.Lo, l.Hi), l.newStarts()
}

// Stored is what becomes of scales and zero points when they are stored.
type Stored interface {
	// Scales sets dst to what scales are restored as, Zeros does so for zero points.
	Scales(dst, src []float32, s *tile.Scratch)
	Zeros(dst, src []float32, s *tile.Scratch)
	// Signed reports whether scales may be negative.
	Signed() bool
	// Step is the distance between neighbouring scales where it is coarse, 0 where it
	// is too fine to matter.
	Step() float32
}

const (
	// along is how many starts there are for each end of the range. The best two lines go
	// on, each for three steps. Together they come within 5 % of the exact optimum for 4
	// bits and within 1 % for fewer.
	along   = 4
	refined = 2
	steps   = 3
	// Gain is the part of a group's error that another scale may leave at most, to replace
	// the plain one: sums in single precision are exact enough for that.
	Gain = 1 - 1.0/1024
)

// drawn is how far an end of the range may be drawn in, by bits; one start lies as far
// outside as outward says.
var drawn = [...]float32{1: 0.45, 2: 0.34, 3: 0.22, 4: 0.16, 5: 0.12, 6: 0.06, 7: 0.04, 8: 0.03}

const outward = 0.02

// draws returns the fractions of the range by which an end is drawn in.
func (l *Lines) draws() [along]float32 {
	bits := 1
	for n := int(l.Hi-l.Lo) + 1; n > 1<<bits && bits < len(drawn)-1; bits++ {
	}
	var all [along]float32
	for i := range all {
		all[i] = float32(float32(i)*(drawn[bits]+outward))/(along-1) - outward
	}
	return all
}

// Improve replaces steps of groups of size values by better ones, and leaves those that
// it cannot improve.
func (l *Lines) Improve(steps kernel.Steps, v tile.Values, size int, s *tile.Scratch) {
	l.once.Do(l.prepare)
	b := tile.PartOf[lines](s)
	b.load(l, v, size, s)
	groups := len(steps.Scales)
	b.plain, b.found, b.mean = b.plain.Sized(groups), b.found.Sized(groups), tile.Sized(&b.mean, groups)
	copy(b.plain.Zeros, steps.Zeros)
	copy(b.plain.Scales, steps.Scales)
	for at := 0; at < groups; at += kernel.LineLanes {
		b.block(at).search(l)
	}
	b.choose(l, steps, s)
}

// start is a line from which the search begins: the plain one moved by a part of the
// range, with its scale times a factor.
type start struct{ shift, factor float32 }

// newStarts returns where the search begins: each end of the range drawn in by itself
// or, where there are no zero points, the scale times factors of either sign.
func (l *Lines) newStarts() (all []start) {
	draws, codes := l.draws(), l.Hi-l.Lo
	if !l.Through {
		for _, low := range draws {
			for _, high := range draws {
				factor := 1 - low - high // about the code 0
				all = append(all, start{float32(low*codes) + float32(l.Lo*(1-factor)), factor})
			}
		}
		return all
	}
	const each = 2 * along
	least := 1 - float32(2.2*draws[along-1])
	for i := range each {
		all = append(all, start{0, 1 + outward - float32(float32(i)*(1+outward-least))/(each-1)})
	}
	if l.Stored.Signed() {
		for _, s := range all[:each] {
			all = append(all, start{0, -s.factor})
		}
	}
	return all
}

func (s start) from(line, plain *kernel.Line) {
	for i, scale := range plain.Scale {
		line.From[i], line.Scale[i] = plain.From[i]+float32(s.shift*scale), float32(scale*s.factor)
	}
}

// choose takes, for each group, the plain step or what was found, as it is stored.
func (b *lines) choose(l *Lines, steps kernel.Steps, s *tile.Scratch) {
	n := b.groups
	b.scales, b.zeros, b.moved = tile.Sized(&b.scales, 4*n), tile.Sized(&b.zeros, 4*n), tile.Sized(&b.moved, n)
	l.Stored.Scales(b.scales[:n], b.plain.Scales[:n], s)
	l.Stored.Zeros(b.zeros[:n], b.plain.Zeros[:n], s)
	offers := 1
	step := l.Stored.Step()
	if step > 0 { // neighbours take 1 % off with 256 scales to choose from, 20 % with 16
		offers = 3
	}
	for j := range offers {
		scales, zeros := b.scales[(1+j)*n:(2+j)*n], b.zeros[(1+j)*n:(2+j)*n]
		for i, scale := range b.found.Scales[:n] {
			b.moved[i] = scale + float32(float32(j-offers/2)*step)
		}
		l.Stored.Scales(scales, b.moved, s)
		if l.Through {
			copy(zeros, b.plain.Zeros[:n])
			continue
		}
		for i, scale := range scales { // the line turns about the middle of its codes
			b.moved[i] = b.found.Zeros[i] + float32((b.found.Scales[i]-scale)*b.mean[i])
		}
		l.Stored.Zeros(zeros, b.moved, s)
	}
	for at := 0; at < n; at += lanes {
		b.block(at).chooseAmong(l, steps, offers)
	}
}

// chooseAmong sets the steps that leave least, in the order of the offers.
func (k *block) chooseAmong(l *Lines, steps kernel.Steps, offers int) {
	w, n := &k.work, k.groups
	of := func(j int) kernel.Line {
		return k.line(kernel.Steps{Zeros: k.zeros[j*n : (j+1)*n], Scales: k.scales[j*n : (j+1)*n]})
	}
	w.plain, w.line = k.line(k.plain), of(0)
	k.errors(&w.least, &w.plain, &w.line, l)
	for i := range w.least {
		w.least[i] *= Gain
	}
	for j := range offers {
		w.line = of(1 + j)
		k.errors(&w.fit.Error, &w.line, &w.line, l)
		for i, e := range w.fit.Error[:k.count] {
			if e < w.least[i] && divisible(w.plain.Scale[i]) && divisible(w.line.Scale[i]) {
				w.least[i] = e
				steps.Set(k.first+i, w.line.From[i], w.line.Scale[i])
			}
		}
	}
}

// divisible reports whether kernels can divide by a scale of either sign.
func divisible(scale float32) bool { return kernel.Divisible(max(scale, -scale)) }
