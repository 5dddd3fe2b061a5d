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
	return j.loading(bundle.IsFolder(dest.String())).at(dest)
}

// loading is how an output is loaded, wherever it will lie.
type loading struct {
	app.Way
	File string `json:"file,omitempty"` // of a folder, the one that is loaded; "" for all of it
}

// at says what to do with the output at a destination, nil where that is not sure.
func (l *loading) at(dest files.Sink) *report.Next {
	away, isFar := dest.(far)
	if l == nil || bundle.Checks(dest) && !isFar || l.File != "" && !filepath.IsLocal(l.File) {
		return nil
	}
	name := dest.String()
	where, place, command := filepath.Join(name, l.File), "", ""
	if l.File == "" {
		where = name // as it was said
	}
	if _, onDisk := dest.(files.Dir); onDisk {
		if abs, err := filepath.Abs(where); err == nil {
			place = abs
		}
	}
	if isFar {
		command, where = away.Fetch(bundle.IsFolder(name), l.File)
	}
	n := l.At(where, place)
	if n == nil {
		return nil
	}
	if on, ok := dest.(loadable); ok && n.Call != "" && on.Loaded() != "" {
		command, n = "", l.At(on.Loaded(), place)
	}
	if command != "" {
		n.Text = "fetch it by `" + command + "`, and " + n.Text
	}
	return &report.Next{App: n.App, Folder: n.Folder, Node: n.Node, Call: n.Call, Text: n.Text}
}

// loading is how the output is loaded, which is a folder or one file; nil where that is not
// sure.
func (j *job) loading(folder bool) *loading {
	o, file, ok := j.outcome(folder)
	if !ok {
		return nil
	}
	l := app.WayOf(o)
	if l == nil {
		return nil
	}
	return &loading{*l, file}
}

// outcome is the output as those who load it see it, and the one file of a folder that they
// take; ok is false where some layer of it is known to be read by none of them.
func (j *job) outcome(folder bool) (o app.Output, file string, ok bool) {
	one := j.Models[0]
	p := one.Plan
	o = app.Output{Folder: folder, Pipeline: j.IsPipeline(), For: p.For, Comfy: p.Comfy, Dtype: torchDtype(j.Models)}
	if o.Folder && !o.Pipeline && p.Layout == layout.Comfy && len(p.Files) == 1 { // ComfyUI takes the file out of it
		file, o.Folder = p.Files[0].Name, false
	}
	if o.Folder && !o.Pipeline {
		o.Diffusers, o.Transformers = classes(one.Checkpoint)
	}
	for _, one := range j.Models {
		if !see(&o, one.Plan) {
			return o, file, false
		}
	}
	if o.Layout == "" && !o.Folder && o.Comfy == nil {
		o.Comfy = app.RecogniseComfy(plainTensors(p))
	}
	return o, file, true
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
	if o.Folder && p.Config != nil { // loading asks for the method that it names, though all is kept
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
