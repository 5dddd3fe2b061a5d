// Package stream runs tiles of work on all cores: workers read and compute, one
// at a time writes, and buffers are used again, so that memory does not grow
// with the size of a tensor or a file.
package stream

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// Task is the work of one tile. Tasks start in order; one may wait for what
// earlier ones make known.
type Task struct {
	Do func(w *Worker) error
	// Bytes is about what it reads. Small tasks in a row are done by one worker,
	// so that what they write lies together. 0 is for a task by itself.
	Bytes int64
}

// Worker holds the buffers of one goroutine. Contents are valid during a task.
type Worker struct {
	Scratch tile.Scratch
	bytes   [][]byte
	parts   [][]byte
	floats  [][]float32
	batch   *batch
	run     *run
}

// Bytes returns buffer i with n bytes of any content.
func (w *Worker) Bytes(i, n int) []byte { return grown(&w.bytes, i, n) }

// Floats returns buffer i with n values of any content.
func (w *Worker) Floats(i, n int) []float32 { return grown(&w.floats, i, n) }

// Parts returns room for n slices of any content.
func (w *Worker) Parts(n int) [][]byte {
	w.parts = slices.Grow(w.parts[:0], n)[:n]
	return w.parts
}

func grown[T any](buffers *[][]T, i, n int) []T {
	for len(*buffers) <= i {
		*buffers = append(*buffers, nil)
	}
	if cap((*buffers)[i]) < n {
		(*buffers)[i] = nil // let go of the old one first
		(*buffers)[i] = make([]T, n)
	}
	return (*buffers)[i][:n]
}

// Done counts n bytes of the source as worked off once the task is written.
func (w *Worker) Done(n int64) { w.batch.done += n }

// Cancelled is closed when the run is over early.
func (w *Worker) Cancelled() <-chan struct{} { return w.run.ctx.Done() }

// Later has do called when the outputs of the task are written, never at the
// same time as that of another task.
func (w *Worker) Later(do func() error) { w.batch.later = append(w.batch.later, do) }

// Output returns n bytes to fill, which go to offset off of a tensor when the
// task returns.
func (w *Worker) Output(to *bodies.Writer, t safetensors.Tensor, off int64, n int) []byte {
	return w.Scatter(to, t, tile.Run(off, int64(n)))
}

// Scatter is Output for several runs of a tensor, which lie one after the other
// in the bytes to fill.
func (w *Worker) Scatter(to *bodies.Writer, t safetensors.Tensor, spans []tile.Span) []byte {
	b := w.batch
	data := b.room(tile.SpanBytes(spans))
	rest := data
	for _, s := range spans {
		b.writes = append(b.writes, write{to, t, s, rest[:s.Bytes()]})
		rest = rest[s.Bytes():]
	}
	return data
}

// Batches returns how many batches a run of that many workers keeps: with it
// goes the memory for outputs.
func Batches(threads int) int { return threads + 2 }

// ahead is how many rows of tasks are made before a worker asks for them. Who makes
// them gets a core only when a worker waits, or after some milliseconds.
const ahead = 64

type run struct {
	ctx    context.Context
	cancel context.CancelFunc
	rows   chan row
	free   chan *batch
	line   line
	shared shared

	mu    sync.Mutex
	err   error
	index int // of the task whose error err is
}

// row is one task or several small ones.
type row struct {
	first int // number of the first task
	tasks []Task
	bytes int64
}

// takes reports whether a task that is next may be in the row too.
func (r *row) takes(t Task) bool {
	return len(r.tasks) == 0 ||
		t.Bytes > 0 && r.bytes > 0 && r.bytes+t.Bytes <= mostOfRow && len(r.tasks) < enoughWrites
}

// Run works off tasks with that many workers and calls done, never at the same
// time, with the bytes that a written task counted. Its error is that of the
// first task in order that fails, or the context's.
func Run(ctx context.Context, threads int, tasks iter.Seq[Task], done func(n int64)) error {
	r := &run{rows: make(chan row, ahead), free: make(chan *batch, Batches(threads))}
	r.line = line{flush: func(b *batch) { r.flush(b, done) }}
	r.ctx, r.cancel = context.WithCancel(ctx)
	defer r.cancel()
	for range Batches(threads) {
		r.free <- new(batch)
	}
	go r.feed(tasks)
	r.work(threads)
	if r.err != nil {
		return r.err
	}
	return ctx.Err()
}

func (r *run) feed(tasks iter.Seq[Task]) {
	defer close(r.rows)
	var next row
	for task := range tasks {
		if !next.takes(task) {
			if !r.send(next) {
				return
			}
			next = row{first: next.first + len(next.tasks)}
		}
		next.tasks, next.bytes = append(next.tasks, task), next.bytes+task.Bytes
	}
	r.send(next)
}

// send reports false when the run is over.
func (r *run) send(next row) bool {
	select {
	case r.rows <- next:
		return true
	case <-r.ctx.Done():
		return false
	}
}

func (r *run) work(threads int) {
	var workers sync.WaitGroup
	for range threads {
		workers.Go(func() {
			w := &Worker{run: r}
			w.Scratch.Cancelled = r.ctx.Done()
			for row := range r.rows {
				for i, task := range row.tasks {
					r.do(w, row.first+i, task)
				}
			}
			if w.batch != nil {
				r.line.add(w.batch)
			}
		})
	}
	workers.Wait()
}

func (r *run) do(w *Worker, index int, task Task) {
	if r.over(index) {
		return
	}
	if w.batch == nil {
		w.batch = <-r.free // who writes always gives one back
		w.batch.reset()
	}
	if err := guarded(w, task); err != nil {
		r.fail(index, err)
		w.batch.reset() // its outputs may be half filled
	}
	if w.batch.enough() {
		r.line.add(w.batch)
		w.batch = nil
	}
}

// over reports whether a task need not run any more. One before the task that
// failed must, or which error comes out would be a matter of luck.
func (r *run) over(index int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return index > r.index
	}
	return r.ctx.Err() != nil
}

// guarded turns a panic into an error, so that outputs are cleaned up.
func guarded(w *Worker, task Task) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("internal error: %v\n%s", v, debug.Stack())
		}
	}()
	return task.Do(w)
}

func (r *run) fail(index int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil || index < r.index {
		r.err, r.index = err, index
	}
	r.cancel()
}

// flush writes a batch and gives it back.
func (r *run) flush(b *batch, done func(n int64)) {
	defer func() { r.free <- b }()
	if r.ctx.Err() != nil {
		return
	}
	if err := b.flush(&r.line.sections); err != nil {
		r.fail(-1, err)
	} else if done != nil && b.done > 0 {
		done(b.done)
	}
}
