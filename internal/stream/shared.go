package stream

import (
	"reflect"
	"slices"
	"sync"
)

// shared holds values that several tasks use, each made by the first task that asks for
// it. Only a few are held at a time, because the tasks of one layer follow each other.
type shared struct {
	mu   sync.Mutex
	list []*sharedValue
}

type sharedValue struct {
	key   any
	once  sync.Once
	value any
	err   error
	tasks int  // that asked for it and have not ended
	past  bool // not held any more
}

// Freer is a shared value whose memory is used again: Free is called once it is not held
// any more and the tasks that asked for it have ended.
type Freer interface{ Free() }

// MaxShared is how many values are held for each type of key: for the layers that are
// under way at the same time, and for those that they are compared with.
const MaxShared = 4

// Shared returns what make returns for a key. Of tasks that ask at the same time, one
// makes the value and the others wait. It is made again if more than MaxShared other
// keys of the same type were asked for since.
func Shared[T any](w *Worker, key any, make func() (T, error)) (T, error) {
	return SharedFew(w, key, MaxShared, make)
}

// SharedFew is [Shared] for values of which fewer are held.
func SharedFew[T any](w *Worker, key any, most int, make func() (T, error)) (T, error) {
	c := w.run.shared.lookup(key, most)
	w.shares = append(w.shares, c)
	c.once.Do(func() { c.value, c.err = make() })
	value, _ := c.value.(T) // nil after an error
	return value, c.err
}

// endTask lets go of what the task has asked for.
func (w *Worker) endTask() {
	if len(w.shares) == 0 {
		return
	}
	s := &w.run.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range w.shares {
		c.tasks--
		c.freeUnused()
	}
	w.shares = w.shares[:0]
}

// freeUnused frees a value that nobody has, and nobody will have.
func (c *sharedValue) freeUnused() {
	if !c.past || c.tasks > 0 || c.err != nil {
		return
	}
	if f, ok := c.value.(Freer); ok {
		f.Free()
	}
}

// lookup returns the value of a key, which then counts as the most recently used one.
func (s *shared) lookup(key any, most int) *sharedValue {
	s.mu.Lock()
	defer s.mu.Unlock()
	alike, oldest := 0, -1
	for i, c := range s.list {
		switch {
		case c.key == key:
			s.list = append(slices.Delete(s.list, i, i+1), c)
			c.tasks++
			return c
		case reflect.TypeOf(c.key) == reflect.TypeOf(key):
			if alike++; oldest < 0 {
				oldest = i
			}
		}
	}
	if alike >= most {
		s.list[oldest].past = true
		s.list[oldest].freeUnused()
		s.list = slices.Delete(s.list, oldest, oldest+1)
	}
	s.list = append(s.list, &sharedValue{key: key, tasks: 1})
	return s.list[len(s.list)-1]
}
