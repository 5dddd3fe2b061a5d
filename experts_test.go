package tensorpress_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// experts are the weights of gpt-oss by which ComfyUI knows it, with experts that are no
// whole bands of scales.
var experts = []safetensors.Tensor{
	{Name: "layers.0.mlp.experts.down_proj.bias", Dtype: safetensors.BF16, Shape: []int{3, 72}},
	{Name: "layers.0.mlp.experts.down_proj.weight", Dtype: safetensors.BF16, Shape: []int{3, 72, 64}},
	{Name: "layers.0.mlp.experts.gate_up_proj.bias", Dtype: safetensors.BF16, Shape: []int{3, 144}},
	{Name: "layers.0.mlp.experts.gate_up_proj.weight", Dtype: safetensors.BF16, Shape: []int{3, 144, 64}},
	{Name: "layers.0.mlp.router.weight", Dtype: safetensors.BF16, Shape: []int{3, 64}},
	{Name: "layers.0.self_attn.q_proj.weight", Dtype: safetensors.BF16, Shape: []int{64, 64}},
	{Name: "layers.0.self_attn.sinks", Dtype: safetensors.BF16, Shape: []int{4}},
}

// expertCases are ways to store them.
func expertCases() (all []tensorpress.Options) {
	for _, f := range codec.Formats() {
		if f.Banks == "" {
			continue
		}
		for _, search := range []bool{false, true} {
			o := tensorpress.Options{Layer: tensorpress.Settings{Dtype: f.Name, Search: &search}, Preset: "none", For: "comfyui"}
			if f.Name == "convrot_w4a4" {
				o.Layer.ConvRotGroupSize = new(16)
			}
			all = append(all, o)
		}
	}
	all = append(all, tensorpress.Options{Layer: tensorpress.Settings{Scale: "tensor"}, Preset: "none", For: "comfyui"})
	return all
}

// TestExperts: the experts of a layer are quantized as they lie, whatever the threads and
// the memory; read, verified and restored; and quantized again from there to the bytes
// that their restored values give.
func TestExperts(t *testing.T) {
	t.Parallel()
	source := fixture.Written(t, experts)
	for _, o := range expertCases() {
		name := o.Layer.Dtype + o.Layer.Scale
		out := func(o tensorpress.Options, from string) string {
			t.Helper()
			dest := filepath.Join(t.TempDir(), "out.safetensors")
			if _, err := tensorpress.Quantize(t.Context(), files.Dir(from), files.Dir(dest), o); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return dest
		}
		dest := out(o, source)
		small := o
		small.Threads, small.Memory = 7, 1<<20
		if fixture.FileHash(t, out(small, source)) != fixture.FileHash(t, dest) {
			t.Errorf("%s: small tiles give another file", name)
		}
		r, err := tensorpress.Verify(t.Context(), files.Dir(dest), tensorpress.VerifyOptions{Source: files.Dir(source), For: "comfyui", MaxRelMSE: new(0.03)})
		if err != nil || !r.OK || len(r.Layers) != 3 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		plain := filepath.Join(t.TempDir(), "plain.safetensors")
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(dest), files.Dir(plain), tensorpress.DequantizeOptions{Dtype: "f32"}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again := tensorpress.Options{Layer: tensorpress.Settings{Dtype: "float8_e5m2"}, Preset: "none"}
		a, b := imageOf(t, out(again, dest)), imageOf(t, out(again, plain))
		const weight = "layers.0.mlp.experts.gate_up_proj.weight"
		if x, y := a.find(weight), b.find(weight); len(x.shape) != 3 || !bytes.Equal(x.data, y.data) {
			t.Errorf("%s: other codes from the layer than from its values", name)
		}
	}
}

// TestExpertsAreKept: where nobody reads experts quantized they stay as they are, and it
// is said why.
func TestExpertsAreKept(t *testing.T) {
	t.Parallel()
	stranger := slices.Clone(experts)
	for i := range stranger {
		stranger[i].Name = strings.Replace(stranger[i].Name, "mlp.", "ffn.", 1)
	}
	for _, c := range []struct {
		source []safetensors.Tensor
		o      tensorpress.Options
		why    string
	}{
		{experts, tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "int8"}}, "fused experts: 3 dimensions, which are not quantized"},
		{experts, tensorpress.Options{Layout: "comfy", Layer: tensorpress.Settings{ExactReference: new(true)}}, "fused experts: 3 dimensions, which are not quantized"},
		{experts, tensorpress.Options{Layout: "comfy", Layer: tensorpress.Settings{Dtype: "uint4"}}, "sdnq holds no experts in one tensor: int8_tensorwise, "},
		{stranger, tensorpress.Options{Layout: "comfy", For: "comfyui"}, "ComfyUI reads the experts of a layer quantized in gpt-oss alone"},
	} {
		c.o.Preset = "none"
		r, err := tensorpress.Plan(t.Context(), files.Dir(fixture.Written(t, c.source)), nil, c.o)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range r.Layers {
			if strings.Contains(l.Name, "experts.gate_up_proj") && len(l.Shape) == 3 && (l.Action != "keep" || !strings.Contains(l.Reason, c.why)) {
				t.Errorf("%+v, want %q", l, c.why)
			}
		}
	}
}
