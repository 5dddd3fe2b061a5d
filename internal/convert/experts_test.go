package convert_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// expertNames are the experts of a layer that programs store each by itself, as in one
// tensor, or the gate and the other half apart; alternate says how many are a matrix.
func expertNames(alternate int) (names []string) {
	for i := range 3 {
		if alternate == 2 {
			names = append(names, fmt.Sprintf("%d.gate_proj", i), fmt.Sprintf("%d.up_proj", i))
		} else {
			names = append(names, fmt.Sprintf("gate_up_projs.%d", i))
		}
	}
	return names
}

const firstExperts = "model.layers.0.mlp.experts."

// publishedExperts is a small gpt-oss whose experts are all stored as layer a of a
// published model is, with other codes each.
func publishedExperts(t *testing.T, model string, names []string) string {
	dir := t.TempDir()
	from := publishedDir + model
	f, err := safetensors.Open(filepath.Join(from, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := map[string][]byte{}
	var tensors []safetensors.Tensor
	add := func(one safetensors.Tensor, name string, body []byte) {
		tensors, data[name] = append(tensors, safetensors.Tensor{Name: name, Dtype: one.Dtype, Shape: one.Shape}), body
	}
	for _, one := range f.Header().Tensors {
		suffix, ok := strings.CutPrefix(one.Name, "a.")
		if !ok {
			continue
		}
		body := fixture.Body(t, filepath.Join(from, "model.safetensors"), one.Name)
		for i, name := range names {
			own := slices.Clone(body)
			if slices.Contains([]string{"weight", "qweight", "weight_packed"}, suffix) {
				own = slices.Concat(body[4*i:], body[:4*i])
			}
			add(one, firstExperts+name+"."+suffix, own)
		}
	}
	add(safetensors.Tensor{Dtype: safetensors.BF16, Shape: []int{8}}, "model.layers.0.self_attn.sinks", make([]byte, 16))
	add(safetensors.Tensor{Dtype: safetensors.BF16, Shape: []int{3, 96}}, "model.layers.0.mlp.router.weight", make([]byte, 576))
	fixture.Write(t, filepath.Join(dir, "model.safetensors"), tensors, data)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), fixture.FileBytes(t, filepath.Join(from, "config.json")), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestPublishedExperts: experts that other programs store quantized, a layer each, become
// the experts in one tensor that ComfyUI reads: of the values that each layer has, and as
// bytes what the same values in plain layers become.
func TestPublishedExperts(t *testing.T) {
	t.Parallel()
	for _, model := range []string{"awq", "bitsandbytes_4bit", "bitsandbytes_int8", "gptq_3", "gptq_4", "gptq_order", "int_quantized", "modelopt_nvfp4", "mxfp4_packed", "nvfp4_packed", "pack_quantized"} {
		for _, alternate := range []int{1, 2} {
			t.Run(fmt.Sprint(model, " ", alternate), func(t *testing.T) {
				t.Parallel()
				names := expertNames(alternate)
				source, dir := publishedExperts(t, model, names), t.TempDir()
				each, all := filepath.Join(dir, "each.safetensors"), filepath.Join(dir, "all.safetensors")
				for _, r := range []fixture.Resources{{}, {Memory: 1 << 10, Threads: 1}} {
					o := tensorpress.DequantizeOptions{Dtype: "f32", Memory: r.Memory, Threads: r.Threads, Force: true}
					if _, err := tensorpress.Dequantize(t.Context(), files.Dir(source), files.Dir(each), o); err != nil {
						t.Fatal(err)
					}
					o.Names = "comfyui"
					if _, err := tensorpress.Dequantize(t.Context(), files.Dir(source), files.Dir(all), o); err != nil {
						t.Fatal(err)
					}
					var want []float32
					for i := 0; i < len(names); i += alternate {
						var parts [][]float32
						for _, name := range names[i : i+alternate] {
							parts = append(parts, fixture.ValuesOf(t, each, firstExperts+name+".weight"))
						}
						columns := len(parts[0]) / rowsIn(t, each, firstExperts+names[i]+".weight")
						for at := 0; at < len(parts[0]); at += columns {
							for _, values := range parts {
								want = append(want, values[at:at+columns]...)
							}
						}
					}
					if got := fixture.ValuesOf(t, all, "layers.0.mlp.experts.gate_up_proj.weight"); !slices.Equal(got, want) {
						t.Errorf("with %+v, other values than those of the layers", r)
					}
				}
				made, plain := filepath.Join(dir, "made.safetensors"), filepath.Join(dir, "plain.safetensors")
				quantize := func(from, to string) {
					if _, err := tensorpress.Quantize(t.Context(), files.Dir(from), files.Dir(to), tensorpress.Options{Names: "comfyui", Layout: "comfy", Layer: tensorpress.Settings{Dtype: "nvfp4"}, Preset: "none", For: "comfyui"}); err != nil {
						t.Fatal(err)
					}
				}
				quantize(source, made)
				quantize(each, plain)
				for _, end := range []string{"weight", "weight_scale", "weight_scale_2", "comfy_quant"} {
					name := "layers.0.mlp.experts.gate_up_proj." + end
					if !slices.Equal(fixture.Body(t, made, name), fixture.Body(t, plain, name)) {
						t.Errorf("%s differs from that of the plain layers", end)
					}
				}
				if v, err := tensorpress.Verify(t.Context(), files.Dir(made), tensorpress.VerifyOptions{Source: files.Dir(source)}); err != nil || !v.OK {
					t.Errorf("%+v, %v", v, err)
				}
			})
		}
	}
}

func rowsIn(t *testing.T, path, name string) int {
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	one, _ := f.Header().Lookup(name)
	return one.Shape[0]
}

// TestMXFP4Experts: gpt-oss's own, in which rows and columns of what it restores have
// changed places, are ComfyUI's as they are stored. Their values are values of MXFP8.
func TestMXFP4Experts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source := filepath.Join(dir, "source") + string(filepath.Separator)
	if err := os.Mkdir(source, 0o777); err != nil {
		t.Fatal(err)
	}
	from := publishedDir + "mxfp4_experts/model.safetensors"
	f, err := safetensors.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := map[string][]byte{}
	var tensors []safetensors.Tensor
	for _, one := range f.Header().Tensors {
		if strings.HasPrefix(one.Name, firstExperts) {
			tensors, data[one.Name] = append(tensors, safetensors.Tensor{Name: one.Name, Dtype: one.Dtype, Shape: one.Shape}), fixture.Body(t, from, one.Name)
		}
	}
	for name, n := range map[string]int{"model.layers.0.self_attn.sinks": 8, "model.layers.0.mlp.router.bias": 3} {
		tensors, data[name] = append(tensors, safetensors.Tensor{Name: name, Dtype: safetensors.BF16, Shape: []int{n}}), make([]byte, 2*n)
	}
	fixture.Write(t, source+"model.safetensors", tensors, data)
	if err := os.WriteFile(source+"config.json", fixture.FileBytes(t, publishedDir+"mxfp4_experts/config.json"), 0o666); err != nil {
		t.Fatal(err)
	}
	turned, straight := filepath.Join(dir, "turned.safetensors"), filepath.Join(dir, "straight.safetensors")
	for to, names := range map[string]string{turned: "", straight: "comfyui"} {
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(source), files.Dir(to), tensorpress.DequantizeOptions{Dtype: "f32", Names: names}); err != nil {
			t.Fatal(err)
		}
	}
	for name, shape := range map[string][2]int{"gate_up_proj": {96, 96}, "down_proj": {64, 64}} {
		a, b := fixture.ValuesOf(t, turned, firstExperts+name), fixture.ValuesOf(t, straight, "layers.0.mlp.experts."+name+".weight")
		for i, x := range a {
			matrix, at := i/(shape[0]*shape[1]), i%(shape[0]*shape[1])
			if y := b[matrix*shape[0]*shape[1]+at%shape[1]*shape[0]+at/shape[1]]; x != y {
				t.Fatalf("%s: value %d is %v, turned %v", name, i, x, y)
			}
		}
	}
	moved := filepath.Join(dir, "moved.safetensors")
	o := tensorpress.TranscodeOptions{Layout: "comfy", Names: "comfyui"}
	if _, err := tensorpress.Transcode(t.Context(), files.Dir(source), files.Dir(moved), o); err == nil || !strings.Contains(err.Error(), "`Requantize` quantizes them again") {
		t.Errorf("moved: %v", err)
	}
	o.Requantize = true
	if _, err := tensorpress.Transcode(t.Context(), files.Dir(source), files.Dir(moved), o); err != nil {
		t.Fatal(err)
	}
	quantized := filepath.Join(dir, "quantized.safetensors")
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(quantized), tensorpress.Options{Names: "comfyui", Layout: "comfy", Layer: tensorpress.Settings{Dtype: "nvfp4"}, Preset: "none", For: "comfyui"}); err != nil {
		t.Fatal(err)
	}
	for path, most := range map[string]float64{moved: 0, quantized: 1e-3} {
		v, err := tensorpress.Verify(t.Context(), files.Dir(path), tensorpress.VerifyOptions{Source: files.Dir(source)})
		if err != nil || !v.OK || v.Total.RelMSE == nil || *v.Total.RelMSE > most || len(v.Layers) != 2 {
			t.Errorf("%s: %+v, %v", path, v, err)
		}
	}
	if _, err := tensorpress.Transcode(t.Context(), files.Dir(source), files.Dir(filepath.Join(dir, "sdnq")), tensorpress.TranscodeOptions{Layout: "sdnq", Requantize: true}); err != nil {
		t.Fatal(err)
	}
	if v, err := tensorpress.Diff(t.Context(), files.Dir(filepath.Join(dir, "sdnq")), files.Dir(source), tensorpress.DiffOptions{}); err != nil || !v.Same {
		t.Errorf("in the sdnq layout they are other values: %+v, %v", v, err)
	}
}
