package engine

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Trial is a way to store a weight, and what came of trying it.
type Trial struct {
	Step  *plan.Step
	Found []Sums   // by areas, in order
	parts []*Trial // of the matrices of a bank
}

// Total adds up what was found.
func (t *Trial) Total() Sums {
	total := Total(t.Found)
	for _, part := range t.parts {
		total.Add(part.Total())
	}
	return total
}

// Measuring measures what weights lose in several ways to store them, and writes nothing.
// A tile is read once, and then encoded, decoded and compared in every way. What is found
// depends on nothing but the weight: tiles are as large whatever memory there is.
type Measuring struct {
	*Quantization // of any plan for the weights; without writers
}

const (
	// trialMemory is what the work on a tile may take, in bytes.
	trialMemory = 4 << 20
	// mostBand is the most bytes of a band, which is read at once.
	mostBand = 4 << 20
)

// Tasks yields the tasks of a weight that is tried in several ways. It reports false if
// the run is over.
func (m *Measuring) Tasks(trials []*Trial, yield func(stream.Task) bool) bool {
	if len(trials) > 0 && codec.Matrices(trials[0].Step.Codec) != nil { // then all are
		return m.bank(trials, yield)
	}
	b := &bands{Measuring: m}
	for _, one := range trials {
		t := &trial{Trial: one, encoding: m.encodingIn(one.Step, trialMemory)}
		if b.takes(t) {
			b.trials = append(b.trials, t)
			continue
		}
		if err := t.spill(); err != nil {
			return yield(stream.Task{Do: func(*stream.Worker) error { return t.explain(err) }})
		}
		if !m.add(t.phases(), t.needs.Held, yield) {
			return false
		}
	}
	return len(b.trials) == 0 || m.add(b.phases(), 0, yield)
}

func (m *Measuring) add(phases []phase, held int64, yield func(stream.Task) bool) bool {
	return m.schedule.add(scheduled{phases, held, held > 0}, Workers(m.Resources), searches(m.Resources), yield)
}

// Flush yields the tasks that are left of all weights.
func (m *Measuring) Flush(yield func(stream.Task) bool) bool { return m.schedule.flush(yield) }

// bands are whole rows of a weight, of which each is read once for all trials whose
// encoders take them.
type bands struct {
	*Measuring
	trials     []*trial
	rows, cols int // of the weight
	unit       int // rows that hold whole units of every trial
}

// takes reports whether a trial can be made with the others. One that surveys the weight,
// or holds much, sees it in tiles of its own.
func (b *bands) takes(t *trial) bool {
	n := t.needs
	if n.Survey != nil || n.Held > 0 || n.UnitRows == 0 {
		return false
	}
	rows, cols := t.matrix()
	unit := n.UnitRows
	if t.flat() { // a row of units
		unit = n.UnitCols / tile.GCD(n.UnitCols, cols)
	}
	if b.unit > 0 {
		if rows != b.rows || cols != b.cols {
			return false
		}
		unit = tile.WholeUnits(unit, b.unit, rows)
	}
	if unit = min(unit, rows); unit*cols > mostBand/t.width() {
		return false
	}
	b.rows, b.cols, b.unit = rows, cols, unit
	return true
}

// phases returns as many readings of all bands as the trial with the most passes takes.
func (b *bands) phases() (all []phase) {
	rows := max(tile.TileSize/(b.unit*b.cols), 1) * b.unit
	count := tile.CeilDiv(b.rows, rows)
	most := 0
	for _, t := range b.trials {
		t.prepare(slices.Collect(tile.Area{Rows: b.rows, Cols: b.cols}.Split(rows, b.cols)))
		for _, p := range t.needs.Passes {
			t.readings = append(t.readings, &reading{encoding: t.encoding, pass: p, done: make(chan struct{}), found: map[int]finding{}, total: count})
		}
		most = max(most, len(t.needs.Passes))
	}
	var after chan struct{}
	for round := range most + 1 {
		s := &sweep{bands: b, round: round, after: after, done: make(chan struct{})}
		s.left.Store(int64(count))
		all, after = append(all, func(yield func(stream.Task) bool) { s.tasks(rows, yield) }), s.done
	}
	return all
}

