package lowrank

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// stack is matrices of one size, added one by one and read in parts. Those that
// are put away lie on a shelf, if there is one, at multiples of their size from a
// place on.
type stack[T float32 | float64] struct {
	pool  *spares[T]
	list  [][]T // nil for one that is put away
	shelf tile.Spill
	place int64
	err   error // the first one of the shelf
}

func (b *stack[T]) add(x []T) { b.list = append(b.list, x) }

// last is the one added last, which is not put away.
func (b *stack[T]) last() []T { return b.list[len(b.list)-1] }

// putAway puts all on the shelf.
func (b *stack[T]) putAway() {
	if b.shelf == nil {
		return
	}
	for i, x := range b.list {
		if x == nil {
			continue
		}
		raw := kernel.AsBytes(x)
		if _, err := b.shelf.WriteAt(raw, b.place+int64(i*len(raw))); err != nil && b.err == nil {
			b.err = err
		}
		b.pool.give(x)
		b.list[i] = nil
	}
}

// part returns values [from, to) of block i, each of size values, in that buffer if
// they are put away.
func (b *stack[T]) part(i, size, from, to int, buffer *[]T) []T {
	if x := b.list[i]; x != nil {
		return x[from:to]
	}
	x := tile.Sized(buffer, to-from)
	raw := kernel.AsBytes(x)
	if _, err := b.shelf.ReadAt(raw, b.place+int64((i*size+from)*(len(raw)/len(x)))); err != nil && b.err == nil {
		b.err = err
	}
	return x
}

// free gives the memory back.
func (b *stack[T]) free() {
	b.pool.give(b.list...)
	b.list = nil
}
