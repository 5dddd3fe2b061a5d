package convert

import (
	"context"
	"fmt"
	"math"
	"regexp"

	"github.com/tensorpress/tensorpress/internal/budget"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/storage"
)

// chooses reports whether a size was named for the output.
func (o Options) chooses() bool { return o.Budget != 0 || o.BudgetShare != 0 || o.TargetBPW != 0 }

// choice is what was chosen for a size.
type choice struct {
	report.Budget
	errors map[string]float64 // of quantized layers
	note   string
}

// choose measures the layers, or takes what was measured, chooses an entry of the menu for
// each, and plans that.
func (j *job) choose(ctx context.Context) error {
	if err := j.asked.checkBudget(); err != nil {
		return err
	}
	c, err := j.newChoosing(ctx)
	if err != nil {
		return err
	}
	if m := c.asked.Measured; m != nil {
		err = c.take(m)
	} else {
		after := int64(0)
		if !c.asked.planned {
			after = c.BytesIn()
		}
		err = c.measure(ctx, after)
	}
	if err != nil {
		return err
	}
	c.possible()
	j.choice, err = c.fit(ctx, c.bytesAsked())
	return err
}

func (o Options) checkBudget() error {
	n := 0
	for _, given := range []bool{o.Budget != 0, o.BudgetShare != 0, o.TargetBPW != 0} {
		if given {
			n++
		}
	}
	switch {
	case o.Layer.Bits != nil && o.choosesBest():
		return usage.Errorf("`Bits` with `For` chooses a dtype, and so does a budget: give one")
	case n > 1:
		return usage.Errorf("`Budget` and `TargetBPW` both name a size: give one")
	case o.Budget < 0 || !(o.BudgetShare >= 0) || !(o.TargetBPW >= 0) || math.IsInf(o.BudgetShare, 0) || math.IsInf(o.TargetBPW, 0):
		return usage.Errorf("`Budget`: want a size greater than 0")
	}
	return nil
}

// bytesAsked is the size that was named.
func (c *choosing) bytesAsked() int64 {
	o := &c.asked
	bytes := float64(o.BudgetShare) * float64(c.BytesIn())
	switch {
	case o.Budget != 0:
		return o.Budget
	case o.TargetBPW != 0:
		bytes = o.TargetBPW / 8 * float64(c.values())
	}
	return int64(min(bytes, 1<<62))
}

// fitting looks for the best choice whose output has a size.
type fitting struct {
	*choosing
	*budget.Problem
	asked int64 // bytes
	best  *fitted
}

// fitted is a choice, and the size of its output.
type fitted struct {
	*budget.Solution
	bytes int64
	rules []storage.Rule
	all   storage.Settings // of layers without a rule
	texts []report.Choice  // with the rules of layers
}

// fit finds the best choice within that many bytes, and leaves its plans with the models.
func (c *choosing) fit(ctx context.Context, bytes int64) (*choice, error) {
	f := &fitting{choosing: c, Problem: c.problem(), asked: bytes}
	if err := f.solve(ctx); err != nil {
		return nil, err
	}
	if err := f.uniform(ctx); err != nil {
		return nil, err
	}
	least, err := f.smallest(ctx)
	if err != nil {
		return nil, err
	}
	if f.best == nil {
		err := usage.Errorf("`Budget`: %s (%d bytes) are too few: the least that the menu makes of %s is %s (%d bytes)",
			report.Size(bytes), bytes, c.Source.Path, report.Size(least), least)
		if len(c.layers) == 0 {
			err = usage.Errorf("%w; %s", err, nothingToChoose)
		}
		return nil, err
	}
	if _, err := c.planAs(ctx, f.request(f.best)); err != nil {
		return nil, err
	}
	return f.choice(least)
}

// problem are the options of all layers.
func (c *choosing) problem() *budget.Problem {
	all := make([][]budget.Option, len(c.layers))
	for i, l := range c.layers {
		for _, o := range l.options {
			all[i] = append(all[i], budget.Option{Bytes: c.sizeOf(o), Loss: l.loss(o)})
		}
	}
	return budget.New(all)
}

