// Package app is the table of programs that load quantized models, and of what
// each of them loads.
package app

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// App is one row.
type App struct {
	Name   string
	Layout string // the layout that it reads
	Older  string // one that it converts as it loads, "" for none
	// Folder says that it loads a model folder with a config, never one file.
	Folder bool
}

var apps = []*App{
	{Name: "comfyui", Layout: "comfy", Older: "scaled_fp8"},
	{Name: "sdnext", Layout: "sdnq", Folder: true},
	{Name: "diffusers", Layout: "sdnq", Folder: true},
	{Name: "transformers", Layout: "sdnq", Folder: true},
	{Name: "invokeai", Layout: "sdnq", Folder: true},
}

// All returns every row.
func All() []*App { return apps }

// ByName returns the row of that name.
func ByName(name string) (*App, error) {
	var names []string
	for _, a := range apps {
		if a.Name == name {
			return a, nil
		}
		names = append(names, a.Name)
	}
	return nil, usage.Errorf("unknown application %q: there are %s", name, strings.Join(names, ", "))
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

// CheckLayer says why the application would not load a layer stored in that
// format and dtype, and which dtype it does load.
func (a *App) CheckLayer(f *codec.Format, name string) error {
	if a.Layout == "sdnq" || f.ComfyUI != "" {
		return nil
	}
	return fmt.Errorf("stock ComfyUI does not load %s: the nearest that it does is %s", name, Nearest(name))
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
		switch {
		case layout != "comfy", f.ComfyUI == codec.AnyRelease:
		case strings.HasPrefix(f.ComfyUI, ">"): // which release is not known yet
			name += " " + f.ComfyUI
		default:
			name += " ≥ " + f.ComfyUI
		}
		names = append(names, name)
	}
	return names
}
