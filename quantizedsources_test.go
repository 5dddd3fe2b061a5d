package tensorpress_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// requantized is a source that is quantized already.
type requantized struct {
	name, path string
}

// requantSources are files of every format that is read.
func requantSources(t *testing.T) []requantized {
	t.Helper()
	var all []requantized
	plain := comfySource(t)
	for _, c := range comfyCases {
		all = append(all, requantized{c.json, fixture.Quantized(t, plain, c.o)})
	}
	for _, tt := range fixture.SettingCases {
		for _, layout := range []string{"comfy", "sdnq"} {
			o := tensorpress.Options{Layout: layout, Layer: fixture.Also(tt.Settings, tensorpress.Settings{Dtype: tt.Dtype})}
			all = append(all, requantized{fmt.Sprint(layout, tt.Dtype, tt.Settings), fixture.Quantized(t, plain, o)})
		}
	}
	for _, name := range []string{"scaled_fp8", "weight_scale_inv", "weight_scale"} {
		all = append(all, requantized{name, "testdata/golden/foreign/" + name + ".safetensors"})
	}
	hybrid := filepath.Join(t.TempDir(), "hybrid.safetensors")
	rewrite(t, "testdata/golden/ctq/one.mxfp8.safetensors", hybrid)
	for _, name := range []string{"fp8_block32", "int8_row_convrot64", "nvfp4"} {
		all = append(all, requantized{"ctq " + name, "testdata/golden/ctq/one." + name + ".safetensors"})
	}
	return append(all, requantized{"hybrid", hybrid})
}

// requantTargets cut weights in different ways, some into rectangles, some in
// several passes.
var requantTargets = []tensorpress.Options{
	{}, {Layer: tensorpress.Settings{Scale: "tensor"}}, {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn", Scale: "block", BlockSize: new(16)}},
	{Layer: tensorpress.Settings{Dtype: "mxfp8"}}, {Layer: tensorpress.Settings{Dtype: "nvfp4"}}, {Layer: tensorpress.Settings{Dtype: "asym_w4a8_int8", ConvRotGroupSize: new(16)}},
	{Layer: tensorpress.Settings{Dtype: "uint4", SVDRank: new(4), ModelDtype: "f32"}},
	{Layer: tensorpress.Settings{Dtype: "uint3", Codebook: new(true), ScaleDtype: "uint8"}},
	{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "int6", Hadamard: new(true)}},
}

// TestQuantizedSources: a quantized source must give what its restored values give,
// whatever the threads and memory. Each source is quantized to a third of the targets,
// and to all with -all.
func TestQuantizedSources(t *testing.T) {
	t.Parallel()
	compared, share := 0, 3
	switch {
	case *everyCase:
		share = 1
	case testing.Short():
		share = 13 // which divides neither number
	}
	for i, source := range requantSources(t) {
		plain := filepath.Join(t.TempDir(), "plain.safetensors")
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(source.path), files.Dir(plain), tensorpress.DequantizeOptions{Dtype: "f32"}); err != nil {
			t.Fatalf("%s: %v", source.name, err)
		}
		for j, o := range requantTargets {
			if (i+j)%share > 0 {
				continue
			}
			compared += requantize(t, source, plain, o)
		}
	}
	if least := map[bool]int{true: 60, false: 300}[testing.Short()]; compared < least {
		t.Errorf("compared %d layers, want at least %d", compared, least)
	}
}

// requantize compares the layers that are quantized, and returns how many.
func requantize(t *testing.T, source requantized, plain string, o tensorpress.Options) (n int) {
	t.Helper()
	o.Preset, o.MinNumel, o.MinChannels = "none", fixture.Ptr(0), fixture.Ptr(0)
	label := fmt.Sprintf("%s to %s %v", source.name, o.Layout, o.Layer)
	got, want := filepath.Join(t.TempDir(), "got.safetensors"), filepath.Join(t.TempDir(), "want.safetensors")
	report, err := tensorpress.Quantize(t.Context(), files.Dir(source.path), files.Dir(got), o)
	if err != nil {
		t.Fatalf("%s: %v", label, err)
	}
	if !slices.ContainsFunc(report.Notes, func(n string) bool { return strings.Contains(n, ", whose restored values are quantized") }) {
		t.Errorf("%s: notes %q", label, report.Notes)
	}
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(plain), files.Dir(want), o); err != nil {
		t.Fatalf("%s: %v", label, err)
	}
	small := filepath.Join(t.TempDir(), "small.safetensors")
	o.Threads, o.Memory = 5, 1<<20
	if _, err := tensorpress.Quantize(t.Context(), files.Dir(source.path), files.Dir(small), o); err != nil || fixture.FileHash(t, small) != fixture.FileHash(t, got) {
		t.Errorf("%s: small tiles give another file, %v", label, err)
	}
	for _, l := range report.Layers {
		if l.Action == "quantize" {
			n++
			compareLayers(t, label, got, want, l.Name)
		}
	}
	return n
}

