package tensorpress

import (
	"context"
	"time"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/quant"
	"github.com/tensorpress/tensorpress/report"
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
	// CopyWeights copies weights beside those that are read, too.
	CopyWeights bool
	Resources
}

var plainDtypes = map[string]safetensors.Dtype{
	"": 0, "bf16": safetensors.BF16, "f16": safetensors.F16, "f32": safetensors.F32,
}

// Dequantize writes source to dest with every quantized layer as a plain
// tensor. Kept tensors stay as they are. Of a pipeline, the components that hold
// quantized layers are restored and all else is copied.
func Dequantize(ctx context.Context, source, dest string, o DequantizeOptions) (*report.Report, error) {
	start := time.Now()
	j, err := readQuantized(source, dest, o)
	if err != nil {
		return nil, err
	}
	defer j.close()
	return j.write(ctx, writing{
		dest: dest, force: o.Force, Resources: o.Resources, bytes: j.bytesIn(),
		tasks: func(yield func(stream.Task) bool) { j.restore(o.Resources, yield) },
		report: func(*stage.Stage, func(int64)) (*report.Report, error) {
			return j.restoreReport(dest, time.Since(start)), nil
		},
	})
}

// readQuantized opens what is restored and decides about it.
func readQuantized(source, dest string, o DequantizeOptions) (*job, error) {
	return newJob(readDecided(source, dest, o.CopyWeights, func(one *model) (err error) {
		o := o
		if o.Source != "" {
			o.Source = within(o.Source, one.folder)
		}
		one.restoration, err = restoration(one.c, within(dest, one.folder), o)
		if one.restoration != nil {
			one.plan = &one.restoration.Plan
		}
		return err
	}))
}

// restore yields the work on one model after the other.
func (j *job) restore(r Resources, yield func(stream.Task) bool) {
	for _, one := range j.list {
		if !restoreTasks(one.c, one.restoration, one.writers, r, yield) {
			return
		}
	}
}

// restoration plans it, nil where nothing is quantized.
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
		return nil, nil
	}
	out, err := outputOf(c, dest, o.ShardSize)
	if err != nil {
		return nil, err
	}
	r, err := plan.Restore(m, dtype, out)
	if err != nil {
		return nil, err
	}
	noteFormer(m, &r.Plan, out.Folder)
	return r, nil
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
		return nil, usage.AsSource(err)
	}
	if m.Err != nil {
		return nil, usage.Source(m.Failed())
	}
	return m, nil
}

func restoreTasks(c *checkpoint.Checkpoint, r *plan.Restoration, to []*safetensors.Writer, use Resources, yield func(stream.Task) bool) bool {
	for _, one := range r.Copies {
		if !copyTiles(c, one.Source, to[one.File], one.Tensor, yield) {
			return false
		}
	}
	for _, l := range r.Layers {
		d := newDecoding(c, l.Layer, l.Dtype(), use)
		width := l.Dtype().Bits() / 8
		columns := l.Codec.Cut().Cols
		if !d.tiles(yield, func(w *stream.Worker, _ int, a quant.Area) error {
			values, err := d.read(w, a)
			if err == nil {
				err = checkRestored(c, l.Layer, a, values, columns)
			}
			if err == nil {
				err = checkFits(c, l.Layer, values, d.out)
			}
			if err != nil {
				return err
			}
			dst := w.Scatter(to[l.File], l.Part.Tensor, quant.AreaSpans(a, columns, width))
			codec.Narrow(dst, values, d.out)
			return nil
		}) {
			return false
		}
	}
	return true
}

// restoreReport lists the layers that were restored.
func (j *job) restoreReport(dest string, took time.Duration) *report.Report {
	all := &report.Report{
		Source: j.source, Dest: dest, Layers: []report.Layer{},
		BytesIn: j.bytesIn(), BytesOut: j.bytesOut(), Seconds: took.Seconds(), Notes: leftOut(j.others),
	}
	for _, one := range j.list {
		for _, f := range one.plan.Files {
			all.Files = append(all.Files, one.named(f.Name))
		}
		for _, note := range one.plan.Notes {
			all.Notes = append(all.Notes, one.note(note))
		}
		for _, l := range one.restoration.Layers {
			layer := report.Layer{
				Name: one.named(l.Layer.Name), Action: report.Dequantize, Dtype: l.Dtype().String(), Options: report.Options{},
				Shape: l.Part.Shape, BytesOut: l.Size,
			}
			for _, part := range l.Parts {
				layer.BytesIn += part.Size
			}
			all.Layers = append(all.Layers, layer)
		}
	}
	return all
}
