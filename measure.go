package tensorpress

import (
	"context"

	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/report"
)

// work is the number of bytes that a run goes through.
func (m *models) work(o Options) int64 {
	if o.Measure {
		return m.bytesIn() + m.bytesOut()
	}
	return m.bytesIn()
}

// measure adds the layers' errors to a report, if they are asked for: it reads
// what is staged, tile by tile, and compares it with the source, as [Verify]
// does.
func (m *models) measure(ctx context.Context, s *stage.Stage, o Options, done func(n int64), r *report.Report) error {
	if !o.Measure {
		return nil
	}
	v := &report.Verification{}
	var parts []*verification
	defer func() {
		for _, part := range parts {
			if part.output != nil {
				part.output.Close() // before the stage moves it; the sources are the models'
			}
		}
	}()
	for _, one := range m.list {
		part := &verification{Verification: v, path: s.Path(""), folder: one.folder, layersOnly: true, source: one.c}
		if !isFolder(r.Dest) {
			part.path = s.Path(one.plan.Files[0].Name)
		}
		parts = append(parts, part)
		if err := part.open(); err != nil {
			return err
		}
	}
	if err := runAll(ctx, o.Resources, parts, done); err != nil {
		return err
	}
	conclude(v, parts)
	r.Add(v)
	return nil
}
