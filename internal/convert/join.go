package convert

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/names"
	"github.com/tensorpress/tensorpress/internal/parts"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/renamed"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// JoinPart is tensorpress.JoinPart, field by field.
type JoinPart struct {
	Part   string
	Source files.Source
}

// JoinOptions are tensorpress.JoinOptions, field by field.
type JoinOptions struct {
	Names    string
	Force    bool
	Hash     bool
	Threads  int
	Memory   int64
	Progress func(done, total int64)
}

// Join writes parts into one checkpoint for ComfyUI, or the shards of one model into one
// file.
func Join(ctx context.Context, from []JoinPart, dest files.Sink, o JoinOptions) (*report.Assembly, error) {
	start := time.Now()
	a, err := readJoined(ctx, from, dest, o)
	if err != nil {
		return nil, err
	}
	defer a.close()
	r, err := a.write(ctx, dest, o.Force, o.Hash, engine.Resources{Threads: o.Threads, Memory: o.Memory, Progress: o.Progress})
	if err != nil {
		return nil, err
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

// PlanJoin makes the decisions of [Join] and writes nothing. dest may be nil.
func PlanJoin(ctx context.Context, from []JoinPart, dest files.Sink, o JoinOptions) (*report.Assembly, error) {
	a, err := readJoined(ctx, from, dest, o)
	if err != nil {
		return nil, err
	}
	defer a.close()
	return a.plan(dest, o.Force)
}

// joining is a join under way.
type joining struct {
	*assembly
	as    naming
	parts []*joined
}

// joined is one of the parts.
type joined struct {
	name   string // of the part, "" until it is known
	path   string
	model  *layout.Model
	shapes parts.Shapes
	whole  bool // its names are those of an all-in-one checkpoint
	kind   *app.ComfyModel
}

func readJoined(ctx context.Context, from []JoinPart, dest files.Sink, o JoinOptions) (*assembly, error) {
	name := nameOf(dest)
	if name != "" && bundle.IsFolder(name) {
		return nil, usage.Errorf("%s must end in .safetensors: what is joined is one file", name)
	}
	as, err := namingOf(o.Names)
	if err != nil {
		return nil, err
	}
	j := &joining{assembly: &assembly{told: &report.Assembly{Dest: name, Sources: []string{}}}, as: as}
	err = j.open(ctx, from)
	if err == nil {
		err = j.join(filepath.Base(name))
	}
	if err != nil {
		j.close()
		return nil, err
	}
	return j.assembly, nil
}

// open opens all parts.
func (j *joining) open(ctx context.Context, from []JoinPart) error {
	if len(from) == 0 {
		return usage.Errorf("nothing to join is named")
	}
	shards := map[string][]string{} // that were named one by one, by their folders
	for _, one := range from {
		s := source.Of(ctx, one.Source)
		if one.Part != "" && !slices.Contains(parts.Names(), one.Part) {
			return usage.Errorf("%s=%s: no part is called %s%s", one.Part, s.Path, one.Part, suggest.HintOrAll(one.Part, parts.Names()))
		}
		j.told.Sources = append(j.told.Sources, s.Path)
		folders, err := bundle.ModelsOf(s)
		if err != nil {
			return err
		}
		if folders[0] != "" {
			if err := j.openPipeline(s, folders, one.Part); err != nil {
				return err
			}
			continue
		}
		if err := j.openPart(s, "", one.Part, shards); err != nil {
			return err
		}
	}
	return j.openSets(ctx, shards)
}

// openPipeline opens those components of a pipeline that stand in a checkpoint.
func (j *joining) openPipeline(s source.Source, folders []string, part string) error {
	if part != "" {
		return usage.Errorf("%s is a pipeline: name the folder of its %s", s.Path, part)
	}
	denoiser, err := bundle.Denoiser(s)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		part := ""
		switch {
		case folder == denoiser:
			part = parts.Model
		case folder == "vae":
			part = parts.VAE
		case !strings.HasPrefix(folder, "text_encoder"):
			j.told.Notes = append(j.told.Notes, fmt.Sprintf("%s of the pipeline %s has no place in a checkpoint: left out", folder, s.Path))
			continue
		}
		if err := j.openPart(s, folder, part, nil); err != nil {
			return err
		}
	}
	return nil
}

// openPart opens a file or a folder; one shard of several waits for the others.
func (j *joining) openPart(s source.Source, folder, part string, shards map[string][]string) error {
	c, err := checkpoint.OpenPart(s, folder)
	if err != nil {
		return err
	}
	j.checkpoints = append(j.checkpoints, c)
	if c.Part != nil {
		if part != "" || shards == nil || !c.Tree.OnDisk() {
			return usage.Errorf("%s", bundle.PartText(c))
		}
		shards[c.Dir] = append(shards[c.Dir], c.ShardNames[0])
		j.checkpoints = j.checkpoints[:len(j.checkpoints)-1]
		return c.Close()
	}
	return j.read(c, part)
}

// openSets opens shards that were named one by one, as the set that they are.
func (j *joining) openSets(ctx context.Context, shards map[string][]string) error {
	for _, dir := range slices.Sorted(maps.Keys(shards)) {
		c, err := checkpoint.Open(source.Of(ctx, files.Dir(dir)))
		if err != nil {
			return err
		}
		j.checkpoints = append(j.checkpoints, c)
		for _, name := range c.ShardNames {
			if !slices.Contains(shards[dir], name) {
				return usage.Errorf("%s is a shard of the same model and is not named: name all of them, or the folder %s", c.Beside(name).Path, dir)
			}
		}
		for _, name := range shards[dir] {
			if !slices.Contains(c.ShardNames, name) {
				return usage.Errorf("%s is no shard of the model in its folder: put it into a folder of its own with the others", c.Beside(name).Path)
			}
		}
		if err := j.read(c, ""); err != nil {
			return err
		}
	}
	return nil
}

// read finds out what a part is.
func (j *joining) read(c *checkpoint.Checkpoint, part string) error {
	m, err := readParts(c)
	if err != nil {
		return err
	}
	one := &joined{name: part, path: c.Path, model: m, shapes: shapesOf(m)}
	if part == "" && strings.HasSuffix(c.Path, "_rest.safetensors") { // as split calls it
		one.name = parts.Rest
	}
	one.whole = one.name == "" && parts.IsWhole(one.shapes)
	one.kind = app.RecogniseComfy(maps.All(one.shapes))
	j.parts = append(j.parts, one)
	return nil
}

// join decides about the names of all tensors.
func (j *joining) join(name string) error {
	if len(j.parts) == 1 && j.parts[0].name == "" && !j.parts[0].whole {
		return j.alone(name)
	}
	for _, one := range j.parts {
		if err := cmp.Or(j.rename(one), one.find()); err != nil {
			return err
		}
	}
	home, err := j.home()
	if err != nil {
		return err
	}
	return j.together(home, name)
}

// alone writes the shards of one model into one file.
func (j *joining) alone(name string) error {
	one := j.parts[0]
	one.name = parts.Rest
	if _, diffusion := one.kind.Prefix(); diffusion {
		one.name = parts.Model
	}
	if j.as.asked {
		if len(one.model.Layers) > 0 {
			return usage.Errorf("%s is quantized: `TranscodeOptions.Names` gives its layers other names", one.path)
		}
		m, notes, err := renamed.Model(one.model, renamed.Options{To: j.as.Side, Dtype: plan.DtypeIn(one.model)})
		if err != nil {
			return err
		}
		one.model, one.name = m, parts.Model
		j.told.Notes = append(j.told.Notes, notes...)
	}
	tensors := one.tensors()
	to := map[string]string{}
	for _, t := range tensors {
		to[t.name] = t.name
	}
	if d := one.model.Declared; d != nil && !d.InHeader() && len(one.model.Layers) > 0 {
		j.told.Notes = append(j.told.Notes, fmt.Sprintf("%s of %s says how its layers are quantized, and is not in the file: what reads them needs it beside", d, one.path))
	}
	j.tell(one, tensors, "")
	if err := j.add(name, tensors, headerOf(one.model, to)); err != nil {
		return usage.SourceErrorf("%s: %w", one.path, err)
	}
	return nil
}

// find says which part it is.
func (one *joined) find() error {
	if one.name != "" || one.whole {
		return nil
	}
	_, diffusion := one.kind.Prefix()
	switch kind := one.kind.Kind(); {
	case diffusion:
		one.name = parts.Model
	case kind == "VAE" || kind == "MiniMax H3 VAE":
		one.name = parts.VAE
	case kind == "image encoder":
		one.name = parts.Vision
	default:
		one.name = parts.EncoderOf(one.shapes)
	}
	if one.name == "" {
		return usage.Errorf("%s: what part it is does not show: name it, as in t5xxl=%s (model, vae, clip_l, clip_g, t5xxl, …)", one.path, one.path)
	}
	return nil
}

// isDiffusers reports whether names are diffusers' of a model that is known here.
func isDiffusers(shapes parts.Shapes) bool {
	var all []names.Tensor
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		all = append(all, names.Tensor{Name: name, Shape: shapes[name]})
	}
	found, err := names.Find(all)
	return err == nil && found.Side == names.Diffusers
}

