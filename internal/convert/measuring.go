package convert

import (
	"context"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/storage"
)

// Measure measures what every layer takes and loses in every entry of a menu.
func Measure(ctx context.Context, from files.Source, o Options) (*report.Measurement, error) {
	start := time.Now()
	if o.Budget != 0 || o.BudgetShare != 0 || o.TargetBPW != 0 || o.Measured != nil {
		return nil, usage.Errorf("measuring serves every budget: name one to quantize or to plan")
	}
	j, err := openPlain(ctx, from, nil, request{Options: o})
	if err != nil {
		return nil, err
	}
	defer j.Close()
	if err := j.checkFingerprint(o.Fingerprint); err != nil {
		return nil, err
	}
	c, err := j.newChoosing(ctx)
	if err == nil {
		err = c.measure(ctx, 0)
	}
	if err != nil {
		return nil, err
	}
	m, err := c.measurement()
	if err == nil {
		err = j.Unchanged()
	}
	if err != nil {
		return nil, err
	}
	m.Seconds = time.Since(start).Seconds()
	return m, nil
}

// measurement is what was measured, as a report has it.
func (c *choosing) measurement() (*report.Measurement, error) {
	m := &report.Measurement{
		Measurement: report.MeasurementForm, Source: c.Source.Path, Layout: c.asked.Layout, For: c.asked.For, Menu: c.menu(),
		Layers: []report.MeasuredLayer{}, BytesIn: c.BytesIn(), BytesFixed: c.fixed(func(o option) int64 { return o.size.All }), Values: c.values(), Notes: c.notes(),
	}
	for _, l := range c.layers {
		one := report.MeasuredLayer{Name: l.name, Shape: c.stepOf(l).Source.Shape, BytesIn: c.stepOf(l).Source.Size}
		for _, o := range l.options {
			one.Choices = append(one.Choices, c.measured(o))
		}
		m.Layers = append(m.Layers, one)
	}
	var err error
	m.Fingerprint, err = c.mergedFingerprint()
	return m, err
}

func (c *choosing) measured(o option) report.MeasuredChoice {
	return report.MeasuredChoice{Entry: c.nameOf(o.entry), RelMSE: finite(o.rel), Bytes: o.size.All}
}

// finite returns nil for what JSON cannot represent.
func finite(x float64) *float64 { return engine.FiniteOrNil(x) }

// stepOf is what becomes of a layer where it is kept.
func (c *choosing) stepOf(l *choosable) *plan.Step { return &c.kept.plans[l.model].Steps[l.step] }

// notes say what there is no choice for.
func (c *choosing) notes() (notes []string) {
	if len(c.asked.Lora) > 0 {
		notes = append(notes, c.adapters.Merged(merging(c.kept.plans)))
	}
	if len(c.layers) == 0 {
		notes = append(notes, nothingToChoose)
	}
	return notes
}

const nothingToChoose = "no layer is quantized by any entry of the menu: there is nothing to choose"

// trials are the ways to store a layer of which the error is to be measured, and the
// options that they are of: entries may come to the same for a layer.
type trials struct {
	*choosable
	all []*engine.Trial
	of  []int // of each option, the index of its trial; -1 for keep
}

func (c *choosing) trialsOf(l *choosable) *trials {
	t := &trials{choosable: l}
	for _, o := range l.options {
		at := -1
		if o.entry >= 0 {
			at = t.add(&c.entries[o.entry].plans[l.model].Steps[l.step])
		}
		t.of = append(t.of, at)
	}
	return t
}

func (t *trials) add(s *plan.Step) int {
	for i, one := range t.all {
		if one.Step.Format == s.Format && *one.Step.Settings == *s.Settings {
			return i
		}
	}
	t.all = append(t.all, &engine.Trial{Step: s})
	return len(t.all) - 1
}

// found gives the options their errors.
func (t *trials) found() {
	for i := range t.options {
		if at := t.of[i]; at >= 0 {
			total := t.all[at].Total()
			t.options[i].rel = orInfinity(total.Relative().RelMSE)
		}
	}
}

func orInfinity(x *float64) float64 {
	if x == nil {
		return math.Inf(1)
	}
	return *x
}

