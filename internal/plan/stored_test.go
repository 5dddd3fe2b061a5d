package plan

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

var plainModel = map[string]string{
	"a.weight": "BF16 128 256", "b.weight": "BF16 128 256", "b.bias": "BF16 128", "norm.weight": "BF16 256",
}

// onDisk writes a file of that header, whose bytes are those of literals or zeros,
// and reads it as a model.
func onDisk(t testing.TB, h *safetensors.Header, literals []Literal) *layout.Model {
	t.Helper()
	body := make([]byte, h.FileSize()-h.DataStart)
	for _, l := range literals {
		copy(body[l.Offset:], l.Data)
	}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := os.WriteFile(path, append(h.Encode(), body...), 0o666); err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Open(source.Path(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	m, err := layout.Read(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// stored is the plain model as a plan with that rule for its weights leaves it.
func stored(t testing.TB, l *layout.Layout, rule string) *layout.Model {
	t.Helper()
	p := planned(t, plainModel, Options{Layout: l, Set: rules(t, "weight="+rule)})
	m := onDisk(t, p.Files[0].Header, p.Literals)
	if len(m.Layers) != 2 || m.Failed() != nil {
		t.Fatalf("%s: %d layers, %v", rule, len(m.Layers), m.Failed())
	}
	return m
}

// storable are rules that make every format that is written, and SDNQ's dtypes with
// and without what no other format has.
func storable() (comfy, inSDNQ []string) {
	for _, f := range codec.Formats() {
		if f == codec.SDNQ() {
			inSDNQ = []string{"int8,group-size=-1", "int8,group-size=-2", "uint4,group-size=64", "int5", "float8_e4m3fn,group-size=-2", "uint4,svd-rank=4", "int8,quantized-matmul"}
			continue
		}
		if f.ReadOnly == "" {
			comfy = append(comfy, f.Name)
		}
	}
	for _, rule := range inSDNQ {
		comfy = append(comfy, "sdnq:"+rule)
	}
	return comfy, inSDNQ
}

// eachStored calls f with the model in every format, in each layout.
func eachStored(t *testing.T, f func(label string, m *layout.Model)) {
	comfy, inSDNQ := storable()
	for _, rule := range comfy {
		f("comfy "+rule, stored(t, layout.Comfy, rule))
	}
	for _, rule := range inSDNQ {
		f("sdnq "+rule, stored(t, layout.SDNQ, rule))
	}
}

// TestRestore: the way back has the tensors of the model that was quantized, and
// nothing of what described it.
func TestRestore(t *testing.T) {
	eachStored(t, func(label string, m *layout.Model) {
		for d, want := range map[safetensors.Dtype]string{0: "BF16", safetensors.F32: "F32"} {
			r, err := Restore(m, d, nil, Output{Stem: "out", Metadata: m.Checkpoint.Metadata})
			if err != nil {
				t.Errorf("%s: %v", label, err)
				continue
			}
			h := r.Files[0].Header
			if len(h.Tensors) != len(plainModel) || len(r.Layers) != 2 || len(r.Copies) != 2 || h.Metadata[layout.ConfigKey] != "" {
				t.Errorf("%s: %d tensors, %d layers, metadata %v", label, len(h.Tensors), len(r.Layers), h.Metadata)
			}
			for _, l := range r.Layers {
				if got := fmt.Sprintln(l.Dtype(), l.Part.Shape); got != fmt.Sprintln(want, []int{128, 256}) {
					t.Errorf("%s: %s is %s", label, l.Name, got)
				}
			}
		}
	})
}

// TestTranscodePlans: every layer moves to the other layout, by its codes or, where
// that is asked for, by its values; else the error names it.
func TestTranscodePlans(t *testing.T) {
	comfyui, _ := app.ByName("comfyui")
	eachStored(t, func(label string, m *layout.Model) {
		to := layout.SDNQ
		if m.Layout == layout.SDNQ {
			to = layout.Comfy
		}
		o := options(t, Options{Layout: to})
		p, err := Transcode(m, TranscodeOptions{Requantize: true}, o)
		if err != nil {
			t.Errorf("%s: %v", label, err)
			return
		}
		checkParts(t, p)
		quantized, moved := 0, 0
		for _, s := range p.Steps {
			if s.From != nil && s.Action == Quantize {
				quantized++
			}
			if s.Move != nil {
				moved++
			}
		}
		if quantized != 2 {
			t.Errorf("%s: %d layers arrive, want 2", label, quantized)
		}
		_, err = Transcode(m, TranscodeOptions{}, o)
		if (err == nil) != (moved == 2) || err != nil && (!errors.Is(err, usage.Err) && !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), "a")) {
			t.Errorf("%s: %d layers move by their codes, but %v", label, moved, err)
		}
		if note := strings.Contains(strings.Join(p.Notes, "\n"), "quantized again"); note != (moved < 2) {
			t.Errorf("%s: %d layers move, and notes are %q", label, moved, p.Notes)
		}
		if to == layout.Comfy {
			o.For = comfyui
			if p, err := Transcode(m, TranscodeOptions{Requantize: true}, o); err == nil && slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Format != nil && s.Format.ComfyUI == "" }) {
				t.Errorf("%s: a layer goes to a format that ComfyUI does not load", label)
			}
			o.For = nil
			p, err := Transcode(m, TranscodeOptions{Rename: true}, o)
			if err != nil || !slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Format == codec.SDNQ() }) {
				t.Errorf("%s: renamed, %v", label, err)
			}
		} else if p.Config == nil {
			t.Errorf("%s: there is no config", label)
		}
	})
}

