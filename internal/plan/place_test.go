package plan

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
	"github.com/tensorpress/tensorpress/safetensors"
	"github.com/tensorpress/tensorpress/storage"
)

// TestShards: a loader that fetches one shard for a layer must find all of the
// layer in it, and every tensor where the index says.
func TestShards(t *testing.T) {
	words := map[string]string{}
	for i := range 7 {
		words[fmt.Sprintf("blocks.%d.weight", i)] = "BF16 256 256"
		words[fmt.Sprintf("blocks.%d.bias", i)] = "BF16 256"
	}
	for _, l := range []*layout.Layout{layout.SDNQ, layout.Comfy} {
		p := planned(t, words, Options{Layout: l, Output: Output{Folder: true, Stem: "model", ShardSize: 140_000}})
		if len(p.Files) < 3 {
			t.Fatalf("%s: %d files", l.Name, len(p.Files))
		}
		home, total := map[string]int{}, int64(0)
		for i, f := range p.Files {
			if want := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(p.Files)); f.Name != want {
				t.Errorf("file %d is %s, want %s", i, f.Name, want)
			}
			for _, tensor := range f.Header.Tensors {
				layer := strings.TrimSuffix(tensor.Name[:strings.LastIndex(tensor.Name, ".")], ".weight")
				if at, ok := home[layer]; ok && at != i && !strings.HasSuffix(tensor.Name, "bias") {
					t.Errorf("%s is in file %d, its layer in %d", tensor.Name, i, at)
				}
				if !strings.HasSuffix(tensor.Name, "bias") {
					home[layer] = i
				}
				total += tensor.Size
			}
		}
		checkParts(t, p)
		index := p.Index()
		if want := fmt.Sprintf("{\n  \"metadata\": {\n    \"total_size\": %d\n  },\n  \"weight_map\": {\n    \"blocks.0.bias\": \"model-0000", total); !strings.HasPrefix(index, want) {
			t.Errorf("%s: index is\n%s\nwant\n%s", l.Name, index, want)
		}
	}
}

// checkParts makes sure that parts and literals are the headers' tensors.
func checkParts(t *testing.T, p *Plan) {
	t.Helper()
	parts := 0
	check := func(part Part) {
		parts++
		got, ok := p.Files[part.File].Header.Lookup(part.Name)
		if !ok || got.Offset != part.Offset || got.Size != part.Size {
			t.Errorf("%s is %+v in file %d, not %+v", part.Name, got, part.File, part)
		}
	}
	for _, s := range p.Steps {
		for _, part := range s.Parts {
			check(part)
		}
	}
	for _, l := range p.Literals {
		check(l.Part)
		if int64(len(l.Data)) != l.Size {
			t.Errorf("%s: %d bytes for %d", l.Name, len(l.Data), l.Size)
		}
	}
	tensors, bytes := 0, int64(0)
	for _, f := range p.Files {
		tensors += len(f.Header.Tensors)
		bytes += f.Header.FileSize()
	}
	if tensors != parts || bytes != p.BytesOut {
		t.Errorf("%d tensors of %d bytes, but %d parts and BytesOut %d", tensors, bytes, parts, p.BytesOut)
	}
}