// measure reads the weights once and measures all layers; after is how many bytes
// progress counts to when this is done.
func (c *choosing) measure(ctx context.Context, after int64) (err error) {
	var all []*trials
	var bytes int64
	for _, l := range c.layers {
		t := c.trialsOf(l)
		all = append(all, t)
		bytes += c.stepOf(l).Source.Size * int64(len(t.all))
	}
	watch.Of(ctx).Enter(watch.Measuring)
	r := c.resources()
	s := &scratches{}
	defer func() { err = errors.Join(err, s.Close()) }()
	var each []*engine.Measuring
	for i, one := range c.Models {
		each = append(each, &engine.Measuring{Quantization: &engine.Quantization{
			Source: one.Checkpoint, Plan: c.entries[0].plans[i], Stage: s, Resources: r,
		}})
	}
	err = stream.Run(ctx, engine.Workers(r), func(yield func(stream.Task) bool) {
		for _, t := range all {
			if !each[t.model].Tasks(t.all, yield) {
				return
			}
		}
		for _, m := range each {
			if !m.Flush(yield) {
				return
			}
		}
	}, engine.Counter(r, bytes+after))
	if err != nil {
		return err
	}
	for _, t := range all {
		t.found()
	}
	c.before = bytes
	return nil
}

// after are resources whose progress goes on from what was measured.
func (j *job) after(r engine.Resources) engine.Resources {
	tell := r.Progress
	if tell == nil || j.before == 0 {
		return r
	}
	r.Progress = func(done, total int64) { tell(j.before+done, j.before+total) }
	return r
}

// scratches are temporary files where no output is staged.
type scratches struct{ stage.Scratches }

func (s *scratches) Scratch() (*stage.Scratch, error) { return s.New() }

// menuOf is the menu of a measurement.
func menuOf(m *report.Measurement) (menu []storage.Candidate, err error) {
	for _, e := range m.Menu {
		found, err := codec.ParseMenu(strings.ReplaceAll(e.Settings, ",", ":"))
		if err != nil {
			return nil, usage.SourceErrorf("`Measured`: %w", err)
		}
		found[0].Name = e.Name
		menu = append(menu, found[0])
	}
	return menu, nil
}

// accept refuses a measurement of another source, or for another layout.
func (c *choosing) accept(m *report.Measurement) error {
	if m.Measurement != report.MeasurementForm {
		return usage.SourceErrorf("`Measured`: a measurement of form %d: this program reads form %d", m.Measurement, report.MeasurementForm)
	}
	if m.Layout != c.asked.Layout {
		return usage.Errorf("`Measured` is of the %s layout, and %s is asked for: measure again", m.Layout, c.asked.Layout)
	}
	got, err := c.mergedFingerprint()
	if err != nil || got == m.Fingerprint {
		return err
	}
	plain, err := c.fingerprint()
	if err != nil {
		return err
	}
	if plain == m.Fingerprint { // of the source without the adapters
		c.measuredPlain = true
		return nil
	}
	what := ""
	if len(c.asked.Lora) > 0 {
		what = " with these adapters"
	}
	return usage.SourceErrorf("`Measured`: another source was measured than %s%s: its fingerprint is %s, not %s", c.Source.Path, what, short(got), short(m.Fingerprint))
}

// take gives layers the errors of a measurement.
func (c *choosing) take(m *report.Measurement) error {
	names := map[string]string{} // of the measured entries, by their settings
	for _, e := range m.Menu {
		names[e.Settings] = e.Name
	}
	type key struct{ layer, entry string }
	errs := map[key]*float64{}
	for _, l := range m.Layers {
		for _, choice := range l.Choices {
			errs[key{l.Name, choice.Entry}] = choice.RelMSE
		}
	}
	for _, l := range c.layers {
		for i := range l.options {
			o := &l.options[i]
			if o.entry < 0 {
				continue
			}
			settings := c.entries[o.entry].settings()
			name, known := names[settings]
			rel, found := errs[key{l.name, name}]
			switch {
			case !known:
				return usage.Errorf("`Measured` has no entry %s: measure again with this menu", settings)
			case !found:
				return usage.Errorf("`Measured` has no layer %s as %s: measure again with these options", l.name, name)
			case rel != nil && !(*rel >= 0):
				return usage.SourceErrorf("`Measured`: layer %s as %s: an error of %v", l.name, name, *rel)
			}
			o.rel = orInfinity(rel)
		}
	}
	return nil
}

// mostError is the greatest relative error that counts as one: values beyond it are as
// good as not finite.
const mostError = 1e12

// possible drops options whose values are not finite, and keeps a layer that has no other.
func (c *choosing) possible() {
	for _, l := range c.layers {
		some := l.options[:0:0]
		for _, o := range l.options {
			if o.rel <= mostError {
				some = append(some, o)
			}
		}
		if l.options = some; len(some) == 0 {
			l.options = []option{{entry: -1, size: c.kept.sizes[l.model][l.step]}}
		}
	}
}
