package convert

import (
	"context"

	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/verify"
	"github.com/tensorpress/tensorpress/report"
)

// work is the number of bytes that a run goes through.
func (j *job) work(o request) int64 {
	n := j.BytesIn()
	for _, one := range j.Models {
		for i := range one.Plan.Steps {
			if s := &one.Plan.Steps[i]; o.Measure && s.Action != plan.Keep && s.Action != plan.Drop {
				n += s.BytesOut()
			}
		}
	}
	return n
}

// measure adds the layers' errors to a report, if they are asked for: it reads
// what is staged, tile by tile, and compares it with the source, as [verify.Verify]
// does.
func (j *job) measure(ctx context.Context, o request, done func(n int64), r *report.Report) error {
	if !o.Measure {
		return nil
	}
	models := j.written(ctx, r.Dest)
	if j.asked.as.asked {
		for i, one := range j.Models {
			models[i].Layers, models[i].Plain = sourcesOf(one.Plan)
		}
	}
	for i, one := range j.Models {
		models[i].Merges = mergesOf(one.Plan)
	}
	v, err := verify.MeasureStaged(ctx, models, j.resources(), done)
	if err == nil {
		r.Add(v)
	}
	return err
}

// written are the models of the output as they lie where they were written to.
func (j *job) written(ctx context.Context, dest string) (models []verify.Staged) {
	for _, one := range j.Models {
		part := "" // the whole output, in which the model has its folder
		if !bundle.IsFolder(dest) {
			part = one.Plan.Files[0].Name
		}
		models = append(models, verify.Staged{Output: j.out.Written(ctx, part), Folder: one.Folder, Source: one.Checkpoint})
	}
	return models
}

// sourcesOf are the tensors of the source by the names of the output's.
func sourcesOf(p *plan.Plan) (layers map[string]*layout.Layer, plain map[string]checkpoint.Tensor) {
	layers, plain = map[string]*layout.Layer{}, map[string]checkpoint.Tensor{}
	for i := range p.Steps {
		if s := &p.Steps[i]; s.From != nil {
			layers[s.Source.Name] = s.From
		} else {
			plain[s.Source.Name] = s.Source
		}
	}
	return layers, plain
}
