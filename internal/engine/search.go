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
)

// ChooseFor measures the dtypes of a plan's layers that are to be found, and returns
// the first whose loss is small enough for each, by the weights' names.
func ChooseFor(ctx context.Context, c *checkpoint.Checkpoint, p *plan.Plan, r Resources) (map[string]plan.Choice, error) {
	found := map[string]plan.Choice{}
	var mu sync.Mutex
	tasks := func(yield func(stream.Task) bool) {
		for i := range p.Steps {
			s := &p.Steps[i]
			if s.Action != plan.Quantize || !s.Settings.Dynamic || s.Format != codec.SDNQ() {
				continue
			}
			if !yield(stream.Task{Do: func(w *stream.Worker) error {
				choice, err := (&Quantization{Source: c, Plan: p, Resources: r}).encoding(s).choose(ctx, w)
				mu.Lock()
				defer mu.Unlock()
				found[s.Source.Name] = choice
				return err
			}}) {
				return
			}
		}
	}
	err := stream.Run(ctx, Workers(r), tasks, nil)
	return found, err
}

// choose tries one dtype after the other on a layer.
func (e *encoding) choose(ctx context.Context, w *stream.Worker) (plan.Choice, error) {
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
			return plan.Choice{}, ctx.Err() // not what the trial says of it
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

// loss of a layer stored with those settings; what cannot hold it loses all.
func (e *encoding) loss(w *stream.Worker, s codec.Settings) (float32, error) {
	c, _, err := e.step.Format.Make(e.step.CodecSource(), s)
	if err != nil {
		return 2, nil
	}
	var failure error // of reading, which needs no explanation
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
