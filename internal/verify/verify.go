// Package verify looks into checkpoints: is one sound, would an application load it,
// how far is it from its source, and what is in it.
package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/lora"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// verificationParts prepares the verification of each model of a checkpoint.
func verificationParts(ctx context.Context, v *report.Verification, checked source.Source, o Options) ([]*verification, error) {
	folders, err := bundle.ModelsOf(checked)
	if err != nil {
		return nil, err
	}
	var from *source.Source
	if o.Source != nil {
		whole := source.Of(ctx, o.Source)
		if whole, err = componentOf(v, whole, checked, folders); err != nil {
			return nil, err
		}
		if err := compareFolders(v, folders, whole, checked); err != nil {
			return nil, err
		}
		from = &whole
	}
	var parts []*verification
	for _, folder := range folders {
		one := &verification{Options: o, Verification: v, checked: checked, folder: folder, from: from}
		if folder != "" && from != nil && !bundle.HoldsWeights(from.In(folder)) {
			one.from = nil // compareFolders has said so
		}
		parts = append(parts, one)
	}
	return parts, nil
}

// compareFolders: every model of the source is there, and no other.
func compareFolders(v *report.Verification, folders []string, from, checked source.Source) error {
	wanted, err := bundle.ModelsOf(from)
	if err != nil {
		return err
	}
	if (folders[0] == "") != (wanted[0] == "") {
		return usage.Errorf("`Source` %s and %s: one is a pipeline, the other a model: name the component's folder", from.Path, checked.Path)
	}
	for _, name := range wanted {
		if !slices.Contains(folders, name) {
			v.Problems = append(v.Problems, report.Problem{Problem: name + ": is missing: the source has it"})
		}
	}
	for _, name := range folders {
		if !slices.Contains(wanted, name) {
			v.Problems = append(v.Problems, report.Problem{Problem: name + ": is not in the source"})
		}
	}
	return nil
}

// Options are tensorpress.VerifyOptions, field by field.
type Options struct {
	Source      files.Source
	Lora        []string
	LoraPartial bool
	For         string
	MaxRelMSE   *float64
	Threads     int
	Memory      int64
	Progress    func(done, total int64)
}

func (o Options) resources() engine.Resources {
	return engine.Resources{Threads: o.Threads, Memory: o.Memory, Progress: o.Progress}
}

// Verify reads a whole checkpoint, or all of a pipeline's: is it sound, does
// every layer decode, would an application load it, and how far are its
// weights from a source's. What it finds is in the result; the error is for
// what kept it from looking.
func Verify(ctx context.Context, what files.Source, o Options) (*report.Verification, error) {
	v := &report.Verification{Problems: []report.Problem{}, Layers: []report.LayerError{}}
	parts, err := verificationParts(ctx, v, source.Of(ctx, what), o)
	if err != nil {
		return nil, err
	}
	defer closeAll(parts)
	adapters, err := lora.OpenAll(o.Lora)
	if err != nil {
		return nil, err
	}
	defer adapters.Close()
	whole := parts[:0:0]
	for _, part := range parts {
		if err := part.openOthers(); err != nil {
			return nil, err
		}
		switch err := part.open(); {
		case errors.Is(err, checkpoint.ErrSource): // what verify is there to find
			part.problem("", "%v", err)
		case err != nil:
			return nil, err
		default:
			whole = append(whole, part)
		}
	}
	if err := merge(v, adapters, whole, o); err != nil {
		return nil, err
	}
	watch.Of(ctx).Enter(watch.Verifying)
	if err := runAll(ctx, o.resources(), whole, engine.Counter(o.resources(), bytesOfAll(whole))); err != nil {
		return nil, err
	}
	if err := adapters.Unchanged(); err != nil {
		return nil, err
	}
	for _, part := range whole {
		if err := part.unchanged(); err != nil {
			return nil, err
		}
	}
	conclude(v, whole)
	return v, nil
}

