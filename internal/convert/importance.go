package convert

import (
	"fmt"

	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/importance"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// moments are those of `Importance` while a source's models are planned; nil without.
type moments struct{ *importance.File }

func openMoments(path string) (*moments, error) {
	if path == "" {
		return nil, nil
	}
	f, err := importance.Open(path)
	if err != nil {
		return nil, err
	}
	return &moments{f}, nil
}

func (m *moments) close() {
	if m != nil {
		m.Close()
	}
}

// of are the moments as one of the models takes them.
func (m *moments) of(all *bundle.Bundle, one *bundle.Model) *plan.Moments {
	if m == nil {
		return nil
	}
	o := &plan.Moments{File: m.File, Folder: one.Folder}
	for _, other := range all.Models {
		if other.Folder != one.Folder {
			o.Others = append(o.Others, other.Folder)
		}
	}
	return o
}

// momentsOf are those of a model, whose tensors may have names of the other side's.
func (o request) momentsOf(c *checkpoint.Checkpoint) *plan.Moments {
	if o.moments != nil && o.as.asked {
		o.moments.Former = formerNames(c)
	}
	return o.moments
}

// formerNames returns what tells the names in a source of a tensor that was renamed or
// gathered.
func formerNames(c *checkpoint.Checkpoint) func(t *checkpoint.Tensor) []string {
	type place struct {
		shard  int
		offset int64
	}
	names := map[place]string{}
	for i := range c.Tensors {
		t := &c.Tensors[i]
		names[place{t.Shard, t.Offset}] = t.Name
	}
	return func(t *checkpoint.Tensor) (former []string) {
		if t.Gathered == nil {
			return []string{names[place{t.Shard, t.Offset}]}
		}
		for _, p := range t.Gathered.Pieces {
			if p.From != nil {
				former = append(former, p.From.Name)
			}
		}
		return former
	}
}

// check refuses moments that weigh nothing in any of the models, and says which no model
// takes. A budget is chosen by them also where nothing is searched.
func (m *moments) check(models []*bundle.Model, budget bool) ([]string, error) {
	if m == nil {
		return nil, nil
	}
	var all plan.Weighed
	some := ""
	for _, one := range models {
		w := &one.Plan.Weighed
		all.Layers, all.Apart, all.Lacking = all.Layers+w.Layers, all.Apart+w.Apart, append(all.Lacking, w.Lacking...)
		for i := range one.Plan.Steps {
			if s := &one.Plan.Steps[i]; some == "" && s.Action == plan.Quantize {
				some = s.Layer
			}
		}
	}
	if budget && some == "" {
		return nil, nil // what all are kept for
	}
	if all.Layers+len(all.Lacking) == 0 && !budget {
		if all.Apart > 0 {
			return nil, usage.Errorf("`Importance` weighs nothing here: convolutions and embeddings take no moments, nor do formats whose search counts all columns alike (SDNQ's dtypes take them)")
		}
		return nil, usage.Errorf("`Importance` weighs errors in the search for the scales of linear layers, and none is searched: add `Search`")
	}
	if err := m.CheckMatched(some); err != nil {
		return nil, err
	}
	if lost := m.Unmatched(); len(lost) > 0 {
		return []string{fmt.Sprintf("%s has moments that are of no layer here: %d, %s", m.Path(), len(lost), checkpoint.ListNames(lost))}, nil
	}
	return nil, nil
}