// rename gives a part with diffusers' or transformers' names ComfyUI's, where those are
// other ones.
func (j *joining) rename(one *joined) error {
	if one.whole || one.name == parts.Rest || !isDiffusers(one.shapes) {
		return nil
	}
	m, notes, err := renamed.Model(one.model, renamed.Options{To: names.ComfyUI, Dtype: plan.DtypeIn(one.model)})
	if err != nil {
		return err
	}
	shapes := parts.Shapes{}
	for _, t := range m.Plain {
		shapes[t.Name] = t.Shape
	}
	if len(one.model.Layers) > 0 {
		for _, l := range m.Layers {
			if one.shapes[l.WeightName()] == nil {
				return usage.Errorf("%s is quantized and has diffusers' names: give its layers ComfyUI's first, by `TranscodeOptions.Names` comfyui", one.path)
			}
		}
		return nil
	}
	j.told.Notes = append(j.told.Notes, notes...)
	one.model, one.shapes, one.kind = m, shapes, app.RecogniseComfy(maps.All(shapes))
	return nil
}

// home finds the diffusion model, which says where all else stands.
func (j *joining) home() (home parts.Home, err error) {
	var model *joined
	for _, one := range j.parts {
		prefix, diffusion := one.kind.Prefix()
		switch {
		case one.name != parts.Model && (!one.whole || !diffusion):
			continue
		case model != nil:
			return home, usage.Errorf("%s and %s are both diffusion models: a checkpoint has one", model.path, one.path)
		}
		model = one
		own := one.shapes
		if one.whole {
			own = parts.Shapes{}
			for name, shape := range one.shapes {
				if rest, ok := strings.CutPrefix(name, prefix); ok {
					own[rest] = shape
				}
			}
		}
		home = parts.HomeOf(one.kind.Kind(), own)
	}
	if model == nil {
		return home, usage.Errorf("no diffusion model is among the parts: what is joined is a checkpoint for ComfyUI, or the shards of one model")
	}
	return home, nil
}

