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

// Task is the work on one tile. Tasks start in order, so a task may wait for results of
// earlier ones.
type Task struct {
	Do func(w *Worker) error
	// Bytes is roughly how much the task reads. One worker runs several small
	// consecutive tasks, so that their outputs are written together. 0 makes the task
	// run by itself.
	Bytes int64
	// At is where in its tensor the task begins to read, for those who put the tasks of
	// several outputs in order. The run does not look at it.
	At int64
}

// Worker holds the buffers of one goroutine. Their contents are valid until the end of
// a task.
type Worker struct {
	Scratch tile.Scratch
	bytes   [][]byte
	parts   [][]byte
	floats  [][]float32
	batch   *writeBatch
	shares  []*sharedValue // what the task under way has asked for
	run     *run
}

// Bytes returns byte buffer number i, resized to n bytes of arbitrary content.
func (w *Worker) Bytes(i, n int) []byte { return grown(&w.bytes, i, n) }

// Floats returns float buffer number i, resized to n values of arbitrary content.
func (w *Worker) Floats(i, n int) []float32 { return grown(&w.floats, i, n) }

// Parts returns room for n slices, whose content is arbitrary.
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

// Done counts n bytes of the source as processed; progress hears of them when the
// task's outputs are written.
func (w *Worker) Done(n int64) { w.batch.done += n }

// Cancelled returns a channel that is closed when the run ends early.
func (w *Worker) Cancelled() <-chan struct{} { return w.run.ctx.Done() }

// Later has do called after the outputs of the task are written. Such calls never
// overlap, whichever task they belong to.
func (w *Worker) Later(do func() error) { w.batch.later = append(w.batch.later, do) }

// Output returns n bytes for the task to fill, which are written at offset off of a
// tensor's body after the task has returned.
func (w *Worker) Output(to *bodies.Writer, t safetensors.Tensor, off int64, n int) []byte {
	return w.Scatter(to, t, tile.Run(off, int64(n)))
}

// Scatter is Output for several runs of a tensor's body: the bytes to fill hold the
// runs one after another.
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

// Batches returns how many batches a run with that many workers allocates, which bounds
// the memory for outputs.
func Batches(threads int) int { return threads + 2 }

// ahead is how many task groups are prepared before a worker asks for them. The
// goroutine that prepares them gets a core only when a worker blocks, or after some
// milliseconds.
const ahead = 64

type run struct {
	ctx    context.Context
	cancel context.CancelFunc
	groups chan taskGroup
	free   chan *writeBatch
	queue  writeQueue
	shared shared

	mu    sync.Mutex
	err   error
	index int // of the task whose error err is
}

// taskGroup is one task, or several small consecutive ones, for one worker.
type taskGroup struct {
	first int // number of the first task
	tasks []Task
	bytes int64
}

// fits reports whether the task that comes next may join the group.
func (r *taskGroup) fits(t Task) bool {
	return len(r.tasks) == 0 ||
		t.Bytes > 0 && r.bytes > 0 && r.bytes+t.Bytes <= maxGroupBytes && len(r.tasks) < enoughWrites
}

// Run runs the tasks on that many workers. It calls done, never concurrently, with the
// bytes that the written tasks have counted. The error is that of the first task, in
// order, that fails, or else the context's.
func Run(ctx context.Context, threads int, tasks iter.Seq[Task], done func(n int64)) error {
	r := &run{groups: make(chan taskGroup, ahead), free: make(chan *writeBatch, Batches(threads))}
	r.queue = writeQueue{flush: func(b *writeBatch) { r.flush(b, done) }}
	r.ctx, r.cancel = context.WithCancel(ctx)
	defer r.cancel()
	for range Batches(threads) {
		r.free <- new(writeBatch)
	}
	go r.feed(tasks)
	r.work(threads)
	if r.err != nil {
		return r.err
	}
	return ctx.Err()
}

func (r *run) feed(tasks iter.Seq[Task]) {
	defer close(r.groups)
	var next taskGroup
	for task := range tasks {
		if !next.fits(task) {
			if !r.send(next) {
				return
			}
			next = taskGroup{first: next.first + len(next.tasks)}
		}
		next.tasks, next.bytes = append(next.tasks, task), next.bytes+task.Bytes
	}
	r.send(next)
}

// send reports false if the run is over.
func (r *run) send(next taskGroup) bool {
	select {
	case r.groups <- next:
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
			for row := range r.groups {
				for i, task := range row.tasks {
					r.do(w, row.first+i, task)
				}
			}
			if w.batch != nil {
				r.queue.enqueue(w.batch)
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
		w.batch = <-r.free // does not block for ever: whoever writes returns a batch
		w.batch.reset()
	}
	err := guarded(w, task)
	w.endTask()
	if err != nil {
		r.fail(index, err)
		w.batch.reset() // its outputs may be half filled
	}
	if w.batch.enough() {
		r.queue.enqueue(w.batch)
		w.batch = nil
	}
}

// over reports whether a task need not run any more. A task before the one that failed
// still must, or it would be a matter of luck which error is returned.
func (r *run) over(index int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return index > r.index
	}
	return r.ctx.Err() != nil
}

// guarded turns a panic into an error, so that outputs are still cleaned up.
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

// flush writes a batch and returns it to the free ones.
func (r *run) flush(b *writeBatch, done func(n int64)) {
	defer func() { r.free <- b }()
	if r.ctx.Err() != nil {
		return
	}
	if err := b.flush(&r.queue.sections); err != nil {
		r.fail(-1, err)
	} else if done != nil && b.done > 0 {
		done(b.done)
	}
}