// sweep is one reading of all bands.
type sweep struct {
	*bands
	round int
	after <-chan struct{} // closed when the sweep before is complete
	done  chan struct{}
	left  atomic.Int64
}

func (s *sweep) tasks(rows int, yield func(stream.Task) bool) {
	i := 0
	for a := range (tile.Area{Rows: s.rows, Cols: s.cols}).Split(rows, s.cols) {
		band := i
		bytes := int64(a.Values()) * int64(s.trials[0].width()) * int64(len(s.trials))
		if !yield(stream.Task{Bytes: bytes, Do: func(w *stream.Worker) error { return s.band(w, band, a) }}) {
			return
		}
		i++
	}
}

// band reads a band and has every trial take its part of the sweep.
func (s *sweep) band(w *stream.Worker, i int, a tile.Area) error {
	if !waitFor(w, s.after) {
		return nil
	}
	read, err := s.trials[0].readIn(w, s.cols, a)
	if err != nil {
		return err
	}
	for _, t := range s.trials {
		v := read
		if t.flat() {
			v = read.Part(0, read.Len())
		}
		if err := t.take(w, s.round, i, v); err != nil {
			return err
		}
	}
	if s.left.Add(-1) == 0 {
		close(s.done)
	}
	return nil
}

// trial is a way to store a weight under way.
type trial struct {
	*Trial
	*encoding
	readings []*reading // with other trials
	// held are those of the stored tensors of which an area needs what others fill; nil
	// for all others.
	held [][]byte
	// encoded are closed, one after the other, as areas are encoded; nil where none needs
	// what another fills.
	encoded []chan struct{}
	once    sync.Once
	shared  [2]codec.Codec // decoders that hold what all areas need: an approximate one, or nil, and the exact one
}

// flat reports whether the codec takes the weight as one row.
func (t *trial) flat() bool { return t.cut.Rows == 1 }

// matrix returns the shape of the weight, with all dimensions after the first in one.
func (t *trial) matrix() (rows, cols int) {
	if !t.flat() {
		return t.cut.Rows, t.cut.Cols
	}
	rows = max(t.step.Source.Shape[0], 1)
	return rows, t.cut.Cols / rows
}

// width is the bytes of a value as it is read.
func (t *trial) width() int { return t.from.Bits() / 8 }

// phases are those of a trial that is made by itself.
func (t *trial) phases() []phase {
	all, ready := t.looks()
	var areas []tile.Area
	for _, a := range t.cut.Areas(t.needs.Rows, t.needs.Cols) {
		areas = append(areas, a)
	}
	t.prepareAreas(areas)
	return append(all, func(yield func(stream.Task) bool) {
		for i, a := range areas {
			if !yield(stream.Task{Bytes: t.bytes(a), Do: func(w *stream.Worker) error {
				if !waitFor(w, ready) {
					return nil
				}
				v, err := t.read(w, a)
				if err != nil {
					return err
				}
				return t.measure(w, i, v, []tile.Area{a})
			}}) {
				return
			}
		}
	})
}

// prepare is [trial.prepareAreas] for bands.
func (t *trial) prepare(bands []tile.Area) {
	var pieces []tile.Area
	for _, a := range bands {
		if t.flat() {
			a = tile.Line(a.Row*a.Cols, (a.Row+a.Rows)*a.Cols)
		}
		pieces = append(pieces, t.pieces(a)...)
	}
	t.prepareAreas(pieces)
	t.Found = make([]Sums, len(bands))
	if t.encoded != nil {
		t.encoded = t.encoded[:len(bands)]
	}
}

// prepareAreas finds out which areas need what others fill.
func (t *trial) prepareAreas(areas []tile.Area) {
	t.Found = make([]Sums, len(areas))
	tensors := t.step.Codec.Tensors()
	for i := range tensors {
		if tensors[i].Role == tile.InputScale || !slices.ContainsFunc(areas, func(a tile.Area) bool { // no decoder reads that
			return !slices.Equal(t.step.Codec.Written(i, a), t.step.Codec.Needed(i, a))
		}) {
			continue
		}
		if t.held == nil {
			t.held, t.encoded = make([][]byte, len(tensors)), make([]chan struct{}, len(areas))
			for k := range t.encoded {
				t.encoded[k] = make(chan struct{})
			}
		}
		n, _ := safetensors.ByteSize(tensors[i].Dtype, tensors[i].Shape) // the plan has laid it out
		t.held[i] = make([]byte, n)
	}
}

