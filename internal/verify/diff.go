package verify

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// DiffOptions are tensorpress.DiffOptions, field by field.
type DiffOptions struct {
	Bytes     bool
	MaxRelMSE float64
	Threads   int
	Memory    int64
	Progress  func(done, total int64)
}

func (o DiffOptions) resources() engine.Resources {
	return engine.Resources{Threads: o.Threads, Memory: o.Memory, Progress: o.Progress}
}

// Diff compares two checkpoints, tensor by tensor. Bytes are compared first, where both
// store a tensor in the same way; then the values of what is not the same, so that of a
// checkpoint and its copy all is read once.
func Diff(ctx context.Context, a, b files.Source, o DiffOptions) (*report.Difference, error) {
	d := &differing{options: o, Difference: &report.Difference{Bytes: o.Bytes, Tensors: []report.Pair{}, Metadata: []report.MetadataPair{}, Counts: []report.Count{}}}
	defer d.close()
	if err := d.open(source.Of(ctx, a), source.Of(ctx, b)); err != nil {
		return nil, err
	}
	if err := d.run(ctx); err != nil {
		return nil, err
	}
	if err := d.unchanged(); err != nil {
		return nil, err
	}
	d.conclude()
	return d.Difference, nil
}

// differing is a comparison under way.
type differing struct {
	options DiffOptions
	*report.Difference
	sides   []*side // that were opened
	entries []*entry
}

// side is a model of one of two checkpoints.
type side struct {
	name   string // A or B
	c      *checkpoint.Checkpoint
	model  *layout.Model
	stored map[string]*engine.Stored // by the names of weights and tensors
}

// entry is a tensor of either checkpoint.
type entry struct {
	name    string // with the component's folder
	a, b    *engine.Stored
	parts   []*part // that are compared by their bytes, nil where they cannot be the same
	values  *engine.Difference
	found   report.Pair
	awaited atomic.Bool
}

// part is a stored tensor that both have.
type part struct {
	suffix  string // of its name
	a, b    checkpoint.Tensor
	differs atomic.Bool
}

// open opens all models of both, and pairs their tensors.
func (d *differing) open(a, b source.Source) error {
	a, b, folders, err := d.models(a, b)
	if err != nil {
		return err
	}
	d.A.Path, d.B.Path = a.Path, b.Path
	for _, folder := range folders {
		one, err := d.openSide("A", a, folder)
		if err != nil {
			return err
		}
		two, err := d.openSide("B", b, folder)
		if err != nil {
			return err
		}
		if err := cmp.Or(d.read(one, two.c, folder, &d.A), d.read(two, one.c, folder, &d.B)); err != nil {
			return err
		}
		d.pair(one, two, folder)
	}
	return nil
}

// models returns both checkpoints, and the folders of their models.
func (d *differing) models(a, b source.Source) (source.Source, source.Source, []string, error) {
	inA, err := bundle.ModelsOf(a)
	if err != nil {
		return a, b, nil, err
	}
	inB, err := bundle.ModelsOf(b)
	if err != nil {
		return a, b, nil, err
	}
	one, two := inA[0] == "", inB[0] == ""
	switch {
	case one == two:
		inA = append(inA, inB...)
		slices.Sort(inA)
		return a, b, slices.Compact(inA), nil
	case one && isComfys(a):
		b, err = d.denoiser(b)
	case two && isComfys(b):
		a, err = d.denoiser(a)
	default:
		err = usage.Errorf("%s and %s: one is a pipeline, the other a model: name the component's folder", a.Path, b.Path)
	}
	return a, b, []string{""}, err
}

// denoiser is the diffusion model of a pipeline, which a file with ComfyUI's names is
// compared with.
func (d *differing) denoiser(s source.Source) (source.Source, error) {
	folder, err := bundle.Denoiser(s)
	if err == nil {
		d.Notes = append(d.Notes, fmt.Sprintf("of the pipeline %s, %s is compared", s.Path, folder))
	}
	return s.In(folder), err
}