// compareLayers compares all tensors of a layer, but for its JSON, which may
// name another original dtype.
func compareLayers(t *testing.T, label, got, want, layer string) {
	t.Helper()
	f, err := safetensors.Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, tensor := range f.Header().Tensors {
		name, part, _ := strings.Cut(strings.TrimPrefix(tensor.Name, layer), ".")
		if name != "" || part == "comfy_quant" || part == "bias" {
			continue
		}
		if !bytes.Equal(fixture.Body(t, got, tensor.Name), fixture.Body(t, want, tensor.Name)) {
			t.Errorf("%s: %s differs", label, tensor.Name)
		}
	}
}

// TestQuantizedSourcesInTiles: weights larger than tiles, whose decoder and encoder
// cut them differently.
func TestQuantizedSourcesInTiles(t *testing.T) {
	t.Parallel()
	source := fixture.Save(t, "in.safetensors", nil, fixture.Weights{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{256, 640}})
	for i, from := range []tensorpress.Options{
		{}, {Layer: tensorpress.Settings{Dtype: "mxfp8"}}, {Layer: tensorpress.Settings{Dtype: "nvfp4"}}, {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn_blockwise"}}, {Layer: tensorpress.Settings{Dtype: "convrot_w4a4", ConvRotGroupSize: new(64)}},
		{Layer: tensorpress.Settings{Dtype: "uint5", GroupSize: new(80)}}, {Layer: tensorpress.Settings{Dtype: "int8", QuantizedMatmul: new(true)}},
	} {
		stored := fixture.Quantized(t, source, from)
		plain := filepath.Join(t.TempDir(), "plain.safetensors")
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(stored), files.Dir(plain), tensorpress.DequantizeOptions{Dtype: "f32"}); err != nil {
			t.Fatal(err)
		}
		for j, to := range requantTargets[:5] {
			if testing.Short() && (i+j)%4 > 0 {
				continue
			}
			requantize(t, requantized{cmp.Or(from.Layer.Dtype, "default"), stored}, plain, to)
		}
	}
}

// TestKeptLayersStay: layers that are kept come out as they are stored where
// the layout is the same, with their metadata, else as plain tensors.
func TestKeptLayersStay(t *testing.T) {
	plain := comfySource(t)
	for _, tt := range []struct {
		from, to tensorpress.Options
		stays    bool
	}{
		{tensorpress.Options{}, tensorpress.Options{Layer: tensorpress.Settings{Dtype: "float8_e4m3fn"}}, true},
		{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "nvfp4"}}, tensorpress.Options{}, true},
		{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "int8_blockwise", BlockSize: new(64)}}, tensorpress.Options{For: "comfyui"}, false},
		{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4", SVDRank: new(4)}}, tensorpress.Options{Layer: tensorpress.Settings{Dtype: "int5"}}, true},
		{tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "uint4", Hadamard: new(true)}}, tensorpress.Options{Layout: "sdnq"}, true},
		{tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "int5"}}, tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "uint4"}, MinNumel: fixture.Ptr(1 << 14)}, true},
		{tensorpress.Options{Layout: "sdnq", Layer: tensorpress.Settings{Dtype: "int8", QuantizedMatmul: new(true)}}, tensorpress.Options{}, false},
		{tensorpress.Options{}, tensorpress.Options{Layout: "sdnq"}, false},
	} {
		source := fixture.Quantized(t, plain, tt.from)
		tt.to.Keep = []string{`^b\.`}
		out := fixture.Quantized(t, source, tt.to)
		label := fmt.Sprintf("%s %s to %s %s", tt.from.Layout, cmp.Or(tt.from.Layer.Dtype, "default"), tt.to.Layout, cmp.Or(tt.to.Layer.Dtype, "default"))
		before, after := inspectedLayer(t, source, "b"), inspectedLayer(t, out, "b")
		if (after != nil) != tt.stays {
			t.Errorf("%s: b is a layer: %v, want %v", label, after != nil, tt.stays)
			continue
		}
		if v, err := tensorpress.Verify(t.Context(), files.Dir(out), tensorpress.VerifyOptions{Source: files.Dir(source), MaxRelMSE: fixture.Ptr(0.03)}); err != nil || !v.OK {
			t.Errorf("%s: %+v, %v", label, v, err)
		}
		if !tt.stays {
			continue
		}
		if !slices.EqualFunc(before.Tensors, after.Tensors, func(a, b report.Tensor) bool {
			return a.Name == b.Name && bytes.Equal(fixture.Body(t, source, a.Name), fixture.Body(t, out, b.Name))
		}) {
			t.Errorf("%s: tensors of b are not those of the source", label)
		}
	}
}

