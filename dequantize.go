package tensorpress

import (
	"context"
	"time"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/safetensors"
)

// DequantizeOptions are the decisions of a dequantization.
type DequantizeOptions struct {
	// Dtype of the weights that were quantized: "bf16", "f16" or "f32"; "" for
	// what the metadata or the config says, else that of the kept tensors.
	Dtype string
	// Source is what the checkpoint was made from, if SDNQ's packed weights
	// with a single scale do not tell their shapes; "" for none.
	Source    string
	ShardSize int64 // bytes, 0 for 5 GB
	Force     bool
	Resources
}

var plainDtypes = map[string]safetensors.Dtype{
	"": 0, "bf16": safetensors.BF16, "f16": safetensors.F16, "f32": safetensors.F32,
}

// Dequantize writes source to dest with every quantized layer as a plain
// tensor. Kept tensors stay as they are.
func Dequantize(ctx context.Context, source, dest string, o DequantizeOptions) (*Report, error) {
	start := time.Now()
	c, err := checkpoint.Open(source)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r, err := restoration(c, dest, o)
	if err != nil {
		return nil, err
	}
	out, err := createOutput(c, &r.Plan, dest, o.Force)
	if err != nil {
		return nil, err
	}
	defer out.stage.Abort()
	tasks := func(yield func(stream.Task) bool) { restoreTasks(c, r, out.writers, yield) }
	if err := stream.Run(ctx, o.threads(), tasks, o.progress(r.BytesIn)); err != nil {
		return nil, err
	}
	if err := out.commit(); err != nil {
		return nil, err
	}
	return restoreReport(source, dest, r, time.Since(start)), nil
}

func restoration(c *checkpoint.Checkpoint, dest string, o DequantizeOptions) (*plan.Restoration, error) {
	dtype, ok := plainDtypes[o.Dtype]
	if !ok {
		return nil, usage.Errorf("--dtype %s: want bf16, f16 or f32", o.Dtype)
	}
	m, err := readModel(c, o.Source)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) == 0 {
		return nil, sourceErrorf("%s holds no quantized layer", c.Path)
	}
	out, err := outputOf(c, dest, o.ShardSize)
	if err != nil {
		return nil, err
	}
	return plan.Restore(m, dtype, out)
}

// readModel finds a checkpoint's layers, with the help of its source if given.
func readModel(c *checkpoint.Checkpoint, source string) (*layout.Model, error) {
	var from *checkpoint.Checkpoint
	if source != "" {
		var err error
		if from, err = checkpoint.Open(source); err != nil {
			return nil, err
		}
		defer from.Close()
	}
	m, err := layout.Read(c, from)
	if err != nil {
		return nil, &sourceError{err}
	}
	return m, nil
}

func restoreTasks(c *checkpoint.Checkpoint, r *plan.Restoration, to writers, yield func(stream.Task) bool) {
	for _, one := range r.Copies {
		if !copyTiles(c, one.Source, to[one.File], one.Tensor, yield) {
			return
		}
	}
	for _, l := range r.Layers {
		d := &decoding{c, l.Layer, l.Dtype()}
		width := l.Dtype().Bits() / 8
		columns := l.Codec.Cut().Cols
		if !d.tiles(yield, func(w *stream.Worker, _ int, a quant.Area) error {
			values, err := d.read(w, a)
			if err != nil {
				return err
			}
			dst := w.Scatter(to[l.File], l.Part.Tensor, quant.AreaSpans(a, columns, width))
			codec.Narrow(dst, values, d.out)
			return nil
		}) {
			return
		}
	}
}

func restoreReport(source, dest string, r *plan.Restoration, took time.Duration) *Report {
	report := &Report{
		Source: source, Dest: dest, Layers: []ReportLayer{},
		BytesIn: r.BytesIn, BytesOut: r.BytesOut, Seconds: took.Seconds(),
	}
	for _, f := range r.Files {
		report.Files = append(report.Files, f.Name)
	}
	for _, l := range r.Layers {
		one := ReportLayer{
			Name: l.Layer.Name, Action: "dequantize", Dtype: l.Dtype().String(), Options: pyjson.Object{},
			Shape: l.Part.Shape, BytesOut: l.Size,
		}
		for _, part := range l.Parts {
			one.BytesIn += part.Size
		}
		report.Layers = append(report.Layers, one)
	}
	return report
}
