package engine

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Quantization turns a plan into tiles of work.
type Quantization struct {
	Source  *checkpoint.Checkpoint
	Plan    *plan.Plan
	Writers []*bodies.Writer
	turns   turns
	Keeper  *Residency // nil where no weight is read several times
	Stage   interface {
		Scratch() (*stage.Scratch, error)
	}
	spare sync.Pool // of *encoding
	Resources
}

// Tasks yields the work in the order of the source.
func (q *Quantization) Tasks(yield func(stream.Task) bool) bool {
	if !writeLiterals(q.Plan.Literals, q.Writers, yield) {
		return false
	}
	g := &group{Quantization: q}
	for i := range q.Plan.Steps {
		if !g.add(&q.Plan.Steps[i], yield) {
			return false
		}
	}
	return g.flush(yield) && q.turns.flush(yield)
}

func (q *Quantization) step(s *plan.Step, yield func(stream.Task) bool) bool {
	if s.Action == plan.Drop {
		return true
	}
	for _, c := range s.Copies {
		if !copyTiles(q.Source, c.Source, q.Writers[c.File], c.Tensor, yield) {
			return false
		}
	}
	switch {
	case len(s.Copies) > 0:
		return q.Plan.AllowNonfinite || finiteTasks(q.Source, s.From, q.Resources, yield)
	case s.Codec == nil:
		return copyTiles(q.Source, s.Source, q.Writers[s.Parts[0].File], s.Parts[0].Tensor, yield)
	}
	e := q.encoding(s)
	if err := e.shelve(); err != nil {
		return yield(stream.Task{Do: func(*stream.Worker) error { return e.explain(err) }})
	}
	e.keep()
	return q.turns.add(e.turn(), Workers(q.Resources), searches(q.Resources), yield)
}

// encoding is one tensor on its way through its codec.
type encoding struct {
	*Quantization
	step    *plan.Step
	values  Values
	plain   PlainValues // what values are where they are plain
	from    safetensors.Dtype
	memory  int // bytes that a tile may take
	encoder tile.Encoder
	needs   tile.Needs
	cut     tile.Cut
	kept    *resident
	done    atomic.Int64 // values that were written
}

// encoding finds where a step's values come from. Where they are decoded, that
// takes a part of the memory.
func (q *Quantization) encoding(s *plan.Step) *encoding {
	e, ok := q.spare.Get().(*encoding)
	if !ok {
		e = new(encoding)
	}
	*e = encoding{Quantization: q, step: s, from: safetensors.F32, memory: tileMemory(q.Resources)}
	if s.From == nil {
		e.plain = PlainValues{Source: q.Source, Tensor: s.Source}
		e.values = &e.plain
	} else {
		e.values = NewStoredValues(q.Source, s.From, MaxTile(q.Resources)/2, q.Resources)
		e.memory /= 2
	}
	if e.asStored() {
		e.from = s.Source.Dtype
	}
	e.encoder, e.cut = s.Codec.NewEncoder(e.from, e.memory), s.Codec.Cut()
	e.needs = e.encoder.Needs()
	return e
}

// asStored reports whether an encoder takes values as they lie in the file.
func (e *encoding) asStored() bool { return e.step.From == nil && codec.Floats(e.step.Source.Dtype) }

// shelve has a search that takes much memory keep some of it in a file.
func (e *encoding) shelve() error {
	if e.needs.Spill == nil || e.needs.Held <= searches(e.Resources) {
		return nil
	}
	err := e.needs.Spill(func() (tile.Spill, error) { return e.Stage.Scratch() })
	e.needs = e.encoder.Needs()
	return err
}

// turn is all that is to be done.
func (e *encoding) turn() turn {
	return turn{e.phases(), e.needs.Held, e.needs.Survey != nil || e.needs.Held > 0}
}

// keep has a tensor stay in memory that is read several times, as much of it as
// fits, if it is plain and read in runs.
func (e *encoding) keep() {
	if e.step.From != nil || e.Keeper == nil || len(e.needs.Passes) < 2 || !e.inRuns(e.needs.Cols) {
		return
	}
	for _, p := range e.needs.Passes {
		if _, cols := p.Tile(); !e.inRuns(cols) {
			return
		}
	}
	e.kept = e.Keeper.Keep(e.step.Source.Size, e.needs.Held)
	e.plain.kept = e.kept
}

// inRuns reports whether areas of so many columns are whole rows, or parts of the
// only one.
func (e *encoding) inRuns(cols int) bool { return e.cut.Rows == 1 || cols >= e.cut.Cols }

// tasks yields the phases, one after the other.
func (e *encoding) tasks(yield func(stream.Task) bool) bool {
	return inOrder(e.phases(), yield)
}

// phases are the survey of an encoder that asks for one, its passes, and then
// its tiles. What follows waits until what went before is complete.
func (e *encoding) phases() []phase {
	var all []phase
	var ready chan struct{}
	if e.needs.Survey != nil {
		done := make(chan struct{})
		all = append(all, func(yield func(stream.Task) bool) {
			yield(stream.Task{Do: func(w *stream.Worker) error { return e.survey(w, done) }})
		})
		ready = done
	}
	for _, p := range e.needs.Passes {
		r := &reading{encoding: e, pass: p, after: ready, done: make(chan struct{})}
		all, ready = append(all, r.tasks), r.done
	}
	return append(all, func(yield func(stream.Task) bool) { e.tiles(ready, yield) })
}