// solve finds the best choice by the layers' sizes. What else the output has depends a
// little on the choice: what headers and configs say. So the choice is planned, and made
// again with as much less, or more, as was found.
func (f *fitting) solve(ctx context.Context) error {
	beside := f.fixed(f.sizeOf)
	const most = 10
	for i := range most {
		s, err := f.Solve(f.asked - beside)
		if err != nil {
			return nil // there may be room yet, if it is planned
		}
		one, err := f.try(ctx, s)
		if err != nil {
			return err
		}
		found, over := one.bytes-s.Bytes, one.bytes-f.asked
		switch {
		case over > 0: // the more often, the further
			beside = max(found, beside+over<<i)
			continue
		case f.best != nil && one.Loss >= f.best.Loss, found >= beside, i > most/2:
			f.take(one)
			return nil
		}
		f.take(one)
		beside = found
	}
	return nil
}

// take keeps the better of two choices.
func (f *fitting) take(one *fitted) {
	if one.bytes <= f.asked && (f.best == nil || one.Loss < f.best.Loss || one.Loss == f.best.Loss && one.bytes < f.best.bytes) {
		f.best = one
	}
}

// uniform tries the entries of the menu everywhere, of which outputs have the shortest
// headers and configs, and keeping everything, which needs no config.
func (f *fitting) uniform(ctx context.Context) error {
	for i, e := range f.entries {
		if err := f.everyone(ctx, f.picksOf(i), e.total); err != nil {
			return err
		}
	}
	if !f.keeps {
		return nil
	}
	return f.everyone(ctx, f.picks(func(*choosable) int { return -1 }), f.kept.total)
}

// everyone tries one choice for all layers, where such an output fits and loses less.
func (f *fitting) everyone(ctx context.Context, picks []int, total int64) error {
	if picks == nil || total > f.asked {
		return nil
	}
	_, loss := f.Sum(picks)
	if f.best != nil && loss >= f.best.Loss {
		return nil
	}
	one, err := f.try(ctx, &budget.Solution{Picks: picks, Loss: loss})
	if err != nil {
		return err
	}
	f.take(one)
	return nil
}

// picksOf picks an entry of the menu for all layers that can have it, and keeps the
// others; nil where one cannot be had.
func (f *fitting) picksOf(entry int) []int {
	return f.picks(func(l *choosable) int {
		want, _ := f.everywhere(l, entry)
		return want.entry
	})
}

// picks are the places of entries among the options of layers; nil where one has not its own.
func (f *fitting) picks(entryOf func(l *choosable) int) []int {
	picks := make([]int, len(f.layers))
	for i, l := range f.layers {
		want := entryOf(l)
		picks[i] = -1
		for k, o := range l.options {
			if o.entry == want {
				picks[i] = k
			}
		}
		if picks[i] < 0 {
			return nil
		}
	}
	return picks
}

// smallest is the size of the least output, and takes it where nothing else fits.
func (f *fitting) smallest(ctx context.Context) (int64, error) {
	one, err := f.try(ctx, f.Smallest())
	if err != nil {
		return 0, err
	}
	least := one.bytes
	for _, e := range f.entries {
		least = min(least, e.total)
	}
	if f.best == nil {
		f.take(one)
	}
	return least, nil
}

// try plans a choice.
func (f *fitting) try(ctx context.Context, s *budget.Solution) (*fitted, error) {
	one := &fitted{Solution: s}
	if err := f.say(one); err != nil {
		return nil, err
	}
	all, err := f.planAs(ctx, f.request(one))
	one.bytes = all.total
	return one, err
}

// request is what to ask for so that layers have what is chosen.
func (f *fitting) request(one *fitted) request {
	o := f.choosing.asked
	o.Layer = one.all
	o.Rules = append(append([]storage.Rule{}, one.rules...), o.Rules...)
	return o
}

// say puts a choice into words: the entry that most layers have is said of all, and the
// others have rules. That is what makes a config short.
func (f *fitting) say(one *fitted) error {
	most := f.most(one.Picks)
	all := f.entries[most]
	one.all = all.own
	for i, l := range f.layers {
		o := l.options[one.Picks[i]]
		text := report.Choice{Name: l.name, MeasuredChoice: f.measured(o)}
		if unsaid, _ := f.everywhere(l, most); o.entry != unsaid.entry {
			r, err := f.rule(l, o, all)
			if err != nil {
				return err
			}
			one.rules = append(one.rules, r)
			if text.Pattern, text.Settings = r.Pattern, codec.Words(r.Layer, ","); r.Keep {
				text.Settings = keep
			}
		}
		one.texts = append(one.texts, text)
	}
	return nil
}

