package tensorpress

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/quant"
)

// keeper lends memory to tensors that are read several times. It is the same
// buffers again and again.
type keeper struct {
	mu   sync.Mutex
	lent int64
	free [][]byte
}

// kept is a tensor that stays in memory as its first pass reads it.
type kept struct {
	keeper *keeper
	size   int64
	once   sync.Once
	data   []byte
	whole  atomic.Bool // all of it is there
}

// keep returns room for a tensor, or nil where that would be more than most.
func (k *keeper) keep(size, most int64) *kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lent+size > most {
		return nil
	}
	k.lent += size
	return &kept{keeper: k, size: size}
}

// buffer returns one of a size, of those that are free the first that is
// large enough.
func (k *keeper) buffer(size int64) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, b := range k.free {
		if int64(cap(b)) >= size {
			k.free = slices.Delete(k.free, i, i+1)
			return b[:size]
		}
	}
	k.free = nil // too small for what comes now
	return make([]byte, size)
}

// release gives the memory back. Nothing of the tensor may be in use.
func (t *kept) release() {
	k := t.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lent -= t.size
	k.free = append(k.free, t.data)
}

// section returns a run of a tensor's bytes, which is read if need be.
func (t *kept) section(c *checkpoint.Checkpoint, from checkpoint.Tensor, run quant.Span) ([]byte, error) {
	t.once.Do(func() { t.data = t.keeper.buffer(t.size) })
	part := t.data[run.Offset : run.Offset+run.Size]
	if t.whole.Load() {
		return part, nil
	}
	return part, c.ReadSection(from, part, run.Offset)
}