// TestQuantizeAgain: a quantized source is quantized from its restored values, and
// what is kept stays as it is stored where the layout takes it.
func TestQuantizeAgain(t *testing.T) {
	eachStored(t, func(label string, m *layout.Model) {
		tensors, from, err := Inventory(m)
		if err != nil || len(tensors) != len(plainModel) || len(from) != 2 {
			t.Errorf("%s: %d tensors, %d layers, %v", label, len(tensors), len(from), err)
			return
		}
		for _, to := range []*layout.Layout{layout.SDNQ, layout.Comfy} {
			o := options(t, Options{Layout: to, Stored: from, Keep: patterns(t, "^a"), Set: rules(t, "^b=sdnq:uint4")})
			p, err := Make(tensors, o)
			if err != nil {
				t.Errorf("%s to %s: %v", label, to.Name, err)
				continue
			}
			checkParts(t, p)
			if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, "2 quantized layers") {
				t.Errorf("%s to %s: notes %q", label, to.Name, p.Notes)
			}
			for _, s := range p.Steps {
				switch {
				case s.Layer == "a" && (len(s.Copies) > 0) != (to == m.Layout):
					t.Errorf("%s to %s: a stays: %v", label, to.Name, len(s.Copies) > 0)
				case s.Layer == "b" && s.Source.Name == "b.weight" && s.Dtype != "uint4":
					t.Errorf("%s to %s: b is %s %s", label, to.Name, s.Dtype, s.Reason)
				}
			}
		}
	})
}

// raw is a model of tensors as other programs write them, "F8_E4M3 4 8".
func raw(t testing.TB, words, metadata map[string]string, texts map[string]string) *layout.Model {
	t.Helper()
	words = maps.Clone(words)
	for name, text := range texts {
		words[name] = fmt.Sprintf("U8 %d", len(text))
	}
	var tensors []safetensors.Tensor
	for _, one := range inventory(t, words) {
		one.Tensor.Offset, one.Tensor.Size = 0, 0
		tensors = append(tensors, one.Tensor)
	}
	h, err := safetensors.NewHeader(tensors, metadata)
	if err != nil {
		t.Fatal(err)
	}
	var literals []Literal
	for name, text := range texts {
		one, _ := h.Lookup(name)
		literals = append(literals, Literal{Part{Tensor: one}, []byte(text)})
	}
	return onDisk(t, h, literals)
}

