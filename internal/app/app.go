// Package app is the table of programs that load quantized models, and of what each of
// them can load.
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

// App is a program that loads quantized models.
type App struct {
	Name   string
	Layout string // the layout that it reads
	Older  string // an older layout that it converts while loading, "" for none
	// Folder says that it loads only a model folder with a config, never a single file.
	Folder bool
	// ConfigFile says that it reads the SDNQ config only from a separate file beside
	// the weights, never from config.json.
	ConfigFile bool
	classes    []string // model classes that it loads quantized, nil for any
	// Menu has what a budget chooses among where nobody says: of the formats that it
	// loads, the best of each size, in the words of [codec.ParseMenu].
	Menu string
	// sdnq returns why the program cannot load a layer of SDNQ's, and is nil if it uses
	// the sdnq library for that. loads is the part of the check that depends on the
	// dtype alone.
	sdnq  func(SDNQLayer) error
	loads func(*dtype.Type) bool
	best  []Best // from many bits to few
	uses  map[Kind]Use
	Install
	// python says that it is a library, which loads what it has a use for by a call.
	python bool
}

// SDNQLayer is a layer as SDNQ stores it, with what the config tells a reader about it.
type SDNQLayer struct {
	Scheme *sdnq.Scheme
	Global string // the config's weights_dtype, "" without a config
	Listed string // the key of modules_dtype_dict that lists it, or ""
}

var apps = []*App{
	{Name: "comfyui", Layout: "comfy", Older: "scaled_fp8", Menu: comfyMenu, best: bestComfyUI, uses: comfyUses, Install: installedComfyUI},
	{Name: "sdnext", Layout: "sdnq", Folder: true, Menu: sdnqMenu, best: bestSDNQ, uses: sdnextUses, Install: installedSDNext},
	{Name: "diffusers", Layout: "sdnq", Folder: true, Menu: sdnqMenu, best: bestSDNQ, uses: diffusersUses, python: true, Install: installedDiffusers},
	{Name: "transformers", Layout: "sdnq", Folder: true, Menu: sdnqMenu, best: bestSDNQ, uses: transformersUses, python: true, Install: installedTransformers},
	{
		Name: "invokeai", Layout: "sdnq", ConfigFile: true, classes: invokeAIClasses, sdnq: checkInvokeAI, loads: invokeAIDtype,
		Menu: "uint4:group-size=-1,int5:group-size=-1,int8:group-size=-1,keep", // layers may differ in nothing but the dtype
		best: bestInvokeAI, uses: invokeAIUses, Install: installedInvokeAI,
	},
}

const (
	// comfyMenu is 4 to 8 bits a value. What is left out, float8_e4m3fn and mxfp8, is
	// no smaller than int8_tensorwise and loses more; asym_w4a8_int8 with 6 bits takes ten
	// times as long to fit as all others together.
	comfyMenu = "convrot_w4a4,nvfp4,asym_w4a8_int8,int8_tensorwise,int8_tensorwise:convrot,keep"
	// sdnqMenu is 2.5, 3.1, 3.5, 4.1, 4.5, 5.5, 6.5 and 8 bits a value. Scales and zero
	// points of a byte lose nothing that larger groups would not lose more of.
	sdnqMenu = "uint2:group-size=32:scale-dtype=uint8,uint3:group-size=128:scale-dtype=uint8,uint3:group-size=32:scale-dtype=uint8," +
		"int4:group-size=128:scale-dtype=uint8,uint4:group-size=32:scale-dtype=uint8,uint5:group-size=32:scale-dtype=uint8," +
		"uint6:group-size=32:scale-dtype=uint8,int8,keep"
)

// All returns every application.
func All() []*App { return apps }

// Names returns the names of all applications.
func Names() (names []string) {
	for _, a := range apps {
		names = append(names, a.Name)
	}
	return names
}

// MenuOf is the menu of an application, nil for any, in a layout.
func MenuOf(a *App, layout string) string {
	if a != nil {
		return a.Menu
	}
	for _, one := range apps {
		if one.Layout == layout {
			return one.Menu
		}
	}
	return ""
}

// ByName returns the application of that name. The error suggests similar names.
func ByName(name string) (*App, error) {
	for _, a := range apps {
		if a.Name == name {
			return a, nil
		}
	}
	return nil, usage.Errorf("unknown application %q%s", name, suggest.HintOrAll(name, Names()))
}

