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
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Quantization turns a plan into tiles of work.
type Quantization struct {
	Source    *checkpoint.Checkpoint
	Plan      *plan.Plan
	Writers   []*bodies.Writer
	schedule  schedule
	Residency *Residency // nil if no weight is read more than once
	Stage     interface {
		Scratch() (*stage.Scratch, error)
	}
	spare sync.Pool // of *encoding
	// Begin is called before the tasks of each file of the output, in their order; it sets
	// the file's writer. Nil where all are set.
	Begin func(file int, yield func(stream.Task) bool) bool
	Fate  *Fate // of an output beside others, nil where it is the run's
	Resources
}

// Tasks yields the tasks in the order of the source's tensors, which is that of the files
// of the output too.
func (q *Quantization) Tasks(yield func(stream.Task) bool) bool {
	g, literals, files := &adjacent{Quantization: q}, q.Plan.Literals, 0
	begin := func(upTo int) bool {
		for ; files <= upTo; files++ {
			if q.Begin != nil && !q.Begin(files, yield) {
				return false
			}
		}
		n := 0
		for n < len(literals) && literals[n].File <= upTo {
			n++
		}
		some := literals[:n]
		literals = literals[n:]
		return writeLiterals(some, q.Writers, yield)
	}
	for i := range q.Plan.Steps {
		s := &q.Plan.Steps[i]
		if file, ok := s.File(); ok && file >= files && !begin(file) {
			return false
		}
		if !g.add(s, yield) {
			return false
		}
	}
	return begin(len(q.Plan.Files)-1) && g.flush(yield) && q.schedule.flush(yield)
}

