package convert_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

const publishedDir = "../../testdata/golden/published/"

// TestPublishedValues: weights that other programs publish quantized must come back with
// the values that these programs restore, with any memory and any number of threads.
func TestPublishedValues(t *testing.T) {
	want := map[string]map[string]string{}
	for _, row := range fixture.Tsv(t, publishedDir+"published.tsv") {
		if want[row[0]] == nil {
			want[row[0]] = map[string]string{}
		}
		want[row[0]][row[1]] = row[2]
	}
	for name, tensors := range want {
		t.Run(name, func(t *testing.T) {
			for _, r := range []fixture.Resources{{}, {Memory: 1 << 10, Threads: 1}, {Memory: 2 << 20, Threads: 3}} {
				dest := t.TempDir()
				if _, err := tensorpress.Dequantize(t.Context(), files.Dir(publishedDir+name), files.Dir(dest), tensorpress.DequantizeOptions{
					Dtype: "f32", Threads: r.Threads, Memory: r.Memory, Force: true,
				}); err != nil {
					t.Fatal(err)
				}
				if d, err := tensorpress.Diff(t.Context(), files.Dir(publishedDir+name), files.Dir(dest), tensorpress.DiffOptions{}); err != nil || !d.Same {
					t.Errorf("its values differ from the source's: %v, %v", d, err)
				}
				f, err := safetensors.Open(filepath.Join(dest, "model.safetensors"))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				for tensor, want := range tensors {
					one, _ := f.Header().Lookup(tensor)
					if got := fmt.Sprintf("%s:%s:%s", one.Dtype, strings.Join(strings.Fields(strings.Trim(fmt.Sprint(one.Shape), "[]")), ","), fixture.TensorHash(t, f, tensor)); got != want {
						t.Errorf("%s: %s, want %s", tensor, got, want)
					}
				}
				if config := string(fixture.FileBytes(t, filepath.Join(dest, "config.json"))); strings.Contains(config, "quant") {
					t.Errorf("the config still says how it was quantized: %s", config)
				}
			}
			v, err := tensorpress.Inspect(t.Context(), files.Dir(publishedDir+name))
			if err != nil || len(v.Layers) != len(tensors) {
				t.Errorf("%d layers, want %d, %v", len(v.Layers), len(tensors), err)
			}
			if found, err := tensorpress.Verify(t.Context(), files.Dir(publishedDir+name), tensorpress.VerifyOptions{}); err != nil || !found.OK {
				t.Errorf("%v, %v", found, err)
			}
		})
	}
}

// TestPublishedAtOnce: experts whose values go to BF16 without single precision between
// are those that are rounded from it, with windows of any size.
func TestPublishedAtOnce(t *testing.T) {
	restored := func(dtype string, r fixture.Resources) *safetensors.File {
		dest := t.TempDir()
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(publishedDir+"mxfp4_experts"), files.Dir(dest), tensorpress.DequantizeOptions{Dtype: dtype, Threads: r.Threads, Memory: r.Memory, Force: true}); err != nil {
			t.Fatal(err)
		}
		f, err := safetensors.Open(filepath.Join(dest, "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	body := func(f *safetensors.File, one safetensors.Tensor) []byte {
		size, err := safetensors.ByteSize(one.Dtype, one.Shape)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, size)
		if err := f.ReadSection(one, data, 0); err != nil {
			t.Fatal(err)
		}
		return data
	}
	compared := 0
	wide := restored("f32", fixture.Resources{})
	for _, r := range []fixture.Resources{{}, {Memory: 1 << 10, Threads: 1}, {Memory: 2 << 20, Threads: 3}} {
		narrow := restored("bf16", r)
		for _, one := range narrow.Header().Tensors {
			from, _ := wide.Header().Lookup(one.Name)
			if one.Dtype != safetensors.BF16 || from.Dtype != safetensors.F32 {
				continue
			}
			values, want := body(wide, from), body(narrow, one)
			compared++
			for i := range len(want) / 2 {
				if values[4*i] != 0 || values[4*i+1] != 0 || values[4*i+2] != want[2*i] || values[4*i+3] != want[2*i+1] {
					t.Fatalf("%s: value %d is % x in F32, % x in BF16", one.Name, i, values[4*i:4*i+4], want[2*i:2*i+2])
				}
			}
		}
	}
	if compared == 0 {
		t.Error("nothing is compared")
	}
}

