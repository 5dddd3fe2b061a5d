package stream

import (
	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// writeBatch is what one task writes, or several small ones together.
type writeBatch struct {
	writes []write
	later  []func() error // called once the writes are done
	buffer []byte
	used   int   // bytes of buffer that are handed out
	before int   // bytes handed out of earlier buffers, which were too small
	done   int64 // bytes of the source that this batch accounts for
}

type write struct {
	to   *bodies.Writer
	t    safetensors.Tensor
	at   tile.Span
	data []byte
}

const (
	// A batch is written as soon as it reaches one of these; maxGroupBytes bounds a
	// taskGroup.
	enoughDone    = 192 << 10
	maxGroupBytes = 256 << 10
	enoughBytes   = 128 << 10
	enoughWrites  = 512
	minBuffer     = 4 << 10
)

// enough reports whether the batch should be written now. A tile of a large tensor
// fills one by itself; small tensors share one.
func (b *writeBatch) enough() bool {
	return b.done >= enoughDone || b.before+b.used >= enoughBytes || len(b.writes) >= enoughWrites
}

// reset empties the batch for reuse. If its buffer was too small, the new one is as
// large as all that was needed.
func (b *writeBatch) reset() {
	if b.before > 0 {
		b.buffer = make([]byte, b.before+b.used)
	}
	b.writes, b.later, b.used, b.before, b.done = b.writes[:0], b.later[:0], 0, 0, 0
}

// room returns n bytes of arbitrary content that stay valid until reset. Successive
// calls return adjacent memory where possible, each slice with the capacity to reach
// the next, so that [bodies.Sections] can write them in one call without copying.
func (b *writeBatch) room(n int) []byte {
	if n > len(b.buffer)-b.used {
		b.before += b.used
		b.buffer, b.used = make([]byte, max(n, minBuffer)), 0
	}
	b.used += n
	return b.buffer[b.used-n : b.used]
}

// flush writes everything in as few calls as possible, then runs what was left for
// later.
func (b *writeBatch) flush(all *bodies.Sections) error {
	for _, w := range b.writes {
		data, off := w.data, w.at.Offset
		for range w.at.Count {
			if err := all.Add(w.to, w.t, data[:w.at.Size], off); err != nil {
				return err
			}
			data, off = data[w.at.Size:], off+w.at.Stride
		}
	}
	if err := all.Write(); err != nil {
		return err
	}
	for _, do := range b.later {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}
