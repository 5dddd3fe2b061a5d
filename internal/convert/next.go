package convert

import (
	"path/filepath"
	"slices"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// far is a destination that no program loads files from: a command brings them here.
type far interface {
	Fetch(folder bool, file string) (command, place string)
}

// loadable is a destination that libraries load models from, by a name.
type loadable interface{ Loaded() string }

// next says what to do with the output, nil where that is not sure.
func (j *job) next(dest files.Sink) *report.Next {
	_, isFar := dest.(far)
	if bundle.Checks(dest) && !isFar {
		return nil
	}
	o, ok := j.outcome(dest)
	if !ok {
		return nil
	}
	var command string
	if isFar {
		name, file := dest.String(), ""
		if bundle.IsFolder(name) && !o.Folder {
			file = j.Models[0].Plan.Files[0].Name
		}
		command, o.Path = dest.(far).Fetch(bundle.IsFolder(name), file)
	}
	n := app.NextFor(o)
	if n == nil {
		return nil
	}
	if on, ok := dest.(loadable); ok && n.Call != "" && on.Loaded() != "" {
		command, o.Path = "", on.Loaded()
		n = app.NextFor(o)
	}
	if command != "" {
		n.Text = "fetch it by `" + command + "`, and " + n.Text
	}
	return &report.Next{App: n.App, Folder: n.Folder, Node: n.Node, Call: n.Call, Text: n.Text}
}

// outcome is the output as those who load it see it; ok is false where some layer of it is
// known to be read by none of them.
func (j *job) outcome(dest files.Sink) (o app.Output, ok bool) {
	one := j.Models[0]
	p, name := one.Plan, dest.String()
	o = app.Output{Path: name, Folder: bundle.IsFolder(name), Pipeline: j.IsPipeline(), For: p.For, Comfy: p.Comfy, Dtype: torchDtype(j.Models)}
	if o.Folder && !o.Pipeline && p.Layout == layout.Comfy && len(p.Files) == 1 { // ComfyUI takes the file out of it
		o.Path, o.Folder = filepath.Join(name, p.Files[0].Name), false
	}
	if _, onDisk := dest.(files.Dir); onDisk {
		if place, err := filepath.Abs(o.Path); err == nil {
			o.Place = place
		}
	}
	if o.Folder && !o.Pipeline {
		o.Diffusers, o.Transformers = classes(one.Checkpoint)
	}
	for _, one := range j.Models {
		if !see(&o, one.Plan) {
			return o, false
		}
	}
	if o.Layout == "" && !o.Folder && o.Comfy == nil {
		o.Comfy = app.RecogniseComfy(plainTensors(p))
	}
	return o, true
}

// see adds to an output what one of its models holds.
func see(o *app.Output, p *plan.Plan) bool {
	for i := range p.Steps {
		f := formatOf(&p.Steps[i])
		switch {
		case f == nil:
			continue
		case p.Layout == layout.Comfy && f == codec.SDNQ():
			o.NeedsNode = true
		case p.Layout == layout.Comfy && f.ComfyUI == "":
			return false
		}
		o.Layout = p.Layout.Name
	}
	// ComfyUI's own nodes would not load it; of ours it is known where the names are the reason.
	return len(p.Warnings) == 0 || o.NeedsNode && p.Comfy.Err() != nil
}

// classes returns the class that a model's config names, for the library that has it.
func classes(c *checkpoint.Checkpoint) (diffusers, transformers string) {
	names := bundle.ClassesOf(c.Config)
	_, own := c.Config.Get("auto_map") // code that comes with the model
	if len(names) == 0 || own || slices.ContainsFunc(names, func(name string) bool { return !app.IsClass(name) }) {
		return "", ""
	}
	if _, ok := c.Config.Get("_class_name"); ok {
		return names[0], ""
	}
	return "", names[0]
}

// torchDtypes are PyTorch's names of dtypes in which models are loaded.
var torchDtypes = map[safetensors.Dtype]string{safetensors.BF16: "bfloat16", safetensors.F16: "float16", safetensors.F32: "float32"}

// torchDtype is that of most bytes of plain weights, be they quantized now.
func torchDtype(models []*bundle.Model) string {
	bytes, most := map[string]int64{}, "bfloat16"
	count := func(t safetensors.Tensor) {
		if name := torchDtypes[t.Dtype]; name != "" {
			if bytes[name] += t.Size; bytes[name] > bytes[most] {
				most = name
			}
		}
	}
	for _, one := range models {
		if one.Restoration == nil {
			for i := range one.Plan.Steps {
				count(one.Plan.Steps[i].Source.Tensor)
			}
			continue
		}
		for _, f := range one.Plan.Files {
			for _, t := range f.Header.Tensors {
				count(t)
			}
		}
	}
	return most
}

// plainTensors are those of an output that holds no quantized layer.
func plainTensors(p *plan.Plan) func(yield func(string, []int) bool) {
	return func(yield func(string, []int) bool) {
		for _, f := range p.Files {
			for _, t := range f.Header.Tensors {
				if !yield(t.Name, t.Shape) {
					return
				}
			}
		}
	}
}
