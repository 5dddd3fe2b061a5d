package engine

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// Residency lends memory to weights that are read several times, as many as are
// under way together. It is the same buffers again and again.
type Residency struct {
	room, beside int64         // what buffers and searches may take, and searches of it
	slots        chan struct{} // as many as weights may be under way, full where they are

	mu   sync.Mutex
	free [][]byte
	Held int64 // bytes of all buffers, those that are lent too
}

// NewResidency lends a share of the memory that a run may take.
func NewResidency(r Resources) *Residency {
	return &Residency{
		room:   limit(r) - 2*baseMemory, // the program and the workers' buffers
		beside: searches(r),
		slots:  make(chan struct{}, Workers(r)),
	}
}

// resident is the beginning of a tensor, or all of it, which stays in memory as the
// first pass reads it.
type resident struct {
	keeper *Residency
	Size   int64
	most   int64 // that all buffers may take beside it
	once   sync.Once
	Data   []byte      // nil when the run is over early
	read   atomic.Bool // all of it is there
}

// Keep is for tensors whose work begins in the order in which they are kept,
// and when no more than slots are under way: then who waits for one waits for
// work that has begun. search is what else the work takes. It returns nil where
// there is no memory.
func (k *Residency) Keep(size, search int64) *resident {
	most := max(k.room-max(k.beside, search), 0)
	if size = min(size, most/int64(cap(k.slots))); size == 0 {
		return nil
	}
	return &resident{keeper: k, Size: size, most: most}
}

// Take waits for a slot.
func (t *resident) Take(cancelled <-chan struct{}) {
	select {
	case t.keeper.slots <- struct{}{}:
		t.Data = t.keeper.buffer(t.Size, t.most)
	case <-cancelled:
	}
}

// buffer returns one of a size. Others that are free go where all would be more
// than most.
func (k *Residency) buffer(size, most int64) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	best := -1
	for i, b := range k.free {
		if int64(cap(b)) >= size && (best < 0 || cap(b) < cap(k.free[best])) {
			best = i
		}
	}
	var b []byte
	if best >= 0 {
		b = k.free[best][:size]
		k.free = slices.Delete(k.free, best, best+1)
	} else {
		k.Held += size
	}
	for k.Held > most && len(k.free) > 0 {
		last := len(k.free) - 1
		k.Held -= int64(cap(k.free[last]))
		k.free = slices.Delete(k.free, last, last+1)
	}
	if b == nil {
		b = make([]byte, size)
	}
	return b
}

// Release gives the memory back. Nothing of the tensor may be in use.
func (t *resident) Release() {
	if t.Data == nil {
		return
	}
	k := t.keeper
	k.mu.Lock()
	k.free = append(k.free, t.Data)
	k.mu.Unlock()
	<-k.slots
}

// section returns a run of a tensor's bytes, which is read if need be.
func (t *resident) section(w *stream.Worker, c *checkpoint.Checkpoint, from checkpoint.Tensor, run tile.Span) ([]byte, error) {
	t.once.Do(func() { t.Take(w.Cancelled()) })
	size := int64(len(t.Data))
	part := t.Data[min(run.Offset, size):min(run.Offset+run.Size, size)]
	if !t.read.Load() {
		if err := c.ReadSection(from, part, run.Offset); err != nil {
			return nil, err
		}
	}
	if int64(len(part)) == run.Size {
		return part, nil
	}
	raw := w.Bytes(RawBuffer, int(run.Size))
	n := copy(raw, part)
	return raw, c.ReadSection(from, raw[n:], run.Offset+int64(n))
}
