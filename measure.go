package tensorpress

import (
	"context"

	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/report"
)

// work is the number of bytes that a run goes through.
func (j *job) work(o Options) int64 {
	if o.Measure {
		return j.bytesIn() + j.bytesOut()
	}
	return j.bytesIn()
}

// measure adds the layers' errors to a report, if they are asked for: it reads
// what is staged, tile by tile, and compares it with the source, as [Verify]
// does.
func (j *job) measure(ctx context.Context, s *stage.Stage, o Options, done func(n int64), r *report.Report) error {
	if !o.Measure {
		return nil
	}
	var models []staged
	for _, one := range j.list {
		part := staged{path: s.Path(""), folder: one.folder, source: one.c}
		if !isFolder(r.Dest) {
			part.path = s.Path(one.plan.Files[0].Name)
		}
		models = append(models, part)
	}
	v, err := measureStaged(ctx, models, o.Resources, done)
	if err == nil {
		r.Add(v)
	}
	return err
}