// TestMigrate: an older file is described as ComfyUI loads it today, with names and
// shapes as they have to be, and no weight touched.
func TestMigrate(t *testing.T) {
	scaled := map[string]string{"a.weight": "F8_E4M3 32 64", "a.scale_weight": "F32 1", "norm.weight": "BF16 64", "scaled_fp8": "F8_E4M3 0"}
	rows := map[string]string{"a.weight": "I8 32 32", "a.scale_weight": "F32 32", "scaled_fp8": "F8_E4M3 0"}
	current := map[string]string{"a.weight": "F8_E4M3 32 64", "a.weight_scale": "F32"}
	f8 := map[string]string{"a.comfy_quant": `{"format": "float8_e4m3fn", "x": 1}`}
	for _, tt := range []struct {
		name            string
		words, texts    map[string]string
		how             MigrateOptions
		want, notWanted string // in the lines of the output
	}{
		{"scaled fp8", scaled, nil, MigrateOptions{}, "a.weight_scale F32 []", "scaled_fp8"},
		{"with an input scale", scaled, nil, MigrateOptions{InputScale: true}, "a.input_scale F32 []", "scale_weight"},
		{"with a header", scaled, nil, MigrateOptions{Header: true}, `"layers": {"a": {"format": "float8_e4m3fn"`, "scaled_fp8"},
		{"rows in one dimension", rows, nil, MigrateOptions{}, "a.weight_scale F32 [32 1]", "[32]\n"},
		{"keys", current, f8, MigrateOptions{Add: pyjson.Object{{Key: "y", Value: true}}, Remove: []string{"x"}}, `{"format": "float8_e4m3fn", "y": true}`, `"x"`},
		{"keys of some", current, f8, MigrateOptions{Only: patterns(t, "a")[0], Remove: []string{"x"}}, `{"format": "float8_e4m3fn"}`, `"x"`},
	} {
		p, err := Migrate(raw(t, tt.words, nil, tt.texts), tt.how, options(t, Options{Output: Output{Stem: "out"}}))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		checkParts(t, p)
		var lines strings.Builder
		for _, one := range p.Files[0].Header.Tensors {
			fmt.Fprintln(&lines, one.Name, one.Dtype, one.Shape)
		}
		for _, l := range p.Literals {
			fmt.Fprintf(&lines, "%s\n", l.Data)
		}
		fmt.Fprintln(&lines, p.Files[0].Header.Metadata)
		if got := lines.String(); !strings.Contains(got, tt.want) || strings.Contains(got, tt.notWanted) {
			t.Errorf("%s:\n%s\nwant %s, not %s", tt.name, got, tt.want, tt.notWanted)
		}
	}
}

