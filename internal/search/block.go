package search

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
)

const lanes = kernel.LineLanes

// long is from how many values on a group fills all lanes by itself.
const long = 512

// lines are the values of a batch of groups as kernels take them, and what was found.
// Short groups lie side by side, 16 to a block, and long ones are cut into rows.
type lines struct {
	wide       []float32
	x, weights []float32
	size, rows int // values of a group; rows of 16 values of a block, or of a long group
	groups     int
	plain      kernel.Steps // as they were stored
	found      kernel.Steps
	mean       []float32 // of the codes of what was found
	scales     []float32 // candidates, as they are stored
	zeros      []float32
	moved      []float32
}

func (b *lines) long() bool { return b.size >= long }

// load lays the values of groups out.
func (b *lines) load(l *Lines, v tile.Values, size int, s *tile.Scratch) {
	b.size, b.groups = size, v.Len()/size
	wide := v.Widen(&b.wide)
	b.weights = b.weights[:0]
	switch {
	case b.long():
		b.rows = tile.CeilDiv(size, lanes)
		b.x = b.padded(&b.x, wide)
		if l.Weights != nil || size%lanes != 0 {
			b.weights = b.padded(&b.weights, l.weightsOf(v.Col, len(wide), s))
		}
	default:
		b.rows = size
		b.x = b.side(&b.x, wide)
		if l.Weights != nil {
			b.weights = b.side(&b.weights, l.weightsOf(v.Col, len(wide), s))
		}
	}
}

// weightsOf returns how much the values of a run count.
func (l *Lines) weightsOf(start, n int, s *tile.Scratch) []float32 {
	all := s.Floats(n)
	for i := range all {
		if l.Weights == nil {
			all[i] = 1
		} else {
			all[i] = l.Weights[(start+i)%len(l.Weights)]
		}
	}
	return all
}

// padded cuts each group into whole rows, with zeros at the end.
func (b *lines) padded(buffer *[]float32, x []float32) []float32 {
	to := tile.Sized(buffer, b.groups*b.rows*lanes)
	*buffer = to
	for i := range b.groups {
		group := to[i*b.rows*lanes : (i+1)*b.rows*lanes]
		clear(group[copy(group, x[i*b.size:(i+1)*b.size]):])
	}
	return to
}

// side lays 16 groups side by side. Lanes without a group have the last one once more.
func (b *lines) side(buffer *[]float32, x []float32) []float32 {
	to := tile.Sized(buffer, tile.CeilDiv(b.groups, lanes)*b.rows*lanes)
	*buffer = to
	for first := 0; first < b.groups; first += lanes {
		block := to[first*b.rows : (first+lanes)*b.rows]
		if first+lanes <= b.groups {
			transpose.All(block, x[first*b.size:(first+lanes)*b.size], lanes, b.size)
			continue
		}
		for lane := range lanes {
			group := x[min(first+lane, b.groups-1)*b.size:][:b.size]
			for i, v := range group {
				block[i*lanes+lane] = v
			}
		}
	}
	return to
}

// block is 16 groups of a batch, or as many as are left.
type block struct {
	*lines
	first, count int
	n            kernel.Lanes // sums of weights
}

func (b *lines) block(first int) *block {
	k := &block{lines: b, first: first, count: min(lanes, b.groups-first)}
	for lane := range k.n {
		k.n[lane] = float32(b.size)
	}
	if len(b.weights) > 0 {
		k.each(b.weights, nil, func(w, _ []float32, to func(sums *kernel.Lanes)) { to(columnSums(w)) }, &k.n)
	}
	return k
}

func columnSums(x []float32) *kernel.Lanes {
	var sums kernel.Lanes
	for i, v := range x {
		sums[i%lanes] += v
	}
	return &sums
}

// each calls f with the values of all groups, or of each long one, and adds up what f
// finds by group.
func (k *block) each(x, weights []float32, f func(x, weights []float32, to func(sums *kernel.Lanes)), into *kernel.Lanes) {
	if !k.long() {
		f(k.part(x, k.first, lanes), k.part(weights, k.first, lanes), func(sums *kernel.Lanes) { *into = *sums })
		return
	}
	for i := range k.count {
		f(k.ofLong(x, i), k.ofLong(weights, i), func(sums *kernel.Lanes) { into[i] = total(sums) })
	}
}

// part returns the rows of groups side by side.
func (k *block) part(x []float32, first, n int) []float32 {
	if len(x) == 0 {
		return nil
	}
	return x[first*k.rows : (first+n)*k.rows]
}

// ofLong returns the rows of long group i of the block.
func (k *block) ofLong(x []float32, i int) []float32 {
	if len(x) == 0 {
		return nil
	}
	size := k.rows * lanes
	return x[(k.first+i)*size : (k.first+i+1)*size]
}

