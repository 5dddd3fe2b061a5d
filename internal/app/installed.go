package app

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/codec"
)

// Install is how an installed application is found, without running anything of it.
type Install struct {
	// Title is the name that its users know.
	Title string
	// Package is the Python package that it is, "" for a folder.
	Package string
	// Needs is a package beside it without which it loads nothing of ours.
	Needs string
	// Marks are files that its folder has, and Places where that often lies: from the
	// current folder, or from the home folder after ~/.
	Marks, Places []string
	// VersionFile has a line with __version__.
	VersionFile string
	// Node is the folder of an extension in which our own layers load.
	Node string
	// Environments are folders of Python's in its own, or in the home folder after ~/.
	Environments []string
	// since is the first release that loads what it loads of ours, where it is known.
	since string
}

var (
	installedComfyUI = Install{
		Title: "ComfyUI", Marks: []string{"comfyui_version.py", "folder_paths.py", "nodes.py"}, VersionFile: "comfyui_version.py",
		Places: []string{".", "ComfyUI", "~/ComfyUI", "~/comfy/ComfyUI", "~/Documents/ComfyUI"},
		Node:   "custom_nodes/ComfyUI-tensorpress", Environments: []string{".venv", "venv", "../python_embeded"},
	}
	installedSDNext = Install{
		Title: "SD.Next", Marks: []string{"installer.py", "webui.py", "modules/modelloader.py"},
		Places: []string{".", "sdnext", "automatic", "~/sdnext", "~/automatic"}, Environments: []string{"venv"},
	}
	installedDiffusers    = Install{Title: "diffusers", Package: "diffusers", Needs: "sdnq"}
	installedTransformers = Install{Title: "transformers", Package: "transformers", Needs: "sdnq"}
	installedInvokeAI     = Install{Title: "InvokeAI", Package: "invokeai", Environments: []string{"~/invokeai/.venv"}, since: "6.14"}
)

// Packages returns the names of packages that have to do with quantized models.
func Packages() []string {
	names := []string{"torch", "safetensors", "sdnq", "diffusers", "transformers", "comfy-kitchen", "convert-to-quant", "tensorpress"}
	for _, a := range apps {
		if a.Package != "" && !slices.Contains(names, a.Package) {
			names = append(names, a.Package)
		}
	}
	return names
}

// Outputs says which of our outputs a release of the application loads, "" being one that
// is not known. has reports whether it has what it needs beside it, or our node.
func (a *App) Outputs(release string, has bool) string {
	switch {
	case a.Layout == "comfy":
		return comfyOutputs(release, has)
	case a.Needs != "" && !has:
		return fmt.Sprintf("nothing quantized without %s: pip install %s", a.Needs, a.Needs)
	case a.since != "" && release == "":
		return fmt.Sprintf("%s, from %s on", a.dtypes(), a.since)
	case a.since != "" && older(release, a.since):
		return fmt.Sprintf("nothing quantized: from %s on it does", a.since)
	}
	return a.dtypes()
}

// dtypes says which it loads in SDNQ's layout.
func (a *App) dtypes() string {
	if a.loads == nil {
		return "the sdnq layout, every dtype"
	}
	var names []string
	for _, t := range dtype.All() {
		if t.Storable() && a.loads(t) {
			names = append(names, t.Name)
		}
	}
	return "the sdnq layout, " + strings.Join(names, ", ")
}

// comfyOutputs says it of ComfyUI's formats; node is that of ours.
func comfyOutputs(release string, node bool) string {
	var loads, lacks []string
	for _, f := range codec.Formats() {
		switch {
		case f.ComfyUI == "":
		case release != "" && !loadedBy(release, f.ComfyUI):
			lacks = append(lacks, f.Name)
		default:
			loads = append(loads, f.Name)
		}
	}
	text := "the comfy layout, "
	switch {
	case release == "":
		text += "by its release"
	case len(lacks) == 0:
		text += "every format"
	case len(lacks) < len(loads):
		text += "every format but " + strings.Join(lacks, ", ")
	default:
		text += strings.Join(loads, ", ")
	}
	if node {
		text += "; with ComfyUI-tensorpress every dtype of SDNQ's too"
	}
	return text
}

// loadedBy reports whether a release has what came with another: "0.27.0", or "> 0.33.0"
// for what came after it.
func loadedBy(release, since string) bool {
	if since == codec.AnyRelease {
		return true
	}
	if after, ok := strings.CutPrefix(since, "> "); ok {
		return older(after, release)
	}
	return !older(release, since)
}

// older reports whether a release came before another, by the numbers at their beginning.
func older(a, b string) bool {
	x, y := numbers(a), numbers(b)
	for len(x) < len(y) {
		x = append(x, 0)
	}
	for len(y) < len(x) {
		y = append(y, 0)
	}
	return slices.Compare(x, y) < 0
}

func numbers(release string) (list []int) {
	for part := range strings.SplitSeq(release, ".") {
		end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(part)
		}
		n, err := strconv.Atoi(part[:end])
		if err != nil {
			break
		}
		if list = append(list, n); end < len(part) { // 33-alpha, 0rc1: what follows is no number
			break
		}
	}
	return list
}
