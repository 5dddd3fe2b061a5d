package stream

import (
	"sync"

	"github.com/tensorpress/tensorpress/internal/bodies"
)

// writeQueue is a queue with one writer at a time. A worker that finds nobody writing
// drains the queue, its own batch first, which its core still has in cache; a worker
// that finds another one writing leaves its batch and goes back to computing, because
// the system serialises writes to one file anyway.
type writeQueue struct {
	flush    func(b *writeBatch)
	sections bodies.Sections // used by the worker that writes

	mu      sync.Mutex
	writing bool
	waiting []*writeBatch
}

// enqueue adds a batch, and writes it together with all others if nobody else is
// writing.
func (l *writeQueue) enqueue(b *writeBatch) {
	if l.join(b) {
		l.drain()
	}
}

// join appends a batch and reports whether nobody is writing, in which case the caller
// must drain the queue.
func (l *writeQueue) join(b *writeBatch) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, b)
	first, l.writing = !l.writing, true
	return first
}

// drain writes batches until the queue is empty.
func (l *writeQueue) drain() {
	for b := l.next(); b != nil; b = l.next() {
		l.flush(b)
	}
}

// next takes the oldest batch, or returns nil and marks the queue as idle if it is
// empty.
func (l *writeQueue) next() *writeBatch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.writing = false
		return nil
	}
	b := l.waiting[0]
	l.waiting = append(l.waiting[:0], l.waiting[1:]...)
	return b
}
