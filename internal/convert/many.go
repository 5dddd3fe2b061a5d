package convert

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// Output is one of several that are made of a source.
type Output struct {
	Dest files.Sink
	Options
}

// ManyOptions are tensorpress.ManyOptions, whose comments say what each is.
type ManyOptions struct {
	KeepGoing bool
	Threads   int
	Memory    int64
	Progress  func(done, total int64)
}

// many is a source on its way to several outputs.
type many struct {
	ManyOptions
	from   files.Source
	opened opened
	all    []*oneOf
	start  time.Time
	before int64 // bytes that progress has counted before weights are written
}

// oneOf is one of the outputs.
type oneOf struct {
	*job
	Output
	writing
	fate   *engine.Fate
	near   bool // weights of others come to lie beside it
	told   *report.Report
	hashes *hashing
	done   func(n int64) // of the run's progress
}

// QuantizeMany writes source, quantized in several ways, to as many places, and reads it
// for all of them at once.
func QuantizeMany(ctx context.Context, from files.Source, outputs []Output, o ManyOptions) (*report.Outputs, error) {
	m, err := newMany(from, outputs, o)
	if err != nil {
		return nil, err
	}
	defer m.close()
	defer m.abort() // of a panic, else it is done
	err = m.write(ctx)
	return m.report(errors.Join(m.named(err), m.abort()))
}

// PlanMany makes the decisions of [QuantizeMany]. Destinations may be nil.
func PlanMany(ctx context.Context, from files.Source, outputs []Output, o ManyOptions) (*report.Outputs, error) {
	m, err := newMany(from, outputs, o)
	if err != nil {
		return nil, err
	}
	defer m.close()
	err = m.each(ctx, func(x *oneOf) error {
		err := m.read(ctx, x)
		if err == nil {
			x.told, err = planned(ctx, x.job, nil, x.Dest, x.Force)
		}
		return err
	})
	return m.report(m.named(err))
}

// newMany refuses outputs of which one would lie in another, before anything is read.
func newMany(from files.Source, outputs []Output, o ManyOptions) (*many, error) {
	if len(outputs) == 0 {
		return nil, usage.Errorf("no output is named")
	}
	m := &many{ManyOptions: o, from: from, start: time.Now()}
	for _, one := range outputs {
		if one.keeps() {
			return nil, usage.Errorf("`%s` is for an output by itself, and not for one of several: leave it out, or make each in a run of its own", one.keepsBy())
		}
		one.Threads, one.Memory = o.Threads, o.Memory
		for _, other := range m.all {
			if err := apartFrom(other.Dest, one.Dest); err != nil {
				return nil, err
			}
		}
		m.all = append(m.all, &oneOf{Output: one, fate: engine.NewFate(o.KeepGoing)})
	}
	for _, x := range m.all {
		for _, other := range m.all {
			if other != x && bothHere(x, other) {
				_, folder := stage.Together(nameOf(x.Dest), nameOf(other.Dest))
				x.near = x.near || folder && !bundle.IsFolder(nameOf(other.Dest))
			}
		}
	}
	return m, nil
}

func bothHere(a, b *oneOf) bool {
	_, here := a.Dest.(files.Dir)
	_, there := b.Dest.(files.Dir)
	return here && there
}

// read opens the source for an output and decides about it.
func (m *many) read(ctx context.Context, x *oneOf) (err error) {
	if x.job, err = readAsked(ctx, m.from, x.Dest, m.request(x)); err == nil {
		x.crowded = x.near
		m.before += x.job.before // what it has measured
	}
	return err
}

// apartFrom refuses two destinations that are not apart.
func apartFrom(a, b files.Sink) error {
	first, second := nameOf(a), nameOf(b)
	if first == "" || second == "" {
		return nil
	}
	_, here := a.(files.Dir)
	_, there := b.(files.Dir)
	switch {
	case here && there:
		return stage.Apart(first, second)
	case here != there:
		return nil
	case first == second:
		return usage.Errorf("%s is the destination of two outputs: name one for each", second)
	case strings.HasPrefix(first, strings.TrimSuffix(second, "/")+"/"):
		return usage.Errorf("%s lies in %s, and both are destinations: name another one", first, second)
	case strings.HasPrefix(second, strings.TrimSuffix(first, "/")+"/"):
		return usage.Errorf("%s lies in %s, and both are destinations: name another one", second, first)
	}
	return nil
}

