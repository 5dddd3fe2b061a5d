package plan

import (
	"maps"
	"runtime"
	"sync"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
)

// fewSteps are so few that they are worked on one after the other.
const fewSteps = 2048

// partsOf is in how many parts n steps are worked on.
func partsOf(n int) int { return max(1, min(runtime.GOMAXPROCS(0), n/fewSteps)) }

// inParts has do work on steps [from, to) of n, all parts at the same time.
func inParts(parts, n int, do func(part, from, to int)) {
	var working sync.WaitGroup
	for i := range parts {
		working.Go(func() { do(i, i*n/parts, (i+1)*n/parts) })
	}
	working.Wait()
}

// steps decides about tensors in that order, about many in parts at the same time.
// Its error is that of the first.
func (d *decider) steps(steps []Step, tensors []checkpoint.Tensor, order []int32) error {
	parts := partsOf(len(steps))
	deciders, errs := make([]*decider, parts), make([]error, parts)
	inParts(parts, len(steps), func(i, from, to int) {
		deciders[i] = d.another()
		errs[i] = deciders[i].run(steps[from:to], tensors, order[from:to])
	})
	for i, one := range deciders {
		if errs[i] != nil {
			return errs[i]
		}
		maps.Copy(d.used, one.used)
		d.followAs(one.followed)
		d.cannot = append(d.cannot, one.cannot...)
	}
	return nil
}

// another decides as d does and remembers what it does by itself.
func (d *decider) another() *decider {
	one := *d
	one.used, one.followed, one.made, one.given, one.cannot = map[string]bool{}, map[string]error{}, map[made]shared{}, givenSettings{}, nil
	return &one
}

func (d *decider) run(steps []Step, tensors []checkpoint.Tensor, order []int32) error {
	for i, place := range order {
		if err := d.decide(&steps[i], tensors[place]); err != nil {
			return err
		}
	}
	return nil
}
