package convert

import (
	"context"
	"errors"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/ctq"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// rewrite runs a mode of convert_to_quant that changes names and metadata alone.
func rewrite(ctx context.Context, c *ctq.Command, path, dest string, r engine.Resources) (*report.Report, error) {
	start := time.Now()
	from, err := checkpoint.Open(source.Path(path))
	if err != nil {
		return nil, err
	}
	one := &bundle.Model{Checkpoint: from}
	j, _ := newJob(&bundle.Bundle{Source: source.Path(path), Models: []*bundle.Model{one}}, nil)
	j.parents = true
	defer j.Close()
	if one.Plan, err = planRewrite(c, from, dest); err != nil {
		return nil, err
	}
	return j.write(ctx, j.copied(files.Dir(dest), true, r, start))
}

func planRewrite(c *ctq.Command, from *checkpoint.Checkpoint, dest string) (*plan.Plan, error) {
	rewriting, err := c.Rewrite(from)
	if err != nil && !errors.Is(err, usage.Err) {
		return nil, usage.Source(err)
	}
	if err != nil {
		return nil, err
	}
	out, err := outputOf(from, dest, 0)
	if err != nil {
		return nil, err
	}
	out.Metadata = rewriting.Metadata
	return plan.Rewrite(rewriting.Edits, out)
}
