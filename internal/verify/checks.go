package verify

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/floats"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/internal/tile"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// checkStructure compares names and shapes, with the application and with the
// source.
func (v *verification) checkStructure() {
	if v.output.Part != nil {
		v.problem("", "%s", bundle.PartText(v.output))
	}
	if v.app != nil {
		v.checkWrapped()
	}
	if v.app != nil && v.model.Layout != nil {
		v.checkApp()
	}
	if v.model.Layout == layout.SDNQ {
		v.checkListed()
	}
	v.checkHeader()
	v.noteIgnored()
	if v.source != nil {
		v.checkNames()
	}
}

// checkHeader: what the header describes must be there, and ComfyUI looks for it
// under the very names.
func (v *verification) checkHeader() {
	for _, name := range v.model.Unmatched {
		v.problem("", "the header describes a layer %s, of which there is no weight", name)
	}
	n := len(v.model.Renamed)
	if n == 0 {
		return
	}
	one := v.model.Renamed[0]
	what := fmt.Sprintf("the header describes %d layers under another prefix, %s as %s", n, one.Layer, one.Entry)
	if v.app != nil && v.app.Layout == layout.Comfy.Name && !one.Stripped() {
		v.problem("", "%s: %s does not find them; tensorpress migrate describes them anew", what, v.app.Name)
		return
	}
	v.Notes = append(v.Notes, what+": tensorpress migrate describes them anew")
}

// noteIgnored tells companions of layers that no reader reads.
func (v *verification) noteIgnored() {
	type kind struct{ end, format string }
	counts := map[kind]int{}
	for _, l := range v.model.Layers {
		for _, t := range l.Ignored() {
			counts[kind{t.Name[len(l.Name)+1:], l.Format}]++
		}
	}
	var notes []string
	for k, n := range counts {
		notes = append(notes, fmt.Sprintf("%d layers of %s have %s, which this format ignores: `MigrateOptions.DropIgnored` leaves it out", n, k.format, k.end))
	}
	slices.Sort(notes)
	v.Notes = append(v.Notes, notes...)
}

// checkWrapped looks for names that no application knows.
func (v *verification) checkWrapped() {
	if text := plan.Wrapped(v.output.Tensors); text != "" {
		v.problem("", "%s", text)
	}
}

func (v *verification) checkApp() {
	if err := v.app.CheckOutput(v.model.Layout.Name, v.output.IsModel()); err != nil {
		v.problem("", "%v", err)
		return
	}
	if err := v.app.CheckClass(bundle.ClassesOf(v.output.Config)); err != nil {
		v.problem("", "%v", err)
	}
	if kind, sign := addonOf(v.model); kind != "" {
		v.problem("", "%v", v.app.CheckAddon(kind, sign))
	}
	var comfy *app.ComfyModel
	if v.app.Layout == layout.Comfy.Name {
		comfy = v.comfyModel()
	}
	if err := comfy.Err(); err != nil {
		v.problem("", "%v", err)
	}
	config := v.appConfig()
	for _, l := range v.model.Layers {
		if l.Layout == layout.Other { // which is a problem in itself
			continue
		}
		err := checkLayerFor(v.app, l, v.output.IsModel())
		if err == nil && l.Err == nil && l.Layout == layout.SDNQ {
			name := l.WeightName()
			err = v.app.CheckSDNQ(app.SDNQLayer{Scheme: codec.Scheme(l.Codec), Global: config.WeightsDtype, Listed: config.ListedAs(name)})
		}
		if err == nil && l.Codec != nil {
			err = comfy.CheckLayer(app.Stored{Name: l.WeightName(), Format: l.Format, Shape: l.Shape(), Packed: l.Parts[0].Shape})
		}
		if err != nil {
			v.problem(l.WeightName(), "%v", err)
			continue
		}
		v.need(l)
	}
}

// addonOf is what a model is that has quantized layers and is none.
func addonOf(m *layout.Model) (kind, sign string) {
	return preset.AddonOf(m.Checkpoint.Metadata, restored(m))
}

// comfyModel is what ComfyUI takes the output for.
func (v *verification) comfyModel() *app.ComfyModel { return app.RecogniseComfy(restored(v.model)) }

// restored are the names and shapes of a model's tensors, those of layers as far
// as they are known.
func restored(m *layout.Model) iter.Seq2[string, []int] {
	return func(yield func(string, []int) bool) {
		for _, t := range m.Plain {
			if !yield(t.Name, t.Shape) {
				return
			}
		}
		for _, l := range m.Layers {
			if l.Codec != nil && !yield(l.WeightName(), l.Shape()) {
				return
			}
		}
	}
}

