package lowrank

import (
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// blockStack is a list of matrices of one size, which are added one by one and read in
// parts. With a spill file, matrices can be moved there: matrix i lies at i times its
// size after place.
type blockStack[T float32 | float64] struct {
	pool  *spares[T]
	list  [][]T // nil for a matrix in the file
	file  tile.Spill
	place int64
	err   error // the first error of the file
}

func (b *blockStack[T]) add(x []T) { b.list = append(b.list, x) }

// last returns the matrix added last, which must not be spilled yet.
func (b *blockStack[T]) last() []T { return b.list[len(b.list)-1] }

// spill moves all matrices to the file, if there is one.
func (b *blockStack[T]) spill() {
	if b.file == nil {
		return
	}
	for i, x := range b.list {
		if x == nil {
			continue
		}
		raw := kernel.AsBytes(x)
		if _, err := b.file.WriteAt(raw, b.place+int64(i*len(raw))); err != nil && b.err == nil {
			b.err = err
		}
		b.pool.give(x)
		b.list[i] = nil
	}
}

// part returns values [from, to) of matrix i, each matrix having size values. It reads
// them into the buffer if the matrix is in the file.
func (b *blockStack[T]) part(i, size, from, to int, buffer *[]T) []T {
	if x := b.list[i]; x != nil {
		return x[from:to]
	}
	x := tile.Sized(buffer, to-from)
	raw := kernel.AsBytes(x)
	if _, err := b.file.ReadAt(raw, b.place+int64((i*size+from)*(len(raw)/len(x)))); err != nil && b.err == nil {
		b.err = err
	}
	return x
}

// free gives the memory back.
func (b *blockStack[T]) free() {
	b.pool.give(b.list...)
	b.list = nil
}
