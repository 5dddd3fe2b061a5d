package convert_test

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// momentsFor writes moments for some layers, and returns the file and the values.
func momentsFor(t *testing.T, columns map[string]int) (string, map[string][]float32) {
	t.Helper()
	var all []fixture.Weights
	values := map[string][]float32{}
	for _, layer := range sortedKeys(columns) {
		v := make([]float32, columns[layer])
		for i := range v {
			v[i] = float32(math.Exp2(float64(i*i%11) - 6))
		}
		values[layer] = v
		all = append(all, fixture.Weights{Name: layer + ".input_moment", Dtype: safetensors.F32, Shape: []int{len(v)}, Values: v})
	}
	return fixture.Save(t, "moments.safetensors", nil, all...), values
}

func sortedKeys(m map[string]int) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// TestImportanceLosesLess: with moments, what layers give is nearer to what they gave, in
// every layer that has some; the file is as large, and verification, which weighs
// nothing, holds.
func TestImportanceLosesLess(t *testing.T) {
	source := "../../testdata/minilm.safetensors"
	layers := map[string]int{"encoder.layer.0.attention.self.query": 384, "encoder.layer.0.intermediate.dense": 384, "encoder.layer.0.output.dense": 192}
	file, moments := momentsFor(t, layers)
	errors := map[string][]float64{}
	var sizes []int
	for _, path := range []string{"", file} {
		o := tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "uint3", GroupSize: new(32), Search: new(true)}, Importance: path}
		out := fixture.Quantized(t, source, o)
		sizes = append(sizes, len(fixture.FileBytes(t, out)))
		back := filepath.Join(t.TempDir(), "back.safetensors")
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(out), files.Dir(back), tensorpress.DequantizeOptions{Dtype: "f32"}); err != nil {
			t.Fatal(err)
		}
		for layer, columns := range layers {
			w, x := fixture.ValuesOf(t, source, layer+".weight"), fixture.ValuesOf(t, back, layer+".weight")
			sum := 0.0
			for i := range w {
				d := float64(w[i]) - float64(x[i])
				sum += d * d * float64(moments[layer][i%columns])
			}
			errors[layer] = append(errors[layer], sum)
		}
		if v, err := tensorpress.Verify(t.Context(), files.Dir(out), tensorpress.VerifyOptions{Source: files.Dir(source)}); err != nil || !v.OK {
			t.Errorf("verification: %v, %v", v.Problems, err)
		}
	}
	for layer, e := range errors {
		if e[1] > 0.85*e[0] {
			t.Errorf("%s: the weighed error is %.3f of the plain search's", layer, e[1]/e[0])
		}
	}
	if sizes[0] != sizes[1] {
		t.Errorf("%d bytes, want %d", sizes[1], sizes[0])
	}
}

// TestImportanceUnderOtherNames: moments of a model by diffusers' names serve when its
// layers get ComfyUI's, and become one or are split.
func TestImportanceUnderOtherNames(t *testing.T) {
	source := smallFlux(t, true)
	layers := map[string]int{"x_embedder": 64, "time_text_embed.text_embedder.linear_1": 128, "norm_out.linear": 256}
	for _, name := range []string{"to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0"} {
		layers["transformer_blocks.0.attn."+name] = 256
	}
	for _, name := range []string{"attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"} {
		layers["single_transformer_blocks.0."+name] = 256
	}
	file, _ := momentsFor(t, layers)
	o := tensorpress.Options{
		Names: "comfyui", Preset: "none", Importance: file, Layer: tensorpress.Settings{Dtype: "sdnq:uint4", Search: new(true)},
	}
	r, err := tensorpress.Plan(t.Context(), files.Dir(source), files.Dir(filepath.Join(t.TempDir(), "out.safetensors")), o)
	if err != nil {
		t.Fatal(err)
	}
	weighed := 0
	for _, l := range r.Layers {
		if l.Action == "quantize" && !l.Weighed {
			t.Errorf("%s has no moments", l.Name)
		}
		if l.Weighed {
			weighed++
		}
	}
	if text := strings.Join(r.Notes, "\n"); weighed < 6 || strings.Contains(text, "no layer here") {
		t.Errorf("%d layers are weighed: %s", weighed, text)
	}
}

// TestImportanceWeighsBudgets: with moments a layer's error in a measurement, which a
// budget is chosen by, is that of what it gives, also where nothing is searched.
func TestImportanceWeighsBudgets(t *testing.T) {
	source := "../../testdata/minilm.safetensors"
	layers := map[string]int{"encoder.layer.0.attention.self.query": 384, "encoder.layer.0.output.dense": 192}
	file, moments := momentsFor(t, layers)
	menu, err := tensorpress.ParseMenu("uint4:group-size=64,uint3:group-size=-1,nvfp4,keep")
	if err != nil {
		t.Fatal(err)
	}
	m, err := tensorpress.Measure(t.Context(), files.Dir(source), tensorpress.Options{Layout: "comfy", Menu: menu, Importance: file})
	if err != nil {
		t.Fatal(err)
	}
	for k, settings := range []tensorpress.Settings{{Dtype: "uint4", GroupSize: new(64)}, {Dtype: "uint3", GroupSize: new(-1)}, {Dtype: "nvfp4"}} {
		out := fixture.Quantized(t, source, tensorpress.Options{Layout: "comfy", Layer: settings})
		back := filepath.Join(t.TempDir(), "back.safetensors")
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(out), files.Dir(back), tensorpress.DequantizeOptions{Dtype: "f32"}); err != nil {
			t.Fatal(err)
		}
		for _, l := range m.Layers {
			columns := layers[l.Name]
			if columns == 0 {
				continue
			}
			w, x := fixture.ValuesOf(t, source, l.Name+".weight"), fixture.ValuesOf(t, back, l.Name+".weight")
			errors, squares := 0.0, 0.0
			for i := range w {
				weight, d := float64(moments[l.Name][i%columns]), float64(w[i])-float64(x[i])
				errors, squares = errors+weight*d*d, squares+weight*float64(w[i])*float64(w[i])
			}
			if got, want := *l.Choices[k].RelMSE, errors/squares; math.Abs(got-want) > 1e-6*want {
				t.Errorf("%s in %s: %g, want %g", l.Name, settings.Dtype, got, want)
			}
		}
	}
}