// pieces are the parts of an area that are encoded and decoded at a time: whole units, few
// enough for the nearer caches.
func (t *trial) pieces(a tile.Area) []tile.Area {
	n := t.needs
	return slices.Collect(a.Split(n.UnitRows, max(tile.TileSize/(n.UnitRows*n.UnitCols), 1)*n.UnitCols))
}

// take takes a band: for a pass, or to measure it.
func (t *trial) take(w *stream.Worker, round, i int, v tile.Values) error {
	switch passes := len(t.readings); {
	case round > passes:
		return nil
	case round == passes:
		return t.measure(w, i, v, t.pieces(v.Area))
	}
	r := t.readings[round]
	found, err := r.pass.Read(v, &w.Scratch)
	if err != nil {
		return t.explain(err)
	}
	return r.join(i, finding{v.Area, found})
}

// Buffers of a worker, beside those of readers.
const (
	pieceBytes = RawBuffer + 1 // values of a piece that are not adjacent
	codeBytes  = RawBuffer + 2 // what is encoded, and what is taken of other pieces
	heldBytes  = RawBuffer + 3
	restored   = 3 // floats
)

// measure encodes the pieces of an area, decodes them and compares.
func (t *trial) measure(w *stream.Worker, i int, v tile.Values, pieces []tile.Area) error {
	sums := Sums{Nonfinite: -1}
	if t.encoded == nil {
		for _, a := range pieces {
			part := partOf(w, v, a)
			stored, err := t.encode(w, part, t.room(w, []tile.Area{a}))
			if err == nil {
				err = t.compare(w, &sums, part, stored)
			}
			if err != nil {
				return err
			}
		}
	} else if err := t.measureHeld(w, i, &sums, v, pieces); err != nil {
		return err
	}
	t.Found[i] = sums
	w.Done(t.worked(v.Len()))
	return nil
}

// measureHeld encodes all pieces, waits until all areas before are encoded, and then
// decodes.
func (t *trial) measureHeld(w *stream.Worker, i int, sums *Sums, v tile.Values, pieces []tile.Area) error {
	room := t.room(w, pieces)
	stored := make([][][]byte, len(pieces))
	for k, a := range pieces {
		var err error
		if stored[k], err = t.encode(w, partOf(w, v, a), room); err != nil {
			return err
		}
		for _, one := range stored[k] {
			room = room[len(one):]
		}
		t.hold(a, stored[k])
	}
	if i > 0 && !waitFor(w, t.encoded[i-1]) {
		return nil
	}
	close(t.encoded[i])
	for k, a := range pieces {
		if err := t.compare(w, sums, partOf(w, v, a), stored[k]); err != nil {
			return err
		}
	}
	return nil
}

// partOf returns the values of a part of an area, in a buffer where they are not adjacent.
func partOf(w *stream.Worker, v tile.Values, a tile.Area) tile.Values {
	switch {
	case v.Area == a:
		return v
	case v.Rows == 1:
		return tile.Values{Area: a, Dtype: v.Dtype, Bytes: v.Part(a.Col-v.Col, a.Col-v.Col+a.Cols).Bytes}
	case a.Cols == v.Cols:
		return v.Band(a.Row-v.Row, a.Row-v.Row+a.Rows)
	}
	part, shift := tile.Values{Area: a, Dtype: v.Dtype}, v.Shift()
	part.Bytes = w.Bytes(pieceBytes, a.Values()<<shift)
	for row := range a.Rows {
		at := (a.Row-v.Row+row)*v.Cols + a.Col - v.Col
		copy(part.Bytes[row*a.Cols<<shift:], v.Bytes[at<<shift:(at+a.Cols)<<shift])
	}
	return part
}

// room returns the bytes that pieces fill.
func (t *trial) room(w *stream.Worker, pieces []tile.Area) []byte {
	n := 0
	for _, a := range pieces {
		for i := range t.step.Codec.Tensors() {
			n += tile.SpanBytes(t.step.Codec.Written(i, a))
		}
	}
	return w.Bytes(codeBytes, n)
}

