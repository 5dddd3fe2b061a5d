package engine

import (
	"context"
	"sync"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/watch"
)

// SearchDtypes finds the dtype of each of the plan's layers that asks for one
// dynamically: the first whose loss is small enough. The result is by the weights'
// names.
func SearchDtypes(ctx context.Context, c *checkpoint.Checkpoint, p *plan.Plan, r Resources) (map[string]plan.Choice, error) {
	found := map[string]plan.Choice{}
	var mu sync.Mutex
	run := watch.Of(ctx)
	tasks := func(yield func(stream.Task) bool) {
		for i := range p.Steps {
			s := &p.Steps[i]
			if !isDynamic(s) {
				continue
			}
			if !yield(stream.Task{Do: func(w *stream.Worker) error {
				defer run.Did(s.Source.Size)
				choice, err := (&Quantization{Source: c, Plan: p, Resources: r}).encoding(s).searchDtype(ctx, w)
				mu.Lock()
				defer mu.Unlock()
				found[s.Source.Name] = choice
				return err
			}}) {
				return
			}
		}
	}
	for i := range p.Steps {
		if isDynamic(&p.Steps[i]) {
			run.Enter(watch.Measuring)
			run.Expect(p.Steps[i].Source.Size)
		}
	}
	err := stream.Run(ctx, Workers(r), tasks, nil)
	return found, err
}

// isDynamic: the dtype of the layer is searched.
func isDynamic(s *plan.Step) bool {
	return s.Action == plan.Quantize && s.Settings.Dynamic && s.Format == codec.SDNQ()
}

// searchDtype tries dtypes on a layer in SDNQ's order until the loss of one is at most
// the threshold.
func (e *encoding) searchDtype(ctx context.Context, w *stream.Worker) (plan.Choice, error) {
	s := *e.step.Settings
	from, product := dtype.Lookup(s.PlainDtype()), dtype.Lookup(s.QuantizedMatmulDtype)
	threshold, err := s.Threshold(from)
	if err != nil {
		return plan.Choice{}, err
	}
	for _, d := range sdnq.DynamicOrder(from, s.Codebook) {
		if err := ctx.Err(); err != nil {
			return plan.Choice{}, err
		}
		on, listed := sdnq.DynamicMatmul(from, d, product, s.QuantizedMatmul)
		trial := s
		trial.Dtype, trial.QuantizedMatmul, trial.QuantizedMatmulConv = d.Name, on && s.QuantizedMatmul, on && s.QuantizedMatmulConv
		loss, err := e.loss(w, trial)
		if ctx.Err() != nil {
			return plan.Choice{}, ctx.Err() // rather than the error that cancelling gave the trial
		}
		if err != nil {
			return plan.Choice{}, err
		}
		if loss <= float32(threshold) {
			return plan.Choice{Dtype: d.Name, NoMatmul: listed}, nil
		}
	}
	return plan.Choice{}, nil
}

// loss returns the loss of a layer stored with these settings; 2, which no threshold
// accepts, if they cannot store it.
func (e *encoding) loss(w *stream.Worker, s codec.Settings) (float32, error) {
	c, _, err := e.step.Format.Make(e.step.CodecSource(), s)
	if err != nil {
		return 2, nil
	}
	var failure error // from reading; it needs no explanation
	trial := sdnq.Trial{Scheme: codec.Scheme(c), From: e.from, Memory: e.memory, Read: func(a tile.Area) (v tile.Values, err error) {
		v, failure = e.read(w, a)
		return v, failure
	}}
	loss, err := trial.Loss(&w.Scratch)
	if failure != nil {
		return 0, failure
	}
	return float32(loss), e.explain(err)
}
