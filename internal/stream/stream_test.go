package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/safetensors"
)

// sink is a file in memory whose writes may be held up or fail.
type sink struct {
	mu     sync.Mutex
	data   []byte
	before func() error
}

func (s *sink) WriteAt(p []byte, off int64) (int, error) {
	if s.before != nil {
		if err := s.before(); err != nil {
			return 0, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if need := int(off) + len(p) - len(s.data); need > 0 {
		s.data = append(s.data, make([]byte, need)...)
	}
	return copy(s.data[off:], p), nil
}

// output is a writer of one tensor with that many bytes.
func output(t *testing.T, n int) (*bodies.Writer, safetensors.Tensor, *sink) {
	t.Helper()
	h, err := safetensors.NewHeader([]safetensors.Tensor{{Name: "x", Dtype: safetensors.U8, Shape: []int{n}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := new(sink)
	w := bodies.NewWriter(s, h)
	if err := w.WriteHeader(); err != nil {
		t.Fatal(err)
	}
	return w, h.Tensors[0], s
}

// tasks yields n tasks that do the same with their number.
func tasks(n int, do func(w *Worker, i int) error) iter.Seq[Task] {
	return func(yield func(Task) bool) {
		for i := range n {
			if !yield(Task{Do: func(w *Worker) error { return do(w, i) }}) {
				return
			}
		}
	}
}

// sized says of tasks how much they read.
func sized(n int, all iter.Seq[Task]) iter.Seq[Task] {
	return func(yield func(Task) bool) {
		for task := range all {
			task.Bytes = int64(n)
			if !yield(task) {
				return
			}
		}
	}
}

// noLeaks fails if goroutines are left after a run.
func noLeaks(t *testing.T) func() {
	t.Helper()
	before := runtime.NumGoroutine()
	return func() {
		t.Helper()
		for range 200 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Errorf("%d goroutines are left of %d", runtime.NumGoroutine(), before)
	}
}

// TestWritesArrive: every byte that a task fills is in the output, and every
// byte that it counts is reported, by any number of threads.
func TestWritesArrive(t *testing.T) {
	defer noLeaks(t)()
	const n = 500
	for _, threads := range []int{1, 2, 8} {
		to, tensor, s := output(t, 2*n)
		var counted int64
		err := Run(t.Context(), threads, tasks(n, func(w *Worker, i int) error {
			w.Bytes(1, 10+i)[0], w.Floats(0, i+1)[i] = 1, 1
			w.Output(to, tensor, int64(i), 1)[0] = byte(i)
			copy(w.Output(to, tensor, int64(n+i), 1), []byte{byte(i + 7)})
			w.Done(3)
			w.Done(4)
			return nil
		}), func(n int64) { counted += n }) // the race detector sees whether calls overlap
		if err == nil {
			err = to.Finish()
		}
		if err != nil || counted != 7*n {
			t.Errorf("%d threads: %v, counted %d, want %d", threads, err, counted, 7*n)
		}
		body := s.data[len(s.data)-2*n:]
		for i := range n {
			if body[i] != byte(i) || body[n+i] != byte(i+7) {
				t.Fatalf("%d threads: byte %d is %d, %d", threads, i, body[i], body[n+i])
			}
		}
	}
}

// TestFirstErrorWins: the same run must name the same tensor every time,
// however threads fall.
func TestFirstErrorWins(t *testing.T) {
	defer noLeaks(t)()
	for i := range 300 {
		threads, first := 1+i%8, 20+rand.IntN(20)
		err := Run(t.Context(), threads, sized(i%3, tasks(80, func(_ *Worker, i int) error {
			if i < first {
				return nil
			}
			if i == first {
				for range rand.IntN(50) {
					runtime.Gosched()
				}
			}
			return fmt.Errorf("task %d", i)
		})), nil)
		if want := fmt.Sprintf("task %d", first); err == nil || err.Error() != want {
			t.Fatalf("%d threads: %v, want %s", threads, err, want)
		}
	}
}

// TestPanicIsAnError: outputs are cleaned up only if the run returns.
func TestPanicIsAnError(t *testing.T) {
	defer noLeaks(t)()
	to, tensor, s := output(t, 4)
	header := len(s.data)
	err := Run(t.Context(), 3, tasks(9, func(w *Worker, i int) error {
		if i == 4 {
			w.Output(to, tensor, 0, 4)
			panic("a bug")
		}
		return nil
	}), nil)
	if err == nil || !strings.Contains(err.Error(), "internal error: a bug") || !strings.Contains(err.Error(), "stream_test.go") {
		t.Errorf("got %v", err)
	}
	if len(s.data) != header {
		t.Error("what the task had half filled was written")
	}
}

// TestWriteErrorStops: a disk that is full ends the run, also for tasks that
// wait for others.
func TestWriteErrorStops(t *testing.T) {
	defer noLeaks(t)()
	full := errors.New("disk full")
	to, tensor, s := output(t, 1000)
	s.before = func() error { return full }
	var ran atomic.Int64
	err := Run(t.Context(), 4, tasks(1000, func(w *Worker, i int) error {
		ran.Add(1)
		w.Output(to, tensor, int64(i), 1)
		w.Done(enoughDone) // a tile of a large tensor
		if i%100 == 99 {
			<-w.Cancelled()
		}
		return nil
	}), func(int64) { t.Error("counted as done") })
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if n := ran.Load(); n == 1000 {
		t.Error("every task ran all the same")
	}
}

// TestCancel: an interrupt ends a run soon, before, in the midst and at the end.
func TestCancel(t *testing.T) {
	defer noLeaks(t)()
	for _, at := range []int{-1, 0, 50} {
		ctx, cancel := context.WithCancel(t.Context())
		if at < 0 {
			cancel()
		}
		var ran atomic.Int64
		err := Run(ctx, 3, tasks(100_000, func(w *Worker, i int) error {
			ran.Add(1)
			if i == at {
				cancel()
			}
			return nil
		}), nil)
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("at %d: %v", at, err)
		}
		if n := ran.Load(); n == 100_000 || at < 0 && n > 0 {
			t.Errorf("at %d: %d tasks ran", at, n)
		}
	}
}

// TestWaitingTasks: a task may wait for earlier ones; with any number of
// threads that must not stand still.
func TestWaitingTasks(t *testing.T) {
	defer noLeaks(t)()
	for i := range 8 {
		const n = 64
		threads := 1 + i/2
		known := make(chan struct{})
		var left atomic.Int64
		left.Store(n)
		err := Run(t.Context(), threads, sized(i%2*enoughDone/10, tasks(2*n, func(w *Worker, i int) error {
			if i < n {
				if left.Add(-1) == 0 {
					close(known)
				}
				return nil
			}
			select {
			case <-known:
			case <-w.Cancelled():
			}
			return nil
		})), nil)
		if err != nil {
			t.Error(err)
		}
	}
}

// TestBackpressure: where writing is slow, memory must not fill with outputs.
func TestBackpressure(t *testing.T) {
	for _, threads := range []int{1, 2, 5} {
		const n = 60
		to, tensor, s := output(t, n)
		var filled, most atomic.Int64 // outputs that are not written yet
		s.before = func() error {
			time.Sleep(time.Millisecond)
			filled.Add(-1)
			return nil
		}
		err := Run(t.Context(), threads, tasks(n, func(w *Worker, i int) error {
			w.Output(to, tensor, int64(i), 1)
			w.Done(enoughDone) // a tile of a large tensor
			now := filled.Add(1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			return nil
		}), nil)
		if err != nil || most.Load() > int64(Batches(threads)) {
			t.Errorf("%d threads: %v, %d batches in flight, want at most %d", threads, err, most.Load(), Batches(threads))
		}
	}
}

// TestBuffersAreReused: the memory of a run must not grow with its length.
func TestBuffersAreReused(t *testing.T) {
	const n, size = 400, 1 << 16
	to, tensor, s := output(t, n)
	s.data = make([]byte, 0, 1<<17)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := Run(t.Context(), 2, tasks(n, func(w *Worker, i int) error {
		w.Bytes(0, size)
		w.Floats(1, size/4-i)
		w.Output(to, tensor, int64(i), 1)
		return nil
	}), nil)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; err != nil || took > 40*size {
		t.Errorf("%v, allocated %d bytes", err, took)
	}
}

// TestNoTasks: a checkpoint without tensors is one too.
func TestNoTasks(t *testing.T) {
	if err := Run(t.Context(), 2, tasks(0, nil), nil); err != nil {
		t.Error(err)
	}
}

// TestSmallTasksShareWrites: a checkpoint of many small tensors must cost by the
// byte, not by the tensor.
func TestSmallTasksShareWrites(t *testing.T) {
	const n = 10_000
	for _, threads := range []int{1, 4} {
		to, tensor, s := output(t, n)
		calls := 0
		s.before = func() error { calls++; return nil }
		err := Run(t.Context(), threads, sized(1, tasks(n, func(w *Worker, i int) error {
			w.Output(to, tensor, int64(i), 1)[0] = byte(i)
			w.Done(1)
			return nil
		})), nil)
		if err == nil {
			err = to.Finish()
		}
		// No row has more tasks than a batch has writes, so none is split.
		if err != nil || calls > n/enoughWrites+1 {
			t.Errorf("%d threads: %v, %d writes for %d tasks", threads, err, calls, n)
		}
	}
}
