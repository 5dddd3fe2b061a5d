package app

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// TestNearest: the dtype that an error recommends must be one that ComfyUI
// loads, and of the same kind.
func TestNearest(t *testing.T) {
	for name, want := range map[string]string{
		"int8": "int8_tensorwise", "uint4": "int8_tensorwise", "sdnq:float8_e5m2": "float8_e5m2", "float8_e4m3fn_sdnq": "float8_e4m3fn",
		"fp8": "float8_e4m3fn", "bfloat16": "float8_e4m3fn", "unheard of": "int8_tensorwise",
		"hybrid_mxfp8": "mxfp8", "float8_e4m3fn_rowwise": "float8_e4m3fn", "float8_e4m3fn_block3d": "float8_e4m3fn",
		"int8_blockwise": "int8_tensorwise", "nvfp4": "nvfp4",
	} {
		f, err := codec.ByName(want)
		if got := Nearest(name); got != want || err != nil || f.ComfyUI == "" {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
}

// TestLoading: what formats and --for say must agree.
func TestLoading(t *testing.T) {
	for _, f := range codec.Formats() {
		for _, layout := range []string{"sdnq", "comfy"} {
			text := strings.Join(Loading(f, layout), " ")
			for _, a := range All() {
				loads := a.Layout == layout && a.CheckLayer(f, f.Name) == nil
				if loads != strings.Contains(text, a.Name) {
					t.Errorf("%s of %s: listed %q, %s loads it: %v", f.Name, layout, text, a.Name, loads)
				}
			}
		}
	}
}

// TestRowsAreWhole: what a row leaves out, or says twice, shows in no other place.
func TestRowsAreWhole(t *testing.T) {
	doc, err := os.ReadFile("../../docs/verify.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range All() {
		if a.Layout != "sdnq" && a.Layout != "comfy" {
			t.Errorf("%s reads the layout %q", a.Name, a.Layout)
		}
		if (a.sdnq == nil) != (a.loads == nil) {
			t.Errorf("%s: it wants sdnq and loads, or neither", a.Name)
		}
		menu, err := codec.ParseMenu(a.Menu)
		if err != nil || len(menu) < 4 {
			t.Errorf("%s: a menu of %d entries: %v", a.Name, len(menu), err)
		}
		for _, e := range menu {
			if f, err := codec.Resolve(e.Layer.Dtype, a.Layout == "sdnq"); !e.Keep && (err != nil || a.CheckLayer(f, e.Layer.Dtype) != nil) {
				t.Errorf("%s does not load %s of its menu: %v", a.Name, e.Name, err)
			}
		}
		if a.Folder && a.ConfigFile {
			t.Errorf("%s: a folder has its config in config.json", a.Name)
		}
		if name := a.Name; !strings.Contains(string(doc), "`"+name+"`") && !strings.Contains(string(doc), "`--for "+name+"`") {
			t.Errorf("%s: docs/verify.md does not have it", name)
		}
	}
}

func TestByName(t *testing.T) {
	for _, a := range All() {
		if got, err := ByName(a.Name); got != a || err != nil {
			t.Errorf("%s: %v, %v", a.Name, got, err)
		}
	}
	if _, err := ByName("gimp"); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "comfyui, sdnext, diffusers") {
		t.Errorf("gimp: %v", err)
	}
}