// each does something with every output that has not failed, one after another.
func (m *many) each(ctx context.Context, do func(x *oneOf) error) error {
	for _, x := range m.all {
		if x.fate.Err() != nil {
			continue
		}
		err := do(x)
		if ended := ctx.Err(); ended != nil {
			return errors.Join(ended, err)
		}
		if err := x.fate.Fail(err); err != nil {
			return err
		}
	}
	return nil
}

// going are the outputs that have not failed.
func (m *many) going() []*oneOf {
	return slices.DeleteFunc(slices.Clone(m.all), func(x *oneOf) bool { return x.fate.Err() != nil })
}

// request is what is asked for of an output. What it measures first counts as progress of
// the run.
func (m *many) request(x *oneOf) request {
	o := x.Options
	if m.Progress != nil {
		before := m.before
		o.Progress = func(done, total int64) { m.Progress(before+done, before+total) }
	}
	return request{Options: o, opened: &m.opened}
}

// write plans, fills and places all outputs.
func (m *many) write(ctx context.Context) error {
	for _, step := range []func(context.Context) error{m.plan, m.create, m.fill, m.complete, m.unchanged, m.place} {
		if err := step(ctx); err != nil {
			return err
		}
		if len(m.going()) == 0 {
			return nil // the report says why
		}
	}
	return nil
}

func (m *many) plan(ctx context.Context) error {
	return m.each(ctx, func(x *oneOf) error {
		if err := m.read(ctx, x); err != nil {
			return err
		}
		if err := x.searchDtypes(ctx); err != nil {
			return err
		}
		x.writing = x.quantizing(ctx, x.Dest, x.asked, m.start)
		return nil
	})
}

// create begins the outputs. Those on one disk share what is free there.
func (m *many) create(ctx context.Context) error {
	all := m.going()
	for i, x := range all {
		for _, other := range all[:i] {
			if !bothHere(x, other) {
				continue
			}
			if disk, _ := stage.Together(nameOf(x.Dest), nameOf(other.Dest)); disk {
				x.also += other.BytesOut()
			}
		}
	}
	return m.each(ctx, func(x *oneOf) error {
		err := x.create(ctx, x.writing)
		for _, one := range x.Models {
			for _, w := range one.Writers {
				w.OnError(x.fate.Fail)
			}
		}
		return err
	})
}

func (m *many) resources() engine.Resources {
	r := engine.Resources{Threads: m.Threads, Memory: m.Memory}
	if m.Progress != nil {
		r.Progress = func(done, total int64) { m.Progress(m.before+done, m.before+total) }
	}
	return r
}

// fill writes the weights of all outputs.
func (m *many) fill(ctx context.Context) error {
	m.hash(ctx)
	r := m.resources()
	var bytes int64
	for _, x := range m.going() {
		bytes += x.writing.bytes
	}
	done := engine.Counter(r, bytes)
	for _, x := range m.going() {
		x.done = done
	}
	return stream.Run(ctx, engine.Workers(r), func(yield func(stream.Task) bool) { m.tasks(r, yield) }, done)
}

// hash begins to hash what the outputs are made of, where a report is to have it.
func (m *many) hash(ctx context.Context) {
	var all []source.Source
	seen := map[string]bool{}
	var output int64
	for _, x := range m.going() {
		if !x.writing.hash {
			continue
		}
		x.hashes = &hashing{of: map[string]bool{}, output: x.bytesHashed()}
		output += x.hashes.output
		for _, file := range x.sourceFiles() {
			x.hashes.of[file.Path] = true
			if !seen[file.Path] {
				seen[file.Path] = true
				all = append(all, file)
			}
		}
	}
	if len(all) == 0 {
		return
	}
	run := startHashing(ctx, all, output, m.resources())
	for _, x := range m.going() {
		if x.hashes != nil {
			x.hashes.sources, x.hashes.atOnce = run.sources, run.atOnce
		}
	}
}