// openSide opens one model; it has no tensors where only the other checkpoint has it.
func (d *differing) openSide(name string, from source.Source, folder string) (s *side, err error) {
	s = &side{name: name}
	if folder != "" && !bundle.HoldsWeights(from.In(folder)) {
		return s, nil
	}
	if s.c, err = checkpoint.OpenPart(from, folder); err == nil {
		d.sides = append(d.sides, s)
	}
	return s, err
}

// read finds the layers of a model; other has shapes that the stored tensors may not show.
func (d *differing) read(s *side, other *checkpoint.Checkpoint, folder string, about *report.Side) (err error) {
	if s.c == nil {
		return nil
	}
	if s.model, err = layout.Read(s.c, other); err != nil {
		return usage.AsSource(err)
	}
	s.model.AcceptUnscaled() // plain numbers, as far as can be told
	if s.model.Err != nil {
		d.note(folder, "%s: %v", s.name, s.model.Err)
	}
	if s.c.Part != nil {
		d.note(folder, "%s: %s", s.name, bundle.PartText(s.c))
	}
	if s.model.Layout != nil && about.Layout == "" {
		about.Layout = s.model.Layout.Name
	}
	about.Tensors += len(s.c.Tensors)
	about.Bytes += checkpoint.BytesOf(s.c.Tensors)
	return nil
}

func (d *differing) note(folder, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if folder != "" {
		text = folder + ": " + text
	}
	d.Notes = append(d.Notes, text)
}

// pair makes the entries of two models.
func (d *differing) pair(a, b *side, folder string) {
	switch {
	case a.model == nil || b.model == nil:
	case a.rename(b, d.options):
		d.note(folder, "A is compared under the names that B has")
	case b.rename(a, d.options): // of quantized layers not all go both ways
		d.note(folder, "B is compared under the names that A has")
	}
	prefix := ""
	if folder != "" {
		prefix = folder + "/"
	}
	a.list()
	b.list()
	names := slices.AppendSeq(slices.Collect(maps.Keys(a.stored)), maps.Keys(b.stored))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		d.entries = append(d.entries, newEntry(prefix+name, a.stored[name], b.stored[name]))
	}
	if d.Bytes {
		d.markers(a, b, prefix)
	}
	d.compareMetadata(a, b, prefix)
}

// rename gives a side the names of the other, where more of them are the same then.
func (s *side) rename(to *side, o DiffOptions) bool {
	v := &verification{Verification: &report.Verification{}, output: to.c, model: to.model, source: s.c, sourceModel: s.model}
	v.Options = Options{Threads: o.Threads, Memory: o.Memory}
	if err := v.renameSource(); err != nil || v.sourcePlain == nil {
		return false // one that cannot be renamed is another model
	}
	s.model = v.sourceModel
	to.model = v.model // of padded layers the other side tells the shape
	to.model.AcceptUnscaled()
	return true
}

// list finds the weights and tensors of a model by their names.
func (s *side) list() {
	s.stored = map[string]*engine.Stored{}
	if s.model == nil {
		return
	}
	for _, t := range s.model.Plain {
		s.stored[t.Name] = &engine.Stored{Source: s.c, Tensor: t}
	}
	for _, l := range s.model.Layers {
		s.stored[l.WeightName()] = &engine.Stored{Source: s.c, Layer: l}
	}
}

