package convert

import (
	"context"

	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/verify"
	"github.com/tensorpress/tensorpress/report"
)

// work is the number of bytes that a run goes through.
func (j *job) work(o request) int64 {
	if o.Measure {
		return j.BytesIn() + j.BytesOut()
	}
	return j.BytesIn()
}

// measure adds the layers' errors to a report, if they are asked for: it reads
// what is staged, tile by tile, and compares it with the source, as [verify.Verify]
// does.
func (j *job) measure(ctx context.Context, o request, done func(n int64), r *report.Report) error {
	if !o.Measure {
		return nil
	}
	v, err := verify.MeasureStaged(ctx, j.written(ctx, r.Dest), o.resources(), done)
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