// encode returns what a piece fills in each stored tensor, at the beginning of room.
func (t *trial) encode(w *stream.Worker, v tile.Values, room []byte) (stored [][]byte, err error) {
	for i := range t.step.Codec.Tensors() {
		n := tile.SpanBytes(t.step.Codec.Written(i, v.Area))
		stored, room = append(stored, room[:n:n]), room[n:]
	}
	return stored, t.explain(t.encoder.Encode(stored, v, &w.Scratch))
}

// hold keeps what other areas need.
func (t *trial) hold(a tile.Area, stored [][]byte) {
	for i, all := range t.held {
		if all == nil {
			continue
		}
		part := stored[i]
		for _, span := range t.step.Codec.Written(i, a) {
			span.Put(all, part)
			part = part[span.Bytes():]
		}
	}
}

// compare decodes a piece and adds its errors. Like [Comparison], it takes the exact
// decoder where an approximate one is not enough.
func (t *trial) compare(w *stream.Worker, sums *Sums, v tile.Values, stored [][]byte) error {
	t.once.Do(func() { t.share(stored) })
	for _, c := range t.shared {
		if c == nil {
			continue
		}
		got := w.Floats(restored, v.Len())
		c.Decode(got, t.needed(w, c, v.Area, stored), v.Area, safetensors.F32, &w.Scratch)
		found := Sums{Nonfinite: -1}
		want, raw := v.Raw(&w.Scratch)
		found.measureRaw(want, raw, got)
		if c == t.shared[1] || !MayOverflow(got) && found.exceedRounding() {
			sums.Add(t.weighed(w, found, v, got))
			return nil
		}
	}
	return nil
}

// wide are values that are weighed.
type wide struct{ values []float32 }

// weighed returns the sums of values that count by the moments of their columns' inputs,
// Σm·(W-Ŵ)² and Σm·W²: what the layer gives is off by that. Without moments it is found.
func (t *trial) weighed(w *stream.Worker, found Sums, v tile.Values, got []float32) Sums {
	inputs := t.step.Inputs
	if len(inputs) == 0 {
		return found
	}
	want := v.Widen(&tile.PartOf[wide](&w.Scratch).values)
	sums := found
	sums.Squares, sums.Errors = 0, 0
	columns := len(inputs)
	for i, x := range want {
		m, d := float64(inputs[v.Area.Index(i, t.cut.Cols)%columns]), float64(x)-float64(got[i])
		sums.Squares += float64(m * float64(float64(x)*float64(x)))
		sums.Errors += float64(m * float64(d*d))
	}
	return sums
}

// share makes the decoders, once the first area is encoded, which stored is of.
func (t *trial) share(stored [][]byte) {
	for i, c := range []codec.Codec{codec.Approximate(t.step.Codec), t.step.Codec} {
		if c == nil {
			continue
		}
		t.shared[i] = c
		indices, with := codec.SharedTensors(c)
		if len(indices) == 0 {
			continue
		}
		src := make([][]byte, len(indices))
		for k, tensor := range indices {
			if t.held != nil && t.held[tensor] != nil {
				src[k] = t.held[tensor]
			} else { // there is one area
				src[k] = slices.Clone(stored[tensor])
			}
		}
		if shared, err := with(src); err == nil { // what was just encoded is as it must be
			t.shared[i] = shared
		}
	}
}

// needed returns what decoding an area takes of each stored tensor.
func (t *trial) needed(w *stream.Worker, c codec.Codec, a tile.Area, stored [][]byte) [][]byte {
	src := w.Parts(len(stored))
	for i := range src {
		if src[i] = stored[i]; t.held == nil || t.held[i] == nil {
			continue
		}
		spans := c.Needed(i, a)
		src[i] = w.Bytes(heldBytes+i, tile.SpanBytes(spans))
		rest := src[i]
		for _, span := range spans {
			for k := range span.Count {
				off := span.Offset + int64(k)*span.Stride
				rest = rest[copy(rest[:span.Size], t.held[i][off:]):]
			}
		}
	}
	return src
}
