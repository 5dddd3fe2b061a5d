package plan

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

func ptr[T any](v T) *T { return &v }

// inventory makes tensors of names and, in words, dtypes and shapes: "BF16 64 128".
func inventory(t testing.TB, words map[string]string) []checkpoint.Tensor {
	t.Helper()
	var tensors []safetensors.Tensor
	for name, text := range words {
		fields := strings.Fields(text)
		d, err := safetensors.ParseDtype(fields[0])
		if err != nil {
			t.Fatal(err)
		}
		shape := []int{}
		for _, f := range fields[1:] {
			n, _ := strconv.Atoi(f)
			shape = append(shape, n)
		}
		tensors = append(tensors, safetensors.Tensor{Name: name, Dtype: d, Shape: shape})
	}
	h, err := safetensors.NewHeader(tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []checkpoint.Tensor
	for _, tensor := range h.Tensors {
		all = append(all, checkpoint.Tensor{Tensor: tensor})
	}
	return all
}

func patterns(t testing.TB, texts ...string) []*pattern.Pattern {
	t.Helper()
	var all []*pattern.Pattern
	for _, text := range texts {
		p, err := pattern.Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func rules(t testing.TB, texts ...string) []Rule {
	t.Helper()
	var all []Rule
	for _, text := range texts {
		parsed, err := ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		r, err := NewRule(parsed)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func config(t testing.TB, text string) *sdnqconfig.Config {
	t.Helper()
	c, err := sdnqconfig.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// options fills in what every test needs.
func options(t testing.TB, o Options) Options {
	t.Helper()
	if o.Layout == nil {
		o.Layout = layout.Comfy
	}
	if o.Preset == nil {
		o.Preset, _ = preset.ByName("none")
	}
	if o.Output.Stem == "" {
		o.Output.Stem = "out"
	}
	return o
}

func generic(t testing.TB) *preset.Preset {
	t.Helper()
	p, err := preset.ByName("generic")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func planned(t testing.TB, words map[string]string, o Options) *Plan {
	t.Helper()
	p, err := Make(inventory(t, words), options(t, o))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// decisions are the plan in words: the dtype of what is quantized, and why the
// rest is kept.
func decisions(p *Plan) map[string]string {
	words := map[string]string{}
	for _, s := range p.Steps {
		words[s.Source.Name] = s.Dtype
		if s.Action == Keep {
			words[s.Source.Name] = "keep: " + s.Reason
		}
	}
	return words
}

var model = map[string]string{
	"blocks.0.attn.q.weight": "BF16 256 256", "blocks.0.attn.q.bias": "BF16 256",
	"blocks.0.ff.weight": "BF16 128 256", "blocks.1.attn.q.weight": "F32 256 256",
	"proj_out.weight": "BF16 64 256",
}

// TestDecisions: every rule by which a weight is quantized or kept, and the
// reason that a user is told.
func TestDecisions(t *testing.T) {
	inSDNQ, inComfy := layout.SDNQ, layout.Comfy
	tests := []struct {
		name  string
		words map[string]string // nil for model
		o     Options
		want  map[string]string // those that matter
	}{
		{"defaults of comfy", nil, Options{}, map[string]string{
			"blocks.0.attn.q.weight": "int8_tensorwise", "blocks.0.attn.q.bias": "keep: not a weight"}},
		{"defaults of sdnq", nil, Options{Layout: inSDNQ}, map[string]string{"blocks.0.attn.q.weight": "int8"}},
		{"no dtype could hold it", map[string]string{
			"a.weight": "BF16 8", "b.weight": "BF16 4 4 3 3", "c.weight": "I8 64 64", "d.weight": "F64 64 64", "e.weight": "BF16 0 64",
			"f.weight": "BF16", "weight": "BF16 64 64", "g.weight_v": "BF16 64 64"}, Options{}, map[string]string{
			"a.weight": "keep: 1 dimension, not 2", "b.weight": "keep: a convolution, which int8_tensorwise does not hold", "c.weight": "keep: I8 is not F32, BF16 or F16",
			"d.weight": "keep: F64 is not F32, BF16 or F16", "e.weight": "keep: empty", "f.weight": "keep: 0 dimensions, not 2",
			"weight": "keep: not a weight", "g.weight_v": "keep: not a weight"}},
		{"keep", nil, Options{Keep: patterns(t, `\.ff\.`, `q`, `ff`)}, map[string]string{
			"blocks.0.ff.weight": "keep: `Keep` \\.ff\\.", "blocks.1.attn.q.weight": "keep: `Keep` q", "proj_out.weight": "int8_tensorwise"}},
		{"only", nil, Options{Only: patterns(t, `attn`, `0\.attn`)}, map[string]string{
			"blocks.0.ff.weight": "keep: not in `Only`", "blocks.1.attn.q.weight": "int8_tensorwise"}},
		{"the first set wins", nil, Options{Set: rules(t, `blocks\.0=uint4`, `attn=int5`, `ff=uint3`)}, map[string]string{
			"blocks.0.ff.weight": "uint4", "blocks.0.attn.q.weight": "uint4", "blocks.1.attn.q.weight": "int5", "proj_out.weight": "int8_tensorwise"}},
		{"set keep", nil, Options{Set: rules(t, `ff=keep`, `blocks=uint4`)}, map[string]string{
			"blocks.0.ff.weight": "keep: `Rules` ff=keep", "blocks.0.attn.q.weight": "uint4"}},
		{"keep before set", nil, Options{Keep: patterns(t, `ff`), Set: rules(t, `ff=uint4`)}, map[string]string{"blocks.0.ff.weight": "keep: `Keep` ff"}},
		{"only before set", nil, Options{Only: patterns(t, `attn`), Set: rules(t, `ff=uint4`)}, map[string]string{"blocks.0.ff.weight": "keep: not in `Only`"}},
		{"skip keys", nil, Options{Layout: inSDNQ, SkipKeys: true, Preset: generic(t)}, map[string]string{
			"proj_out.weight": "keep: skip key .proj_out", "blocks.0.ff.weight": "int8"}},
		{"no skip keys", nil, Options{Layout: inSDNQ, Preset: generic(t)}, map[string]string{"proj_out.weight": "int8"}},
		{"skip keys that the config refuses", nil, Options{Layout: inSDNQ, SkipKeys: true, Preset: generic(t),
			Config: config(t, `{"add_skip_keys": false}`)}, map[string]string{"proj_out.weight": "int8"}},
		{"the config's list", nil, Options{Layout: inSDNQ, Config: config(t, `{"modules_to_not_convert": ["blocks.*.attn"]}`)}, map[string]string{
			"blocks.1.attn.q.weight": "keep: skip key blocks.*.attn", "proj_out.weight": "int8"}},
		{"preset generic of comfy", map[string]string{"final_layer.linear.weight": "BF16 256 256", "a.weight": "BF16 64 64",
			"b.weight": "BF16 16 4096", "c.weight": "BF16 256 256"}, Options{Preset: generic(t)}, map[string]string{
			"final_layer.linear.weight": "keep: preset generic keeps final_layer", "a.weight": "keep: preset generic: 4096 values, fewer than 16384",
			"b.weight": "keep: preset generic: 16 wide, less than 32", "c.weight": "int8_tensorwise"}},
		{"preset none of comfy", map[string]string{"lm_head.weight": "BF16 2 2", "embed.weight": "BF16 64 64"}, Options{}, map[string]string{
			"lm_head.weight": "int8_tensorwise", "embed.weight": "int8_tensorwise"}},
		{"minimums of sdnq", map[string]string{"a.weight": "BF16 127 128", "b.weight": "BF16 1024 31", "c.weight": "BF16 128 128"},
			Options{Layout: inSDNQ}, map[string]string{"a.weight": "keep: 16256 values, fewer than 16384",
				"b.weight": "keep: 31 columns, fewer than 32", "c.weight": "int8"}},
		{"minimums of a config", map[string]string{"a.weight": "BF16 8 100", "b.weight": "BF16 8 124", "c.weight": "BF16 10 100"},
			Options{Config: config(t, `{"minimum_allowed_numel": 900, "minimum_allowed_channel_size": 101}`)}, map[string]string{
				"a.weight": "keep: 800 values, fewer than 900", "b.weight": "int8", "c.weight": "keep: 100 columns, fewer than 101"}},
		{"minimums of flags", map[string]string{"a.weight": "BF16 8 100", "b.weight": "BF16 8 10"}, Options{Layout: inSDNQ, MinNumel: ptr(0),
			MinChannels: ptr(11), Config: config(t, `{"minimum_allowed_numel": 900}`)}, map[string]string{
			"a.weight": "int8", "b.weight": "keep: 10 columns, fewer than 11"}},
		{"set's dtype beats lists and minimums", map[string]string{"proj_out.weight": "BF16 16 16", "x.weight": "BF16 16 16"},
			Options{Layout: inSDNQ, SkipKeys: true, Preset: generic(t), Set: rules(t, `.=uint8`)}, map[string]string{
				"proj_out.weight": "uint8", "x.weight": "uint8"}},
		{"set's dtype beats the preset", map[string]string{"lm_head.weight": "BF16 16 16"},
			Options{Preset: generic(t), Set: rules(t, `.=float8_e5m2`)}, map[string]string{"lm_head.weight": "float8_e5m2"}},
		{"set without a dtype beats neither", map[string]string{"proj_out.weight": "BF16 256 256", "x.weight": "BF16 16 16"},
			Options{Layout: inSDNQ, SkipKeys: true, Preset: generic(t), Set: rules(t, `.=group-size=64`)}, map[string]string{
				"proj_out.weight": "keep: skip key .proj_out", "x.weight": "keep: 256 values, fewer than 16384"}},
		{"embeddings of sdnq", map[string]string{"model.embed_tokens.weight": "BF16 256 256", "embedder.weight": "BF16 256 256"},
			Options{Layout: inSDNQ}, map[string]string{"model.embed_tokens.weight": "keep: an embedding by its name, which `Embedding` quantizes", "embedder.weight": "int8"}},
		{"kind linear", map[string]string{"model.embed_tokens.weight": "BF16 256 256"},
			Options{Layout: inSDNQ, Set: rules(t, `embed=kind=linear,uint4`)}, map[string]string{"model.embed_tokens.weight": "uint4"}},
		{"flags over config", nil, Options{Layout: inSDNQ, Flags: storage.Settings{Dtype: "int5"},
			Config: config(t, `{"weights_dtype": "uint4"}`)}, map[string]string{"proj_out.weight": "int5"}},
		{"set over flags over config", nil, Options{Layout: inSDNQ, Flags: storage.Settings{Dtype: "int5"}, Set: rules(t, `ff=uint2`),
			Config: config(t, `{"weights_dtype": "uint4", "modules_dtype_dict": {"int6": ["proj_out"]}}`)}, map[string]string{
			"blocks.0.ff.weight": "uint2", "proj_out.weight": "int5"}},
		{"names in a config are sdnq's", nil, Options{Layout: inComfy, Config: config(t, `{"weights_dtype": "float8_e4m3fn"}`)}, map[string]string{
			"proj_out.weight": "float8_e4m3fn"}},
		{"comfy's names come first", nil, Options{Flags: storage.Settings{Dtype: "float8_e4m3fn"}, Set: rules(t, `ff=sdnq:float8_e4m3fn`)},
			map[string]string{"proj_out.weight": "float8_e4m3fn", "blocks.0.ff.weight": "float8_e4m3fn"}},
		{"aliases", nil, Options{Layout: inSDNQ, Flags: storage.Settings{Dtype: "sdnq:fp6"}}, map[string]string{"proj_out.weight": "float6_e3m2fn"}},
		{"a block that does not fit", map[string]string{"a.weight": "BF16 3 33", "b.weight": "BF16 8 8"}, Options{Flags: storage.Settings{Dtype: "uint4"}},
			map[string]string{"a.weight": "keep: uint4 packs 2 values together, and 99 do not divide", "b.weight": "uint4"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.words == nil {
				tt.words = model
			}
			got := decisions(planned(t, tt.words, tt.o))
			for name, want := range tt.want {
				if got[name] != want {
					t.Errorf("%s: %s, want %s", name, got[name], want)
				}
			}
		})
	}
}

// TestSettings: what a layer is stored with, where settings come from several
// places.
func TestSettings(t *testing.T) {
	c := config(t, `{"weights_dtype": "uint4", "group_size": 32, "dequantize_fp32": false,
		"modules_quant_config": {"ff": {"group_size": 16}}}`)
	tests := []struct {
		name  string
		o     Options
		layer string
		want  codec.Settings
	}{
		{"config", Options{Config: c}, "proj_out", codec.Settings{Dtype: "sdnq:uint4", GroupSize: 32}},
		{"module", Options{Config: c, Layout: layout.SDNQ}, "blocks.0.ff", codec.Settings{Dtype: "uint4", GroupSize: 16}},
		{"flags", Options{Config: c, Flags: storage.Settings{GroupSize: new(64), DequantizeFP32: new(true)}}, "blocks.0.ff",
			codec.Settings{Dtype: "sdnq:uint4", GroupSize: 64, DequantizeFP32: true}},
		{"rule", Options{Config: c, Flags: storage.Settings{GroupSize: new(64)}, Set: rules(t, "ff=group-size=-1,dequantize-fp32")}, "blocks.0.ff",
			codec.Settings{Dtype: "sdnq:uint4", GroupSize: -1, DequantizeFP32: true}},
		{"a flag's dtype has no use for the config's group", Options{Config: c, Flags: storage.Settings{Dtype: "float8_e4m3fn"}}, "blocks.0.ff",
			codec.Settings{Dtype: "float8_e4m3fn"}},
		{"a rule's dtype has no use for a flag's group", Options{Flags: storage.Settings{Dtype: "uint4", GroupSize: new(64)},
			Set: rules(t, "ff=int8_tensorwise")}, "blocks.0.ff", codec.Settings{Dtype: "int8_tensorwise", DequantizeFP32: true}},
		{"a rule's dtype has no use for a flag's scale", Options{Flags: storage.Settings{Scale: "tensor"}, Set: rules(t, "ff=uint4")}, "blocks.0.ff",
			codec.Settings{Dtype: "uint4", DequantizeFP32: true}},
		{"a rule's dtype keeps a flag's group", Options{Flags: storage.Settings{Dtype: "uint4", GroupSize: new(64)}, Set: rules(t, "ff=int5")},
			"blocks.0.ff", codec.Settings{Dtype: "int5", GroupSize: 64, DequantizeFP32: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := planned(t, model, tt.o)
			i := slices.IndexFunc(p.Steps, func(s Step) bool { return s.Layer == tt.layer && s.Action == Quantize })
			tt.want.HadamardGroupSize, tt.want.SVDSteps, tt.want.CodebookSteps = 256, 8, 24
			if i < 0 || *p.Steps[i].Settings != tt.want {
				t.Errorf("got %+v, want %+v", p.Steps[max(i, 0)].Settings, tt.want)
			}
		})
	}
}

// TestRefused: a command that cannot be followed must be refused as such, by
// naming what is wrong, and a source by naming the tensors.
func TestRefused(t *testing.T) {
	comfyui, _ := app.ByName("comfyui")
	diffusers, _ := app.ByName("diffusers")
	tests := []struct {
		name  string
		words map[string]string
		o     Options
		kind  error
		want  string
	}{
		{"dtype of the flags", model, Options{Flags: storage.Settings{Dtype: "int17"}}, usage.Err, "int17"},
		{"comfy's dtype in the sdnq layout", model, Options{Layout: layout.SDNQ, Flags: storage.Settings{Dtype: "int8_tensorwise"}}, usage.Err, "comfy layout alone"},
		{"comfy's dtype for a layer of the sdnq layout", model, Options{Layout: layout.SDNQ, Set: rules(t, "ff=int8_tensorwise")}, usage.Err, "layer blocks.0.ff"},
		{"group for a dtype without", model, Options{Flags: storage.Settings{GroupSize: new(64)}}, usage.Err, "no group size"},
		{"group below -2", model, Options{Layout: layout.SDNQ, Flags: storage.Settings{GroupSize: new(-3)}}, usage.Err, "want -2, -1, 0 or more"},
		{"scale for a dtype without", model, Options{Flags: storage.Settings{Dtype: "uint4", Scale: "row"}}, usage.Err, "not `Scale`"},
		{"scale of the same rule", model, Options{Set: rules(t, "ff=uint4,scale=row")}, usage.Err, "layer blocks.0.ff"},
		{"group of the same rule", model, Options{Set: rules(t, "ff=float8_e4m3fn,group-size=4")}, usage.Err, "layer blocks.0.ff"},
		{"set on nothing", model, Options{Set: rules(t, "nowhere=uint4")}, usage.Err, "`Rules` nowhere=uint4: the pattern matches no weight"},
		{"set on a bias", model, Options{Set: rules(t, "bias=uint4")}, usage.Err, "matches no weight"},
		{"only on nothing", model, Options{Only: patterns(t, "attn", "nowhere")}, usage.Err, "`Only` nowhere"},
		{"set's dtype on what cannot hold it", map[string]string{"conv.weight": "BF16 4 4 3 3"}, Options{Set: rules(t, "conv=uint4")},
			usage.Err, "`Rules` conv=uint4: tensor conv.weight cannot be quantized: a convolution"},
		{"set's dtype on a block that does not fit", map[string]string{"a.weight": "BF16 3 33"}, Options{Set: rules(t, "a=uint4")}, usage.Err, "packs 2 values"},
		{"set's dtype on an embedding", map[string]string{"wte.weight": "BF16 64 64"}, Options{Layout: layout.SDNQ, Set: rules(t, "wte=uint4")},
			usage.Err, "an embedding by its name"},
		{"config with a feature", model, Options{Config: config(t, `{"is_training": true}`)}, usage.Err, "is_training"},
		{"config with an unknown setting", model, Options{Config: config(t, `{"modules_quant_config": {"ff": {"typo": 1}}}`)}, usage.Err, "typo"},
		{"comfyui and an sdnq dtype", model, Options{For: comfyui, Flags: storage.Settings{Dtype: "uint4"}}, usage.Err,
			"stock ComfyUI does not load uint4: the nearest that it does is int8_tensorwise"},
		{"comfyui and an sdnq float", model, Options{For: comfyui, Set: rules(t, "ff=sdnq:float8_e5m2")}, usage.Err, "nearest that it does is float8_e5m2"},
		{"comfyui and the sdnq layout", model, Options{For: comfyui, Layout: layout.SDNQ}, usage.Err, "comfyui loads the comfy layout"},
		{"diffusers and a file", model, Options{For: diffusers, Layout: layout.SDNQ}, usage.Err, "not one file"},
		{"two tensors of one name", map[string]string{"a.weight": "BF16 64 64", "a.weight_scale": "F32"}, Options{}, checkpoint.ErrSource,
			"tensor a.weight_scale has the name of a part of layer a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Make(inventory(t, tt.words), options(t, tt.o))
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v, want %v that holds %q", p, err, tt.kind, tt.want)
			}
		})
	}
}

// TestForTakesWhatItLoads: --for must not stand in the way of what it asks for.
func TestForTakesWhatItLoads(t *testing.T) {
	for _, a := range app.All() {
		o := Options{For: a, Layout: layout.Comfy}
		if a.Layout == "sdnq" {
			o.Layout, o.Output = layout.SDNQ, Output{Folder: true, Stem: "model"}
		}
		planned(t, model, o)
	}
}

// TestNotes: what surprises must be said, once.
func TestNotes(t *testing.T) {
	tests := []struct {
		name  string
		words map[string]string
		o     Options
		want  []string
	}{
		{"nothing to say", model, Options{Layout: layout.SDNQ, MinNumel: ptr(0)}, nil},
		{"of names that ComfyUI does not know", model, Options{}, []string{"ComfyUI 0.33.0 has no model whose tensors are called so (blocks.1.attn.q.weight): none of its own nodes loads the file"}},
		{"nothing to do", map[string]string{"a.bias": "BF16 4"}, Options{}, []string{"nothing is quantized: every tensor is kept as it is"}},
		{"keep on nothing", model, Options{Keep: patterns(t, "nowhere", "attn", "attn.q")}, []string{"`Keep` nowhere matches no weight", "80% of the bytes stay unquantized: 80% `Keep` attn", "ComfyUI 0.33.0 has no model whose tensors are called so (blocks.0.ff.weight): none of its own nodes loads the file"}},
		{"what comfyui does not load", model, Options{Flags: storage.Settings{Dtype: "uint4"}, Set: rules(t, "ff=sdnq:float8_e5m2")}, []string{
			"ComfyUI 0.33.0 has no model whose tensors are called so (blocks.1.attn.q.weight): none of its own nodes loads the file",
			"stock ComfyUI does not load sdnq:float8_e5m2 layers; for the nearest that it loads, quantize with `Dtype` float8_e5m2",
			"stock ComfyUI does not load uint4 layers; for the nearest that it loads, quantize with `Dtype` nvfp4 (4 bits), or `Dtype` int8_tensorwise"}},
		{"what the dtype cannot hold", map[string]string{"a.weight": "BF16 3 33", "b.weight": "BF16 64 64"},
			Options{Layout: layout.SDNQ, MinNumel: ptr(0), Flags: storage.Settings{Dtype: "uint4"}},
			[]string{"a is kept: uint4 packs 2 values together, and 99 do not divide"}},
	}
	for _, tt := range tests {
		if got := planned(t, tt.words, tt.o).Notes; !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestPure: the same inventory, in any order, gives the same plan, and is not
// changed by it.
func TestPure(t *testing.T) {
	o := options(t, Options{Layout: layout.SDNQ, Preset: generic(t), SkipKeys: true, Set: rules(t, "ff=uint4,group-size=64"),
		Config: config(t, `{"modules_dtype_dict": {"minimum_6bit": ["attn"], "int5": ["attn"]}, "modules_to_not_convert": ["z", "a"]}`),
		Output: Output{Stem: "x", Metadata: map[string]string{"format": "pt"}}})
	tensors := inventory(t, model)
	first, err := Make(tensors, o)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(tensors)
	before := slices.Clone(tensors)
	second, err := Make(tensors, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(first.Steps); i++ {
		if first.Steps[i].Source.Offset <= first.Steps[i-1].Source.Offset {
			t.Errorf("%s is read out of order", first.Steps[i].Source.Name)
		}
	}
	if a, b := steps(first), steps(second); !reflect.DeepEqual(a, b) {
		t.Errorf("two plans:\n%+v\n%+v", a, b)
	}
	if !reflect.DeepEqual(first.Files, second.Files) || !reflect.DeepEqual(first.Config, second.Config) || !reflect.DeepEqual(first.Literals, second.Literals) {
		t.Error("two outputs")
	}
	if !reflect.DeepEqual(tensors, before) || len(o.Output.Metadata) != 1 || !slices.Equal(o.Config.NotConvert, []string{"z", "a"}) {
		t.Error("the plan changed what it was made from")
	}
}

// TestDecidedInParts: a checkpoint of many tensors must come out the same however
// many cores decide about it, in notes and errors too.
func TestDecidedInParts(t *testing.T) {
	words := map[string]string{}
	for i := range 2*fewSteps + 77 {
		layer := fmt.Sprintf("blocks.%d.", i)
		words[layer+"ff.weight"] = fmt.Sprintf("BF16 64 %d", 64*(1+i%3))
		if i%5 == 0 {
			words[layer+"odd.weight"] = "BF16 3 33"
		}
	}
	tensors := inventory(t, words)
	o := options(t, Options{Layout: layout.SDNQ, MinNumel: ptr(1), MinChannels: ptr(1), Flags: storage.Settings{Dtype: "uint5"},
		Set: rules(t, `blocks\.7\.ff=uint4`, `\.4000\.=int8`), Keep: patterns(t, `blocks\.30\d`, "none")})
	refused := o
	refused.Set = rules(t, `\.odd\.=uint5`)
	type outcome struct {
		p         *Plan
		err, none error
	}
	var all []outcome
	for _, cores := range []int{1, 2, 5} {
		before := runtime.GOMAXPROCS(cores)
		p, err := Make(tensors, o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Make(tensors, refused)
		none := o
		none.Set = rules(t, "nothing=int8")
		_, unused := Make(tensors, none)
		runtime.GOMAXPROCS(before)
		all = append(all, outcome{p, err, unused})
	}
	first := all[0]
	if len(first.p.Notes) < 100 || first.err == nil || first.none == nil {
		t.Fatalf("%d notes, %v, %v", len(first.p.Notes), first.err, first.none)
	}
	for _, other := range all[1:] {
		if !reflect.DeepEqual(steps(first.p), steps(other.p)) || !slices.Equal(first.p.Notes, other.p.Notes) ||
			!reflect.DeepEqual(first.p.Files, other.p.Files) || !reflect.DeepEqual(first.p.Config, other.p.Config) {
			t.Error("another plan on other cores")
		}
		if first.err.Error() != other.err.Error() || first.none.Error() != other.none.Error() {
			t.Errorf("errors %v and %v, want %v and %v", other.err, other.none, first.err, first.none)
		}
	}
}

// steps leaves out codecs, which hold addresses.
func steps(p *Plan) []Step {
	all := slices.Clone(p.Steps)
	for i := range all {
		all[i].Codec, all[i].Format = nil, nil
	}
	return all
}

// TestKeptWeights: convert_to_quant's own cast of what it does not quantize is
// done where its bytes are asked for, and there alone.
func TestKeptWeights(t *testing.T) {
	words := map[string]string{"a.weight": "F32 64 64", "b.weight": "BF16 64 64", "c.weight": "F16 4 4 4", "d.bias": "F32 4"}
	dtypes := func(p *Plan) map[string]string {
		m := map[string]string{}
		for _, tensor := range p.Files[0].Header.Tensors {
			m[tensor.Name] = tensor.Dtype.String()
		}
		return m
	}
	exact := storage.Settings{ExactReference: new(true)}
	kept := patterns(t, ".")
	as := map[string]string{"a.weight": "F32", "b.weight": "BF16", "c.weight": "F16", "d.bias": "F32"}
	if got := dtypes(planned(t, words, Options{Keep: kept})); !maps.Equal(got, as) {
		t.Errorf("kept as %v", got)
	}
	if got := dtypes(planned(t, words, Options{Keep: kept, Flags: exact, Layout: layout.SDNQ})); !maps.Equal(got, as) {
		t.Errorf("kept in the sdnq layout as %v", got)
	}
	as["a.weight"] = "BF16"
	if got := dtypes(planned(t, words, Options{Keep: kept, Flags: exact})); !maps.Equal(got, as) {
		t.Errorf("exactly: %v", got)
	}
}

// TestNotMultiplied: a layer that quantized matmul does not apply to is in the
// list of these, and needs no settings of its own.
func TestNotMultiplied(t *testing.T) {
	words := map[string]string{"conv_in.weight": "BF16 64 4 3 3", "conv.weight": "BF16 64 64 3 3", "narrow.weight": "BF16 64 12", "ff.weight": "BF16 64 64"}
	p := planned(t, words, Options{Layout: layout.SDNQ, Conv: true, MinNumel: ptr(1), MinChannels: ptr(1), Flags: storage.Settings{Dtype: "int8", QuantizedMatmul: new(true), QuantizedMatmulConv: new(true)}})
	if len(p.Config.Modules) != 0 || !slices.Contains(p.Config.NotMatmul, "narrow.weight") || slices.Contains(p.Config.NotMatmul, "ff.weight") {
		t.Errorf("not multiplied: %v, of their own: %+v", p.Config.NotMatmul, p.Config.Modules)
	}
}
