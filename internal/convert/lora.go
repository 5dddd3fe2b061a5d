package convert

import (
	"errors"

	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/lora"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// openAdapters opens those of `Lora`.
func (j *job) openAdapters() (err error) {
	if j.asked.LoraPartial && len(j.asked.Lora) == 0 {
		return errPartial
	}
	if j.adapters, err = lora.OpenAll(j.asked.Lora); err == nil {
		j.asked.adapters = j.adapters
	}
	return err
}

var errPartial = usage.Errorf("`LoraPartial` is of adapters: name one by `Lora`")

// Close closes the source and what is merged into it.
func (j *job) Close() error {
	err := j.Bundle.Close()
	if j.adapters != nil {
		err = errors.Join(err, j.adapters.Close())
	}
	return err
}

// Unchanged fails if anything that was read is not what it was.
func (j *job) Unchanged() error {
	err := j.Bundle.Unchanged()
	if err == nil && j.adapters != nil {
		err = j.adapters.Unchanged()
	}
	return err
}

// resources are those that were asked for, of which factors take their part.
func (j *job) resources() engine.Resources {
	var held int64
	for _, one := range j.Models {
		if one.Plan != nil {
			held = max(held, one.Plan.Held())
		}
	}
	return j.asked.resources().Holding(held)
}

// merged says what is merged, and refuses what means nothing here.
func (j *job) merged() ([]string, error) {
	if j.adapters == nil || len(j.asked.Lora) == 0 {
		return nil, nil
	}
	notes, err := j.adapters.Unmatched(j.asked.LoraPartial)
	if err != nil {
		return nil, err
	}
	var plans []*plan.Plan
	for _, one := range j.Models {
		plans = append(plans, one.Plan)
	}
	n := merging(plans)
	notes = append(notes, j.adapters.Merged(n))
	if n > 0 && j.asked.Measured != nil && j.measuredPlain {
		notes = append(notes, "the errors of `Measured` are those of the source without `Lora`: measure with the same adapters, or leave it out, and the merged weights are measured")
	}
	return notes, nil
}

// merging is how many tensors adapters change in plans, nil for models that are copied.
func merging(plans []*plan.Plan) (n int) {
	for _, p := range plans {
		if p == nil {
			continue
		}
		for i := range p.Steps {
			if p.Steps[i].Merge != nil {
				n++
			}
		}
	}
	return n
}

// mergesOf are what adapters change, by the names of tensors; nil for nothing.
func mergesOf(p *plan.Plan) map[string]*lora.Patch {
	merges := map[string]*lora.Patch{}
	for i := range p.Steps {
		if s := &p.Steps[i]; s.Merge != nil {
			merges[s.Source.Name] = s.Merge
		}
	}
	return merges
}