// markers adds the tensors that say how a checkpoint is quantized.
func (d *differing) markers(a, b *side, prefix string) {
	all := map[string]*entry{}
	for i, s := range []*side{a, b} {
		if s.model == nil {
			continue
		}
		for _, t := range s.model.Markers {
			e := cmp.Or(all[t.Name], &entry{name: prefix + t.Name})
			all[t.Name] = e
			if one := (&engine.Stored{Source: s.c, Tensor: t}); i == 0 {
				e.a = one
			} else {
				e.b = one
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		d.entries = append(d.entries, newEntry(all[name].name, all[name].a, all[name].b))
	}
}

func newEntry(name string, a, b *engine.Stored) *entry {
	e := &entry{name: name, a: a, b: b}
	e.found = report.Pair{Name: name, A: reportStored(a), B: reportStored(b)}
	if a != nil && b != nil {
		e.parts = partsOf(a, b)
	}
	return e
}

func reportStored(s *engine.Stored) *report.Stored {
	if s == nil {
		return nil
	}
	r := &report.Stored{Dtype: s.Tensor.Dtype.String(), Shape: s.Shape(), Bytes: checkpoint.BytesOf(s.Tensors())}
	if s.Layer != nil {
		r.Format, r.Dtype = s.Layer.Format, s.Layer.Dtype
	}
	return r
}

// partsOf pairs what is stored of a weight, nil where it is not stored in the same way.
func partsOf(a, b *engine.Stored) []*part {
	if (a.Layer == nil) != (b.Layer == nil) || a.Layer != nil && !alike(a.Layer, b.Layer) {
		return nil
	}
	all, others := a.Tensors(), map[string]checkpoint.Tensor{}
	for _, t := range b.Tensors() {
		others[suffixOf(b, t)] = t
	}
	var parts []*part
	for _, t := range all {
		u, ok := others[suffixOf(a, t)]
		if !ok || t.Dtype != u.Dtype || !slices.Equal(t.Shape, u.Shape) {
			return nil
		}
		parts = append(parts, &part{suffix: suffixOf(a, t), a: t, b: u})
	}
	if len(parts) != len(others) {
		return nil
	}
	return parts
}

// suffixOf is what a tensor of a weight is called after the layer's name.
func suffixOf(s *engine.Stored, t checkpoint.Tensor) string {
	if s.Layer == nil {
		return ""
	}
	return strings.TrimPrefix(t.Name, s.Layer.Name)
}

// alike reports whether two layers with the same bytes are the same: what describes them
// need not be among the tensors.
func alike(a, b *layout.Layer) bool {
	return a.Format == b.Format && a.Dtype == b.Dtype && a.Apart == nil && b.Apart == nil && pyjson.Dump(a.Options) == pyjson.Dump(b.Options)
}

// compareMetadata compares what the headers say.
func (d *differing) compareMetadata(a, b *side, prefix string) {
	one, two := a.metadata(), b.metadata()
	keys := slices.AppendSeq(slices.Collect(maps.Keys(one)), maps.Keys(two))
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		x, inA := one[key]
		y, inB := two[key]
		if inA && inB && x == y {
			continue
		}
		p := report.MetadataPair{Key: prefix + key}
		if inA {
			p.A = &x
		}
		if inB {
			p.B = &y
		}
		d.Metadata = append(d.Metadata, p)
	}
}

func (s *side) metadata() map[string]string {
	if s.c == nil {
		return nil
	}
	return s.c.Metadata
}

// run compares bytes, then the values of what differs.
func (d *differing) run(ctx context.Context) error {
	r, run := d.options.resources(), watch.Of(ctx)
	run.Enter(watch.Comparing)
	var total int64
	for _, e := range d.entries {
		for _, p := range e.parts {
			total += p.a.Size
		}
		if e.parts == nil {
			e.awaits(run)
		}
	}
	done := engine.Counter(r, total)
	bytes := func(yield func(stream.Task) bool) { d.compareBytes(run, yield) }
	if err := stream.Run(ctx, engine.Workers(r), bytes, done); err != nil {
		return err
	}
	return stream.Run(ctx, engine.Workers(r), d.compareValues, run.Did)
}

func (d *differing) compareBytes(run *watch.Run, yield func(stream.Task) bool) {
	for _, e := range d.entries {
		for _, p := range e.parts {
			differs := func() {
				p.differs.Store(true)
				e.awaits(run)
			}
			if !engine.SameBytes(e.a.Source, e.b.Source, p.a, p.b, p.differs.Load, differs, yield) {
				return
			}
		}
	}
}

func (d *differing) compareValues(yield func(stream.Task) bool) {
	for _, e := range d.entries {
		if e.judge(); e.found.Finding != "" {
			continue
		}
		e.values = engine.NewDifference(e.a, e.b, d.options.resources())
		if !e.values.Tasks(yield) {
			return
		}
	}
}

// awaits counts the comparison of values as work that is to come, once.
func (e *entry) awaits(run *watch.Run) {
	if e.a == nil || e.b == nil || e.awaited.Swap(true) {
		return
	}
	one := &entry{a: e.a, b: e.b}
	if one.judge(); one.found.Finding == "" {
		run.Expect(e.a.Values())
	}
}

// judge says what is known of a tensor without its values.
func (e *entry) judge() {
	f := &e.found
	switch {
	case e.b == nil:
		f.Finding = report.OnlyInA
	case e.a == nil:
		f.Finding = report.OnlyInB
	case e.sameBytes():
		f.Finding = report.SameBytes
	case cmp.Or(layerErr("A", e.a), layerErr("B", e.b)) != nil:
		f.Finding, f.Detail = report.Unreadable, cmp.Or(layerErr("A", e.a), layerErr("B", e.b)).Error()
	case !slices.Equal(e.a.Shape(), e.b.Shape()):
		f.Finding = report.OtherShape
	case engine.Comparable(e.a, e.b):
	case e.a.Layer == nil && e.b.Layer == nil && e.a.Tensor.Dtype == e.b.Tensor.Dtype:
		f.Finding = report.OtherValue
	default:
		f.Finding = report.OtherDtype
	}
}

func (e *entry) sameBytes() bool {
	return e.parts != nil && !slices.ContainsFunc(e.parts, func(p *part) bool { return p.differs.Load() })
}

func layerErr(name string, s *engine.Stored) error {
	if s.Layer == nil || s.Layer.Err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, s.Layer.Err)
}

