package convert

import (
	"context"

	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// bytesAgain counts what [job.measureAgain] reads of the output.
func (j *job) bytesAgain() (n int64) {
	for _, one := range j.Models {
		for i := range one.Plan.Steps {
			if s := &one.Plan.Steps[i]; isAgain(s) {
				n += s.BytesOut()
			}
		}
	}
	return n
}

// isAgain: the layer is quantized from the values of another.
func isAgain(s *plan.Step) bool { return s.From != nil && s.Move == nil && s.Action == plan.Quantize }

// measureAgain adds to a report what quantizing layers again lost: it reads
// them where they are staged and compares what both restore to.
func (j *job) measureAgain(ctx context.Context, r engine.Resources, done func(n int64), to *report.Report) error {
	if j.bytesAgain() == 0 {
		return nil
	}
	var all []*engine.Comparison
	for _, one := range j.Models {
		c, err := checkpoint.Open(j.written(ctx, one, to.Dest))
		if err != nil {
			return err
		}
		defer c.Close() // before the stage moves it
		found, err := comparisons(one, c, r)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	tasks := func(yield func(stream.Task) bool) {
		for _, c := range all {
			if !c.Tasks(yield) {
				return
			}
		}
	}
	if err := stream.Run(ctx, engine.Workers(r), tasks, done); err != nil {
		return err
	}
	losses := make(map[string][]engine.Sums, len(all))
	for _, c := range all {
		losses[c.Name] = c.Found
	}
	addLosses(to, losses)
	return nil
}

// comparisons pairs the layers of a staged output with those of the source.
func comparisons(one *bundle.Model, c *checkpoint.Checkpoint, r engine.Resources) ([]*engine.Comparison, error) {
	m, err := bundle.ReadModel(c, nil)
	if err == nil {
		err = m.Failed()
	}
	if err != nil {
		return nil, err
	}
	written := map[string]*layout.Layer{}
	for _, l := range m.Layers {
		written[l.Name] = l
	}
	var all []*engine.Comparison
	for i := range one.Plan.Steps {
		if s := &one.Plan.Steps[i]; isAgain(s) {
			got := engine.NewDecoding(c, written[s.Layer], safetensors.F32, r)
			all = append(all, &engine.Comparison{Name: one.Named(s.Layer), Got: got, Want: engine.NewStoredValues(one.Checkpoint, s.From, quant.TileSize, r)})
		}
	}
	return all, nil
}
