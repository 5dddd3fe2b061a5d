package convert

import (
	"context"

	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/verify"
	"github.com/tensorpress/tensorpress/report"
)

// bytesAgain counts what job.measureAgain reads of the output.
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
	models := j.written(ctx, to.Dest)
	for i, one := range j.Models {
		models[i].Layers = map[string]*layout.Layer{}
		for k := range one.Plan.Steps {
			if s := &one.Plan.Steps[k]; isAgain(s) {
				models[i].Layers[layout.WeightName(s.Layer)] = s.From
			}
		}
	}
	v, err := verify.MeasureStaged(ctx, models, r, done)
	if err == nil {
		to.Add(v)
		to.Total = nil // of some layers
	}
	return err
}
