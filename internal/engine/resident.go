package engine

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
)

// Residency lends buffers to weights that are read several times, so that they stay in
// memory between passes. There are as many buffers as weights may be under way at the
// same time, and they are reused.
type Residency struct {
	room, search int64         // bytes for buffers and low-rank searches together, and for searches alone
	slots        chan struct{} // has an element for each weight that holds a buffer

	mu   sync.Mutex
	free [][]byte
	Held int64 // bytes of all buffers, free or lent
}

// NewResidency returns a residency that uses a share of the run's memory limit.
func NewResidency(r Resources) *Residency {
	return &Residency{
		room:   limit(r) - 2*baseMemory, // the program and the workers' buffers
		search: searches(r),
		slots:  make(chan struct{}, Workers(r)),
	}
}

// resident is a tensor, or as much of its beginning as fits, that stays in memory after
// the first pass has read it.
type resident struct {
	residency *Residency
	Size      int64
	limit     int64 // that all buffers may take beside it
	once      sync.Once
	Data      []byte      // nil if the run ended before there was a free slot
	read      atomic.Bool // the first pass has read all of Data
}

// Reserve plans a buffer for a tensor of that size, next to a search that holds that
// many bytes. It returns nil if there is no memory. To be free of deadlock, work on
// tensors must start in the order of these calls, with at most cap(slots) tensors under
// way: then a tensor that waits for a slot waits for work that has already begun.
func (k *Residency) Reserve(size, search int64) *resident {
	most := max(k.room-max(k.search, search), 0)
	if size = min(size, most/int64(cap(k.slots))); size == 0 {
		return nil
	}
	return &resident{residency: k, Size: size, limit: most}
}

// Take waits for a slot and takes a buffer.
func (t *resident) Take(cancelled <-chan struct{}) {
	select {
	case t.residency.slots <- struct{}{}:
		t.Data = t.residency.buffer(t.Size, t.limit)
	case <-cancelled:
	}
}

// buffer returns a buffer of that size, a free one if possible. It drops other free
// buffers if all together would exceed most bytes.
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

// Release returns the buffer. Nothing may use its content any more.
func (t *resident) Release() {
	if t.Data == nil {
		return
	}
	k := t.residency
	k.mu.Lock()
	k.free = append(k.free, t.Data)
	k.mu.Unlock()
	<-k.slots
}

// section returns a run of the tensor's bytes, from memory as far as they are there,
// and reads the rest.
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
