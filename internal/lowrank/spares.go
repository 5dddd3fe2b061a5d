package lowrank

import (
	"sync"
)

// spares keeps slices that are no longer used, for whoever needs one of the same
// length. The layers of a model have few different shapes, and the first use of fresh
// memory costs more than most of the work on it. Slices that nobody takes are garbage
// collected.
type spares[T any] struct {
	pools sync.Map // *sync.Pool of *[]T, by length
}

var (
	singles spares[float32]
	doubles spares[float64]
)

// take returns a slice of that length and any content.
func (s *spares[T]) take(n int) []T {
	if x, ok := s.pool(n).Get().(*[]T); ok {
		return *x
	}
	return make([]T, n)
}

// zeros returns a slice of that many zeros.
func (s *spares[T]) zeros(n int) []T {
	x := s.take(n)
	clear(x)
	return x
}

// give takes slices back, which nobody may use any more.
func (s *spares[T]) give(all ...[]T) {
	for _, x := range all {
		if len(x) > 0 {
			s.pool(len(x)).Put(&x)
		}
	}
}

func (s *spares[T]) pool(n int) *sync.Pool {
	if p, ok := s.pools.Load(n); ok {
		return p.(*sync.Pool)
	}
	p, _ := s.pools.LoadOrStore(n, new(sync.Pool))
	return p.(*sync.Pool)
}
