package convert

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/storage"
)

// entry is one of a menu, with the plans in which every layer that can has it.
type entry struct {
	storage.Candidate
	own    storage.Settings // the entry's, and what was said of all layers, as far as the format has a use for it
	format *codec.Format
	planning
}

// planning is the plans of all models of a source.
type planning struct {
	plans []*plan.Plan
	sizes [][]plan.StepSize // by model and step
	total int64
}

// keep is the name of the choice to leave a layer as it is.
const keep = "keep"

// choosing is a source with a menu for its layers.
type choosing struct {
	*job
	asked   request // with the layout, and without a budget
	entries []*entry
	kept    planning // with nothing quantized
	keeps   bool     // the menu has keep
	layers  []*choosable
}

// choosable is a layer for which there is a choice.
type choosable struct {
	model, step int
	name        string // in reports
	values      int64
	options     []option
	has         []bool // which entries of the menu can store it
}

// option is a way to store a layer.
type option struct {
	entry int // index of the menu's entry, -1 for keep
	size  plan.StepSize
	rel   float64 // relative error
}

// newChoosing reads the menu and plans every entry of it.
func (j *job) newChoosing(ctx context.Context) (*choosing, error) {
	c := &choosing{job: j, asked: j.asked}
	c.asked.trying = true
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.readMenu(); err != nil {
		return nil, err
	}
	all := c.asked
	all.Keep = []string{""}
	var err error
	if c.kept, err = c.planAs(ctx, all); err != nil {
		return nil, err
	}
	for _, e := range c.entries {
		all := c.asked
		all.Layer = e.own
		if e.planning, err = c.planAs(ctx, all); err != nil {
			return nil, usage.Errorf("`Menu` %s: %w", e.Name, err)
		}
	}
	c.findLayers()
	return c, nil
}

// ParseMenu reads a menu, or the name of an application for its own.
func ParseMenu(text string) ([]storage.Candidate, error) {
	if a, err := app.ByName(text); err == nil {
		text = a.Menu
	}
	menu, err := codec.ParseMenu(text)
	if err != nil {
		return nil, usage.Errorf("`Menu`: %w", err)
	}
	return menu, nil
}

// check refuses what would choose as well.
func (c *choosing) check() error {
	o := &c.asked
	other := ""
	switch {
	case o.Config != "":
		other = "`Config`"
	case o.Like != nil:
		other = "`Like`"
	case o.LayerConfig != "":
		other = "`LayerConfig`"
	case o.Layer.Dtype != "":
		return usage.Errorf("`Dtype` is one way to store layers: `Menu` names several")
	case o.Layer.Dynamic != nil && *o.Layer.Dynamic:
		return usage.Errorf("`Dynamic` chooses dtypes, and so does a budget: give one")
	}
	if other == "" {
		return nil
	}
	return usage.Errorf("%s and %s both say how layers are stored: give one", o.chooser(), other)
}

// chooser is what was given for which a menu is chosen from.
func (o Options) chooser() string {
	switch {
	case o.TargetBPW != 0:
		return "`TargetBPW`"
	case o.chooses():
		return "`Budget`"
	}
	return "a menu"
}

// readMenu takes the entries that were named, else those that were measured, else the
// application's or the layout's.
func (c *choosing) readMenu() error {
	o := &c.asked
	p := plan.Options{}
	if err := o.application(&p); err != nil {
		return err
	}
	if err := o.layout(&p, c.Models[0].Checkpoint); err != nil {
		return err
	}
	o.Layout = p.Layout.Name
	if o.Measured != nil {
		if err := c.accept(o.Measured); err != nil {
			return err
		}
	}
	menu, err := o.Menu, error(nil)
	switch {
	case len(menu) > 0:
	case o.Measured != nil:
		menu, err = menuOf(o.Measured)
	default:
		menu, err = codec.ParseMenu(app.MenuOf(p.For, o.Layout))
	}
	if err != nil {
		return err
	}
	for _, candidate := range menu {
		if err := c.addEntry(candidate, p.Layout); err != nil {
			return err
		}
	}
	if len(c.entries) == 0 {
		return usage.Errorf("`Menu` has no dtype")
	}
	return nil
}

func (c *choosing) addEntry(candidate storage.Candidate, l *layout.Layout) error {
	if candidate.Keep {
		c.keeps = true
		return nil
	}
	e := &entry{Candidate: candidate}
	e.Name = cmp.Or(e.Name, codec.Words(e.Layer, ":"))
	if candidate.Layer.Dtype == "" {
		return usage.Errorf("`Menu` %s: want a dtype", e.Name)
	}
	if slices.ContainsFunc(c.entries, func(one *entry) bool { return one.Name == e.Name }) {
		return usage.Errorf("`Menu` has %s twice", e.Name)
	}
	f, err := codec.Resolve(candidate.Layer.Dtype, l == layout.SDNQ)
	if err != nil {
		return usage.Errorf("`Menu` %s: %w", e.Name, err)
	}
	all := codec.Over(c.asked.Layer, candidate.Layer)
	e.format = f.Scaled(all.Scale)
	e.own = e.format.For(all, candidate.Layer)
	if all.Dynamic != nil && *all.Dynamic {
		return usage.Errorf("`Menu` %s: `Dynamic` chooses dtypes, and so does a budget", e.Name)
	}
	c.entries = append(c.entries, e)
	return nil
}