func inspectedLayer(t *testing.T, path, name string) *report.StoredLayer {
	t.Helper()
	v, err := tensorpress.Inspect(t.Context(), files.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for i := range v.Layers {
		if l := &v.Layers[i]; l.Name == name {
			return l
		}
	}
	return nil
}

// TestNothingStaleSurvives: what described or scaled the old layers must not
// come along.
func TestNothingStaleSurvives(t *testing.T) {
	for _, name := range []string{"scaled_fp8", "weight_scale_inv", "weight_scale"} {
		out := fixture.Quantized(t, "testdata/golden/foreign/"+name+".safetensors", tensorpress.Options{})
		f, err := safetensors.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		for _, tensor := range f.Header().Tensors {
			for _, old := range []string{"scaled_fp8", "scale_weight", "scale_input", "weight_scale_inv", "input_scale"} {
				if strings.HasSuffix(tensor.Name, old) {
					t.Errorf("%s: %s is still there", name, tensor.Name)
				}
			}
		}
		f.Close()
	}
}

// TestUnscaledFloat8: 8-bit floats without a scale are an error unless they are
// kept, or said to be numbers.
func TestUnscaledFloat8(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "in.safetensors")
	codes := make([]byte, 64*64)
	for i := range codes {
		codes[i] = byte(i*7) & 0xF7 // no NaN
	}
	norm := make([]byte, 128)
	fixture.Write(t, path, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.F8_E4M3, Shape: []int{64, 64}}, {Name: "n.weight", Dtype: safetensors.F16, Shape: []int{64}},
	}, map[string][]byte{"a.weight": codes, "n.weight": norm})
	for _, layout := range []string{"comfy", "sdnq"} {
		o := tensorpress.Options{Layout: layout, Preset: "none", MinNumel: fixture.Ptr(0)}
		_, err := tensorpress.Plan(t.Context(), files.Dir(path), nil, o)
		if !errors.Is(err, tensorpress.ErrSource) || !strings.Contains(err.Error(), path+": tensor a.weight is F8_E4M3 and has no scale: `AcceptUnscaledFP8`") {
			t.Errorf("%s: %v", layout, err)
		}
		o.Keep = []string{"a"}
		if out := fixture.Quantized(t, path, o); !bytes.Equal(fixture.Body(t, out, "a.weight"), codes) {
			t.Errorf("%s: the copy differs", layout)
		}
		o.Keep, o.AcceptUnscaledFP8 = nil, true
		out := fixture.Quantized(t, path, o)
		v, err := tensorpress.Verify(t.Context(), files.Dir(out), tensorpress.VerifyOptions{Source: files.Dir(path), MaxRelMSE: fixture.Ptr(0.001)})
		if err != nil || !v.OK || len(v.Layers) != 1 {
			t.Errorf("%s: %+v, %v", layout, v, err)
		}
	}
	out := fixture.Quantized(t, path, tensorpress.Options{Layer: tensorpress.Settings{Dtype: "uint4"}, AcceptUnscaledFP8: true})
	if got, _ := inspectedLayer(t, out, "a").Options.Get("orig_dtype"); got != "torch.float16" {
		t.Errorf("original dtype %v, want that of the kept tensors", got)
	}
}

// TestHeaderDescribesLayers: what the header says wins over the layers' own
// tensors, so each layer must decode by it, and stay so when it is kept.
func TestHeaderDescribesLayers(t *testing.T) {
	t.Parallel()
	source := comfySource(t)
	var all []tensorpress.Options
	for _, c := range comfyCases {
		all = append(all, c.o)
	}
	for _, tt := range fixture.SettingCases {
		all = append(all, tensorpress.Options{Layout: "comfy", Layer: fixture.Also(tt.Settings, tensorpress.Settings{Dtype: tt.Dtype})})
	}
	for i, o := range all {
		if testing.Short() && i%3 > 0 {
			continue
		}
		label := fmt.Sprint(o.Layer)
		plain := fixture.Quantized(t, source, o)
		o.QuantizationMetadata = true
		out := fixture.Quantized(t, source, o)
		kept := fixture.Quantized(t, out, tensorpress.Options{Keep: []string{"."}})
		for _, path := range []string{out, kept} {
			v, err := tensorpress.Verify(t.Context(), files.Dir(path), tensorpress.VerifyOptions{Source: files.Dir(plain), MaxRelMSE: fixture.Ptr(0.0)})
			if err != nil || !v.OK || len(v.Layers) != 2 {
				t.Errorf("%s: %+v, %v", label, v, err)
			}
		}
		if f := inspectedLayer(t, plain, "a"); f.Dtype != inspectedLayer(t, out, "a").Dtype {
			t.Errorf("%s is %s by the header", label, inspectedLayer(t, out, "a").Dtype)
		}
		if v, _ := tensorpress.Inspect(t.Context(), files.Dir(kept)); v.Metadata["_quantization_metadata"] != "" {
			t.Errorf("%s: an old header is still there", label)
		}
	}
}
