package stream

import (
	"github.com/tensorpress/tensorpress/internal/bodies"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/safetensors"
)

// batch is what one task writes, or several small ones.
type batch struct {
	writes []write
	later  []func() error
	buffer []byte
	used   int   // of the buffer
	before int   // bytes given out of buffers that were too small
	done   int64 // bytes of the source
}

type write struct {
	to   *bodies.Writer
	t    safetensors.Tensor
	at   tile.Span
	data []byte
}

const (
	enoughDone    = 192 << 10
	mostOfRow     = 256 << 10
	enoughBytes   = 128 << 10
	enoughWrites  = 512
	leastOfBuffer = 4 << 10
)

// enough reports whether the batch should be written. That of a tile of a large
// tensor is; small tensors share one.
func (b *batch) enough() bool {
	return b.done >= enoughDone || b.before+b.used >= enoughBytes || len(b.writes) >= enoughWrites
}

// reset empties the batch. Where buffers were too small the next is as large
// as all of them.
func (b *batch) reset() {
	if b.before > 0 {
		b.buffer = make([]byte, b.before+b.used)
	}
	b.writes, b.later, b.used, b.before, b.done = b.writes[:0], b.later[:0], 0, 0, 0
}

// room returns n bytes of any content, which stay until reset. What it returns
// next lies behind them where it can, within their capacity: [bodies.Sections]
// need not copy them then to write both at once.
func (b *batch) room(n int) []byte {
	if n > len(b.buffer)-b.used {
		b.before += b.used
		b.buffer, b.used = make([]byte, max(n, leastOfBuffer)), 0
	}
	b.used += n
	return b.buffer[b.used-n : b.used]
}

// flush writes all in as few calls as it takes.
func (b *batch) flush(all *bodies.Sections) error {
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
