package tensorpress_test

import (
	"encoding/binary"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// comfyCases are formats and the JSON of a layer of theirs.
var comfyCases = []struct {
	o    tensorpress.Options
	json string
}{
	{tensorpress.Options{}, `{"format": "int8_tensorwise", "orig_dtype": "torch.bfloat16", "per_row": true}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Scale: "tensor"}}, `{"format": "int8_tensorwise", "orig_dtype": "torch.bfloat16"}`},
	{tensorpress.Options{Layer: tensorpress.Settings{ConvRot: new(true), ConvRotGroupSize: new(16)}}, `{"format": "int8_tensorwise", "orig_dtype": "torch.bfloat16", "convrot": true, "convrot_groupsize": 16, "per_row": true}`},
	{tensorpress.Options{Layer: tensorpress.Settings{ConvRot: new(true), FullPrecisionMatmul: new(true)}}, `{"format": "int8_tensorwise", "orig_dtype": "torch.bfloat16", "full_precision_matrix_mult": true, "convrot": true, "convrot_groupsize": 64, "per_row": true}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Scale: "block", BlockSize: new(16)}}, `{"format": "int8_blockwise", "orig_dtype": "torch.bfloat16", "group_size": 16}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "float8_e4m3fn", InputScale: new(true)}}, `{"format": "float8_e4m3fn", "orig_dtype": "torch.bfloat16"}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "float8_e4m3fn", Scale: "row"}}, `{"format": "float8_e4m3fn_rowwise", "orig_dtype": "torch.bfloat16"}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "float8_e4m3fn", Scale: "block", BlockSize: new(32)}}, `{"format": "float8_e4m3fn_blockwise", "orig_dtype": "torch.bfloat16", "group_size": 32}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "float8_e4m3fn_block3d", BlockSize: new(64)}}, `{"format": "float8_e4m3fn_block3d", "orig_dtype": "torch.bfloat16"}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "float8_e5m2", FullPrecisionMatmul: new(true)}}, `{"format": "float8_e5m2", "full_precision_matrix_mult": true}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "mxfp8"}}, `{"format": "mxfp8", "orig_dtype": "torch.bfloat16"}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "nvfp4", FullPrecisionMatmul: new(true)}}, `{"format": "nvfp4", "orig_dtype": "torch.bfloat16", "full_precision_matrix_mult": true}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "convrot_w4a4", ConvRotGroupSize: new(64)}}, `{"format": "convrot_w4a4", "convrot_groupsize": 64}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "asym_w4a8_int8", ConvRotGroupSize: new(64)}}, `{"format": "asym_w4a8_int8", "group_size": 16, "convrot_groupsize": 64}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "asym_w4a8_int8", ConvRotGroupSize: new(16), Bits: new(6), GroupSize: new(32)}}, `{"format": "asym_w4a8_int8", "group_size": 32, "convrot_groupsize": 16}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "awq_w4a16"}}, `{"format": "awq_w4a16", "group_size": 64}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "svdquant_w4a4"}}, `{"format": "svdquant_w4a4"}`},
	{tensorpress.Options{Layer: tensorpress.Settings{Dtype: "svdquant_w4a4", SVDRank: new(8), SVDRefit: new(1), FullPrecisionMatmul: new(true)}}, `{"format": "svdquant_w4a4", "full_precision_matrix_mult": true}`},
}

// comfySource has layers that all formats hold, and one that some do not.
func comfySource(t *testing.T) string {
	t.Helper()
	return fixture.Written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{192, 320}},
		{Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{64, 64}},
		{Name: "norm.weight", Dtype: safetensors.BF16, Shape: []int{64}},
	})
}

// TestComfyFormats: a layer's JSON must be what its programs write, and the file
// must be read again, whole, whatever the threads and memory.
func TestComfyFormats(t *testing.T) {
	source := comfySource(t)
	for _, c := range comfyCases {
		c.o.Preset = "none"
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), c.o); err != nil {
			t.Errorf("%s: %v", c.json, err)
			continue
		}
		small := filepath.Join(t.TempDir(), "small.safetensors")
		c.o.Threads, c.o.Memory = 7, 1<<20
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(small), c.o); err != nil || fixture.FileHash(t, small) != fixture.FileHash(t, dest) {
			t.Errorf("%s: small tiles give another file, %v", c.json, err)
		}
		v, err := tensorpress.Inspect(t.Context(), files.Dir(dest))
		if err != nil || len(v.Layers) != 2 {
			t.Fatalf("%s: %d layers, %v", c.json, len(v.Layers), err)
		}
		for _, l := range v.Layers {
			if got := optionsText(t, l.Options); got != c.json || l.Problem != "" {
				t.Errorf("%s: %s, problem %q, want %s", l.Name, got, l.Problem, c.json)
			}
		}
		checkVerified(t, c.json, dest, source)
	}
}