// need counts a layer for which not every release of the application will do.
func (v *verification) need(l *layout.Layer) {
	f, err := codec.ByName(l.Format)
	if err != nil {
		return
	}
	v.Needs = Needed(v.Needs, v.app, f, l.Name, l.Codec)
}

// Needed counts a layer of a format among what an application's releases load.
func Needed(needs []report.Need, a *app.App, f *codec.Format, layer string, c codec.Codec) []report.Need {
	release := a.Release(f, preset.Embedding(layout.WeightName(layer)), codec.Matrices(c) != nil)
	if release == "" {
		return needs
	}
	return AddNeed(needs, report.Need{Release: release, Format: f.Name, Layers: 1})
}

// AddNeed counts layers among others of the same release and format.
func AddNeed(needs []report.Need, n report.Need) []report.Need {
	for i := range needs {
		if needs[i].Release == n.Release && needs[i].Format == n.Format {
			needs[i].Layers += n.Layers
			return needs
		}
	}
	return append(needs, n)
}

// appConfig is what of the SDNQ config the application finds.
func (v *verification) appConfig() *sdnqconfig.Config {
	if !v.app.ConfigFile {
		return v.model.Config
	}
	text, err := v.output.ReadBeside(layout.ConfigFile)
	if err != nil {
		v.problem("", "%v", err)
	}
	if text == nil {
		return &sdnqconfig.Config{}
	}
	config, err := sdnqconfig.Parse(text)
	if err != nil {
		v.problem("", "%s: %v", layout.ConfigFile, err)
		return &sdnqconfig.Config{}
	}
	return config
}

// checkLayerFor says why an application would not load a layer. ComfyUI takes
// every layer of its older layout for float8_e4m3fn.
func checkLayerFor(a *app.App, l *layout.Layer, folder bool) error {
	f, err := codec.ByName(l.Format)
	if err != nil {
		return err
	}
	if err := a.CheckOutput(l.Layout.Name, folder); err != nil {
		return err
	}
	if l.Layout == layout.ScaledFP8 && l.Parts != nil && l.Parts[0].Dtype != safetensors.F8_E4M3 {
		return fmt.Errorf("ComfyUI would read its %s as F8_E4M3", l.Parts[0].Dtype)
	}
	return a.CheckLayer(f, l.Dtype)
}

// checkListed: SDNQ's loaders expect a scale of every weight that the config
// does not exclude.
func (v *verification) checkListed() {
	for _, t := range v.model.Plain {
		if len(t.Shape) != 2 || !isWeight(t.Name) || !codec.Floats(t.Dtype) {
			continue
		}
		if _, ok := v.model.Config.Skips(t.Name); !ok {
			v.problem(t.Name, "is not quantized, and the config does not say so: loaders will look for its scale")
		}
	}
	for _, l := range v.model.Layers {
		if entry, ok := sdnqconfig.Match(l.WeightName(), v.model.Config.NotConvert); ok {
			v.problem(l.WeightName(), "is quantized, but the config keeps it by %q: loaders will not decode it", entry)
		}
	}
}

// isWeight reports whether a tensor is called a weight of a layer.
func isWeight(name string) bool {
	return len(name) > len(".weight") && strings.HasSuffix(name, ".weight")
}

// checkNames: every tensor of the source is there, and nothing else.
func (v *verification) checkNames() {
	there := map[string]bool{}
	for _, l := range v.model.Layers {
		there[l.WeightName()] = true
	}
	for _, t := range v.model.Plain {
		there[t.Name] = true
		if _, ok := v.original(t.Name); !ok {
			v.problem(t.Name, "is not in the source")
		}
	}
	for _, t := range v.sourceModel.Plain {
		if !there[t.Name] {
			v.problem(t.Name, "is missing: the source has it")
		}
	}
	for _, l := range v.sourceModel.Layers {
		if name := l.WeightName(); !there[name] {
			v.problem(name, "is missing: the source has it")
		}
	}
}

// original finds a tensor of the source by its name.
func (v *verification) original(name string) (*engine.Original, bool) {
	if v.source == nil {
		return nil, false
	}
	if l := v.sourceLayers[name]; l != nil {
		values := engine.NewStoredValues(v.source, l, engine.MaxTile(v.resources())/2, v.resources())
		return &engine.Original{Values: engine.Merged(values, v.merges[name], v.resources()), Shape: l.Shape(), Bytes: checkpoint.BytesOf(l.Tensors), Err: l.Err}, true
	}
	t, ok := v.sourcePlain[name]
	if v.sourcePlain == nil {
		t, ok = v.source.Lookup(name)
	}
	values := engine.Merged(&engine.PlainValues{Source: v.source, Tensor: t}, v.merges[name], v.resources())
	return &engine.Original{Values: values, Dtype: t.Dtype, Shape: t.Shape, Bytes: t.Size}, ok
}

