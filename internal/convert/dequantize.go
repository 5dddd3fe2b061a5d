package convert

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/lora"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// DequantizeOptions are tensorpress.DequantizeOptions, field by field.
type DequantizeOptions struct {
	Dtype       string
	Names       string
	Source      files.Source
	Lora        []string
	LoraPartial bool
	ShardSize   int64
	Force       bool
	CopyWeights bool
	Hash        bool
	Threads     int
	Memory      int64
	Progress    func(done, total int64)
}

var plainDtypes = map[string]safetensors.Dtype{
	"": 0, "bf16": safetensors.BF16, "f16": safetensors.F16, "f32": safetensors.F32,
}

// Dequantize writes source to dest with every quantized layer as a plain
// tensor. Kept tensors stay as they are. Of a pipeline, the components that hold
// quantized layers are restored and all else is copied.
func Dequantize(ctx context.Context, from files.Source, dest files.Sink, o DequantizeOptions) (*report.Report, error) {
	start := time.Now()
	j, err := readQuantized(ctx, from, dest, o)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	resources := j.resources()
	return j.write(ctx, writing{
		dest: dest, force: o.Force, Resources: resources, bytes: j.BytesIn(), hash: o.Hash,
		tasks: func(yield func(stream.Task) bool) { j.restore(resources, yield) },
		report: func(func(int64)) (*report.Report, error) {
			return j.tell(dest.String(), time.Since(start)), nil
		},
	})
}

// PlanDequantize makes the decisions of [Dequantize] and reads no weights. dest may
// be nil.
func PlanDequantize(ctx context.Context, from files.Source, dest files.Sink, o DequantizeOptions) (*report.Report, error) {
	j, err := readQuantized(ctx, from, dest, o)
	return planned(ctx, j, err, dest, o.Force)
}

// readQuantized opens what is restored and decides about it.
func readQuantized(ctx context.Context, from files.Source, to files.Sink, o DequantizeOptions) (*job, error) {
	as, err := namingOf(o.Names)
	if err != nil {
		return nil, err
	}
	s, dest, err := as.of(source.Of(ctx, from), nameOf(to))
	if err != nil {
		return nil, err
	}
	var whole source.Source
	if o.Source != nil {
		whole = source.Of(ctx, o.Source)
	}
	adapters, err := o.adapters()
	if err != nil {
		return nil, err
	}
	j, err := readDecided(ctx, s, dest, o.CopyWeights, func(one *bundle.Model) (err error) {
		var made *source.Source
		if o.Source != nil {
			made = new(whole.In(one.Folder))
		}
		one.Restoration, err = restoration(one.Checkpoint, made, bundle.Within(dest, one.Folder), as, o, adaptersOf{adapters, one.Folder})
		if one.Restoration != nil {
			one.Plan = &one.Restoration.Plan
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(as.plain(err), adapters.Close())
	}
	j.tell, j.adapters = j.restoreReport, adapters
	j.asked.Options = Options{Lora: o.Lora, LoraPartial: o.LoraPartial, Threads: o.Threads, Memory: o.Memory, Progress: o.Progress}
	if j.notes, err = j.merged(); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// adapters opens those that are merged.
func (o DequantizeOptions) adapters() (*lora.Set, error) {
	if o.LoraPartial && len(o.Lora) == 0 {
		return nil, errPartial
	}
	return lora.OpenAll(o.Lora)
}

// adaptersOf are what is merged into a model of a pipeline.
type adaptersOf struct {
	*lora.Set
	component string
}

// restore yields the work on one model after the other.
func (j *job) restore(r engine.Resources, yield func(stream.Task) bool) {
	for _, one := range j.Models {
		if !engine.RestoreTasks(one.Checkpoint, one.Restoration, one.Writers, r, yield) {
			return
		}
	}
}

// restoration plans it, nil where nothing is quantized; made is what the checkpoint was
// made from, if that was said.
func restoration(c *checkpoint.Checkpoint, made *source.Source, dest string, as naming, o DequantizeOptions, a adaptersOf) (*plan.Restoration, error) {
	dtype, ok := plainDtypes[o.Dtype]
	if !ok {
		return nil, usage.Errorf("`Dtype` %s: want bf16, f16 or f32", o.Dtype)
	}
	m, err := bundle.ReadModel(c, made)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) == 0 && len(o.Lora) == 0 {
		return nil, nil
	}
	m, notes, err := as.model(m, false)
	if err != nil {
		return nil, err
	}
	tensors, _, err := plan.Inventory(m)
	if err != nil {
		return nil, err
	}
	merges, err := a.Patches(tensors, a.component)
	if err != nil || len(m.Layers) == 0 && len(merges) == 0 {
		return nil, err
	}
	out, err := outputOf(c, dest, o.ShardSize)
	if err != nil {
		return nil, err
	}
	r, err := plan.Restore(m, dtype, merges, out)
	if err != nil {
		return nil, err
	}
	noteFormer(m, &r.Plan, out.Folder)
	r.Notes = slices.Concat(notes, r.Notes)
	return r, nil
}

// restoreReport lists the layers that were restored.
func (j *job) restoreReport(dest string, took time.Duration) *report.Report {
	all := &report.Report{
		Source: j.Source.Path, Dest: dest, Layers: []report.Layer{},
		BytesIn: j.BytesIn(), BytesOut: j.BytesOut(), Seconds: took.Seconds(), Notes: slices.Concat(j.notes, bundle.LeftOut(j.Others)),
	}
	for _, one := range j.Models {
		for _, f := range one.Plan.Files {
			all.Files = append(all.Files, one.Named(f.Name))
		}
		for _, note := range one.Plan.Notes {
			all.Notes = append(all.Notes, one.Note(note))
		}
		for _, l := range one.Restoration.Layers {
			layer := report.Layer{
				Name: one.Named(l.Layer.Name), Action: report.Dequantize, Dtype: l.Dtype().String(), Options: report.Options{},
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