func checkVerified(t *testing.T, label, dest, source string) {
	t.Helper()
	limit := 0.02
	r, err := tensorpress.Verify(t.Context(), files.Dir(dest), tensorpress.VerifyOptions{Source: files.Dir(source), MaxRelMSE: &limit})
	if err != nil || !r.OK || len(r.Layers) != 2 {
		t.Errorf("%s: %+v, %v", label, r, err)
	}
}

// TestLayersThatDoNotFit are kept, and said; those asked for are errors.
func TestLayersThatDoNotFit(t *testing.T) {
	source := comfySource(t)
	for dtype, why := range map[string]string{
		"convrot_w4a4": "rotation groups of 256 do not divide 320 columns", "int8_blockwise": "blocks of 128×128 do not divide shape",
		"float8_e4m3fn_blockwise": "blocks of 128×128 do not divide shape", "float8_e4m3fn_block3d": "blocks of 128 do not divide",
	} {
		r, err := tensorpress.Plan(t.Context(), files.Dir(source), nil, tensorpress.Options{Layer: tensorpress.Settings{Dtype: dtype}, Preset: "none"})
		if err != nil || !strings.Contains(strings.Join(r.Notes, "\n"), why) || r.Layers[0].Action != "keep" {
			t.Errorf("%s: %+v, %v", dtype, r, err)
		}
		if _, err := tensorpress.Plan(t.Context(), files.Dir(source), nil, tensorpress.Options{Rules: fixture.Rules("a=" + dtype), Preset: "none"}); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s by --set: %v", dtype, err)
		}
	}
}

