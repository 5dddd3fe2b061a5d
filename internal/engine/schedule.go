package engine

import (
	"iter"

	"github.com/tensorpress/tensorpress/internal/stream"
)

// phase is the tasks of a survey, of a pass or of encoding a weight; they wait until
// the phases before are complete.
type phase = iter.Seq[stream.Task]

// inOrder yields the tasks of one phase after another.
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

// schedule interleaves the phases of weights that are read several times: first a phase
// of each weight under way, then the next phase of each. While one core does what has
// to be done between two passes over one weight, the others read the next weight.
type schedule struct {
	active []scheduled
	held   int64 // bytes that the active weights hold
}

// scheduled is a weight under way.
type scheduled struct {
	phases []phase // those not yet yielded
	held   int64   // bytes that the encoder holds
	serial bool    // a large part of the work runs on one core
}

// add adds a weight, after yielding phases of others until fewer than most weights are
// active and the new one fits into the memory.
func (t *schedule) add(w scheduled, most int, memory int64, yield func(stream.Task) bool) bool {
	const few = 2 // interleaving gains nothing for weights with no more phases
	if len(w.phases) <= few && !w.serial {
		return inOrder(w.phases, yield)
	}
	for len(t.active) > 0 && (len(t.active) >= most || t.held+w.held > memory) {
		if !t.next(yield) {
			return false
		}
	}
	t.active, t.held = append(t.active, w), t.held+w.held
	return true
}

// next yields one phase of each active weight.
func (t *schedule) next(yield func(stream.Task) bool) bool {
	going := t.active[:0]
	for _, w := range t.active {
		if !inOrder(w.phases[:1], yield) {
			return false
		}
		if w.phases = w.phases[1:]; len(w.phases) > 0 {
			going = append(going, w)
		} else {
			t.held -= w.held
		}
	}
	clear(t.active[len(going):])
	t.active = going
	return true
}

// flush yields all phases that are left.
func (t *schedule) flush(yield func(stream.Task) bool) bool {
	for len(t.active) > 0 {
		if !t.next(yield) {
			return false
		}
	}
	return true
}