// tiles yields the tiles, which wait until that is closed.
func (e *encoding) tiles(ready <-chan struct{}, yield func(stream.Task) bool) {
	rows, cols := e.needs.Rows, e.needs.Cols
	left := new(atomic.Int64)
	left.Store(int64(e.cut.Count(rows, cols)))
	for _, a := range e.cut.Areas(rows, cols) {
		if !yield(stream.Task{Bytes: e.bytes(a), Do: func(w *stream.Worker) error {
			if !wait(w, ready) {
				return nil
			}
			err := e.encodeTile(w, a, e.outputs(w, a))
			if left.Add(-1) == 0 && e.kept != nil {
				e.kept.Release()
			}
			return err
		}}) {
			return
		}
	}
}

// bytes is about what the values of an area take in the source. A tensor that is
// read many times takes more work than its bytes say, so its tasks go each by
// themselves.
func (e *encoding) bytes(a tile.Area) int64 {
	if len(e.needs.Passes) > 1 {
		return 0
	}
	return int64(float64(e.step.Source.Size) / float64(e.step.Source.Numel()) * float64(a.Values()))
}

func (e *encoding) survey(w *stream.Worker, done chan struct{}) error {
	err := e.needs.Survey(func(start int, dst []float32) error { return e.readRun(w, start, dst) })
	if err == nil {
		close(done)
	}
	return err
}

// wait reports false when the run is over before ready is closed.
func wait(w *stream.Worker, ready <-chan struct{}) bool {
	if ready == nil {
		return true
	}
	select {
	case <-ready:
		return true
	case <-w.Cancelled():
		return false
	}
}

// encodeTile reads an area and fills its outputs.
func (e *encoding) encodeTile(w *stream.Worker, a tile.Area, outputs [][]byte) error {
	rows := a.Rows
	if e.needs.PieceRows > 0 {
		rows = min(rows, e.needs.PieceRows)
	}
	for piece := range a.Split(rows, a.Cols) {
		values, err := e.read(w, piece)
		if err != nil {
			return err
		}
		if err := e.encoder.Encode(outputs, values, &w.Scratch); err != nil {
			return e.explain(err)
		}
	}
	return nil
}

// outputs is the room for what an area fills, of which it counts the source.
func (e *encoding) outputs(w *stream.Worker, a tile.Area) [][]byte {
	parts := w.Parts(len(e.step.Parts))
	for i := range parts {
		parts[i] = e.output(w, i, a)
	}
	w.Done(e.worked(a.Values()))
	return parts
}

// output is that of one part.
func (e *encoding) output(w *stream.Worker, i int, a tile.Area) []byte {
	part := &e.step.Parts[i]
	return w.Scatter(e.Writers[part.File], part.Tensor, e.step.Codec.Written(i, a))
}

// worked returns the share of the source's bytes that so many further values
// are; all shares add up to all bytes.
func (e *encoding) worked(n int) int64 {
	upTo := func(values int64) int64 {
		return int64(float64(e.step.Source.Size) * float64(values) / float64(e.step.Source.Numel()))
	}
	now := e.done.Add(int64(n))
	return upTo(now) - upTo(now-int64(n))
}

// read returns an area of the weight, as it lies in the file where that can be.
func (e *encoding) read(w *stream.Worker, a tile.Area) (tile.Values, error) {
	if e.asStored() {
		raw, err := e.plain.raw(w, e.cut.Cols, a)
		return tile.Values{Area: a, Dtype: e.from, Bytes: raw}, err
	}
	values, err := e.values.Read(w, 0, e.cut.Cols, a)
	if err == nil && e.step.From != nil && !e.Plan.AllowNonfinite {
		err = checkRestored(e.Source, e.step.From, a, values, e.cut.Cols)
	}
	if err == nil && e.step.From != nil && e.step.Action == plan.Keep { // restored
		err = checkFits(e.Source, e.step.From, values, e.step.Codec.Tensors()[0].Dtype)
	}
	return tile.ValuesOf(a, values), err
}

// readRun reads consecutive values, wherever rows end.
func (e *encoding) readRun(w *stream.Worker, start int, dst []float32) error {
	values, err := e.values.Read(w, 0, 1, tile.Area{Row: start, Rows: len(dst), Cols: 1})
	copy(dst, values)
	return err
}

// explain names the tensor and place of a value that cannot be quantized.
func (e *encoding) explain(err error) error {
	if err == nil {
		return nil // before anything is made for a message
	}
	var n *tile.NonfiniteError
	t := e.step.Source
	if !errors.As(err, &n) {
		return fmt.Errorf("%s: tensor %s: %w", e.Source.File(t), t.Name, err)
	}
	if e.step.From != nil {
		return restoredError(e.Source, e.step.From, n)
	}
	advice := "`Keep` leaves the tensor as it is, `AllowNonfinite` quantizes it as the reference does"
	if n.LowRank {
		advice = "no low-rank part comes near such a weight: `Keep` leaves the tensor as it is"
	}
	row, col := place2D(t.Shape, n.Index)
	return usage.SourceErrorf("%s: tensor %s: value [%d, %d] is %v: %s", e.Source.File(t), t.Name, row, col, n.Value, advice)
}
