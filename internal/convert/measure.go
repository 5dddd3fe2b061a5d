package convert

import (
	"context"

	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/source"
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
// what is staged, tile by tile, and compares it with the source, as [Verify]
// does.
func (j *job) measure(ctx context.Context, o request, done func(n int64), r *report.Report) error {
	if !o.Measure {
		return nil
	}
	var models []verify.Staged
	for _, one := range j.Models {
		models = append(models, verify.Staged{Output: j.written(ctx, one, r.Dest), Folder: one.Folder, Source: one.Checkpoint})
	}
	v, err := verify.MeasureStaged(ctx, models, o.resources(), done)
	if err == nil {
		r.Add(v)
	}
	return err
}

// written is a model as it lies where it was written to.
func (j *job) written(ctx context.Context, one *bundle.Model, dest string) source.Source {
	if bundle.IsFolder(dest) {
		return j.out.Written(ctx, one.Folder)
	}
	return j.out.Written(ctx, one.Plan.Files[0].Name)
}
