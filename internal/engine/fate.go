package engine

import (
	"sync"

	"github.com/tensorpress/tensorpress/internal/stream"
)

// Fate is what becomes of one output of a run that has several.
type Fate struct {
	// Alone says that the others go on where this output fails.
	Alone bool

	once sync.Once
	done chan struct{} // closed once it has failed
	err  error
}

// NewFate returns that of an output which has not failed.
func NewFate(alone bool) *Fate { return &Fate{Alone: alone, done: make(chan struct{})} }

// OutputError is the error of an output that ends the run.
type OutputError struct {
	Fate *Fate // whose it is
	Err  error
}

func (e *OutputError) Error() string { return e.Err.Error() }
func (e *OutputError) Unwrap() error { return e.Err }

// Fail notes an error, of which the first counts, and returns what the run is told of it:
// nil where the others go on.
func (f *Fate) Fail(err error) error {
	if err == nil || f == nil {
		return err
	}
	f.once.Do(func() {
		f.err = err
		close(f.done)
	})
	if f.Alone {
		return nil
	}
	return &OutputError{f, err}
}

// Err is the error that the output has failed with, nil for none.
func (f *Fate) Err() error {
	if !f.over() {
		return nil
	}
	return f.err
}

// over reports whether the output has failed.
func (f *Fate) over() bool {
	if f == nil {
		return false
	}
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// guard has the errors of an output's tasks decide about that output.
func (q *Quantization) guard(yield func(stream.Task) bool) func(stream.Task) bool {
	if q.Fate == nil {
		return yield
	}
	return func(task stream.Task) bool {
		do := task.Do
		task.Do = func(w *stream.Worker) error { return q.Fate.Fail(do(w)) }
		return yield(task)
	}
}

// guarded is guard of a phase.
func (q *Quantization) guarded(tasks phase) phase {
	return func(yield func(stream.Task) bool) { tasks(q.guard(yield)) }
}

// unlessOver leaves out the tasks of an output that has failed meanwhile. It is for tasks
// of which no other hears.
func (q *Quantization) unlessOver(yield func(stream.Task) bool) func(stream.Task) bool {
	return func(task stream.Task) bool {
		do := task.Do
		task.Do = func(w *stream.Worker) error {
			if q.Fate.over() {
				return nil
			}
			return do(w)
		}
		return yield(task)
	}
}

// wait waits until ready is closed. It reports false if the run or the output ends before
// that.
func (e *encoding) wait(w *stream.Worker, ready <-chan struct{}) bool {
	if e.Fate == nil {
		return waitFor(w, ready)
	}
	if e.Fate.over() {
		return false
	}
	if ready == nil {
		return true
	}
	select {
	case <-ready:
		return true
	case <-e.Fate.done:
		return false
	case <-w.Cancelled():
		return false
	}
}