// most is the entry that stores most layers.
func (f *fitting) most(picks []int) (entry int) {
	counts := make([]int, len(f.entries))
	for i, l := range f.layers {
		if e := l.options[picks[i]].entry; e >= 0 {
			counts[e]++
		}
	}
	for i, n := range counts {
		if n > counts[entry] {
			entry = i
		}
	}
	return entry
}

// rule makes a layer what is chosen for it, beside what is said of all.
func (f *fitting) rule(l *choosable, o option, all *entry) (r storage.Rule, err error) {
	one := f.Models[l.model]
	r.Pattern = "^" + regexp.QuoteMeta(one.Named(f.stepOf(l).Source.Name)) + "$"
	if o.entry < 0 {
		r.Keep, r.Text = true, "keep, for which there is room"
		return r, nil
	}
	e := f.entries[o.entry]
	if r.Layer, err = e.format.Against(all.own, e.own); err != nil {
		err = usage.Errorf("`Menu` %s and %s: %w: say it of every entry", all.Name, e.Name, err)
	}
	return r, err
}

// choice is what a report says of what was chosen.
func (f *fitting) choice(least int64) (*choice, error) {
	c := &choice{errors: map[string]float64{}}
	fingerprint, err := f.fingerprint()
	if err != nil {
		return nil, err
	}
	smallest, best := f.Smallest(), f.Best()
	beside := f.best.bytes - f.bytesOf(f.best.Picks)
	c.Budget = report.Budget{
		Bytes: f.asked, Fingerprint: fingerprint, Menu: f.menu(), Gap: f.best.Gap, Settings: codec.Words(f.best.all, ","),
		Chosen: report.Point{Bytes: f.best.bytes, RelMSE: f.meanOf(f.best.Loss)},
		Least:  report.Point{Bytes: least, RelMSE: f.meanOf(smallest.Loss)},
		Best:   report.Point{Bytes: beside + best.Bytes, RelMSE: f.meanOf(best.Loss)},
		Layers: f.beside(),
	}
	for _, p := range f.Frontier(mostPoints) {
		c.Frontier = append(c.Frontier, report.Point{Bytes: beside + p.Bytes, RelMSE: f.meanOf(p.Loss)})
	}
	for i, l := range f.layers {
		if o := l.options[f.best.Picks[i]]; o.entry >= 0 {
			c.errors[l.name] = o.rel
		}
	}
	switch {
	case len(f.layers) == 0:
		c.note = nothingToChoose
	case f.best.Loss <= best.Loss && f.asked > f.best.bytes:
		c.note = fmt.Sprintf("the budget of %s is more than the menu takes: the least error is that of %s", report.Size(f.asked), report.Size(f.best.bytes))
	}
	return c, nil
}

// mostPoints are as many as a picture shows.
const mostPoints = 48

func (f *fitting) bytesOf(picks []int) int64 {
	bytes, _ := f.Sum(picks)
	return bytes
}

// beside are the layers with what is next to what was chosen for each.
func (f *fitting) beside() []report.Choice {
	for i, l := range f.layers {
		text := &f.best.texts[i]
		smaller, better := f.Beside(i, f.best.Picks[i])
		if smaller >= 0 {
			text.Smaller = new(f.measured(l.options[smaller]))
		}
		if better >= 0 {
			text.Better = new(f.measured(l.options[better]))
		}
	}
	return f.best.texts
}

// tell adds a choice to a report.
func (c *choice) tell(r *report.Report) {
	if c == nil {
		return
	}
	r.Budget = &c.Budget
	if c.note != "" {
		r.Notes = append(r.Notes, c.note)
	}
	for i := range r.Layers {
		l := &r.Layers[i]
		if rel, ok := c.errors[l.Name]; ok && l.Figures == nil {
			l.Figures = &report.Figures{Error: report.Error{RelMSE: finite(rel), SQNR: finite(-10 * math.Log10(rel))}}
		}
	}
}