// tasks yields the work on all outputs: headers, then one checkpoint after another.
func (m *many) tasks(r engine.Resources, yield func(stream.Task) bool) {
	all := m.going()
	for _, x := range all {
		if !x.headers(func(t stream.Task) bool {
			do := t.Do
			t.Do = func(w *stream.Worker) error { return x.fate.Fail(do(w)) }
			return yield(t)
		}) {
			return
		}
	}
	k := engine.NewResidency(r)
	var paths []string
	reading := map[string]*engine.Together{}
	for _, x := range all {
		for _, one := range x.Models {
			path := one.Checkpoint.Path
			if reading[path] == nil {
				paths, reading[path] = append(paths, path), &engine.Together{}
			}
			t := reading[path]
			t.Outputs = append(t.Outputs, &engine.Quantization{
				Source: one.Checkpoint, Plan: one.Plan, Writers: one.Writers, Residency: k, Stage: x.out, Fate: x.fate, Resources: r,
			})
		}
	}
	for _, path := range paths {
		if !reading[path].Tasks(yield) {
			return
		}
	}
}

// complete makes sure that the outputs are whole, measures them where that is asked for,
// and has them on the disk.
func (m *many) complete(ctx context.Context) error {
	return m.each(ctx, func(x *oneOf) (err error) {
		if x.told, err = x.job.complete(ctx, x.writing, x.done, x.hashes); err != nil {
			return err
		}
		return x.out.Prepare(ctx)
	})
}

// unchanged makes sure that the source is what it was; where it is not, that is no fault of
// an output's.
func (m *many) unchanged(context.Context) error {
	for _, x := range m.going() {
		if err := x.Unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// place puts all outputs in their places, or none: what can be undone without a trace goes
// first.
func (m *many) place(ctx context.Context) error {
	watch.Of(ctx).Enter(watch.Placing)
	all := m.going()
	slices.SortStableFunc(all, func(a, b *oneOf) int { return rank(a) - rank(b) })
	var placed []*oneOf
	var err error
	for _, x := range all {
		if err = ctx.Err(); err != nil {
			break
		}
		failure := x.out.Place(ctx)
		if failure == nil {
			placed = append(placed, x)
			continue
		}
		if ended := ctx.Err(); ended != nil {
			err = errors.Join(ended, failure)
			break
		}
		if err = x.fate.Fail(failure); err != nil {
			break
		}
	}
	if err != nil {
		for _, x := range slices.Backward(placed) {
			err = errors.Join(err, x.out.TakeBack())
		}
		return err
	}
	for _, x := range placed {
		err = errors.Join(err, x.out.Settle())
		x.placed(x.Dest, x.told)
	}
	return err
}

func rank(x *oneOf) int {
	if x.out.Staged() {
		return 0
	}
	return 1
}

// abort leaves nothing of what is not in its place.
func (m *many) abort() error {
	var err error
	for _, x := range m.all {
		if x.hashes != nil {
			x.hashes.stop()
		}
		if x.job != nil && x.out != nil {
			err = errors.Join(err, x.out.Abort())
		}
	}
	return err
}

func (m *many) close() {
	for _, x := range m.all {
		if x.job != nil {
			x.job.Close()
		}
	}
	m.opened.Close()
}

// named says of an error which output has it, and where that was to be.
func (m *many) named(err error) error {
	var of *engine.OutputError
	for _, x := range m.all {
		if x.job != nil && x.out != nil {
			err = x.out.Named(err)
		}
		if errors.As(err, &of) && of.Fate == x.fate {
			err = x.explain(err)
		}
	}
	return err
}

// explain names the output in an error that does not.
func (x *oneOf) explain(err error) error {
	if dest := nameOf(x.Dest); dest != "" && len(err.Error()) > 0 && !strings.Contains(err.Error(), dest) {
		return fmt.Errorf("%s: %w", dest, err)
	}
	return err
}

// report is that of the outputs that were made; the error joins those of all others.
func (m *many) report(err error) (*report.Outputs, error) {
	if err != nil {
		return nil, err
	}
	all := &report.Outputs{Outputs: []*report.Report{}}
	for _, x := range m.all {
		failure := x.fate.Err()
		if failure == nil {
			all.Source = x.told.Source
			all.Outputs = append(all.Outputs, x.told)
			all.Seconds = max(all.Seconds, x.told.Seconds)
			continue
		}
		if x.job != nil && x.out != nil {
			failure = x.out.Named(failure)
		}
		all.Failed = append(all.Failed, report.Failure{Dest: nameOf(x.Dest), Error: failure.Error()})
		err = errors.Join(err, x.explain(failure))
	}
	if len(all.Outputs) == 0 {
		return nil, err
	}
	return all, err
}
