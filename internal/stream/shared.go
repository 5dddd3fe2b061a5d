package stream

import (
	"reflect"
	"slices"
	"sync"
)

// shared is what tasks in a row have in common, each made when the first of them
// asks. Few are kept: tasks of one layer follow each other.
type shared struct {
	mu   sync.Mutex
	list []*common
}

type common struct {
	key   any
	once  sync.Once
	value any
	err   error
}

// mostShared is how many are kept for each type of key: of the layers that are worked on
// together, and of what they are compared with.
const mostShared = 4

// Shared returns what make returns for a key. Of tasks that ask at the same time one
// makes it; it is made again if several other keys of its type were asked for since.
func Shared[T any](w *Worker, key any, make func() (T, error)) (T, error) {
	c := w.run.shared.of(key)
	c.once.Do(func() { c.value, c.err = make() })
	value, _ := c.value.(T) // nil after an error
	return value, c.err
}

// of returns that of a key, which counts as the last one asked for.
func (s *shared) of(key any) *common {
	s.mu.Lock()
	defer s.mu.Unlock()
	alike, oldest := 0, -1
	for i, c := range s.list {
		switch {
		case c.key == key:
			s.list = append(slices.Delete(s.list, i, i+1), c)
			return c
		case reflect.TypeOf(c.key) == reflect.TypeOf(key):
			if alike++; oldest < 0 {
				oldest = i
			}
		}
	}
	if alike == mostShared {
		s.list = slices.Delete(s.list, oldest, oldest+1)
	}
	s.list = append(s.list, &common{key: key})
	return s.list[len(s.list)-1]
}