// together plans the file of all parts.
func (j *joining) together(home parts.Home, name string) error {
	var all []named
	by := map[string]*joined{} // who has a tensor
	roles := map[string]*joined{}
	shapes := parts.Shapes{}
	var stored []app.Stored
	metadata, layers := map[string]string{}, pyjson.Object{}
	for _, one := range j.parts {
		if other := roles[one.name]; other != nil && !one.whole && one.name != parts.Rest {
			return usage.Errorf("%s and %s are both %s: leave one out, or say what it is, as in t5xxl=PATH", other.path, one.path, one.name)
		}
		roles[one.name] = one
		tensors, prefix, err := one.under(home)
		if err != nil {
			return err
		}
		to := map[string]string{}
		for i, t := range tensors {
			if other := by[t.name]; other != nil {
				return usage.Errorf("%s and %s both have the tensor %.200q", other.path, one.path, t.name)
			}
			by[t.name], shapes[t.name], to[t.from.Name] = one, t.from.Shape, tensors[i].name
		}
		for _, l := range one.model.Layers {
			if l.Layout != layout.Comfy && l.Layout != layout.ScaledFP8 {
				return usage.Errorf("%s: layer %s is stored as %s, which ComfyUI would take for a plain weight: tensorpress dequantize makes it one", one.path, l.Name, l.Layout.Name)
			}
			weight := to[l.WeightName()]
			shapes[weight] = l.Shape()
			if l.Codec != nil {
				stored = append(stored, app.Stored{Name: weight, Format: l.Format, Shape: l.Shape(), Packed: l.Parts[0].Shape})
			}
			if l.FromHeader {
				layers = append(layers, pyjson.Member{Key: strings.TrimSuffix(weight, layout.WeightName("")), Value: l.Options})
			}
		}
		j.mergeMetadata(metadata, one)
		j.tell(one, tensors, prefix)
		all = append(all, tensors...)
	}
	if err := checkJoined(shapes, stored, by); err != nil {
		return err
	}
	if err := j.describe(metadata, layers); err != nil {
		return err
	}
	if err := j.noteUnloaded(); err != nil {
		return err
	}
	j.missing(shapes)
	if len(metadata) == 0 {
		metadata = nil
	}
	return j.add(name, all, metadata)
}

