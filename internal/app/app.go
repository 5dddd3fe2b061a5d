// Package app is the table of programs that load quantized models, and of what
// each of them loads.
package app

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/suggest"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// App is one row.
type App struct {
	Name   string
	Layout string // the layout that it reads
	Older  string // one that it converts as it loads, "" for none
	// Folder says that it loads a model folder with a config, never one file.
	Folder bool
	// ConfigFile says that it reads the SDNQ config from a file of its own
	// beside the weights, never from config.json.
	ConfigFile bool
	classes    []string // models that it loads quantized, nil for any
	// sdnq says why it would not load a layer of SDNQ's, nil where sdnq itself
	// does the loading; loads is what of that depends on the dtype alone.
	sdnq  func(SDNQLayer) error
	loads func(*dtype.Type) bool
}

// SDNQLayer is a layer as SDNQ stores it, and what a reader is told of it.
type SDNQLayer struct {
	Scheme *sdnq.Scheme
	Global string // the config's weights_dtype, "" where there is no config
	Listed string // the key under which modules_dtype_dict names it, or ""
}

var apps = []*App{
	{Name: "comfyui", Layout: "comfy", Older: "scaled_fp8"},
	{Name: "sdnext", Layout: "sdnq", Folder: true},
	{Name: "diffusers", Layout: "sdnq", Folder: true},
	{Name: "transformers", Layout: "sdnq", Folder: true},
	{Name: "invokeai", Layout: "sdnq", ConfigFile: true, classes: invokeAIClasses, sdnq: checkInvokeAI, loads: invokeAIDtype},
}

// All returns every row.
func All() []*App { return apps }

// Names are those of all rows.
func Names() (names []string) {
	for _, a := range apps {
		names = append(names, a.Name)
	}
	return names
}

// ByName returns the row of that name.
func ByName(name string) (*App, error) {
	for _, a := range apps {
		if a.Name == name {
			return a, nil
		}
	}
	return nil, usage.Errorf("unknown application %q%s", name, suggest.HintOrAll(name, Names()))
}

// CheckOutput says why the application would not load an output of a layout,
// one file or a folder.
func (a *App) CheckOutput(layout string, folder bool) error {
	if layout != a.Layout && (layout != a.Older || layout == "") {
		return fmt.Errorf("%s loads the %s layout, not %s", a.Name, a.Layout, layout)
	}
	if a.Folder && !folder {
		return fmt.Errorf("%s loads a model folder with its config.json, not one file: give the folder", a.Name)
	}
	return nil
}

// CheckClass says why the application would not load a quantized model whose
// config names those classes; one that names none may be any.
func (a *App) CheckClass(names []string) error {
	if a.classes == nil || len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return slices.Contains(a.classes, n) }) {
		return nil
	}
	return fmt.Errorf("%s does not load a quantized %s: it does %s", a.Name, strings.Join(names, " or "), strings.Join(a.classes, ", "))
}

// CheckAddon says that the application loads no quantized tensors of a file that
// is no model, as its sign tells.
func (a *App) CheckAddon(kind, sign string) error {
	return fmt.Errorf("it is %s (%s), which %s does not load quantized: leave it as it is", kind, sign, a.Name)
}

// CheckSDNQ says why the application would not restore the values of a layer of
// SDNQ's.
func (a *App) CheckSDNQ(l SDNQLayer) error {
	if a.sdnq == nil || l.Scheme == nil {
		return nil
	}
	return a.sdnq(l)
}

// LoadingSDNQ returns the names of the applications that load an SDNQ dtype in
// the sdnq layout.
func LoadingSDNQ(t *dtype.Type) []string {
	var names []string
	for _, a := range apps {
		if a.Layout == "sdnq" && (a.loads == nil || a.loads(t)) {
			names = append(names, a.Name)
		}
	}
	return names
}

// CheckLayer says why the application would not load a layer stored in that
// format and dtype, and which dtype it does load.
func (a *App) CheckLayer(f *codec.Format, name string) error {
	if a.Layout == "sdnq" || f.ComfyUI != "" {
		return nil
	}
	text := fmt.Sprintf("stock ComfyUI does not load %s: the nearest that it does is %s", Written(f, name), Nearest(name))
	if few := inFewBits(f, name); few != "" {
		text += ", or " + few
	}
	return errors.New(text)
}

// Written is a layer's dtype as --dtype takes it in the comfy layout, where the
// name alone may be ComfyUI's.
func Written(f *codec.Format, name string) string {
	if own, err := codec.ByName(name); f == codec.SDNQ() && err == nil && own != f {
		return "sdnq:" + name
	}
	return name
}

// Instead says what to type for a layer that stock ComfyUI loads in place of one
// stored in that format and dtype.
func Instead(f *codec.Format, name string) string {
	text := "quantize with `Dtype` " + Nearest(name)
	if few := inFewBits(f, name); few != "" {
		text = "quantize with `Dtype` " + few + ", or `Dtype` " + Nearest(name)
	}
	return text
}

// inFewBits names what is of the size of a dtype of few bits, whose nearest of
// the kind is larger.
func inFewBits(f *codec.Format, name string) string {
	if t := dtype.Lookup(name); f == codec.SDNQ() && t != nil && t.Bits <= 4 {
		return "nvfp4 (4 bits)"
	}
	return ""
}

// Nearest returns the dtype nearest to an SDNQ dtype, or to a format of the
// comfy layout, that stock ComfyUI loads.
func Nearest(name string) string {
	if f, err := codec.ByName(name); err == nil && f != codec.SDNQ() {
		return cmp.Or(f.Near, f.Name)
	}
	t := dtype.Lookup(strings.TrimPrefix(name, "sdnq:"))
	switch {
	case t == nil || t.Class == dtype.Integer:
		return "int8_tensorwise"
	case t.Name == "float8_e5m2":
		return "float8_e5m2"
	}
	return "float8_e4m3fn"
}

// Loading returns the names of the applications that load a format in a
// layout, with the release where one is known.
func Loading(f *codec.Format, layout string) []string {
	var names []string
	for _, a := range apps {
		if a.Layout != layout || a.CheckLayer(f, "") != nil {
			continue
		}
		name := a.Name
		if layout == "comfy" {
			name += since(f.ComfyUI)
		}
		names = append(names, name)
	}
	return names
}

// since is what follows an application's name: " ≥ 0.27.0".
func since(release string) string {
	switch {
	case release == codec.AnyRelease:
		return ""
	case strings.HasPrefix(release, ">"): // which release is not known yet
		return " " + release
	}
	return " ≥ " + release
}

// Release returns the application and the first release of it that loads a
// layer of a format, "" where every one does or releases are not known.
func (a *App) Release(f *codec.Format, embedding bool) string {
	release := f.ComfyUI
	if embedding && f.Embeddings != "" {
		release = f.Embeddings
	}
	if a.Layout != "comfy" || release == codec.AnyRelease || release == "" {
		return ""
	}
	return a.Name + since(release)
}
