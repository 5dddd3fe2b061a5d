package convert

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// Quantize writes source, quantized, to dest. Nothing is at dest before all of
// it is; an error leaves nothing behind.
func Quantize(ctx context.Context, from files.Source, dest files.Sink, o Options) (*report.Report, error) {
	return quantize(ctx, from, dest, request{Options: o})
}

func quantize(ctx context.Context, from files.Source, dest files.Sink, o request) (*report.Report, error) {
	start := time.Now()
	j, err := readAsked(ctx, from, dest, o)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if err := j.checkDynamic(); err != nil {
		return nil, err
	}
	if err := j.searchDtypes(ctx); err != nil {
		return nil, err
	}
	if o.keeps() {
		return j.keep(ctx, writing{dest: dest, force: o.Force, Resources: j.after(j.resources()), again: o.Measure, hash: o.Hash})
	}
	return j.write(ctx, j.quantizing(ctx, dest, o, start))
}

// quantizing is the work on a quantization that is decided.
func (j *job) quantizing(ctx context.Context, dest files.Sink, o request, start time.Time) writing {
	w := j.copied(dest, o.Force, j.after(j.resources()), start)
	w.bytes, w.again, w.hash = j.work(o), o.Measure, o.Hash
	tell := w.report
	w.report = func(done func(int64)) (*report.Report, error) {
		r, err := tell(done)
		if err != nil {
			return nil, err
		}
		return r, j.measure(ctx, o, done, r)
	}
	return w
}

// Plan makes the decisions of [Quantize] and reads no weights, but to measure them for a
// budget. dest may be nil.
func Plan(ctx context.Context, from files.Source, dest files.Sink, o Options) (*report.Report, error) {
	j, err := readAsked(ctx, from, dest, request{Options: o, planned: true})
	if err == nil {
		if err = j.planKept(ctx, dest); err != nil {
			err = errors.Join(err, j.Close())
		}
	}
	return planned(ctx, j, err, dest, o.Force)
}

// readAsked opens what is quantized and decides about it, within a size where one is
// given.
func readAsked(ctx context.Context, from files.Source, dest files.Sink, o request) (*job, error) {
	if err := o.checkKept(dest); err != nil {
		return nil, err
	}
	if o.Fit > 0 {
		return readFitting(ctx, from, dest, o)
	}
	return readPlain(ctx, from, dest, o)
}

// readPlain opens what is quantized and decides about it.
func readPlain(ctx context.Context, from files.Source, dest files.Sink, o request) (*job, error) {
	j, err := openPlain(ctx, from, dest, o)
	if err != nil {
		return nil, err
	}
	err = j.checkFingerprint(o.Fingerprint)
	switch {
	case err != nil:
	case o.chooses():
		err = j.choose(ctx)
	default:
		err = j.plan(ctx, nil)
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// openPlain opens what is quantized.
func openPlain(ctx context.Context, from files.Source, dest files.Sink, o request) (*job, error) {
	if o.Like != nil {
		o.like = new(source.Of(ctx, o.Like))
	}
	var err error
	if o.as, err = namingOf(o.Names); err != nil {
		return nil, err
	}
	s, name, err := o.as.of(o.opened.source(ctx, from), nameOf(dest))
	if err != nil {
		return nil, err
	}
	if o.like, err = o.as.like(o.like); err != nil {
		return nil, err
	}
	j, err := newJob(o.opened.models(s, o.like))
	if err != nil {
		return nil, err
	}
	j.asked, j.name = o, name
	j.parents = o.ctq != nil
	if err := j.openAdapters(); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

func makePlan(c *checkpoint.Checkpoint, dest string, o request, chosen map[string]plan.Choice) (*plan.Plan, error) {
	m, err := bundle.ReadModel(c, nil)
	if err != nil {
		return nil, err
	}
	if o.AcceptUnscaledFP8 {
		m.AcceptUnscaled()
	}
	m, notes, err := o.as.model(m, false)
	if err != nil {
		return nil, err
	}
	tensors, stored, err := plan.Inventory(m)
	if err != nil {
		return nil, err
	}
	out, err := outputOf(c, dest, o.ShardSize)
	if err != nil {
		return nil, err
	}
	options, err := o.planOptions(c, tensors, out)
	if err != nil {
		return nil, err
	}
	if options.For != nil {
		if err := options.For.CheckClass(bundle.ClassesOf(c.Config)); err != nil {
			return nil, usage.Wrap(err)
		}
	}
	if options.For != nil && options.Addon != "" {
		return nil, usage.Errorf("%s: %w", c.Path, options.For.CheckAddon(options.Addon, options.AddonSign))
	}
	options.Chosen, options.Stored, options.Moments = chosen, stored, o.momentsOf(c)
	if options.Merges, err = o.adapters.Patches(tensors, o.component); err != nil {
		return nil, err
	}
	p, err := plan.Make(tensors, options)
	if errors.Is(err, usage.ErrSource) {
		return nil, usage.SourceErrorf("%s: %w", c.Path, err)
	}
	if err == nil && o.ctq != nil {
		biasNote(c, p)
	}
	if err != nil {
		return nil, err
	}
	noteFormer(m, p, out.Folder)
	p.Notes = slices.Concat(notes, p.Notes)
	return p, nil
}