// total adds up lanes, the far half to the near one.
func total(sums *kernel.Lanes) float32 {
	x := *sums
	for n := lanes / 2; n > 0; n /= 2 {
		for i := range n {
			x[i] += x[i+n]
		}
	}
	return x[0]
}

// sum finds the sums for a line of each group.
func (k *block) sum(sums *kernel.LineSums, line *kernel.Line, l *Lines) {
	var inverse kernel.Lanes
	for i, scale := range line.Scale {
		inverse[i] = 1 / scale
	}
	if !k.long() {
		kernel.SumLines(sums, k.part(k.x, k.first, lanes), k.part(k.weights, k.first, lanes), &line.From, &inverse, l.Lo, l.Hi)
		return
	}
	var parts kernel.LineSums
	for i := range k.count {
		from, factor := filled(line.From[i]), filled(inverse[i])
		kernel.SumLines(&parts, k.ofLong(k.x, i), k.ofLong(k.weights, i), &from, &factor, l.Lo, l.Hi)
		sums.Q[i], sums.QQ[i], sums.R[i], sums.RR[i], sums.RQ[i] = total(&parts.Q), total(&parts.QQ), total(&parts.R), total(&parts.RR), total(&parts.RQ)
	}
}

// errors sets the error of each group that is encoded by one line and restored by
// another.
func (k *block) errors(errors *kernel.Lanes, by, restored *kernel.Line, l *Lines) {
	if !k.long() {
		kernel.LineErrors(errors, k.part(k.x, k.first, lanes), k.part(k.weights, k.first, lanes), by, restored, l.Lo, l.Hi)
		return
	}
	var parts kernel.Lanes
	for i := range k.count {
		one := kernel.Line{From: filled(by.From[i]), Scale: filled(by.Scale[i])}
		other := kernel.Line{From: filled(restored.From[i]), Scale: filled(restored.Scale[i])}
		kernel.LineErrors(&parts, k.ofLong(k.x, i), k.ofLong(k.weights, i), &one, &other, l.Lo, l.Hi)
		errors[i] = total(&parts)
	}
}

func filled(x float32) (all kernel.Lanes) {
	for i := range all {
		all[i] = x
	}
	return all
}

// line returns the steps of the block's groups.
func (k *block) line(steps kernel.Steps) (line kernel.Line) {
	for i := range lanes {
		at := min(k.first+i, k.groups-1)
		line.From[i], line.Scale[i] = steps.Zeros[at], steps.Scales[at]
	}
	return line
}

// best are the lines with the least errors so far, the first one ahead.
type best [refined]kernel.LineFit

func (b *best) reset() {
	for i := range b {
		b[i].Error = filled(float32(math.Inf(1)))
	}
}

// offer takes a fit into the places that it deserves, in each lane. Of equal ones the
// earlier stays.
func (b *best) offer(fit *kernel.LineFit) {
	for i, e := range fit.Error {
		if !(e < b[refined-1].Error[i]) {
			continue
		}
		at := refined - 1
		for ; at > 0 && e < b[at-1].Error[i]; at-- {
			setLane(&b[at], &b[at-1], i)
		}
		setLane(&b[at], fit, i)
	}
}

func setLane(to, from *kernel.LineFit, i int) {
	to.From[i], to.Scale[i], to.Error[i], to.Mean[i] = from.From[i], from.Scale[i], from.Error[i], from.Mean[i]
}

// search finds a line for each group that restores its codes best.
func (k *block) search(l *Lines) {
	var found best
	found.reset()
	plain := k.line(k.plain)
	for start := range l.starts {
		line := start(&plain)
		k.step(&line, l, &found)
	}
	champion := found[0]
	for i := range found {
		fit := found[i]
		for range steps {
			var one best
			one.reset()
			k.step(&fit.Line, l, &one)
			fit = one[0]
			keep(&champion, &fit)
		}
	}
	for i := range k.count {
		at := k.first + i
		k.found.Zeros[at], k.found.Scales[at], k.mean[at] = champion.From[i], champion.Scale[i], champion.Mean[i]
	}
}

// step moves a line by least squares and offers where it comes to.
func (k *block) step(line *kernel.Line, l *Lines, found *best) {
	var sums kernel.LineSums
	var fit kernel.LineFit
	k.sum(&sums, line, l)
	kernel.FitLines(&fit, &sums, &k.n, line, l.Through)
	found.offer(&fit)
}

// keep replaces what is worse than a fit.
func keep(champion, fit *kernel.LineFit) {
	for i, e := range fit.Error {
		if e < champion.Error[i] {
			setLane(champion, fit, i)
		}
	}
}