// under gives a part the names that it has in the whole.
func (one *joined) under(home parts.Home) (tensors []named, prefix string, err error) {
	tensors = one.tensors()
	if one.whole {
		return tensors, "", nil
	}
	if prefix, err = home.Prefix(one.name, one.shapes); err != nil {
		return nil, "", usage.Errorf("%s: %w", one.path, err)
	}
	for i := range tensors {
		word, ok := parts.Words(one.name, tensors[i].name)
		if !ok {
			word = prefix + word
		}
		tensors[i].name = word
	}
	return tensors, prefix, nil
}

// tensors are all of a part, under their own names.
func (one *joined) tensors() (all []named) {
	list := one.model.Checkpoint.Tensors
	if len(one.model.Layers) == 0 {
		list = slices.Concat(one.model.Plain, one.model.Markers)
	}
	for _, t := range list {
		all = append(all, named{one.model.Checkpoint, t, t.Name})
	}
	return all
}

// mergeMetadata takes the header entries of a part; of two that contradict the first stays.
func (j *joining) mergeMetadata(metadata map[string]string, one *joined) {
	for _, key := range slices.Sorted(maps.Keys(one.model.Checkpoint.Metadata)) {
		value := one.model.Checkpoint.Metadata[key]
		old, ok := metadata[key]
		switch {
		case key == layout.HeaderKey:
		case !ok:
			metadata[key] = value
		case old != value:
			j.told.Notes = append(j.told.Notes, fmt.Sprintf("the header entry %s of %s is not in the file: another part's is", key, one.path))
		}
	}
}

// describe puts the descriptions of layers that have them in the header there; ComfyUI
// looks at no marker then.
func (j *joining) describe(metadata map[string]string, layers pyjson.Object) error {
	if len(layers) == 0 {
		return nil
	}
	for _, one := range j.parts {
		if len(one.model.Markers) > 0 {
			return usage.Errorf("%s has %s, which ComfyUI does not see beside a header that describes layers: tensorpress migrate describes them anew", one.path, one.model.Markers[0].Name)
		}
	}
	layout.Describe(metadata, layers)
	return nil
}

// checkJoined refuses layers that ComfyUI would not read quantized in the checkpoint.
func checkJoined(shapes parts.Shapes, stored []app.Stored, by map[string]*joined) error {
	comfy := app.RecogniseComfy(maps.All(shapes))
	for _, s := range stored {
		if err := comfy.Err(); err != nil {
			return usage.Errorf("%s: %w", by[s.Name].path, err)
		}
		if err := comfy.CheckLayer(s); err != nil {
			return usage.Errorf("%s: layer %s: %w; tensorpress dequantize makes it plain", by[s.Name].path, s.Name, err)
		}
	}
	return nil
}

// noteUnloaded says which layers have formats that stock ComfyUI loads nowhere.
func (j *joining) noteUnloaded() error {
	comfy, err := app.ByName("comfyui")
	if err != nil {
		return err
	}
	for _, one := range j.parts {
		var first error
		n, name := 0, ""
		for _, l := range one.model.Layers {
			f, err := codec.ByName(l.Format)
			if err != nil {
				return err // of no layer that could be read
			}
			if err := comfy.CheckLayer(f, l.Dtype); err != nil {
				if n++; first == nil {
					first, name = err, l.Name
				}
			}
		}
		if first != nil {
			j.told.Notes = append(j.told.Notes, fmt.Sprintf("%s: %s, %s among them: %v", one.path, counted(n, "quantized layer"), name, first))
		}
	}
	return nil
}

// missing says which parts a checkpoint usually has and this one has not.
func (j *joining) missing(shapes parts.Shapes) {
	there := map[string]bool{}
	for _, part := range parts.Divide(shapes, "") {
		there[parts.Folder(part.Name)] = true
	}
	for _, what := range []struct{ folder, text string }{{"vae", "a VAE"}, {"text_encoders", "text encoders"}} {
		if !there[what.folder] {
			j.told.Notes = append(j.told.Notes, "the file has no "+strings.TrimPrefix(what.text, "a ")+": ComfyUI takes "+what.text+" from another loader then")
		}
	}
}

// tell adds a part to the report.
func (j *joining) tell(one *joined, tensors []named, prefix string) {
	told := report.AssemblyPart{Part: one.name, File: filepath.ToSlash(one.path), Prefix: prefix, Tensors: len(tensors), Quantized: len(one.model.Layers)}
	if told.Part == "" {
		told.Part = "whole"
	}
	for _, t := range tensors {
		told.Bytes += t.from.Size
	}
	j.told.Parts = append(j.told.Parts, told)
}