// check is one tensor being read.
type check struct {
	name   string
	layer  *layout.Layer // nil for a copy
	source *engine.Original
	found  []engine.Sums // by tile
	tasks  func(yield func(stream.Task) bool) bool
}

func (c *check) problems(s engine.Sums) []report.Problem {
	switch {
	case s.Unsound != "":
		return []report.Problem{{Tensor: c.name, Problem: "cannot be decoded: " + s.Unsound}}
	case s.Nonfinite >= 0:
		shape := c.layer.Shape()
		columns := max(shape[len(shape)-1], 1)
		return []report.Problem{{Tensor: c.name, Problem: fmt.Sprintf("value [%d, %d] decodes to no finite number", s.Nonfinite/columns, s.Nonfinite%columns)}}
	case s.Differs:
		return []report.Problem{{Tensor: c.name, Problem: "differs from the source's"}}
	}
	return nil
}

// sourceOf returns the source's tensor if it can be compared; a problem says
// why not.
func (v *verification) sourceOf(name string, shape []int) *engine.Original {
	o, ok := v.original(name)
	switch {
	case !ok:
		return nil // checkNames has said so
	case o.Err != nil:
		v.problem(name, "the source's cannot be restored: %v", o.Err)
	case !slices.Equal(o.Shape, shape):
		v.problem(name, "has shape %v, the source's has %v", shape, o.Shape)
	default:
		return o
	}
	return nil
}

func (v *verification) newLayerCheck(l *layout.Layer) *check {
	name := l.WeightName()
	c := &check{name: name, layer: l, source: v.sourceOf(name, l.Shape())}
	if c.source != nil && c.source.Dtype != 0 && !codec.Numbers(c.source.Dtype) {
		v.problem(name, "the source's is %s, which is no plain weight", c.source.Dtype)
		c.source = nil
	}
	v.checks = append(v.checks, c)
	compared := engine.NewComparison(engine.NewDecoding(v.output, l, safetensors.F32, v.resources()), c.source)
	c.found, c.tasks = compared.Found, compared.Tasks
	return c
}

// gotBuffer and wantBuffer are the worker's for the bytes of copies; those
// before them are for what they are made of.
const (
	gotBuffer  = engine.RawBuffer + 1
	wantBuffer = engine.RawBuffer + 2
)

// newCopyCheck reads a tensor that was kept and compares its bytes.
func (v *verification) newCopyCheck(t checkpoint.Tensor) *check {
	const size = 1 << 20
	c := &check{name: t.Name, source: v.sourceOf(t.Name, t.Shape)}
	v.checks = append(v.checks, c)
	c.found = make([]engine.Sums, (t.Size+size-1)/size)
	c.tasks = func(yield func(stream.Task) bool) bool {
		for i := range c.found {
			off := int64(i) * size
			n := int(min(size, t.Size-off))
			if !yield(stream.Task{Bytes: int64(n), Do: func(w *stream.Worker) (err error) {
				c.found[i], err = v.compareBytes(w, t, c.source, off, n)
				return err
			}}) {
				return false
			}
		}
		return true
	}
	return c
}

func (v *verification) compareBytes(w *stream.Worker, t checkpoint.Tensor, source *engine.Original, off int64, n int) (engine.Sums, error) {
	s := engine.Sums{Nonfinite: -1}
	got := w.Bytes(gotBuffer, n)
	w.Done(int64(n))
	if err := v.output.ReadSection(t, got, off); err != nil || source == nil {
		return s, err
	}
	want, err := v.sourceBytes(w, t, source, off, n)
	s.Differs = err == nil && !bytes.Equal(got, want)
	return s, err
}

// sourceBytes returns the source's bytes, rounded where the copy has another
// float dtype; nil where they cannot be the same.
func (v *verification) sourceBytes(w *stream.Worker, t checkpoint.Tensor, source *engine.Original, off int64, n int) ([]byte, error) {
	if plain, ok := source.Values.(*engine.PlainValues); ok && t.Dtype == source.Dtype {
		want := w.Bytes(wantBuffer, n)
		return want, v.source.ReadSection(plain.Tensor, want, off)
	}
	if !codec.Floats(t.Dtype) || source.Dtype != 0 && !codec.Floats(source.Dtype) {
		return nil, nil
	}
	width := t.Dtype.Bits() / 8
	area := tile.Area{Row: int(off) / width, Rows: n / width, Cols: 1}
	values, err := source.Read(w, 1, 1, area)
	if err != nil {
		return nil, err
	}
	want := w.Bytes(wantBuffer, n)
	floats.Narrow(want, values, t.Dtype)
	return want, nil
}
