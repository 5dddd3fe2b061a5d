package engine

import (
	"iter"

	"github.com/tensorpress/tensorpress/internal/stream"
)

// phase is a part of the work on a weight, whose tasks wait until all before it
// is complete.
type phase = iter.Seq[stream.Task]

// inOrder yields phases one after the other.
func inOrder(phases []phase, yield func(stream.Task) bool) bool {
	for _, s := range phases {
		for task := range s {
			if !yield(task) {
				return false
			}
		}
	}
	return true
}

// turns takes weights that are read several times through their phases in turn:
// while one core does what has to be done between two passes over one, the
// others read the next.
type turns struct {
	active []turn
	held   int64
}

// turn is a weight under way.
type turn struct {
	phases []phase // that are to come
	held   int64   // bytes that it takes meanwhile
	alone  bool    // there is much to do in it that one core does
}

// add takes a weight once no more than so many are under way, or with it would
// take more than the memory.
func (t *turns) add(one turn, most int, memory int64, yield func(stream.Task) bool) bool {
	const few = 2 // a weight with no more is done sooner by itself
	if len(one.phases) <= few && !one.alone {
		return inOrder(one.phases, yield)
	}
	for len(t.active) > 0 && (len(t.active) >= most || t.held+one.held > memory) {
		if !t.next(yield) {
			return false
		}
	}
	t.active, t.held = append(t.active, one), t.held+one.held
	return true
}

// next yields a phase of each weight.
func (t *turns) next(yield func(stream.Task) bool) bool {
	going := t.active[:0]
	for _, one := range t.active {
		if !inOrder(one.phases[:1], yield) {
			return false
		}
		if one.phases = one.phases[1:]; len(one.phases) > 0 {
			going = append(going, one)
		} else {
			t.held -= one.held
		}
	}
	clear(t.active[len(going):])
	t.active = going
	return true
}

// flush yields all that is left.
func (t *turns) flush(yield func(stream.Task) bool) bool {
	for len(t.active) > 0 {
		if !t.next(yield) {
			return false
		}
	}
	return true
}