// CheckOutput returns why the application cannot load an output of a layout, which is a
// folder or one file; nil if it can.
func (a *App) CheckOutput(layout string, folder bool) error {
	if layout != a.Layout && (layout != a.Older || layout == "") {
		return fmt.Errorf("%s loads the %s layout, not %s", a.Name, a.Layout, layout)
	}
	if a.Folder && !folder {
		return fmt.Errorf("%s loads a model folder with its config.json, not one file: give the folder", a.Name)
	}
	return nil
}

// CheckClass returns why the application cannot load a quantized model whose config
// names these classes, nil if it can. A config that names none is accepted.
func (a *App) CheckClass(names []string) error {
	if a.classes == nil || len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return slices.Contains(a.classes, n) }) {
		return nil
	}
	return fmt.Errorf("%s does not load a quantized %s: it does %s", a.Name, strings.Join(names, " or "), strings.Join(a.classes, ", "))
}

// CheckAddon returns the error that the application loads no quantized tensors of a
// file that is not a model, such as a LoRA. sign is what showed its kind.
func (a *App) CheckAddon(kind, sign string) error {
	return fmt.Errorf("it is %s (%s), which %s does not load quantized: leave it as it is", kind, sign, a.Name)
}

// CheckSDNQ returns why the application cannot restore the values of a layer of SDNQ's,
// nil if it can.
func (a *App) CheckSDNQ(l SDNQLayer) error {
	if a.sdnq == nil || l.Scheme == nil {
		return nil
	}
	return a.sdnq(l)
}

// LoadingSDNQ returns the names of the applications that load an SDNQ dtype in the sdnq
// layout.
func LoadingSDNQ(t *dtype.Type) []string {
	var names []string
	for _, a := range apps {
		if a.Layout == "sdnq" && (a.loads == nil || a.loads(t)) {
			names = append(names, a.Name)
		}
	}
	return names
}

// CheckLayer returns why the application cannot load a layer stored in that format and
// dtype, with the nearest dtype that it can load; nil if it can load the layer.
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

// Written returns a layer's dtype as --dtype takes it in the comfy layout. An SDNQ
// dtype gets the prefix "sdnq:" if the bare name means a format of ComfyUI's.
func Written(f *codec.Format, name string) string {
	if own, err := codec.ByName(name); f == codec.SDNQ() && err == nil && own != f {
		return "sdnq:" + name
	}
	return name
}

// Instead says which --dtype to use for a layer, in place of its format and dtype, so
// that stock ComfyUI loads it.
func Instead(f *codec.Format, name string) string {
	text := "quantize with `Dtype` " + Nearest(name)
	if few := inFewBits(f, name); few != "" {
		text = "quantize with `Dtype` " + few + ", or `Dtype` " + Nearest(name)
	}
	return text
}

// inFewBits names a dtype of ComfyUI's as small as an SDNQ dtype of up to 4 bits, whose
// nearest one of the same kind is larger. It returns "" for others.
func inFewBits(f *codec.Format, name string) string {
	if t := dtype.Lookup(name); f == codec.SDNQ() && t != nil && t.Bits <= 4 {
		return "nvfp4 (4 bits)"
	}
	return ""
}

// Nearest returns the dtype that stock ComfyUI loads and that is nearest to an SDNQ
// dtype or to a format of the comfy layout.
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

// Loading returns the names of the applications that load a format in a layout, each
// with its first release that does if that is known.
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

// since returns what follows an application's name, such as " ≥ 0.27.0".
func since(release string) string {
	switch {
	case release == codec.AnyRelease:
		return ""
	case strings.HasPrefix(release, ">"): // after a release: the next one has no number yet
		return " " + release
	}
	return " ≥ " + release
}

// Release returns the application's name with the first release that loads a layer of a
// format, "" if every release does or none is known. An embedding, and experts in one
// tensor, may need a later one than other layers.
func (a *App) Release(f *codec.Format, embedding, bank bool) string {
	release := f.ComfyUI
	switch {
	case embedding && f.Embeddings != "":
		release = f.Embeddings
	case bank && f.Banks != "":
		release = f.Banks
	}
	if a.Layout != "comfy" || release == codec.AnyRelease || release == "" {
		return ""
	}
	return a.Name + since(release)
}