// TestInputFactors: the values of a layer whose loader multiplies its input by factors are
// not its weight, so that nothing is made of them that leaves the factors out.
func TestInputFactors(t *testing.T) {
	const layer = "model.layers.0.mlp.up_proj"
	sources := map[string]string{"modelopt": t.TempDir(), "comfy": filepath.Join(t.TempDir(), "comfy.safetensors")}
	factors := safetensors.Tensor{Name: layer + ".pre_quant_scale", Dtype: safetensors.BF16, Shape: []int{64}}
	fixture.Write(t, filepath.Join(sources["modelopt"], "model.safetensors"), []safetensors.Tensor{
		{Name: layer + ".weight", Dtype: safetensors.U8, Shape: []int{48, 32}}, {Name: layer + ".weight_scale", Dtype: safetensors.F8_E4M3, Shape: []int{48, 4}},
		{Name: layer + ".weight_scale_2", Dtype: safetensors.F32}, factors,
	}, map[string][]byte{layer + ".weight": make([]byte, 48*32), layer + ".weight_scale": make([]byte, 48*4), layer + ".weight_scale_2": make([]byte, 4), factors.Name: make([]byte, 128)})
	config := `{"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4_AWQ"}}`
	if err := os.WriteFile(filepath.Join(sources["modelopt"], "config.json"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	description := `{"format": "int8_tensorwise"}`
	fixture.Write(t, sources["comfy"], []safetensors.Tensor{
		{Name: layer + ".weight", Dtype: safetensors.I8, Shape: []int{48, 64}}, {Name: layer + ".weight_scale", Dtype: safetensors.F32},
		{Name: layer + ".comfy_quant", Dtype: safetensors.U8, Shape: []int{len(description)}}, factors,
	}, map[string][]byte{layer + ".weight": make([]byte, 48*64), layer + ".weight_scale": make([]byte, 4), layer + ".comfy_quant": []byte(description), factors.Name: make([]byte, 128)})
	for name, source := range sources {
		store, dest := files.Dir(source), filepath.Join(t.TempDir(), "out.safetensors")
		_, restored := tensorpress.Dequantize(t.Context(), store, files.Dir(dest), tensorpress.DequantizeOptions{})
		_, moved := tensorpress.Transcode(t.Context(), store, files.Dir(dest), tensorpress.TranscodeOptions{Layout: "sdnq"})
		_, again := tensorpress.Transcode(t.Context(), store, files.Dir(dest), tensorpress.TranscodeOptions{Layout: "sdnq", Requantize: true})
		errs := map[string]error{"dequantize": restored, "transcode": moved, "requantize": again}
		if name == "modelopt" {
			_, errs["to ComfyUI"] = tensorpress.Transcode(t.Context(), store, files.Dir(dest), tensorpress.TranscodeOptions{Layout: "comfy"})
		}
		for what, err := range errs {
			if err == nil || !strings.Contains(err.Error(), source+": layer "+layer+" has "+layer+".pre_quant_scale, which the loader multiplies into activations") {
				t.Errorf("%s of %s: %v", what, name, err)
			}
		}
	}
}

// TestPublishedMoves: what other formats have too moves there without being rounded again,
// and what they have not is an error that says what to do.
func TestPublishedMoves(t *testing.T) {
	for _, tt := range []struct {
		model, layout, dtypes string  // of layers, in order; "" where none moves
		most                  float64 // of the errors
	}{
		{"gptq_2", "sdnq", "uint2 uint2 uint2", 1e-14}, {"gptq_3", "sdnq", "uint3 uint3 uint3", 1e-14}, {"gptq_4", "sdnq", "uint4 uint4 uint4", 1e-14},
		{"gptq_8", "sdnq", "uint8 uint8 uint8", 1e-14}, {"gptq_whole", "sdnq", "uint4", 0}, {"awq", "sdnq", "uint4 uint4 uint4", 1e-14},
		{"gptq_4", "comfy", "awq_w4a16 awq_w4a16 awq_w4a16", 1e-5}, {"awq", "comfy", "awq_w4a16 awq_w4a16 awq_w4a16", 1e-5},
		{"gptq_order", "sdnq", "", 0}, {"gptq_order", "comfy", "", 0}, {"gptq_3", "comfy", "", 0},
		{"pack_quantized", "sdnq", "uint4 uint4 uint4 uint8 uint3 uint2 uint8 uint4", 1e-14}, {"pack_quantized", "comfy", "", 0},
		{"int_quantized", "sdnq", "uint8 int8 uint8 uint8", 1e-14}, {"int_quantized", "comfy", "", 0},
		{"nvfp4_packed", "sdnq", "float4_e2m1fn float4_e2m1fn", 0}, {"mxfp4_packed", "sdnq", "float4_e2m1fn", 0}, {"mxfp4_packed", "comfy", "", 0},
		{"modelopt_nvfp4", "sdnq", "float4_e2m1fn float4_e2m1fn", 0}, {"modelopt_nvfp4", "comfy", "nvfp4 nvfp4", 0}, {"nvfp4_packed", "comfy", "nvfp4 nvfp4", 1e-14},
		{"bitsandbytes_int8", "sdnq", "int8", 1e-14}, {"bitsandbytes_int8", "comfy", "int8_tensorwise", 1e-14},
		{"bitsandbytes_4bit", "sdnq", "", 0}, {"bitsandbytes_4bit", "comfy", "", 0}, {"mxfp4_experts", "comfy", "", 0},
	} {
		t.Run(tt.model+" "+tt.layout, func(t *testing.T) {
			for _, r := range []fixture.Resources{{}, {Memory: 1 << 10, Threads: 1}} {
				dest := filepath.Join(t.TempDir(), "out") + string(filepath.Separator)
				made, err := tensorpress.Transcode(t.Context(), files.Dir(publishedDir+tt.model), files.Dir(dest), tensorpress.TranscodeOptions{
					Layout: tt.layout, Memory: r.Memory, Threads: r.Threads,
				})
				if tt.dtypes == "" {
					if err == nil || !strings.Contains(err.Error(), "`Requantize` quantizes them again") {
						t.Fatalf("%v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				var dtypes []string
				for _, l := range made.Layers {
					if l.Action == report.Move {
						dtypes = append(dtypes, l.Dtype)
					}
				}
				if got := strings.Join(dtypes, " "); got != tt.dtypes {
					t.Errorf("%s, want %s", got, tt.dtypes)
				}
				v, err := tensorpress.Verify(t.Context(), files.Dir(dest), tensorpress.VerifyOptions{Source: files.Dir(publishedDir + tt.model)})
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range v.Layers {
					if l.RelMSE == nil || *l.RelMSE > tt.most {
						t.Errorf("%s: error %v, want at most %v", l.Name, *l.RelMSE, tt.most)
					}
				}
				for _, p := range v.Problems {
					if !strings.Contains(p.Problem, "has shape [32 32], the source's has [17 32]") { // padding, which nvfp4 does not tell
						t.Errorf("%s: %s", p.Tensor, p.Problem)
					}
				}
			}
		})
	}
}