// settings are those of an entry in the words of a rule.
func (e *entry) settings() string { return codec.Words(e.own, ",") }

// planAs makes the plans of all models with other options.
func (c *choosing) planAs(ctx context.Context, o request) (all planning, err error) {
	c.job.asked = o
	if err := c.plan(ctx, nil); err != nil {
		return all, err
	}
	for _, one := range c.Models {
		all.plans, all.sizes = append(all.plans, one.Plan), append(all.sizes, one.Plan.StepSizes())
		all.total += one.Plan.BytesOut
	}
	return all, nil
}

// findLayers lists the layers that an entry quantizes and of which no rule says how they
// are stored. Those that some entries cannot store are kept there, and so may be kept
// whatever the menu says: else a choice could be worse than one of its entries everywhere.
func (c *choosing) findLayers() {
	for model, p := range c.kept.plans {
		for step := range p.Steps {
			l := &choosable{model: model, step: step, values: int64(p.Steps[step].Source.Numel()), has: make([]bool, len(c.entries))}
			keeps := c.keeps
			for i, e := range c.entries {
				switch s := &e.plans[model].Steps[step]; {
				case s.Ruled:
				case s.Action == plan.Quantize:
					l.has[i] = true
					l.options = append(l.options, option{entry: i, size: e.sizes[model][step]})
				default:
					keeps = true
				}
			}
			if len(l.options) == 0 {
				continue
			}
			if l.name = c.Models[model].Named(p.Steps[step].Layer); keeps {
				l.options = append(l.options, option{entry: -1, size: c.kept.sizes[model][step]})
			}
			c.layers = append(c.layers, l)
		}
	}
}

// sizeOf is what an option counts as. Of many layers, the tensors count alone, in units
// that let layers of one shape be of one size, whatever their names: then the best choice
// is found in a moment. What headers add is found as the choice is planned.
func (c *choosing) sizeOf(o option) int64 {
	const many, unit = 100, 64
	if len(c.layers) < many {
		return o.size.All
	}
	return (o.size.Tensors + unit/2) / unit * unit
}

// fixed is what the output takes beside the layers for which there is a choice, by what
// their options count as; about, since headers and configs depend on the choice.
func (c *choosing) fixed(sizeOf func(option) int64) int64 {
	n := c.entries[0].total
	for _, l := range c.layers {
		o, _ := c.everywhere(l, 0)
		n -= sizeOf(o)
	}
	return n
}

// everywhere returns what becomes of a layer where all that can have an entry of the menu;
// false where that has no finite values.
func (c *choosing) everywhere(l *choosable, entry int) (option, bool) {
	if !l.has[entry] {
		return option{entry: -1, size: c.kept.sizes[l.model][l.step]}, true
	}
	for _, o := range l.options {
		if o.entry == entry {
			return o, true
		}
	}
	return option{entry: entry, size: c.entries[entry].sizes[l.model][l.step], rel: math.Inf(1)}, false
}

func (c *choosing) nameOf(entry int) string {
	if entry < 0 {
		return keep
	}
	return c.entries[entry].Name
}

// values counts those of all tensors.
func (c *choosing) values() (n int64) {
	for _, p := range c.kept.plans {
		for i := range p.Steps {
			n += int64(p.Steps[i].Source.Numel())
		}
	}
	return n
}

// loss is the objective: what a layer adds to what a choice loses. The sum of relative
// errors, each as often as the layer has values, is what comes nearest to the error of a
// model's outputs without data.
func (l *choosable) loss(o option) float64 { return float64(o.rel * float64(l.values)) }

// meanOf is the loss of a choice as a part of that of a model of nothing but zeros.
func (c *choosing) meanOf(loss float64) float64 {
	var values int64
	for _, l := range c.layers {
		values += l.values
	}
	return loss / float64(max(values, 1))
}

// menu is what a report says of the entries, once layers are measured.
func (c *choosing) menu() (menu []report.MenuEntry) {
	for i, e := range c.entries {
		m := report.MenuEntry{Name: e.Name, Settings: e.settings(), BytesOut: e.total}
		loss := 0.0
		for _, l := range c.layers {
			o, _ := c.everywhere(l, i)
			if loss += l.loss(o); o.entry == i {
				m.Layers++
			}
		}
		if m.RelMSE = finite(c.meanOf(loss)); m.Layers == 0 { // nothing is lost by a format that stores nothing
			m.RelMSE = nil
		}
		menu = append(menu, m)
	}
	if c.keeps {
		menu = append(menu, report.MenuEntry{Name: keep, Settings: keep, Layers: len(c.layers), BytesOut: c.kept.total, RelMSE: new(float64)})
	}
	return menu
}
