package lora

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/names"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestParse: a path may hold equals signs, and what follows the last is a strength only if it
// is a number.
func TestParse(t *testing.T) {
	for text, want := range map[string]struct {
		path     string
		strength float64
	}{
		"a.safetensors": {"a.safetensors", 1}, "a.safetensors=0.5": {"a.safetensors", 0.5}, "a=-1e-1": {"a", -0.1},
		"x=y/a.safetensors": {"x=y/a.safetensors", 1}, "x=1/a=0": {"x=1/a", 0}, "a=1=1": {"a=1", 1}, "": {"", 1},
	} {
		path, strength, err := Parse(text)
		if err != nil || path != want.path || strength != want.strength {
			t.Errorf("%q is %q with %v, %v", text, path, strength, err)
		}
	}
	for _, text := range []string{"a=", "a= ", "a=inf", "a=NaN", "a=-Inf"} {
		if _, _, err := Parse(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// adapter writes tensors of zeros, a config beside them and metadata, and opens it.
func adapter(t *testing.T, config string, metadata map[string]string, shapes map[string][]int) (*File, error) {
	t.Helper()
	var tensors []safetensors.Tensor
	for name, shape := range shapes {
		tensors = append(tensors, safetensors.Tensor{Name: name, Dtype: safetensors.F32, Shape: shape})
	}
	h, err := safetensors.NewHeader(tensors, metadata)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "adapter_model.safetensors")
	if err := os.WriteFile(path, append(h.Encode(), make([]byte, h.FileSize()-h.DataStart)...), 0o666); err != nil {
		t.Fatal(err)
	}
	if config != "" {
		if err := os.WriteFile(filepath.Join(dir, configFile), []byte(config), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Open(path)
	if err == nil {
		t.Cleanup(func() { f.Close() })
	}
	return f, err
}

// TestScales: the scale of factors is what the file, PEFT's config beside it or diffusers' in
// the header say, and 1 where nothing does, which is said of PEFT's.
func TestScales(t *testing.T) {
	peft := map[string][]int{"base_model.model.a.q.lora_A.weight": {4, 8}, "base_model.model.a.q.lora_B.weight": {8, 4}}
	named := map[string][]int{"transformer.a.q.lora_A.weight": {4, 8}, "transformer.a.q.lora_B.weight": {8, 4}}
	for _, tt := range []struct {
		name, config string
		metadata     map[string]string
		shapes       map[string][]int
		want         float64
		noted        bool
	}{
		{name: "none", shapes: peft, want: 1, noted: true},
		{name: "config", config: `{"peft_type": "LORA", "r": 4, "lora_alpha": 6}`, shapes: peft, want: 1.5},
		{name: "rank-stabilized", config: `{"r": 4, "lora_alpha": 6, "use_rslora": true}`, shapes: peft, want: 3},
		{name: "pattern", config: `{"r": 4, "lora_alpha": 6, "alpha_pattern": {"a\\.[qk]": 2}}`, shapes: peft, want: 0.5},
		{name: "defaults", config: `{"r": 4}`, shapes: peft, want: 2},
		{name: "defaults, stabilized", config: `{"r": 4, "use_rslora": true}`, shapes: peft, want: 4},
		{name: "the first of two patterns", config: `{"r": 4, "alpha_pattern": {"q": 2, "a\\.q": 3}}`, shapes: peft, want: 0.5},
		{name: "the first of two patterns, the other way", config: `{"r": 4, "alpha_pattern": {"a\\.q": 3, "q": 2}}`, shapes: peft, want: 0.75},
		{name: "of the training alone", config: `{"r": 4, "init_lora_weights": "eva", "eva_config": {"rho": 1}, "arrow_config": null, "use_qalora": false, "unheard_of": 1}`, shapes: peft, want: 2},
		{name: "another pattern", config: `{"r": 4, "lora_alpha": 6, "alpha_pattern": {"aa.q": 2}}`, shapes: peft, want: 1.5},
		{name: "header", metadata: map[string]string{configKey: `{"transformer.r": 4, "transformer.lora_alpha": 8.0, "text_encoder.lora_alpha": 1}`}, shapes: named, want: 2},
		{name: "header of another", metadata: map[string]string{configKey: `{"text_encoder.lora_alpha": 8}`}, shapes: named, want: 1},
		{name: "config of names that are not PEFT's", config: `{"lora_alpha": 6}`, shapes: named, want: 1},
	} {
		f, err := adapter(t, tt.config, tt.metadata, tt.shapes)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := f.scale(f.modules[0], 4); math.Abs(got-tt.want) > 1e-12 || (len(f.notes) > 0) != tt.noted {
			t.Errorf("%s: scale %v, want %v; notes %v", tt.name, got, tt.want, f.notes)
		}
	}
	for config, want := range map[string]string{
		`{`: "adapter_config.json", `{"lora_alpha": "x"}`: "adapter_config.json", `{"peft_type": "OFT"}`: "peft_type OFT",
		`{"alpha_pattern": {"(": 1}}`: "adapter_config.json", `{"alpha_pattern": {"a": "b"}}`: "a of a pattern is no number", `{"rank_pattern": 3}`: "adapter_config.json",
		`{"lora_alpha": null}`: "lora_alpha is no number", `{"r": null}`: "r is no rank", `{"r": 0}`: "r is no rank", `{"peft_type": "LOKR", "alpha": null}`: "alpha is no number",
		`{"init_lora_weights": "pissa_niter_16"}`: "init_lora_weights pissa_niter_16: its factors go with weights of which PEFT has taken a part away",
		`{"init_lora_weights": "olora"}`:          "init_lora_weights olora", `{"layer_replication": [[0, 4], [2, 5]]}`: "layer_replication: such an adapter repeats layers",
		`{"use_qalora": true}`: "use_qalora", `{"alora_invocation_tokens": [1, 2]}`: "alora_invocation_tokens", `{"target_parameters": ["experts.down_proj"]}`: "target_parameters",
	} {
		if _, err := adapter(t, config, nil, peft); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("config %s: %v", config, err)
		}
	}
	if _, err := adapter(t, "", map[string]string{configKey: "no"}, named); err == nil || !strings.Contains(err.Error(), configKey) {
		t.Errorf("a header's config: %v", err)
	}
}

// TestKeysOfOtherPrograms: ends of names that ComfyUI reads, or converts, beside Kohya's.
func TestKeysOfOtherPrograms(t *testing.T) {
	x := newIndex(small(t, "flux", names.ComfyUI), "")
	at := func(name string) int {
		return slices.IndexFunc(x.tensors, func(one checkpoint.Tensor) bool { return one.Name == name })
	}
	for key, want := range map[string]place{
		"double_blocks.0.processor.qkv_lora1.down.weight":                                   {at("double_blocks.0.img_attn.qkv.weight"), 0, 384},
		"double_blocks.0.processor.proj_lora2.up.weight":                                    {at("double_blocks.0.txt_attn.proj.weight"), 0, 128},
		"single_blocks.1.processor.qkv_lora.down.weight":                                    {at("single_blocks.1.linear1.weight"), 0, 384},
		"single_blocks.1.processor.proj_lora.up.weight":                                     {at("single_blocks.1.linear2.weight"), 0, 128},
		"transformer.transformer_blocks.1.attn.add_k_proj.lora.down.weight":                 {at("double_blocks.1.txt_attn.qkv.weight"), 128, 256},
		"transformer.transformer_blocks.1.attn.add_k_proj.lora_A.default.weight":            {at("double_blocks.1.txt_attn.qkv.weight"), 128, 256},
		"base_model.model.transformer_blocks.1.attn.add_k_proj.lora_linear_layer.up.weight": {at("double_blocks.1.txt_attn.qkv.weight"), 128, 256},
		"diffusion_model.double_blocks.0.img_attn.norm.query_norm.scale.set_weight":         {at("double_blocks.0.img_attn.norm.query_norm.scale"), 0, 128},
	} {
		module, _, ok := splitKey(key)
		got, _ := x.find(module, false)
		if !ok || !slices.Equal(got, []place{want}) {
			t.Errorf("%s is of %q, which means %v, want %v", key, module, got, want)
		}
	}
	for _, key := range []string{"double_blocks.0.img_attn.qkv.weight", "x.oft_blocks", ".lora_down.weight", "a.lora_C.weight", "lora_unet_x.b1.weight"} {
		if module, _, ok := splitKey(key); ok {
			t.Errorf("%s is taken for a part of %q", key, module)
		}
	}
}

// TestWholeChangeOfAnotherOrder: a change of as many rows and values as a weight whose
// other dimensions are in another order is of another model.
func TestWholeChangeOfAnotherOrder(t *testing.T) {
	weight := checkpoint.Tensor{Tensor: safetensors.Tensor{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{3, 8, 12}}}
	for _, tt := range []struct {
		key   string
		shape []int
		fits  bool
	}{
		{"a.diff", []int{3, 8, 12}, true}, {"a.diff", []int{3, 12, 8}, false}, {"a.set_weight", []int{3, 12, 8}, false}, {"a.diff", []int{3, 96}, true},
	} {
		f, err := adapter(t, "", nil, map[string][]int{tt.key: tt.shape})
		if err != nil {
			t.Fatal(err)
		}
		f.Strength = 1
		_, err = (&Set{files: []*File{f}}).Patches([]checkpoint.Tensor{weight}, "")
		if tt.fits != (err == nil) || err != nil && !strings.Contains(err.Error(), "tensor a.weight is [3 8 12]: it is an adapter of another model") {
			t.Errorf("%s of %v: %v", tt.key, tt.shape, err)
		}
	}
}

// TestWiden: values of every dtype that adapters are read in are those of single precision.
func TestWiden(t *testing.T) {
	for _, tt := range []struct {
		dtype safetensors.Dtype
		raw   []byte
		want  []float32
	}{
		{safetensors.F8_E4M3, []byte{0x38, 0xB8, 0x7E, 0x01, 0x80}, []float32{1, -1, 448, 0x1p-9, 0}},
		{safetensors.F8_E5M2, []byte{0x3C, 0xBC, 0x7B, 0x01, 0x80}, []float32{1, -1, 57344, 0x1p-16, 0}},
		{safetensors.I32, []byte{8, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF}, []float32{8, -1}},
		{safetensors.BF16, []byte{0x80, 0x3F}, []float32{1}},
	} {
		got := make([]float32, len(tt.want))
		if widen(got, tt.raw, tt.dtype); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.dtype, got, tt.want)
		}
		if err := new(File).checkDtype(checkpoint.Tensor{Tensor: safetensors.Tensor{Dtype: tt.dtype}}); err != nil {
			t.Errorf("%s: %v", tt.dtype, err)
		}
	}
}
