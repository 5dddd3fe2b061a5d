package stream

import (
	"sync"

	"github.com/tensorpress/tensorpress/internal/bodies"
)

// line is where batches wait to be written. Who adds one while nobody writes,
// writes: what was just made is in that core's cache still. Who adds one while
// another writes goes on with the next, as the system would have both wait for
// each other.
type line struct {
	flush    func(b *batch)
	sections bodies.Sections // of who writes

	mu      sync.Mutex
	writing bool
	waiting []*batch
}

func (l *line) add(b *batch) {
	if l.join(b) {
		l.write()
	}
}

// join puts a batch in line and reports whether nobody writes.
func (l *line) join(b *batch) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, b)
	first, l.writing = !l.writing, true
	return first
}

// write works the line off.
func (l *line) write() {
	for b := l.next(); b != nil; b = l.next() {
		l.flush(b)
	}
}

// next is the batch that has waited longest, or nil where there is none.
func (l *line) next() *batch {
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