// conclude puts together what was found, in order.
func (d *differing) conclude() {
	var total engine.Sums
	counts := map[report.Finding]int{}
	for _, e := range d.entries {
		if e.values != nil {
			total.Add(e.conclude(d.options.MaxRelMSE))
		}
		counts[e.found.Finding]++
		d.Tensors = append(d.Tensors, e.found)
	}
	if total.Squares > 0 || total.Errors > 0 {
		d.Total = total.Relative()
	}
	d.Same = true
	for _, f := range findings {
		n := counts[f]
		if n > 0 {
			d.Counts = append(d.Counts, report.Count{Finding: f, Tensors: n})
		}
		if n > 0 && f != report.SameBytes && (d.Bytes || f != report.SameValues) {
			d.Same = false
		}
	}
	if d.Bytes && len(d.Metadata) > 0 {
		d.Same = false
	}
}

// findings in the order in which they are counted.
var findings = []report.Finding{
	report.SameBytes, report.SameValues, report.OtherValue, report.OtherInput, report.OtherShape, report.OtherDtype, report.Unreadable, report.OnlyInA, report.OnlyInB,
}

// conclude says what came of the values; the sums are those of values that differ.
func (e *entry) conclude(most float64) engine.Sums {
	f := &e.found
	sums := engine.Total(e.values.Found)
	f.Detail = e.beside()
	figures := sums.Figures()
	within := figures.RelMSE != nil && *figures.RelMSE <= most
	switch {
	case sums.Differs && !within, !sums.Differs && e.integers():
		f.Finding = report.OtherValue
	case e.otherInput():
		f.Finding = report.OtherInput
	default:
		f.Finding = report.SameValues
	}
	if !sums.Differs {
		return engine.Sums{}
	}
	f.Figures = &figures
	return sums
}

// integers reports whether both are integers of one dtype, of which other bytes are other
// values, however near.
func (e *entry) integers() bool {
	d := e.a.Tensor.Dtype
	return e.a.Layer == nil && e.b.Layer == nil && d == e.b.Tensor.Dtype && !codec.Numbers(d) && d != safetensors.F64
}

// beside tells which of a layer's tensors differ.
func (e *entry) beside() string {
	var texts []string
	for _, p := range e.parts {
		if p.differs.Load() && p.suffix != "" {
			texts = append(texts, strings.TrimPrefix(p.suffix, "."))
		}
	}
	if texts == nil {
		return ""
	}
	return "other bytes in " + strings.Join(texts, ", ")
}

// otherInput reports whether two layers have scales of their inputs, and other ones.
func (e *entry) otherInput() bool {
	return slices.ContainsFunc(e.parts, func(p *part) bool { return p.differs.Load() && layout.ScalesInput(p.suffix) })
}

func (d *differing) unchanged() error {
	for _, s := range d.sides {
		if err := s.c.Unchanged(); err != nil {
			return err
		}
	}
	return nil
}

func (d *differing) close() {
	for _, s := range d.sides {
		s.c.Close()
	}
}
