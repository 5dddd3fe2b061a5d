package tensorpress_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestSettingsComeBack: what any of SDNQ's settings writes, in either layout,
// must verify, and both must decode to the same values, with any number of
// threads and any memory.
func TestSettingsComeBack(t *testing.T) {
	t.Parallel()
	source := realLayers(t)
	for _, tt := range fixture.SettingCases {
		t.Run(fmt.Sprint(tt.Dtype, tt.Settings), func(t *testing.T) {
			comeBack(t, source, 6, func(layout string) tensorpress.Options {
				o := tensorpress.Options{Layout: layout, Layer: fixture.Also(tt.Settings, tensorpress.Settings{Dtype: tt.Dtype}), Threads: 1}
				if layout == "sdnq" {
					o.Keep, o.Threads = []string{"pooler"}, 4 // which the other layout keeps by itself
				}
				return o
			})
		})
	}
}

// realLayers is a checkpoint of real layers; small ones of their names
// where tests are to be short.
func realLayers(t *testing.T) string {
	t.Helper()
	const path = "testdata/minilm.safetensors"
	if !testing.Short() {
		return path
	}
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var tensors []safetensors.Tensor
	for _, t := range f.Header().Tensors {
		tensors = append(tensors, safetensors.Tensor{Name: t.Name, Dtype: safetensors.BF16, Shape: []int{160, 128}[:len(t.Shape)]})
	}
	return fixture.Written(t, tensors)
}

// comeBack quantizes a source in both layouts, verifies them against it, and
// compares what they decode to.
func comeBack(t *testing.T, source string, layers int, options func(layout string) tensorpress.Options) {
	t.Helper()
	var plain []string
	for _, layout := range []string{"sdnq", "comfy"} {
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), options(layout)); err != nil {
			t.Fatal(err)
		}
		v, err := tensorpress.Verify(t.Context(), files.Dir(dest), tensorpress.VerifyOptions{Source: files.Dir(source), MaxRelMSE: fixture.Ptr(0.35)})
		if err != nil || !v.OK || len(v.Layers) != layers {
			t.Fatalf("%s: %d layers, %+v, %v", layout, len(v.Layers), v.Problems, err)
		}
		back := filepath.Join(t.TempDir(), "plain.safetensors")
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(dest), files.Dir(back), tensorpress.DequantizeOptions{Dtype: "f32"}); err != nil {
			t.Fatal(err)
		}
		plain = append(plain, back)
	}
	if list := fixture.Differences(t, plain[0], plain[1]); len(list) > 0 {
		t.Errorf("the layouts decode to other values: %v", list)
	}
}

// TestKindsComeBack: convolutions, transposed ones and embeddings, in either
// layout, with what may be combined with them.
func TestKindsComeBack(t *testing.T) {
	t.Parallel()
	shapes := map[string][]int{
		"conv_in.weight": {32, 32, 3, 3}, "mid.conv1d.weight": {64, 32, 3}, "mid.conv3d.weight": {32, 32, 2, 2, 2},
		"up.conv_transpose.weight": {32, 64, 4, 4}, "tok.embed_tokens.weight": {512, 64}, "mid.to_q.weight": {64, 128},
	}
	var tensors []safetensors.Tensor
	for name, shape := range shapes {
		tensors = append(tensors, safetensors.Tensor{Name: name, Dtype: safetensors.BF16, Shape: shape})
	}
	source := fixture.Written(t, tensors)
	for _, tt := range []struct {
		dtype    string
		settings tensorpress.Settings
	}{
		{"int8", tensorpress.Settings{}}, {"uint4", tensorpress.Settings{}}, {"float6_e3m2fn", tensorpress.Settings{}}, {"uint4", tensorpress.Settings{Hadamard: new(true)}},
		{"uint3", tensorpress.Settings{Codebook: new(true)}}, {"int8", tensorpress.Settings{SVDRank: new(4)}},
		{"int8", tensorpress.Settings{QuantizedMatmul: new(true), QuantizedMatmulConv: new(true)}},
		{"int8", tensorpress.Settings{QuantizedMatmul: new(true), QuantizedMatmulConv: new(true), SVDRank: new(4), Hadamard: new(true)}},
		{"uint4", tensorpress.Settings{QuantizedMatmulConv: new(true), ScaleDtype: "uint8"}},
	} {
		t.Run(fmt.Sprint(tt.dtype, tt.settings), func(t *testing.T) {
			comeBack(t, source, len(shapes), func(layout string) tensorpress.Options {
				return tensorpress.Options{
					Layout: layout, Layer: fixture.Also(tt.settings, tensorpress.Settings{Dtype: tt.dtype}), Conv: true, Embedding: true,
					Preset: "none", MinNumel: fixture.Ptr(0),
				}
			})
		})
	}
}

// TestLike: the settings of a quantized model, taken layer by layer, make the
// same file of the same source, in either layout.
func TestLike(t *testing.T) {
	t.Parallel()
	source := realLayers(t)
	for _, layout := range []string{"sdnq", "comfy"} {
		first, again := filepath.Join(t.TempDir(), "out.safetensors"), filepath.Join(t.TempDir(), "out.safetensors")
		o := tensorpress.Options{
			Layout: layout, Layer: tensorpress.Settings{Dtype: "uint4", Hadamard: new(true), SVDRank: new(4)},
			Rules: fixture.Rules("key=int8,group-size=32", "query=uint3,codebook,hadamard=false", "intermediate=int8,svd-rank=0,scale-dtype=uint8"),
		}
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(first), o); err != nil {
			t.Fatal(err)
		}
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(again), tensorpress.Options{Layout: layout, Like: files.Dir(first)}); err != nil {
			t.Fatal(err)
		}
		if list := fixture.Differences(t, again, first); len(list) > 0 {
			t.Errorf("%s: %v", layout, list)
		}
	}
}

// TestDynamicChoosesAsSDNQ: the dtypes that are measured, and what the config
// says of them, must be sdnq's own.
func TestDynamicChoosesAsSDNQ(t *testing.T) {
	t.Parallel()
	for i, row := range fixture.Tsv(t, "testdata/golden/dynamic.tsv") {
		if testing.Short() && i%4 > 0 { // a single dtype, several that a bound decides among, and products
			continue
		}
		var settings map[string]any
		if err := json.Unmarshal([]byte(row[0]), &settings); err != nil {
			t.Fatal(err)
		}
		settings["use_dynamic_quantization"] = true
		dir := t.TempDir()
		config := filepath.Join(dir, "settings.json")
		text, _ := json.Marshal(settings)
		if err := os.WriteFile(config, text, 0o666); err != nil {
			t.Fatal(err)
		}
		o := tensorpress.Options{Layout: "sdnq", Preset: "none", Keep: []string{"embedd"}, Config: config}
		if _, err := tensorpress.Quantize(t.Context(), files.Dir("testdata/minilm.safetensors"), files.Dir(filepath.Join(dir, "out.safetensors")), o); err != nil {
			t.Fatalf("%s: %v", row[0], err)
		}
		var got map[string]any
		text, err := os.ReadFile(filepath.Join(dir, "quantization_config.json"))
		if err != nil || json.Unmarshal(text, &got) != nil {
			t.Fatal(err)
		}
		for i, key := range []string{"modules_dtype_dict", "modules_to_not_use_matmul"} {
			var want any
			_ = json.Unmarshal([]byte(row[1+i]), &want)
			if !reflect.DeepEqual(got[key], want) {
				t.Errorf("%s: %s is %v, want %v", row[0], key, got[key], want)
			}
		}
	}
}
