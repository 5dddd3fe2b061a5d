package stream

import (
	"errors"
	"sync/atomic"
	"testing"
)

// TestShared: what a layer's tiles have in common is read and decoded once, not by
// every tile, and does not pile up over the layers of a model.
func TestShared(t *testing.T) {
	for _, c := range []struct{ threads, layers, tiles int }{{1, 20, 30}, {4, MaxShared, 200}} {
		made := make([]atomic.Int32, c.layers)
		var s atomic.Pointer[shared]
		err := Run(t.Context(), c.threads, tasks(c.layers*c.tiles, func(w *Worker, i int) error {
			layer := i / c.tiles
			s.Store(&w.run.shared)
			got, err := Shared(w, layer, func() (int, error) {
				made[layer].Add(1)
				return layer * layer, nil
			})
			if err != nil || got != layer*layer {
				t.Errorf("task %d: got %d, %v", i, got, err)
			}
			return nil
		}), nil)
		if err != nil {
			t.Fatal(err)
		}
		for layer := range made {
			if n := made[layer].Load(); n != 1 {
				t.Errorf("%d threads, layer %d: made %d times", c.threads, layer, n)
			}
		}
		if n := len(s.Load().list); n != MaxShared {
			t.Errorf("%d are kept, want %d", n, MaxShared)
		}
	}
}

// TestSharedError: each of the tiles fails, whichever makes it.
func TestSharedError(t *testing.T) {
	failure := errors.New("damaged")
	w := &Worker{run: new(run)}
	for range 3 {
		if _, err := Shared(w, "layer", func() (string, error) { return "", failure }); err != failure {
			t.Errorf("got %v", err)
		}
	}
}

// freed is a value that knows whether its memory may be used again.
type freed struct {
	atomic.Bool
	all *atomic.Int32
}

func (f *freed) Free() {
	if f.Swap(true) {
		panic("freed twice")
	}
	f.all.Add(1)
}

// TestFreer: a value's memory is used again once no task has the value, and not before,
// also where other values push it out while tasks use it.
func TestFreer(t *testing.T) {
	const layers, tiles = 60, 25
	var made, free atomic.Int32
	err := Run(t.Context(), 4, tasks(layers*tiles, func(w *Worker, i int) error {
		get := func(key int) *freed {
			f, err := Shared(w, key, func() (*freed, error) { made.Add(1); return &freed{all: &free}, nil })
			if err != nil || f.Load() {
				t.Errorf("task %d: value %d is freed before its use, or %v", i, key, err)
			}
			return f
		}
		mine := get(i / tiles)
		if i%tiles > tiles-3 {
			for other := range MaxShared + 2 {
				get(layers + i*(MaxShared+2) + other)
			}
		}
		if mine.Load() {
			t.Errorf("task %d: its value is freed while the task uses it", i)
		}
		return nil
	}), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := made.Load() - free.Load(); n != MaxShared {
		t.Errorf("%d values of %d are not freed, want the last %d", n, made.Load(), MaxShared)
	}
}