// TestMigrateRefuses: what is current, or cannot be described, is an error that says
// what to do.
func TestMigrateRefuses(t *testing.T) {
	invokeai, _ := app.ByName("invokeai")
	comfyui, _ := app.ByName("comfyui")
	current := map[string]string{"a.weight": "F8_E4M3 32 64", "a.weight_scale": "F32"}
	rowwise := map[string]string{"a.weight": "F8_E4M3 32 64", "a.weight_scale": "F32 32 1"}
	f8 := map[string]string{"a.comfy_quant": `{"format": "float8_e4m3fn"}`}
	for _, tt := range []struct {
		name         string
		words, texts map[string]string
		how          MigrateOptions
		app          *app.App
		kind         error
		want         string
	}{
		{"current", current, f8, MigrateOptions{}, nil, usage.Err, "nothing to migrate"},
		{"no key changes", current, f8, MigrateOptions{Remove: []string{"x"}}, nil, usage.Err, "no layer of"},
		{"no such layer", current, f8, MigrateOptions{Only: patterns(t, "z")[0], Remove: []string{"format"}}, nil, usage.Err, "no layer of"},
		{"nothing quantized", plainModel, nil, MigrateOptions{}, nil, usage.ErrSource, "holds no quantized layer"},
		{"for another layout", rowwise, nil, MigrateOptions{}, invokeai, usage.Err, "loads the sdnq layout"},
		{"for what does not load it", rowwise, nil, MigrateOptions{}, comfyui, usage.Err, "a"},
		{"an unknown format", current, map[string]string{"a.comfy_quant": `{"format": "int17"}`}, MigrateOptions{}, nil, usage.ErrSource, "int17"},
	} {
		_, err := Migrate(raw(t, tt.words, nil, tt.texts), tt.how, options(t, Options{For: tt.app, Output: Output{Stem: "out"}}))
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	inSDNQ := stored(t, layout.SDNQ, "int8")
	if _, err := Migrate(inSDNQ, MigrateOptions{}, options(t, Options{})); !errors.Is(err, usage.Err) {
		t.Errorf("a model of the sdnq layout: %v", err)
	}
	if how := (MigrateOptions{}); how.Edits() || !(MigrateOptions{Header: true}).Edits() {
		t.Error("what edits descriptions")
	}
}

// TestRenamed: a copy under other names keeps each tensor, and says what it was told.
func TestRenamed(t *testing.T) {
	tensors := inventory(t, plainModel)
	p, err := Renamed(tensors, nil, options(t, Options{Output: Output{Stem: "out"}}))
	if err != nil || len(p.Files[0].Header.Tensors) != len(plainModel) || p.Layout != layout.Comfy {
		t.Errorf("plain: layout %s, %v", p.Layout.Name, err)
	}
	invokeai, _ := app.ByName("invokeai")
	comfyui, _ := app.ByName("comfyui")
	config := config(t, `{"weights_dtype": "int8"}`)
	p, err = Renamed(tensors, config, options(t, Options{For: invokeai, Output: Output{Stem: "out"}}))
	if err != nil || p.Layout != layout.SDNQ || !p.ConfigFile || p.Config != config {
		t.Errorf("quantized: layout %s, a config file %v, %v", p.Layout.Name, p.ConfigFile, err)
	}
	if _, err := Renamed(tensors, config, options(t, Options{For: comfyui})); !errors.Is(err, usage.Err) {
		t.Errorf("for comfyui: %v", err)
	}
}

// TestFloat8WithoutScales: codes whose scale is missing are no numbers, unless it is
// said that they are.
func TestFloat8WithoutScales(t *testing.T) {
	words := map[string]string{"a.weight": "F8_E4M3 64 64", "n.weight": "F16 64"}
	if _, err := Make(inventory(t, words), options(t, Options{})); !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), "has no scale") {
		t.Errorf("%v", err)
	}
	p := planned(t, words, Options{AcceptUnscaled: true})
	if got := p.Steps[slices.IndexFunc(p.Steps, func(s Step) bool { return s.Layer == "a" })]; got.Action != Quantize || got.CodecSource().Dtype != safetensors.F16 {
		t.Errorf("%+v", got)
	}
}

// TestKindsAreTold: the kind of a stored layer outlives the way to the other layout.
func TestKindsAreTold(t *testing.T) {
	p := planned(t, map[string]string{"embed_tokens.weight": "BF16 128 256", "a.weight": "BF16 128 256"}, Options{
		Layout: layout.SDNQ, Embedding: true, Set: rules(t, "weight=int8,group-size=-1"),
	})
	m := onDisk(t, p.Files[0].Header, p.Literals)
	moved, err := Transcode(m, TranscodeOptions{}, options(t, Options{}))
	if err != nil {
		t.Fatal(err)
	}
	back := onDisk(t, moved.Files[0].Header, moved.Literals)
	p, err = Transcode(back, TranscodeOptions{}, options(t, Options{Layout: layout.SDNQ}))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Steps {
		want := sdnq.Linear
		if strings.HasPrefix(s.Layer, "embed") {
			want = sdnq.Embedding
		}
		if s.Settings.Kind != want {
			t.Errorf("%s is %v, want %v", s.Layer, s.Settings.Kind, want)
		}
	}
}
