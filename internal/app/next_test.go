package app

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestUses: a kind that a row of a model has is one that an application has a use for, and
// what is said has nothing left to fill in.
func TestUses(t *testing.T) {
	for _, table := range [][]comfyKind{comfyDiffusion, comfyRenamed, comfyTexts, comfyControl, comfyOthers, comfyCheckpoints} {
		for _, k := range table {
			if _, ok := comfyUses[k.kind]; !ok && k.kind != "" && k.kind != unsure {
				t.Errorf("%s is a %s, of which ComfyUI has no use", k.name, k.kind)
			}
		}
	}
	for _, k := range comfyOthers {
		if k.kind == "" {
			t.Errorf("%s has no kind, and there is none for all of its table", k.name)
		}
	}
	for _, a := range All() {
		if len(a.uses) == 0 {
			t.Errorf("%s has no use for anything", a.Name)
		}
		for kind, u := range a.uses {
			o := Output{Path: "some path", Layout: a.Layout, Dtype: "bfloat16", Diffusers: "A"}
			text := u.said(o)
			if strings.ContainsAny(text, "{}") || !strings.Contains(text, "some path") || u.Node != "" && !strings.Contains(text, u.Node) || u.Folder != "" && !strings.Contains(text, u.Folder) {
				t.Errorf("%s, %s: %s", a.Name, kind, text)
			}
			if (u.Call != "") != a.python {
				t.Errorf("%s, %s: a call %q, and it is a library: %v", a.Name, kind, u.Call, a.python)
			}
		}
	}
}

// TestNextFor: nothing is said to who named an application that has no use for it, and
// nothing of an application that is only for those who named it.
func TestNextFor(t *testing.T) {
	for _, kind := range []Output{{Pipeline: true, Folder: true}, {Folder: true, Diffusers: "A"}, {Folder: true, Transformers: "A"}, {}} {
		kind.Path, kind.Dtype = "out", "bfloat16"
		for _, layout := range []string{"sdnq", "comfy", ""} {
			kind.Layout = layout
			for _, a := range append(All(), nil) {
				kind.For = a
				n := NextFor(kind)
				if n == nil {
					continue
				}
				got := byName(t, n.App)
				if layout != "" && got.Layout != layout || a != nil && got != a && !a.python || a == nil && got.uses[kind.kind(got)].asked {
					t.Errorf("%+v: %+v", kind, n)
				}
			}
		}
	}
}

// TestClassName: a config may name anything as its class, and what is printed as a call is
// pasted and run.
func TestClassName(t *testing.T) {
	for name, want := range map[string]bool{
		"LlamaForCausalLM": true, "UNet2DConditionModel": true, "": false, "os": false, "A;import os": false, "A.B": false, "A\n": false, "A()": false, "Ä": false,
	} {
		if IsClass(name) != want {
			t.Errorf("%q is a class: %v", name, !want)
		}
	}
}

// TestCheckpointsHaveAHome: a diffusion model with a text encoder beside it is a
// checkpoint, and alone it is none.
func TestCheckpointsHaveAHome(t *testing.T) {
	flux := []string{"model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.weight", "model.diffusion_model.img_in.weight"}
	for more, want := range map[string]Kind{
		"model.diffusion_model.a.weight": diffusionModelFile, "text_encoders.t5xxl.a.weight": allInOne, "cond_stage_model.a": allInOne,
		"conditioner.embedders.0.open_clip.model.visual.a": withoutTexts, "first_stage_model.a": withoutTexts,
	} {
		m := RecogniseComfy(func(yield func(string, []int) bool) {
			for _, name := range append(slices.Clone(flux), more) {
				if !yield(name, []int{64, 64}) {
					return
				}
			}
		})
		if m == nil || m.home != want {
			t.Errorf("with %s: %+v, want a %s", more, m, want)
		}
	}
}

// TestWayAt: what was kept of an output says the same once it is in place, and of what
// somebody has changed in it nothing gets into a line that people paste.
func TestWayAt(t *testing.T) {
	o := Output{Path: "some path", Layout: "sdnq", Folder: true, Diffusers: "FluxTransformer2DModel", Dtype: "bfloat16"}
	text, err := json.Marshal(WayOf(o))
	if err != nil || strings.Contains(string(text), "some") {
		t.Fatalf("%s, %v: a path is in it", text, err)
	}
	var w *Way
	if err := json.Unmarshal(text, &w); err != nil {
		t.Fatal(err)
	}
	if got, want := w.At(o.Path, ""), NextFor(o); got == nil || *got != *want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for name, change := range map[string]func(w *Way){
		"class":   func(w *Way) { w.Class = "A; import os" },
		"none":    func(w *Way) { w.Class = "" },
		"dtype":   func(w *Way) { w.Dtype = "bfloat16); import os; (" },
		"app":     func(w *Way) { w.App = "another" },
		"kind":    func(w *Way) { w.Kind = "model of a newer version" },
		"no node": func(w *Way) { w.NeedsNode = true },
	} {
		changed := *w
		change(&changed)
		if n := changed.At("out", ""); n != nil {
			t.Errorf("%s: %+v", name, n)
		}
	}
}
