package tensorpress

import (
	"context"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// bytesAgain counts what [job.measureAgain] reads of the output.
func (j *job) bytesAgain() (n int64) {
	for _, one := range j.list {
		for i := range one.plan.Steps {
			if s := &one.plan.Steps[i]; isAgain(s) {
				n += s.BytesOut()
			}
		}
	}
	return n
}

// isAgain: the layer is quantized from the values of another.
func isAgain(s *plan.Step) bool { return s.From != nil && s.Move == nil && s.Action == plan.Quantize }

// comparison is a layer that was quantized again and the one that it comes
// from.
type comparison struct {
	name  string // in the report
	got   *decoding
	want  values
	found []sums // by tile
}

// measureAgain adds to a report what quantizing layers again lost: it reads
// them where they are staged and compares what both restore to.
func (j *job) measureAgain(ctx context.Context, s *stage.Stage, r Resources, done func(n int64), to *report.Report) error {
	if j.bytesAgain() == 0 {
		return nil
	}
	var all []*comparison
	for _, one := range j.list {
		path := s.Path(one.folder)
		if !isFolder(to.Dest) {
			path = s.Path(one.plan.Files[0].Name)
		}
		c, err := checkpoint.Open(path)
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
			if !c.tasks(yield) {
				return
			}
		}
	}
	if err := stream.Run(ctx, r.threads(), tasks, done); err != nil {
		return err
	}
	losses := make(map[string][]sums, len(all))
	for _, c := range all {
		losses[c.name] = c.found
	}
	addLosses(to, losses)
	return nil
}

// comparisons pairs the layers of a staged output with those of the source.
func comparisons(one *model, c *checkpoint.Checkpoint, r Resources) ([]*comparison, error) {
	m, err := readModel(c, "")
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
	var all []*comparison
	for i := range one.plan.Steps {
		if s := &one.plan.Steps[i]; isAgain(s) {
			got := newDecoding(c, written[s.Layer], safetensors.F32, r)
			all = append(all, &comparison{name: one.named(s.Layer), got: got, want: newStoredValues(one.c, s.From, quant.TileSize, r)})
		}
	}
	return all, nil
}

func (c *comparison) tasks(yield func(stream.Task) bool) bool {
	cut, rows, cols := c.got.shape()
	c.found = make([]sums, cut.Count(rows, cols))
	return c.got.compared(c.found, func(w *stream.Worker, a quant.Area, got []float32) (sums, error) {
		s := sums{nonfinite: -1}
		want, err := c.want.read(w, 1, cut.Cols, a)
		if err == nil {
			s.measure(want, got)
		}
		return s, err
	})(yield)
}