// verification is that of one model under way.
type verification struct {
	Options
	*report.Verification
	checked        source.Source
	folder         string         // of the model in a pipeline
	from           *source.Source // that it is compared with, nil for none
	layersOnly     bool
	only           bool // of these, those that sourceLayers has
	output, source *checkpoint.Checkpoint
	model          *layout.Model
	sourceModel    *layout.Model                // nil without a source
	sourceLayers   map[string]*layout.Layer     // of it, by their weights' names
	sourcePlain    map[string]checkpoint.Tensor // where its own names are others
	merges         map[string]*lora.Patch       // what was merged into it, by the output's names
	factors        int64                        // bytes that those of one tensor take at most
	app            *app.App
	checks         []*check
}

func (v *verification) resources() engine.Resources {
	return v.Options.resources().Holding(v.factors)
}

func (v *verification) problem(tensor, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if tensor == "" && v.folder != "" {
		text = v.folder + ": " + text
	}
	v.Problems = append(v.Problems, report.Problem{Tensor: v.named(tensor), Problem: text})
}

// named is a tensor or a layer as it is called in a pipeline.
func (v *verification) named(name string) string {
	if name == "" || v.folder == "" {
		return name
	}
	return v.folder + "/" + name
}

// openOthers opens what the output is held against.
func (v *verification) openOthers() (err error) {
	if v.For != "" {
		if v.app, err = app.ByName(v.For); err != nil {
			return err
		}
	}
	if v.from != nil {
		if v.source, err = checkpoint.OpenPart(*v.from, v.folder); err != nil {
			return fmt.Errorf("`Source`: %w", err)
		}
	}
	return nil
}

func (v *verification) open() (err error) {
	if v.output, err = checkpoint.OpenPart(v.checked, v.folder); err != nil {
		return err
	}
	if v.model, err = layout.Read(v.output, v.source); err != nil {
		return usage.AsSource(err)
	}
	if v.model.Err != nil {
		v.problem("", "%v", v.model.Err)
	}
	return v.readSource()
}

// readSource finds the layers of a source that is quantized itself: what is
// compared are their restored values.
func (v *verification) readSource() (err error) {
	if v.source == nil || v.only || v.sourcePlain != nil {
		return nil
	}
	if v.sourceModel, err = layout.Read(v.source, nil); err != nil {
		return usage.AsSource(err)
	}
	v.sourceModel.AcceptUnscaled() // as quantize was asked to, if there are any
	v.sourceLayers = map[string]*layout.Layer{}
	for _, l := range v.sourceModel.Layers {
		v.sourceLayers[l.WeightName()] = l
	}
	return v.renameSource()
}

// codesName is the name of the tensor that a problem of a layer is about: its
// weight, or what another program has in its place.
func codesName(l *layout.Layer) string {
	switch {
	case l.Layout == layout.Other && len(l.Tensors) > 0:
		return l.Tensors[0].Name
	case l.Layout == nil || l.Layout == layout.Other:
		return l.WeightName()
	}
	return l.Layout.TensorName(l.Name, tile.Weight)
}

// unchanged fails if anything that was read is not what it was.
func (v *verification) unchanged() error {
	if err := v.output.Unchanged(); err != nil || v.source == nil {
		return err
	}
	return v.source.Unchanged()
}

// Staged is a model of an output that is not in its place yet.
type Staged struct {
	Output source.Source // the model
	Folder string        // of it in a pipeline
	Source *checkpoint.Checkpoint
	// Layers are the only ones to compare, those of the source by the names of the
	// output's weights; nil for all.
	Layers map[string]*layout.Layer
	// Plain are the plain tensors of a source of which the output has all layers under
	// other names, Layers then the others; nil where the names are the source's.
	Plain map[string]checkpoint.Tensor
	// Merges are what adapters have changed, by the names of the output's tensors.
	Merges map[string]*lora.Patch
}

