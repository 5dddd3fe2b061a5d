package search

import (
	"math"

	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/transpose"
	"github.com/tensorpress/tensorpress/safetensors"
)

const lanes = kernel.LineLanes

// long is from how many values on a group fills all lanes by itself.
const long = 512

// lines are the values of a batch of groups as kernels take them, and what was found.
// Short groups lie side by side, 16 to a block, and long ones are cut into rows.
type lines struct {
	wide       []float32
	x, weights []float32
	y          []uint32 // values of the block at work in whole numbers, where it is searched in them
	size, rows int      // values of a group; rows of 16 values of a block, or of a long group
	groups     int
	plain      kernel.Steps // as they were stored
	found      kernel.Steps
	mean       []float32 // of the codes of what was found
	scales     []float32 // candidates, as they are stored
	zeros      []float32
	moved      []float32
	work       work
	now        block // the one at work
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
	if l.Weights == nil {
		for i := range all {
			all[i] = 1
		}
		return all
	}
	for at := 0; at < n; {
		at += copy(all[at:], l.Weights[(start+at)%len(l.Weights):])
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
}

func (b *lines) block(first int) *block {
	k := &b.now
	*k = block{lines: b, first: first, count: min(lanes, b.groups-first)}
	w := &b.work
	w.n.Weights = filled(float32(b.size))
	if len(b.weights) > 0 {
		k.sumWeights()
	}
	for i, n := range w.n.Weights {
		w.n.Inverses[i] = 1 / n
	}
	return k
}

// inWhole reports whether groups are searched in whole numbers, which is faster.
func (b *lines) inWhole(l *Lines) bool {
	return l.whole != nil && len(b.weights) == 0 && b.rows%2 == 0
}

// layWhole makes the block's values whole numbers: from the zero point on, a range of
// [kernel.WholeRange], or one on each side of zero.
func (k *block) layWhole(l *Lines) {
	w := &k.work
	w.plain = k.line(k.plain)
	width := l.Hi - l.Lo
	if l.Through {
		width = l.Hi
	}
	for i, scale := range w.plain.Scale {
		w.unit[i] = float32(scale*width) / kernel.WholeRange
		w.factor[i] = kernel.WholeRange / float32(scale*width)
	}
	size := k.rows * lanes / 2
	if !k.long() {
		k.y = tile.Sized(&k.y, size)
		kernel.WholeRows(k.y, k.part(k.x, k.first, lanes), &w.plain.From, &w.factor)
	} else {
		k.y = tile.Sized(&k.y, size*k.count)
		for i := range k.count {
			w.one.From, w.one.Scale = filled(w.plain.From[i]), filled(w.factor[i])
			kernel.WholeRows(k.y[i*size:(i+1)*size], k.ofLong(k.x, i), &w.one.From, &w.one.Scale)
		}
	}
	w.plain = kernel.Line{Scale: filled(kernel.WholeRange / width)}
}

// sumWhole is sum in whole numbers.
func (k *block) sumWhole(l *Lines) {
	w := &k.work
	kernel.PlaceLines(&w.place, &w.line, l.whole)
	if !k.long() {
		kernel.SumWholeLines(&w.sums, k.y, &w.place, l.whole)
		return
	}
	size := k.rows * lanes / 2
	for i := range k.count {
		for lane := range lanes {
			w.places.From[lane], w.places.Factor[lane] = w.place.From[i], w.place.Factor[i]
		}
		kernel.SumWholeLines(&w.parts, k.y[i*size:(i+1)*size], &w.places, l.whole)
		w.join(i)
	}
}

// join adds up the lanes of a long group.
func (w *work) join(i int) {
	sums, parts := &w.sums, &w.parts
	sums.Q[i], sums.QQ[i], sums.R[i], sums.RR[i], sums.RQ[i] = total(&parts.Q), total(&parts.QQ), total(&parts.R), total(&parts.RR), total(&parts.RQ)
}

func (k *block) sumWeights() {
	if !k.long() {
		k.work.n.Weights = columnSums(k.part(k.weights, k.first, lanes))
		return
	}
	for i := range k.count {
		sums := columnSums(k.ofLong(k.weights, i))
		k.work.n.Weights[i] = total(&sums)
	}
}

func columnSums(x []float32) (sums kernel.Lanes) {
	for i, v := range x {
		sums[i%lanes] += v
	}
	return sums
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

// work is what the search of a block needs, kept from block to block.
type work struct {
	n           kernel.LineWeights
	plain, line kernel.Line
	inverse     kernel.Lanes
	sums, parts kernel.LineSums
	fit         kernel.LineFit
	best, from  [refined]kernel.LineFit
	one, other  kernel.Line // of one long group, in all lanes
	left, least kernel.Lanes

	place, places kernel.WholeLine
	unit, factor  kernel.Lanes // of whole numbers, and what makes values such
}

// sum finds the sums for the line of each group.
func (k *block) sum(l *Lines) {
	w := &k.work
	for i, scale := range w.line.Scale {
		w.inverse[i] = 1 / scale
	}
	if !k.long() {
		kernel.SumLines(&w.sums, k.part(k.x, k.first, lanes), k.part(k.weights, k.first, lanes), &w.line.From, &w.inverse, l.Lo, l.Hi)
		return
	}
	for i := range k.count {
		w.one.From, w.one.Scale = filled(w.line.From[i]), filled(w.inverse[i])
		kernel.SumLines(&w.parts, k.ofLong(k.x, i), k.ofLong(k.weights, i), &w.one.From, &w.one.Scale, l.Lo, l.Hi)
		w.join(i)
	}
}

// errors sets the error of each group that is encoded by one line and restored by
// another.
func (k *block) errors(errors *kernel.Lanes, by, restored *kernel.Line, l *Lines) {
	if !k.long() {
		l.errors(errors, k.part(k.x, k.first, lanes), k.part(k.weights, k.first, lanes), by, restored)
		return
	}
	w := &k.work
	for i := range k.count {
		w.one.From, w.one.Scale = filled(by.From[i]), filled(by.Scale[i])
		w.other.From, w.other.Scale = filled(restored.From[i]), filled(restored.Scale[i])
		l.errors(&w.left, k.ofLong(k.x, i), k.ofLong(k.weights, i), &w.one, &w.other)
		errors[i] = total(&w.left)
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

// search finds a line for each group that restores its codes best.
func (k *block) search(l *Lines) {
	w := &k.work
	w.plain = k.line(k.plain)
	whole := k.inWhole(l)
	if whole {
		k.layWhole(l)
	}
	k.none()
	for _, start := range l.starts {
		start.from(&w.line, &w.plain)
		k.step(l, whole)
	}
	w.from = w.best
	for i := range w.from {
		w.line = w.from[i].Line
		for range steps {
			k.step(l, whole)
			w.line = w.fit.Line
		}
	}
	for i := range k.count {
		at := k.first + i
		zero, scale := w.best[0].From[i], w.best[0].Scale[i]
		if whole {
			zero, scale = k.plain.Zeros[at]+float32(zero*w.unit[i]), float32(scale*w.unit[i])
		}
		k.found.Zeros[at], k.found.Scales[at], k.mean[at] = zero, scale, w.best[0].Mean[i]
	}
}

// none forgets the best lines.
func (k *block) none() {
	for i := range k.work.best {
		k.work.best[i].Error = filled(float32(math.Inf(1)))
	}
}

// step moves the line by least squares, and keeps where it comes to if that is among
// the best.
func (k *block) step(l *Lines, whole bool) {
	w := &k.work
	if whole {
		k.sumWhole(l)
	} else {
		k.sum(l)
	}
	kernel.FitLines(&w.fit, &w.sums, &w.n, &w.line, l.Through)
	kernel.KeepLines(&w.best, &w.fit)
}

// errors is [kernel.LineErrors] of values that are restored in l.Restored.
func (l *Lines) errors(errors *kernel.Lanes, x, weights []float32, by, restored *kernel.Line) {
	if l.Restored == 0 || l.Restored == safetensors.F32 {
		kernel.LineErrors(errors, x, weights, by, restored, l.Lo, l.Hi)
		return
	}
	*errors = kernel.Lanes{}
	for i, v := range x {
		lane := i % lanes
		t := min(max(float32(v-by.From[lane])/by.Scale[lane], l.Lo), l.Hi)
		q := float32(math.RoundToEven(float64(t)))
		d := v - floats.RoundTo(kernel.FMA(q, restored.Scale[lane], restored.From[lane]), l.Restored)
		if len(weights) > 0 {
			errors[lane] += float32(float32(weights[i]*d) * d)
		} else {
			errors[lane] += float32(d * d)
		}
	}
}