// TestIndexText: tools compare and patch this file; it is json.dumps(index,
// indent=2, sort_keys=True) and a line end.
func TestIndexText(t *testing.T) {
	p := planned(t, map[string]string{"b.é": "BF16 2", "B.x": "F32 1", "a.x": "BF16 4"},
		Options{Output: Output{Folder: true, Stem: "m", ShardSize: 1}})
	want := `{
  "metadata": {
    "total_size": 16
  },
  "weight_map": {
    "B.x": "m-00001-of-00003.safetensors",
    "a.x": "m-00002-of-00003.safetensors",
    "b.\u00e9": "m-00003-of-00003.safetensors"
  }
}
`
	if got := p.Index(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSplit(t *testing.T) {
	unit := func(sizes ...int) (u []safetensors.Tensor) {
		for _, n := range sizes {
			u = append(u, safetensors.Tensor{Dtype: safetensors.U8, Shape: []int{n}})
		}
		return u
	}
	all := &units{}
	for _, u := range [][]safetensors.Tensor{unit(4, 4), unit(2), unit(20), unit(0), unit(8), unit(1)} {
		all.add(u...)
	}
	for size, want := range map[int64][]int{0: {7}, 1: {2, 1, 1, 2, 1}, 8: {2, 1, 1, 2, 1}, 10: {3, 1, 3}, 100: {7}} {
		var got []int
		for _, shard := range all.split(size) {
			got = append(got, len(shard))
		}
		if !slices.Equal(got, want) {
			t.Errorf("size %d: shards of %v tensors, want %v", size, got, want)
		}
	}
	if got := (&units{}).split(10); len(got) != 1 {
		t.Errorf("nothing gives %d files, want one", len(got))
	}
}

// TestMetadata: the config must be in the header of a single file, and nowhere
// but in config.json for a folder; the comfy layout adds nothing. What the
// source's header says of quantized layers would be wrong of the output's.
func TestMetadata(t *testing.T) {
	source := map[string]string{"format": "pt", "quantization_config": "old", "_quantization_metadata": "old"}
	tests := []struct {
		layout *layout.Layout
		folder bool
		config bool
	}{{layout.SDNQ, false, true}, {layout.SDNQ, true, false}, {layout.Comfy, false, false}, {layout.Comfy, true, false}}
	for _, tt := range tests {
		p := planned(t, model, Options{Layout: tt.layout, Output: Output{Folder: tt.folder, Stem: "model", Metadata: source}})
		got := p.Files[0].Header.Metadata
		text, ok := got[layout.ConfigKey]
		if _, stale := got[layout.HeaderKey]; got["format"] != "pt" || stale || ok != tt.config || text == "old" {
			t.Errorf("%s, folder %v: %v", tt.layout.Name, tt.folder, got)
		}
		if p.Files[0].Name != "out.safetensors" && p.Files[0].Name != "model.safetensors" {
			t.Errorf("one file is called %s", p.Files[0].Name)
		}
		if !tt.config {
			continue
		}
		if c, err := sdnqconfig.Parse([]byte(got[layout.ConfigKey])); err != nil || c.WeightsDtype != "int8" {
			t.Errorf("header holds %q: %v", got[layout.ConfigKey], err)
		}
	}
	p := planned(t, model, Options{Layout: layout.SDNQ})
	if got := p.Files[0].Header.Metadata; len(got) != 1 {
		t.Errorf("from no metadata: %v", got)
	}
	if len(source) != 3 || source[layout.ConfigKey] != "old" {
		t.Errorf("the source's metadata became %v", source)
	}
}

// TestNames: each layout's own words for a layer's tensors.
func TestNames(t *testing.T) {
	words := map[string]string{"a.weight": "BF16 64 64", "a.bias": "BF16 64"}
	o := Options{Layout: layout.SDNQ, MinNumel: ptr(0), Flags: storage.Settings{Dtype: "uint4"}}
	for l, want := range map[*layout.Layout]string{
		layout.SDNQ:  "a.bias a.scale a.weight a.zero_point",
		layout.Comfy: "a.bias a.comfy_quant a.weight a.weight_scale a.weight_zp",
	} {
		o.Layout = l
		p := planned(t, words, o)
		var names []string
		for _, tensor := range p.Files[0].Header.Tensors {
			names = append(names, tensor.Name)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", l.Name, got, want)
		}
		checkParts(t, p)
	}
}

// saved is the config as a loader reads it.
func saved(t *testing.T, p *Plan) *sdnqconfig.Config {
	t.Helper()
	return config(t, pyjson.DumpSorted(p.Config.Encode()))
}

// checkConfig makes sure that a loader comes to the plan's decisions.
func checkConfig(t *testing.T, p *Plan) {
	t.Helper()
	if p.Config == nil {
		if p.quantizes() {
			t.Error("layers are quantized, and no config says so")
		}
		return
	}
	c := saved(t, p)
	for _, s := range p.Steps {
		entry, skipped := c.Skips(s.Source.Name)
		if s.Action == Keep {
			if s.Layer != s.Source.Name && !skipped {
				t.Errorf("%s is kept, but the config quantizes it", s.Source.Name)
			}
			continue
		}
		if skipped {
			t.Errorf("%s is quantized, but the config keeps it by %s", s.Source.Name, entry)
		}
		got, err := c.For(s.Source.Name)
		if err != nil || dtype.Lookup(got.WeightsDtype) != dtype.Lookup(s.Settings.Dtype) ||
			got.GroupSize != s.Settings.GroupSize || got.DequantizeFP32 != s.Settings.DequantizeFP32 {
			t.Errorf("%s: the config says %+v, %v, the plan %+v", s.Source.Name, got, err, s.Settings)
		}
	}
}

// TestConfig: the config must say what was done, with sdnq's words where the
// user gave them and by full names elsewhere.
func TestConfig(t *testing.T) {
	tests := []struct {
		name string
		o    Options
		want map[string]string // keys of the config to their JSON
	}{
		{"dtype alone", Options{Set: rules(t, `ff=uint4`, `1\.attn=uint4`)}, map[string]string{
			"modules_dtype_dict": `{"uint4": ["blocks.0.ff.weight", "blocks.1.attn.q.weight"]}`, "modules_quant_config": `{}`}},
		{"more than the dtype", Options{Set: rules(t, `ff=uint4,group-size=64`)}, map[string]string{"modules_dtype_dict": `{}`,
			"modules_quant_config": `{"blocks.0.ff.weight": {"dequantize_fp32": true, "group_size": 64, "weights_dtype": "uint4"}}`}},
		{"the user's words stay", Options{Config: config(t, `{"modules_dtype_dict": {"uint4": ["blocks.*.ff"]}, "modules_quant_config": {"*attn*": {"group_size": 64}}}`)},
			map[string]string{"modules_dtype_dict": `{"uint4": ["blocks.*.ff"]}`, "modules_quant_config": `{"*attn*": {"group_size": 64}}`}},
		{"the user's words no longer say it", Options{Config: config(t, `{"modules_dtype_dict": {"uint4": ["blocks.*"]}}`), Set: rules(t, `ff=int5`)},
			map[string]string{"modules_dtype_dict": `{"int5": ["blocks.0.ff.weight"], "uint4": ["blocks.0.attn.q.weight", "blocks.1.attn.q.weight"]}`}},
		{"the order of the user's file decides", Options{Config: config(t, `{"modules_dtype_dict": {"uint4": ["ff"], "int5": ["blocks.*"]}}`)},
			map[string]string{"modules_dtype_dict": `{"int5": ["blocks.0.attn.q.weight", "blocks.1.attn.q.weight"], "uint4": ["blocks.0.ff.weight"]}`}},
		{"minimums become names", Options{Config: config(t, `{"weights_dtype": "uint4", "modules_dtype_dict": {"minimum_6bit": ["blocks.*"]}}`)},
			map[string]string{"modules_dtype_dict": `{"int6": ["blocks.0.attn.q.weight", "blocks.0.ff.weight", "blocks.1.attn.q.weight"]}`}},
		{"a minimum that holds already", Options{Config: config(t, `{"modules_dtype_dict": {"minimum_6bit": ["blocks.*"]}}`)},
			map[string]string{"modules_dtype_dict": `{}`, "weights_dtype": `"int8"`}},
		{"flags", Options{Flags: storage.Settings{Dtype: "fp8", GroupSize: new(-1), DequantizeFP32: new(false)}, MinNumel: ptr(7), MinChannels: ptr(5)},
			map[string]string{"weights_dtype": `"fp8"`, "group_size": `-1`, "dequantize_fp32": `false`, "is_integer": `false`, "is_unsigned": `false`,
				"minimum_allowed_numel": `7`, "minimum_allowed_channel_size": `5`}},
		{"what is kept", Options{Keep: patterns(t, "ff"), Config: config(t, `{"modules_to_not_convert": ["none", "proj_out.weight"]}`)},
			map[string]string{"modules_to_not_convert": `["blocks.0.ff.weight", "none", "proj_out.weight"]`}},
		{"an entry that would keep a quantized layer goes", Options{Config: config(t, `{"modules_to_not_convert": ["blocks.*", "x"]}`), Set: rules(t, "ff=uint4")},
			map[string]string{"modules_to_not_convert": `["blocks.0.attn.q.weight", "blocks.1.attn.q.weight", "x"]`}},
		{"as sdnq writes it", Options{Flags: storage.Settings{ExactReference: new(true)}, Config: config(t, `{"modules_to_not_convert": ["attn"]}`), Keep: patterns(t, "ff")},
			map[string]string{"modules_to_not_convert": `["attn", "blocks.0.ff.weight"]`}},
		{"skip keys", Options{SkipKeys: true}, map[string]string{"add_skip_keys": `true`}},
		{"no skip keys", Options{}, map[string]string{"add_skip_keys": `false`}},
		{"no skip keys by the config", Options{SkipKeys: true, Config: config(t, `{"add_skip_keys": false}`)}, map[string]string{"add_skip_keys": `false`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Layout = layout.SDNQ
			p := planned(t, model, tt.o)
			checkConfig(t, p)
			o := saved(t, p).Encode()
			for key, want := range tt.want {
				if v, _ := o.Get(key); pyjson.Dump(v) != want {
					t.Errorf("%s: %s, want %s", key, pyjson.Dump(v), want)
				}
			}
		})
	}
}

// TestUntoldShapes: a packed weight with one scale alone tells no shape.
func TestUntoldShapes(t *testing.T) {
	words := map[string]string{"a.weight": "BF16 32 64", "row.weight": "BF16 1 64"}
	tests := map[string]string{
		"uint4,group-size=-2": `{"a": [32, 64], "row": [1, 64]}`,
		"int5,group-size=-1":  `{"row": [1, 64]}`,
		"uint4":               `{"row": [1, 64]}`, // one group of 64
		"int8,group-size=-2":  "",
		"uint4,group-size=16": "",
	}
	for settings, want := range tests {
		p := planned(t, words, Options{Layout: layout.SDNQ, MinNumel: ptr(0), Set: rules(t, ".="+settings)})
		c := saved(t, p)
		if got := pyjson.Dump(c.Shapes); got != want && !(want == "" && len(c.Shapes) == 0) {
			t.Errorf("%s: shapes are %s, want %s", settings, got, want)
		}
	}
}

// FuzzConfig plans a model by arbitrary settings: what is written down must
// bring a loader to the same decisions.
func FuzzConfig(f *testing.F) {
	dtypes := []string{"int8", "uint4", "fp8", "int5", "float6_e3m2fn", "uint1", "sdnq:float8_e4m3fn"}
	groups := []int{0, -1, -2, 16, 64}
	entries := strings.Fields(`attn ff blocks.* .proj_out .blocks.0 *.weight *q* blocks.0.ff.weight 0 nothing minimum_6bit *1*`)
	for seed := range uint64(300) {
		f.Add(seed*0x9E3779B97F4A7C15, seed*0xBF58476D1CE4E5B9+1)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		pick := func(n int) int { // the next decision
			i := a % uint64(n)
			a, b = a/uint64(n)^b, b>>1|b<<63
			return int(i)
		}
		entry := func() string { return entries[pick(len(entries))] }
		var texts []string
		for range pick(3) {
			settings := []string{"keep", dtypes[pick(len(dtypes))], fmt.Sprintf("%s,group-size=%d", dtypes[pick(len(dtypes))], groups[pick(5)]),
				fmt.Sprintf("group-size=%d", groups[pick(5)]), "dequantize-fp32=false"}
			texts = append(texts, []string{`ff`, `\.0\.`, `attn`, `proj`, `.`}[pick(5)]+"="+settings[pick(5)])
		}
		o := Options{Layout: layout.SDNQ, Set: rules(t, texts...), MinNumel: ptr(pick(2) * 33000), SkipKeys: pick(2) == 0, Preset: generic(t)}
		o.Flags = storage.Settings{ExactReference: new(pick(2) == 0)}
		if pick(2) == 0 {
			o.Flags.Dtype = dtypes[pick(len(dtypes))]
		}
		if pick(3) == 0 {
			o.Keep = patterns(t, []string{`ff`, `q`, `1`}[pick(3)])
		}
		if pick(4) > 0 {
			o.Config = config(t, fmt.Sprintf(`{"weights_dtype": %q, "group_size": %d, "modules_to_not_convert": [%q, %q],
				"modules_dtype_dict": {%q: [%q], "MINIMUM_5bit": [%q], %q: [%q, %q]},
				"modules_quant_config": {%q: {"group_size": %d}, "a%[14]s": {"weights_dtype": "int6", "dequantize_fp32": false}}}`,
				strings.TrimPrefix(dtypes[pick(7)], "sdnq:"), groups[pick(5)], entry(), "nothing", "uint3", entry(), entry(), "int7", entry(), entry(),
				entry(), groups[pick(5)], 0, entry()))
		}
		p, err := Make(inventory(t, model), options(t, o))
		if err != nil {
			return // a rule that matches nothing, and the like
		}
		checkConfig(t, p)
		checkParts(t, p)
	})
}

// TestConfigIsWhole: sdnq reads missing keys as its own defaults, which may
// change; the config of a plan has every key that sdnq saves.
func TestConfigIsWhole(t *testing.T) {
	text, err := os.ReadFile("../../testdata/golden/sdnq/int8/quantization_config.json")
	if err != nil {
		t.Fatal(err)
	}
	want, err := pyjson.ParseObject(text)
	if err != nil {
		t.Fatal(err)
	}
	keys := func(o pyjson.Object) []string {
		m := map[string]bool{}
		for _, member := range o {
			m[member.Key] = true
		}
		return slices.Sorted(maps.Keys(m))
	}
	if got := keys(planned(t, model, Options{Layout: layout.SDNQ}).Config.Encode()); !slices.Equal(got, keys(want)) {
		t.Errorf("keys are %v, want %v", got, keys(want))
	}
}
