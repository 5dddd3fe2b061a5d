package convert

import (
	"context"
	"fmt"
	"maps"
	"path"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/parts"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// SplitOptions are tensorpress.SplitOptions, field by field.
type SplitOptions struct {
	Force    bool
	Hash     bool
	Threads  int
	Memory   int64
	Progress func(done, total int64)
}

// Split writes each part of an all-in-one checkpoint into a file of its own in the folder
// dest.
func Split(ctx context.Context, from files.Source, dest files.Sink, o SplitOptions) (*report.Assembly, error) {
	start := time.Now()
	a, err := readSplit(ctx, from, dest)
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

// PlanSplit makes the decisions of [Split] and writes nothing. dest may be nil.
func PlanSplit(ctx context.Context, from files.Source, dest files.Sink, o SplitOptions) (*report.Assembly, error) {
	a, err := readSplit(ctx, from, dest)
	if err != nil {
		return nil, err
	}
	defer a.close()
	return a.plan(dest, o.Force)
}

func readSplit(ctx context.Context, from files.Source, dest files.Sink) (*assembly, error) {
	if name := nameOf(dest); name != "" && !bundle.IsFolder(name) {
		return nil, usage.Errorf("%s must be a folder: each part gets a file of its own there", name)
	}
	s := source.Of(ctx, from)
	if folders, err := bundle.ModelsOf(s); err != nil || folders[0] != "" {
		if err == nil {
			err = usage.Errorf("%s is a pipeline, whose parts are folders already: tensorpress join makes one file of them", s.Path)
		}
		return nil, err
	}
	c, err := checkpoint.Open(s)
	if err != nil {
		return nil, err
	}
	a := &assembly{checkpoints: []*checkpoint.Checkpoint{c}, told: &report.Assembly{Sources: []string{s.Path}, Dest: nameOf(dest)}}
	if err := a.split(c); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// split plans the parts of a checkpoint.
func (a *assembly) split(c *checkpoint.Checkpoint) error {
	m, err := readParts(c)
	if err != nil {
		return err
	}
	shapes := shapesOf(m)
	prefix, _ := app.RecogniseComfy(maps.All(shapes)).Prefix()
	all := parts.Divide(shapes, prefix)
	if len(all) == 0 || all[0].Name == parts.Rest {
		return usage.Errorf("%s is no all-in-one checkpoint: no name begins with model.diffusion_model., text_encoders., vae. or another of their kind", c.Path)
	}
	if c.Part != nil {
		a.told.Notes = append(a.told.Notes, bundle.PartText(c))
	}
	stem := strings.TrimSuffix(path.Base(strings.ReplaceAll(c.Path, `\`, "/")), ".safetensors")
	if c.IsModel() {
		stem = c.Stem()
	}
	for _, part := range all {
		if err := a.addPart(m, part, stem); err != nil {
			return err
		}
	}
	if n := len(m.Unmatched); n > 0 {
		a.told.Notes = append(a.told.Notes, fmt.Sprintf("the header describes %d layers of which there is no weight, %s among them: no part has that", n, m.Unmatched[0]))
	}
	return nil
}

// readParts finds the layers of what is split or joined, whose tensors must say by
// themselves how they are quantized.
func readParts(c *checkpoint.Checkpoint) (*layout.Model, error) {
	m, err := bundle.ReadModel(c, nil)
	if err != nil {
		return nil, err
	}
	if m.Layout == layout.SDNQ {
		return nil, usage.Errorf("%s is in the sdnq layout, whose config describes all of it: `TranscodeOptions.Layout` comfy has each layer describe itself", c.Path)
	}
	m.AcceptUnscaled() // plain numbers, which are copied
	if err := m.Failed(); err != nil {
		return nil, usage.Source(err)
	}
	return m, nil
}

// shapesOf are all tensors of a model; weights of layers have the shapes that they restore
// to.
func shapesOf(m *layout.Model) parts.Shapes {
	all := parts.Shapes{}
	for _, t := range m.Checkpoint.Tensors {
		all[t.Name] = t.Shape
	}
	for _, l := range m.Layers {
		if l.Codec != nil {
			all[l.WeightName()] = l.Shape()
		}
	}
	return all
}

// addPart plans the file of one part.
func (a *assembly) addPart(m *layout.Model, part parts.Part, stem string) error {
	c := m.Checkpoint
	name := path.Join(parts.Folder(part.Name), stem+".safetensors")
	switch part.Name {
	case parts.Model:
	case parts.Rest:
		name = stem + "_rest.safetensors"
		a.told.Notes = append(a.told.Notes, fmt.Sprintf("%s belong to no part that ComfyUI loads by itself, %s among them: %s has them", counted(len(part.Tensors), "tensor"), part.Tensors[0][0], name))
	default:
		name = path.Join(parts.Folder(part.Name), stem+"_"+part.Name+".safetensors")
	}
	tensors := make([]named, len(part.Tensors))
	to := map[string]string{}
	told := report.AssemblyPart{Part: part.Name, File: name, Tensors: len(tensors)}
	for i, names := range part.Tensors {
		t, _ := c.Lookup(names[0])
		tensors[i] = named{c, t, names[1]}
		to[names[0]] = names[1]
		told.Bytes += t.Size
	}
	told.Prefix = prefixOf(part.Tensors)
	metadata := headerOf(m, to)
	for _, l := range m.Layers {
		if _, ok := to[l.WeightName()]; ok {
			told.Quantized++
		}
	}
	a.told.Parts = append(a.told.Parts, told)
	if err := a.add(name, tensors, metadata); err != nil {
		return usage.SourceErrorf("%s: the part %s: %w", c.Path, part.Name, err)
	}
	return nil
}

func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// prefixOf is what most names have before those of the part's own file.
func prefixOf(names [][2]string) string {
	counts, most := map[string]int{}, ""
	for _, one := range names {
		prefix := strings.TrimSuffix(one[0], one[1])
		if one[0] == prefix && one[1] != "" {
			continue // the end is another one
		}
		if counts[prefix]++; counts[prefix] > counts[most] {
			most = prefix
		}
	}
	return most
}

// headerOf is the header's metadata for tensors of a model that get other names: the
// description of layers is that of these.
func headerOf(m *layout.Model, to map[string]string) map[string]string {
	metadata := maps.Clone(m.Checkpoint.Metadata)
	if _, ok := metadata[layout.HeaderKey]; !ok {
		return metadata
	}
	delete(metadata, layout.HeaderKey)
	var layers pyjson.Object
	for _, l := range m.Layers {
		if name, ok := to[l.WeightName()]; ok && l.FromHeader {
			layers = append(layers, pyjson.Member{Key: strings.TrimSuffix(name, layout.WeightName("")), Value: l.Options})
		}
	}
	if layers != nil {
		layout.Describe(metadata, layers)
	}
	return metadata
}