func (q *Quantization) step(s *plan.Step, yield func(stream.Task) bool) bool {
	if s.Action == plan.Drop {
		return true
	}
	if len(s.Copies) > 0 { // of a file that is not whole before its values are known to be finite
		hold, release := holding(q.Writers[s.Copies[0].File], yield)
		defer release()
		yield = hold
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
	if bank := codec.Matrices(s.Codec); bank != nil {
		return matrices(bank, s, func(one *plan.Step) bool { return q.weight(one, yield) })
	}
	return q.weight(s, yield)
}

// holding yields tasks until each of which is done a file does not count as whole; release
// says that all are yielded.
func holding(w *bodies.Writer, yield func(stream.Task) bool) (held func(stream.Task) bool, release func()) {
	w.Hold()
	return func(t stream.Task) bool {
		do := t.Do
		w.Hold()
		t.Do = func(worker *stream.Worker) error {
			err := do(worker)
			if err == nil {
				w.Release()
			}
			return err
		}
		return yield(t)
	}, w.Release
}

// weight yields the tasks of a weight that is encoded.
func (q *Quantization) weight(s *plan.Step, yield func(stream.Task) bool) bool {
	e := q.encoding(s)
	if err := e.spill(); err != nil {
		return yield(stream.Task{Do: func(*stream.Worker) error { return e.explain(err) }})
	}
	e.makeResident()
	return q.schedule.add(e.scheduled(), Workers(q.Resources), searches(q.Resources), yield)
}

// encoding is the work on one tensor.
type encoding struct {
	*Quantization
	step     *plan.Step
	values   Values
	plain    PlainValues // values points here if the source is not quantized, which saves an allocation
	from     safetensors.Dtype
	memory   int // bytes that the work on a tile may take
	encoder  tile.Encoder
	needs    tile.Needs
	cut      tile.Cut
	before   int // values of the tensor that come before those of the step, see [matrices]
	resident *resident
	left     atomic.Int64 // number of tasks that may read what is resident
	done     atomic.Int64 // number of values accounted for, see worked
}

// encoding prepares a step: where its values come from, and the encoder.
func (q *Quantization) encoding(s *plan.Step) *encoding {
	return q.encodingIn(s, tileMemory(q.Resources))
}

// encodingIn is encoding in tiles that take at most that many bytes of memory. If the
// values must be decoded first, that takes half of it.
func (q *Quantization) encodingIn(s *plan.Step, memory int) *encoding {
	e, ok := q.spare.Get().(*encoding)
	if !ok {
		e = new(encoding)
	}
	*e = encoding{Quantization: q, step: s, from: safetensors.F32, memory: memory, before: codec.Before(s.Codec)}
	if s.From == nil {
		e.plain = PlainValues{Source: q.Source, Tensor: s.Source}
		e.values = &e.plain
	} else {
		e.values = valuesFrom{NewStoredValues(q.Source, s.From, MaxTile(q.Resources)/2, q.Resources), e.before}
		e.memory /= 2
	}
	if s.Merge != nil {
		e.values = Merged(e.values, s.Merge, q.Resources)
		e.memory /= 2
	}
	if e.asStored() {
		e.from = s.Source.Dtype
	}
	e.encoder, e.cut = s.Codec.NewEncoder(e.from, e.memory), s.Codec.Cut()
	e.needs = e.encoder.Needs()
	return e
}

// asStored reports whether the encoder takes values as they lie in the file.
func (e *encoding) asStored() bool {
	return e.step.From == nil && e.step.Merge == nil && codec.Floats(e.step.Source.Dtype)
}

// spill makes a low-rank search that takes much memory keep a part of it in a scratch
// file.
func (e *encoding) spill() error {
	if e.needs.Spill == nil || e.needs.Held <= searches(e.Resources) {
		return nil
	}
	err := e.needs.Spill(func() (tile.Spill, error) { return e.Stage.Scratch() })
	e.needs = e.encoder.Needs()
	return err
}

// scheduled describes the weight to the schedule.
func (e *encoding) scheduled() scheduled {
	return scheduled{e.phases(), e.needs.Held, e.needs.Survey != nil || e.needs.Held > 0 || e.resident != nil}
}

// makeResident reserves memory for a tensor that is read several times, for as much of
// it as fits. The tensor must be plain and read in whole rows. What adapters change is
// merged into it once.
func (e *encoding) makeResident() {
	least := 2
	if e.step.Merge != nil || e.far() && e.Fate == nil {
		least = 1 // merging takes longer than reading, and so does asking a store again
	}
	if e.step.From != nil || e.Residency == nil || len(e.needs.Passes) < least || !e.inRuns(e.needs.Cols) {
		return
	}
	for _, p := range e.needs.Passes {
		if _, cols := p.Tile(); !e.inRuns(cols) {
			return
		}
	}
	if m, ok := e.values.(*MergedValues); ok {
		m.resident = e.Residency.Reserve(4*int64(e.step.Source.Numel()), e.needs.Held)
		e.resident = m.resident
		return
	}
	e.resident = e.Residency.Reserve(e.step.Source.Size, e.needs.Held)
	e.plain.resident = e.resident
}

// far reports whether the source is a store's, or a program's own.
func (e *encoding) far() bool { return !e.Source.Tree.OnDisk() }

// inRuns reports whether areas of that many columns are whole rows, or parts of the
// only row.
func (e *encoding) inRuns(cols int) bool { return e.cut.Rows == 1 || cols >= e.cut.Cols }

// tasks yields the tasks of all phases, one phase after the other.
func (e *encoding) tasks(yield func(stream.Task) bool) bool {
	return inOrder(e.phases(), yield)
}

// phases returns the survey if the encoder has one, its passes, and the encoding of
// tiles. The tasks of each wait until the phase before is complete.
func (e *encoding) phases() []phase {
	all, ready := e.looks()
	return append(all, func(yield func(stream.Task) bool) { e.tiles(ready, yield) })
}

// looks returns the phases before tiles are encoded, which may begin when ready is
// closed; at once where it is nil.
func (e *encoding) looks() (all []phase, ready chan struct{}) {
	if e.needs.Survey != nil {
		source.Share(e.Source.Tree)
		done := make(chan struct{})
		all = append(all, func(yield func(stream.Task) bool) {
			yield(stream.Task{Do: func(w *stream.Worker) error { return e.survey(w, done) }})
		})
		ready = done
	}
	e.left.Store(int64(e.cut.Count(e.needs.Rows, e.needs.Cols)))
	for _, p := range e.needs.Passes {
		e.left.Add(int64(e.cut.Count(p.Tile())))
		r := &reading{encoding: e, pass: p, after: ready, done: make(chan struct{})}
		all, ready = append(all, r.tasks), r.done
	}
	return all, ready
}

// tiles yields the encoding of tiles, which starts when ready is closed.
func (e *encoding) tiles(ready <-chan struct{}, yield func(stream.Task) bool) {
	for _, a := range e.cut.Areas(e.needs.Rows, e.needs.Cols) {
		if !yield(stream.Task{Bytes: e.bytes(a), At: e.at(a), Do: func(w *stream.Worker) error {
			defer e.worn()
			if !e.wait(w, ready) {
				return nil
			}
			return e.encodeTile(w, a, e.outputs(w, a))
		}}) {
			return
		}
	}
}

// worn counts a task that is done, even where it had nothing to do; after the last one
// nothing reads what is resident.
func (e *encoding) worn() {
	if e.left.Add(-1) == 0 && e.resident != nil {
		e.resident.Release()
	}
}

// at is where in its tensor an area begins.
func (e *encoding) at(a tile.Area) int64 {
	return int64(float64(e.step.Source.Size) / float64(e.step.Source.Numel()) * (float64(a.Row)*float64(e.cut.Cols) + float64(a.Col)))
}

// bytes estimates how many bytes of the source an area takes, for [stream.Task]. A
// tensor with several passes takes more work than its bytes suggest, so each of its
// tasks runs by itself.
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

// waitFor waits until ready is closed. It reports false if the run ends before that.
func waitFor(w *stream.Worker, ready <-chan struct{}) bool {
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

// encodeTile reads an area and encodes it into its outputs.
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

// outputs returns the room for what an area fills in each stored tensor, and counts the
// area as done.
func (e *encoding) outputs(w *stream.Worker, a tile.Area) [][]byte {
	parts := w.Parts(len(e.step.Parts))
	for i := range parts {
		parts[i] = e.output(w, i, a)
	}
	w.Done(e.worked(a.Values()))
	return parts
}

// output returns the room for what an area fills in one stored tensor.
func (e *encoding) output(w *stream.Worker, i int, a tile.Area) []byte {
	part := &e.step.Parts[i]
	return w.Scatter(e.Writers[part.File], part.Tensor, e.step.Codec.Written(i, a))
}

// worked returns how many of the source's bytes the next n values account for. All
// results together are exactly the source's size.
func (e *encoding) worked(n int) int64 {
	upTo := func(values int64) int64 {
		return int64(float64(e.step.Source.Size) * float64(values) / float64(e.step.Source.Numel()))
	}
	now := e.done.Add(int64(n))
	return upTo(now) - upTo(now-int64(n))
}

// read returns an area of the weight, as it lies in the file where the encoder takes
// that.
func (e *encoding) read(w *stream.Worker, a tile.Area) (tile.Values, error) {
	return e.readIn(w, e.cut.Cols, a)
}

// readIn is read of an area of the weight, seen as a matrix of that many columns.
func (e *encoding) readIn(w *stream.Worker, columns int, a tile.Area) (tile.Values, error) {
	if e.asStored() {
		raw, err := e.plain.raw(w, columns, a)
		return tile.Values{Area: a, Dtype: e.from, Bytes: raw}, err
	}
	values, err := e.values.Read(w, 0, columns, a)
	if err == nil {
		err = e.checkRead(a, values, columns)
	}
	return tile.ValuesOf(a, values), err
}

// checkRead refuses values that are not finite of layers that are restored, whose file is
// damaged then, and of kept tensors that adapters change, which no encoder looks at; and
// what the dtype of either does not hold.
func (e *encoding) checkRead(a tile.Area, values []float32, columns int) error {
	s, kept := e.step, e.step.Action == plan.Keep
	a.Row += e.before / columns
	var err error
	switch {
	case e.Plan.AllowNonfinite:
	case s.Merge != nil && (kept || s.From != nil):
		err = e.checkMerged(a, values, columns)
	case s.From != nil:
		err = checkRestored(e.Source, s.From, a, values, columns)
	}
	if err == nil && kept && s.From != nil {
		err = checkFits(e.Source, s.From, values, s.Codec.Tensors()[0].Dtype)
	}
	return err
}

// readRun reads consecutive values of the flattened weight, regardless of rows.
func (e *encoding) readRun(w *stream.Worker, start int, dst []float32) error {
	values, err := e.values.Read(w, 0, 1, tile.Area{Row: start, Rows: len(dst), Cols: 1})
	copy(dst, values)
	return err
}

// explain adds to an error the file and the tensor, and for a value that cannot be
// quantized its place and what can be done about it.
func (e *encoding) explain(err error) error {
	if err == nil {
		return nil // before work is done for a message
	}
	var n *tile.NonfiniteError
	t := e.step.Source
	if !errors.As(err, &n) {
		return fmt.Errorf("%s: tensor %s: %w", e.Source.File(t), t.Name, err)
	}
	at := *n
	at.Index += e.before
	n = &at
	if e.step.Merge != nil {
		return e.mergedError(n)
	}
	if e.step.From != nil {
		return restoredError(e.Source, e.step.From, n)
	}
	advice := "`Keep` leaves the tensor as it is, `AllowNonfinite` quantizes it as the reference does"
	if n.LowRank {
		advice = "no low-rank part comes near such a weight: `Keep` leaves the tensor as it is"
	}
	row, col := rowAndColumn(t.Shape, n.Index)
	return usage.SourceErrorf("%s: tensor %s: value [%d, %d] is %v: %s", e.Source.File(t), t.Name, row, col, n.Value, advice)
}
