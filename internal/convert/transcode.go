package convert

import (
	"context"
	"slices"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// TranscodeOptions are tensorpress.TranscodeOptions, field by field.
type TranscodeOptions struct {
	Layout      string
	Names       string
	Rename      bool
	Requantize  bool
	Scale       string
	ScaleDtype  string
	For         string
	ShardSize   int64
	Force       bool
	CopyWeights bool
	Hash        bool
	Threads     int
	Memory      int64
	Progress    func(done, total int64)
}

func (o TranscodeOptions) resources() engine.Resources {
	return engine.Resources{Threads: o.Threads, Memory: o.Memory, Progress: o.Progress}
}

// Transcode writes source, whose layers are quantized, to dest in another
// layout. Codes are moved as they are and never rounded again; where a format
// has its scales in another dtype, or a layer is quantized again, the report has
// the error that it adds.
func Transcode(ctx context.Context, from files.Source, dest files.Sink, o TranscodeOptions) (*report.Report, error) {
	start := time.Now()
	j, err := readMoved(ctx, from, dest, o)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	var moves []*engine.Transcoding
	resources := o.resources()
	return j.write(ctx, writing{
		dest: dest, force: o.Force, Resources: resources, bytes: j.BytesIn() + j.bytesAgain(), again: j.bytesAgain() > 0, hash: o.Hash,
		tasks: func(yield func(stream.Task) bool) {
			moves = j.moves(resources) // the files to write to are there now
			engine.MoveAll(moves, yield)
		},
		report: func(done func(int64)) (*report.Report, error) {
			r := j.report(dest.String(), time.Since(start))
			for _, one := range moves {
				addLosses(r, one.Losses)
			}
			return r, j.measureAgain(ctx, resources, done, r)
		},
	})
}

// PlanTranscode makes the decisions of [Transcode] and reads no weights. dest
// may be nil.
func PlanTranscode(ctx context.Context, from files.Source, dest files.Sink, o TranscodeOptions) (*report.Report, error) {
	j, err := readMoved(ctx, from, dest, o)
	return planned(ctx, j, err, dest, o.Force)
}

// moves are those of every model.
func (j *job) moves(r engine.Resources) []*engine.Transcoding {
	var all []*engine.Transcoding
	for _, one := range j.Models {
		all = append(all, engine.NewTranscoding(&engine.Quantization{Source: one.Checkpoint, Plan: one.Plan, Writers: one.Writers, Stage: j.out, Resources: r}, one.Named))
	}
	return all
}

// readMoved opens what is moved and decides about it.
func readMoved(ctx context.Context, from files.Source, to files.Sink, o TranscodeOptions) (*job, error) {
	as, err := namingOf(o.Names)
	if err != nil {
		return nil, err
	}
	s, dest, err := as.of(source.Of(ctx, from), nameOf(to))
	if err != nil {
		return nil, err
	}
	j, err := readDecided(ctx, s, dest, o.CopyWeights, func(one *bundle.Model) (err error) {
		one.Plan, err = planTranscode(one.Checkpoint, bundle.Within(dest, one.Folder), as, o)
		return err
	})
	return j, as.plain(err)
}

// planTranscode returns nil where nothing is quantized.
func planTranscode(c *checkpoint.Checkpoint, dest string, as naming, o TranscodeOptions) (*plan.Plan, error) {
	var p plan.Options
	var err error
	if p.Layout, err = layout.ByName(o.Layout); err != nil {
		return nil, usage.Wrap(err)
	}
	m, err := bundle.ReadModel(c, nil)
	if err != nil || len(m.Layers) == 0 {
		return nil, err
	}
	if err := m.Failed(); err != nil {
		return nil, usage.Source(err)
	}
	found := m
	m, notes, err := as.model(m, true)
	if err != nil {
		return nil, err
	}
	if err := checkTranscode(m, p.Layout, o, m != found); err != nil {
		return nil, err
	}
	if p.Output, err = outputOf(c, dest, o.ShardSize); err != nil {
		return nil, err
	}
	if o.For != "" {
		if p.For, err = app.ByName(o.For); err != nil {
			return nil, err
		}
	}
	tensors := c.Tensors
	if m != found {
		if tensors, _, err = plan.Inventory(m); err != nil {
			return nil, err
		}
	}
	p.Preset, _ = preset.Recognise(rawConfig(c.Config), shapes(tensors))
	how := plan.TranscodeOptions{Rename: o.Rename, Requantize: o.Requantize}
	// Who has taken ComfyUI's names goes there, be it that a node reads some layers.
	how.Mixed = as.forComfyUI() && p.Layout == layout.Comfy && !o.Rename && !o.Requantize && o.For == ""
	how.Rows, how.Scales = o.Scale == "row", plainDtypes[o.ScaleDtype]
	made, err := plan.Transcode(m, how, p)
	if err != nil {
		return nil, err
	}
	noteFormer(m, made, p.Output.Folder)
	made.Notes = slices.Concat(notes, made.Notes)
	return made, nil
}

func checkTranscode(m *layout.Model, to *layout.Layout, o TranscodeOptions, renamed bool) error {
	if err := o.check(to); err != nil {
		return err
	}
	changes := to == layout.Comfy && !o.Rename && slices.ContainsFunc(m.Layers, isSDNQ) || o.Requantize && o.For != ""
	if m.Layout == to && !changes && !renamed {
		return usage.Errorf("%s is in the %s layout already: there is nothing to move", m.Checkpoint.Path, to.Name)
	}
	return nil
}

// check refuses words that do not exist, and those for the other layout.
func (o TranscodeOptions) check(to *layout.Layout) error {
	if _, ok := plainDtypes[o.ScaleDtype]; !ok {
		return usage.Errorf("`ScaleDtype` %s: want bf16, f16 or f32", o.ScaleDtype)
	}
	if o.Scale != "" && o.Scale != "row" {
		return usage.Errorf("`Scale` %s: want row", o.Scale)
	}
	if to == layout.Comfy {
		return nil
	}
	switch {
	case o.Rename:
		return usage.Errorf("`Rename` is for the comfy layout, where SDNQ's layers describe themselves")
	case o.Scale != "":
		return usage.Errorf("`Scale` is for the comfy layout, for formats of convert_to_quant's")
	case o.ScaleDtype != "":
		return usage.Errorf("`ScaleDtype` is for the comfy layout, for awq_w4a16")
	}
	return nil
}

func isSDNQ(l *layout.Layer) bool { return l.Format == codec.SDNQ().Name }