// TestClashingSettings are refused before anything is read.
func TestClashingSettings(t *testing.T) {
	source := comfySource(t)
	for want, o := range map[string]tensorpress.Options{
		"float8_e4m3fn_rowwise has scale row, not block":        {Layer: tensorpress.Settings{Dtype: "float8_e4m3fn_rowwise", Scale: "block"}},
		"mxfp8 has no scale":                                    {Layer: tensorpress.Settings{Dtype: "mxfp8", Scale: "row"}},
		"rotates with one scale a row":                          {Layer: tensorpress.Settings{ConvRot: new(true), Scale: "tensor"}},
		"int8_blockwise has no convrot":                         {Layer: tensorpress.Settings{ConvRot: new(true), Scale: "block"}},
		"rotation group 128 is not a power of 4":                {Layer: tensorpress.Settings{ConvRot: new(true), ConvRotGroupSize: new(128)}},
		"nvfp4 has no group size":                               {Layer: tensorpress.Settings{Dtype: "nvfp4", GroupSize: new(32)}},
		"5 bits: there are 4 and 6":                             {Layer: tensorpress.Settings{Dtype: "asym_w4a8_int8", Bits: new(5)}},
		"groups of 24: want 4, 8, or multiples of 16":           {Layer: tensorpress.Settings{Dtype: "asym_w4a8_int8", GroupSize: new(24)}},
		"6 bits take multiples of 16":                           {Layer: tensorpress.Settings{Dtype: "asym_w4a8_int8", GroupSize: new(8), Bits: new(6)}},
		"int8_tensorwise has no input scale":                    {Layer: tensorpress.Settings{InputScale: new(true)}},
		"dynamic-loss-threshold 1e: want a number":              {Layer: tensorpress.Settings{Dtype: "int8", DynamicLossThreshold: "1e"}},
		"dynamic-loss-threshold inf: want a number":             {Layer: tensorpress.Settings{Dtype: "int8", Dynamic: new(true), DynamicLossThreshold: "inf"}},
		"SDNQ dtypes have no bits":                              {Layer: tensorpress.Settings{Dtype: "int8", Bits: new(4)}},
		"hybrid_mxfp8 is not written":                           {Layer: tensorpress.Settings{Dtype: "hybrid_mxfp8"}},
		"block size -1: want 1 or more":                         {Layer: tensorpress.Settings{Scale: "block", BlockSize: new(-1)}},
		"int8_tensorwise has no block size":                     {Layer: tensorpress.Settings{BlockSize: new(64)}},
		"float8_e5m2 has scale tensor, not row":                 {Layer: tensorpress.Settings{Dtype: "float8_e5m2", Scale: "row"}},
		"awq_w4a16 has groups of an even number of values":      {Layer: tensorpress.Settings{Dtype: "awq_w4a16", GroupSize: new(-1)}},
		"int8_tensorwise has scale block or row or tensor, not": {Layer: tensorpress.Settings{Scale: "sideways"}},
	} {
		o.Preset = "none"
		if _, err := tensorpress.Plan(t.Context(), files.Dir(source), nil, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// TestSettingsOfOneLayer: what is said of all must not keep a layer from a
// dtype of its own.
func TestSettingsOfOneLayer(t *testing.T) {
	o := tensorpress.Options{
		Preset: "none", Layer: tensorpress.Settings{ConvRot: new(true), ConvRotGroupSize: new(16), Scale: "row"},
		Rules: fixture.Rules("^a=nvfp4,full-precision-matmul", "^b=asym_w4a8_int8,bits=6,group-size=16"),
	}
	r, err := tensorpress.Plan(t.Context(), files.Dir(comfySource(t)), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"format": "nvfp4", "orig_dtype": "torch.bfloat16", "full_precision_matrix_mult": true}`,
		`{"format": "asym_w4a8_int8", "group_size": 16, "convrot_groupsize": 16}`,
	}
	for i, w := range want {
		if got := optionsText(t, r.Layers[i].Options); got != w {
			t.Errorf("%s: %s, want %s", r.Layers[i].Name, got, w)
		}
	}
}

// TestShapesOfPaddedLayers: the source, or the JSON, tells them.
func TestShapesOfPaddedLayers(t *testing.T) {
	source := fixture.Written(t, []safetensors.Tensor{{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{33, 65}}})
	for _, dtype := range []string{"mxfp8", "nvfp4"} {
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), tensorpress.Options{Layer: tensorpress.Settings{Dtype: dtype}, Preset: "none"}); err != nil {
			t.Fatal(err)
		}
		r, err := tensorpress.Verify(t.Context(), files.Dir(dest), tensorpress.VerifyOptions{Source: files.Dir(source)})
		if err != nil || !r.OK || len(r.Layers) != 1 || *r.Layers[0].RelMSE > 0.02 {
			t.Errorf("%s: %+v, %v", dtype, r, err)
		}
		back := filepath.Join(t.TempDir(), "back.safetensors")
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(dest), files.Dir(back), tensorpress.DequantizeOptions{Source: files.Dir(source)}); err != nil {
			t.Fatal(err)
		}
		v, err := tensorpress.Inspect(t.Context(), files.Dir(back))
		if err != nil || v.Tensors[0].Shape[0] != 33 || v.Tensors[0].Shape[1] != 65 {
			t.Errorf("%s: restored as %v, %v", dtype, v.Tensors, err)
		}
	}
}

// TestRotatedFilesOfConvertToQuant: the last bits of scales depend on the order
// of sums; all else must be the same, places included.
func TestRotatedFilesOfConvertToQuant(t *testing.T) {
	for name, settings := range map[string]tensorpress.Settings{
		"one.int8_row_convrot64":       {ConvRot: new(true), ConvRotGroupSize: new(64)},
		"rotate.int8_row_convrot":      {ConvRot: new(true)},
		"rotate.int8_row_convrot_fpmm": {ConvRot: new(true), FullPrecisionMatmul: new(true)},
	} {
		source, _, _ := strings.Cut(name, ".")
		dest, want := filepath.Join(t.TempDir(), "out.safetensors"), "testdata/golden/ctq/"+name+".safetensors"
		o := tensorpress.Options{Preset: "none", Layer: fixture.Also(settings, tensorpress.Settings{ExactReference: new(true)})}
		if _, err := tensorpress.Quantize(t.Context(), files.Dir("testdata/golden/ctq/"+source+".src.safetensors"), files.Dir(dest), o); err != nil {
			t.Fatal(err)
		}
		a, b := fixture.FileBytes(t, dest), fixture.FileBytes(t, want)
		if len(a) != len(b) {
			t.Fatalf("%s: %d bytes, want %d", name, len(a), len(b))
		}
		differ := fixture.Differences(t, dest, want)
		t.Logf("%s: %v differ", name, differ)
		for _, tensor := range differ {
			if !strings.HasSuffix(tensor, ".weight_scale") {
				t.Errorf("%s: %s differs", name, tensor)
			} else if n := scaleUlps(t, dest, want, tensor); n > 16 {
				t.Errorf("%s: %s differs by %d ulp", name, tensor, n)
			}
		}
	}
}

func scaleUlps(t *testing.T, got, want, name string) (most int) {
	t.Helper()
	values := [2][]byte{}
	for i, path := range []string{got, want} {
		f, err := safetensors.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		tensor, _ := f.Header().Lookup(name)
		values[i] = make([]byte, tensor.Size)
		if err := f.ReadSection(tensor, values[i], 0); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < len(values[0]); i += 4 {
		d := int(binary.LittleEndian.Uint32(values[0][i:])) - int(binary.LittleEndian.Uint32(values[1][i:]))
		most = max(most, d, -d)
	}
	return most
}

// TestKeptFilesAreRead: what convert_to_quant wrote must be restored near its
// source.
func TestKeptFilesAreRead(t *testing.T) {
	for _, name := range []string{"fp8", "fp8_row", "fp8_block32", "int8", "int8_row", "int8_block32", "int8_row_convrot64", "mxfp8", "nvfp4"} {
		limit := 0.012
		path := "testdata/golden/ctq/one." + name + ".safetensors"
		r, err := tensorpress.Verify(t.Context(), files.Dir(path), tensorpress.VerifyOptions{Source: files.Dir("testdata/golden/ctq/one.src.safetensors"), MaxRelMSE: &limit})
		if err != nil || !r.OK || len(r.Layers) != 3 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// TestHybridIsRead: by the scales of its blocks.
func TestHybridIsRead(t *testing.T) {
	plain := "testdata/golden/ctq/one.mxfp8.safetensors"
	hybrid := filepath.Join(t.TempDir(), "hybrid.safetensors")
	rewrite(t, plain, hybrid)
	for _, dtype := range []string{"f32", "bf16"} {
		got, want := fixture.Dequantized(t, hybrid, dtype), fixture.Dequantized(t, plain, dtype)
		for _, layer := range []string{"a.weight", "b.weight", "c.weight"} {
			if fixture.TensorHash(t, got, layer) != fixture.TensorHash(t, want, layer) {
				t.Errorf("%s as %s differs", layer, dtype)
			}
		}
	}
}

// rewrite makes hybrid_mxfp8 of mxfp8 as convert_to_quant does, but for the
// value of the scalar.
func rewrite(t *testing.T, from, to string) {
	t.Helper()
	f, err := safetensors.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, tensors := map[string][]byte{}, []safetensors.Tensor{}
	for _, tensor := range f.Header().Tensors {
		raw := make([]byte, tensor.Size)
		if err := f.ReadSection(tensor, raw, 0); err != nil {
			t.Fatal(err)
		}
		if layer, ok := strings.CutSuffix(tensor.Name, ".comfy_quant"); ok {
			raw = []byte(strings.Replace(string(raw), `"mxfp8"`, `"hybrid_mxfp8"`, 1))
			tensor.Shape = []int{len(raw)}
			scalar := layer + ".weight_scalar"
			data[scalar] = []byte{0, 0, 0x80, 0x3F}
			tensors = append(tensors, safetensors.Tensor{Name: scalar, Dtype: safetensors.F32, Shape: []int{}})
		}
		data[tensor.Name] = raw
		tensors = append(tensors, safetensors.Tensor{Name: tensor.Name, Dtype: tensor.Dtype, Shape: tensor.Shape})
	}
	fixture.Write(t, to, tensors, data)
}

// TestZeroLayersOfFurtherFormats: every value must come back as zero.
func TestZeroLayersOfFurtherFormats(t *testing.T) {
	source := filepath.Join(t.TempDir(), "zero.safetensors")
	tensor := safetensors.Tensor{Name: "a.weight", Dtype: safetensors.F32, Shape: []int{64, 320}}
	fixture.Write(t, source, []safetensors.Tensor{tensor}, map[string][]byte{"a.weight": make([]byte, 4*64*320)})
	for _, c := range comfyCases {
		for _, exact := range []bool{false, true} {
			c.o.Preset, c.o.Layer.ExactReference = "none", &exact
			dest := filepath.Join(t.TempDir(), "out.safetensors")
			if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), c.o); err != nil {
				t.Errorf("%s: %v", c.json, err)
				continue
			}
			r, err := tensorpress.Verify(t.Context(), files.Dir(dest), tensorpress.VerifyOptions{Source: files.Dir(source)})
			if err != nil || !r.OK || r.Layers[0].MaxAbs == nil || *r.Layers[0].MaxAbs > 1e-8 {
				text, _ := json.Marshal(r)
				t.Errorf("%s: %s, %v", c.json, text, err)
			}
		}
	}
}

// optionsText is what a description says, as Python writes it.
func optionsText(t *testing.T, o report.Options) string {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pyjson.ParseObject(text)
	if err != nil {
		t.Fatal(err)
	}
	return pyjson.Dump(all)
}

// TestEveryFormatIsACase: the JSON of each format that is written is held above.
func TestEveryFormatIsACase(t *testing.T) {
	for _, f := range codec.Formats() {
		isCase := false
		for _, c := range comfyCases {
			isCase = isCase || strings.Contains(c.json, `"format": "`+f.Name+`"`)
		}
		if f != codec.SDNQ() && f.ReadOnly == "" && !isCase {
			t.Errorf("no case is %s", f.Name)
		}
	}
}