// MeasureStaged compares the layers of outputs with their sources, which stay open.
func MeasureStaged(ctx context.Context, models []Staged, r engine.Resources, done func(n int64)) (*report.Verification, error) {
	v := &report.Verification{}
	var parts []*verification
	defer func() {
		for _, part := range parts {
			if part.output != nil {
				part.output.Close() // before the stage moves it
			}
		}
	}()
	for _, one := range models {
		part := &verification{Verification: v, checked: one.Output, folder: one.Folder, layersOnly: true, source: one.Source}
		part.Options = Options{Threads: r.Threads, Memory: r.Memory}
		part.sourceLayers, part.only = one.Layers, one.Layers != nil && one.Plain == nil
		part.sourcePlain, part.merges = one.Plain, one.Merges
		part.holdFactors()
		parts = append(parts, part)
		if err := part.open(); err != nil {
			return nil, err
		}
	}
	watch.Of(ctx).Enter(watch.Verifying)
	if err := runAll(ctx, r, parts, done); err != nil {
		return nil, err
	}
	conclude(v, parts)
	return v, nil
}

func closeAll(parts []*verification) {
	for _, v := range parts {
		for _, c := range []*checkpoint.Checkpoint{v.output, v.source} {
			if c != nil {
				c.Close()
			}
		}
	}
}

func bytesOfAll(parts []*verification) (n int64) {
	for _, v := range parts {
		n += checkpoint.BytesOf(v.output.Tensors)
	}
	return n
}

// runAll reads one model after the other.
func runAll(ctx context.Context, r engine.Resources, parts []*verification, done func(n int64)) error {
	return stream.Run(ctx, engine.Workers(r), func(yield func(stream.Task) bool) {
		for _, v := range parts {
			if !v.tasks(yield) {
				return
			}
		}
	}, done)
}

// tasks looks at names and shapes first, then yields the reading of all data.
func (v *verification) tasks(yield func(stream.Task) bool) bool {
	if !v.layersOnly {
		v.checkStructure()
	}
	for _, l := range v.model.Layers {
		if v.only && v.sourceLayers[l.WeightName()] == nil {
			continue
		}
		if l.Err != nil {
			v.problem(codesName(l), "%v", l.Err)
			continue
		}
		if !v.newLayerCheck(l).tasks(yield) {
			return false
		}
	}
	for _, t := range v.model.Plain {
		if !v.layersOnly && !v.newCopyCheck(t).tasks(yield) {
			return false
		}
	}
	return true
}

// conclude puts together what the tiles found, in order.
func conclude(found *report.Verification, parts []*verification) {
	var total, merged engine.Sums
	for _, v := range parts {
		if v.source != nil {
			found.Layers = slices.Grow(found.Layers, len(v.model.Layers))
		}
		for _, c := range v.checks {
			sums := v.conclude(c)
			if total.Add(sums); sums.Changes > 0 {
				merged.Add(sums)
			}
		}
	}
	if len(found.Layers) > 0 {
		found.Total, found.Merged = total.Relative(), merged.Merged()
	}
	found.OK = len(found.Problems) == 0
}

// conclude says what came of one check; the sums are those of a layer that is
// compared, else nothing.
func (v *verification) conclude(c *check) engine.Sums {
	found := engine.Total(c.found)
	for _, p := range c.problems(found) {
		v.problem(p.Tensor, "%s", p.Problem)
	}
	if c.layer == nil || c.source == nil {
		return engine.Sums{Nonfinite: -1}
	}
	e := report.LayerError{
		Name: v.named(c.layer.Name), Figures: found.Figures(),
		Dtype: c.layer.Dtype, Shape: c.source.Shape, Bytes: checkpoint.BytesOf(c.layer.Tensors), BytesSource: c.source.Bytes,
	}
	v.Layers = append(v.Layers, e)
	if v.MaxRelMSE != nil && (e.RelMSE == nil || *e.RelMSE > *v.MaxRelMSE) {
		v.problem(c.layer.WeightName(), "rel_mse is %s, above %g", Figure(e.RelMSE), *v.MaxRelMSE)
	}
	return found
}

// Figure is a figure as a message has it.
func Figure(x *float64) string {
	if x == nil {
		return "not finite"
	}
	return fmt.Sprintf("%.3g", *x)
}
