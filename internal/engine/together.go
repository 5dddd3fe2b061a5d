package engine

import (
	"iter"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
)

// Together turns the plans of several outputs of one checkpoint into tiles of work. All
// outputs take a tensor before any takes the next one, and of a large tensor all take one
// band before any takes the next: what one has read is in memory for the others, be it the
// system's or that in which a far source is read.
type Together struct {
	Outputs  []*Quantization
	schedule schedule // of the weights of all outputs
}

// bandBytes is how much of a tensor one output takes before the next one does: several
// tiles, and little beside what is in memory of a far source.
const bandBytes = 2 << 20

// Tasks yields the tasks in the order of the first output's tensors; what it does not take
// follows in the order of the next.
func (t *Together) Tasks(yield func(stream.Task) bool) bool {
	small := make([]*adjacent, len(t.Outputs))
	for i, q := range t.Outputs {
		small[i] = &adjacent{Quantization: q}
		if !writeLiterals(q.Plan.Literals, q.Writers, q.unlessOver(q.guard(yield))) {
			return false
		}
	}
	for group := range alike(t.Outputs) {
		if !t.tensor(group, small, yield) {
			return false
		}
	}
	for i, q := range t.Outputs {
		if !small[i].flush(q.guard(yield)) {
			return false
		}
	}
	return t.schedule.flush(yield)
}

// alike yields the steps of all outputs that read the same tensor; the result has a list
// for each output.
func alike(outputs []*Quantization) iter.Seq[[][]*plan.Step] {
	places := make([]map[place][]*plan.Step, len(outputs))
	for i, q := range outputs {
		places[i] = map[place][]*plan.Step{}
		for k := range q.Plan.Steps {
			s := &q.Plan.Steps[k]
			places[i][placeOf(s)] = append(places[i][placeOf(s)], s)
		}
	}
	return func(yield func([][]*plan.Step) bool) {
		for _, q := range outputs {
			for k := range q.Plan.Steps {
				at := placeOf(&q.Plan.Steps[k])
				group, some := make([][]*plan.Step, len(outputs)), false
				for i := range outputs {
					group[i] = places[i][at]
					delete(places[i], at)
					some = some || group[i] != nil
				}
				if some && !yield(group) {
					return
				}
			}
		}
	}
}

// place is where a step begins to read; a layer that is stored quantized has a name
// alone.
type place struct {
	shard  int
	offset int64
	name   string
}

func placeOf(s *plan.Step) place {
	from := s.Source
	switch {
	case len(s.Copies) > 0:
		from = s.Copies[0].Source
	case s.From != nil:
		return place{name: s.Source.Name}
	}
	if from.Gathered != nil && len(from.Gathered.Pieces) > 0 {
		first := from.Gathered.Pieces[0]
		return place{shard: first.From.Shard, offset: first.From.Offset + first.Offset}
	}
	if from.Size == 0 { // another tensor begins there
		return place{name: from.Name}
	}
	return place{shard: from.Shard, offset: from.Offset}
}

// tensor yields the work of all outputs on one tensor; the matrices of a bank are taken
// one after another.
func (t *Together) tensor(group [][]*plan.Step, small []*adjacent, yield func(stream.Task) bool) bool {
	each, most := make([][]*plan.Step, len(group)), 0
	for i, steps := range group {
		for _, s := range steps {
			each[i] = append(each[i], apart(s)...)
		}
		most = max(most, len(each[i]))
	}
	for k := range most {
		one := make([]*plan.Step, len(each))
		for i, steps := range each {
			if k < len(steps) {
				one[i] = steps[k]
			}
		}
		if !t.weight(one, small, yield) {
			return false
		}
	}
	return true
}

// apart returns the steps of a bank's matrices, or else the step itself.
func apart(s *plan.Step) (all []*plan.Step) {
	bank := codec.Matrices(s.Codec)
	if bank == nil || len(s.Copies) > 0 || s.Action == plan.Drop {
		return []*plan.Step{s}
	}
	matrices(bank, s, func(one *plan.Step) bool {
		all = append(all, one)
		return true
	})
	return all
}

// weight yields the work on a step of each output, nil for none. Small weights are
// collected, and those that take long by themselves take turns with others of their kind.
func (t *Together) weight(steps []*plan.Step, small []*adjacent, yield func(stream.Task) bool) bool {
	var side [][]phase // of outputs that go side by side
	var later []scheduled
	for i, s := range steps {
		q := t.Outputs[i]
		switch {
		case s == nil || s.Action == plan.Drop:
			continue
		case isSmall(s):
			if !small[i].add(s, q.guard(yield)) {
				return false
			}
			continue
		case !small[i].flush(q.guard(yield)):
			return false
		case len(s.Copies) > 0 || s.Codec == nil:
			side = append(side, []phase{func(yield func(stream.Task) bool) { q.step(s, q.unlessOver(q.guard(yield))) }})
			continue
		}
		switch w := q.started(s); {
		case w.serial || w.held > 0:
			later = append(later, w)
		default:
			side = append(side, w.phases)
		}
	}
	r := t.Outputs[0].Resources
	if !t.schedule.add(scheduled{phases: sideBySide(side)}, Workers(r), searches(r), yield) {
		return false
	}
	for _, w := range later {
		if !t.schedule.add(w, Workers(r), searches(r), yield) {
			return false
		}
	}
	return true
}

// isSmall reports whether a step may be collected with its neighbours.
func isSmall(s *plan.Step) bool {
	return s.Codec != nil && s.From == nil && s.Source.Gathered == nil && s.Source.Size <= maxAdjacent && s.Source.Size > 0 && len(s.Copies) == 0
}

// started prepares the work on a weight.
func (q *Quantization) started(s *plan.Step) scheduled {
	e := q.encoding(s)
	if err := e.spill(); err != nil {
		return scheduled{phases: []phase{q.guarded(func(yield func(stream.Task) bool) {
			yield(stream.Task{Do: func(*stream.Worker) error { return e.explain(err) }})
		})}}
	}
	e.makeResident()
	w := e.scheduled()
	for i, one := range w.phases {
		w.phases[i] = q.guarded(one)
	}
	return w
}

// sideBySide joins the phases of weights that read the same tensor: all first ones, then
// all second ones.
func sideBySide(all [][]phase) (joined []phase) {
	if len(all) == 1 {
		return all[0]
	}
	for i := 0; ; i++ {
		var some []phase
		for _, phases := range all {
			if i < len(phases) {
				some = append(some, phases[i])
			}
		}
		if len(some) == 0 {
			return joined
		}
		joined = append(joined, byBands(some))
	}
}

// byBands yields the tasks of all phases band by band.
func byBands(all []phase) phase {
	if len(all) == 1 {
		return all[0]
	}
	return func(yield func(stream.Task) bool) {
		heads := make([]head, len(all))
		for i, one := range all {
			var stop func()
			heads[i].pull, stop = iter.Pull(one)
			defer stop()
			heads[i].next()
		}
		for {
			first, some := int64(0), false
			for _, h := range heads {
				if h.ok && (!some || h.band() < first) {
					first, some = h.band(), true
				}
			}
			if !some {
				return
			}
			for i := range heads {
				for h := &heads[i]; h.ok && h.band() <= first; h.next() {
					if !yield(h.task) {
						return
					}
				}
			}
		}
	}
}

// head is the next task of a phase.
type head struct {
	pull func() (stream.Task, bool)
	task stream.Task
	ok   bool
}

func (h *head) next()      { h.task, h.ok = h.pull() }
func (h head) band() int64 { return h.task.At / bandBytes }
