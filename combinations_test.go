package tensorpress_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/dtype"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// combinationShapes are small weights of every kind, of sides that groups, words of
// packed codes and rotations divide and of others.
var combinationShapes = map[string][]int{
	"a.to_q.weight": {64, 32}, "b.to_k.weight": {32, 96}, "c.proj.weight": {48, 40}, "d.proj.weight": {32, 32},
	"tok.embed_tokens.weight": {64, 32}, "e.conv1d.weight": {32, 16, 3}, "conv_in.weight": {16, 32, 3, 3}, "f.conv3d.weight": {16, 16, 2, 2, 2},
	"up.conv_transpose.weight": {32, 16, 2, 2}, "u.conv_transpose1d.weight": {16, 16, 4},
}

// combination is one choice of all that settings have.
func combination(r *rand.Rand, dtypes []string) (name string, settings tensorpress.Settings, exact bool) {
	some := func(key string, chance float64, values ...any) {
		if r.Float64() < chance {
			say(&settings, key, values[r.IntN(len(values))])
		}
	}
	stores := []any{"uint8", "int8", "uint4", "float8_e4m3fn", "float8_e5m2", "int16", "float16", "none"}
	some("group-size", 0.5, -1, -2, 16, 32, 5)
	some("hadamard", 0.3, true)
	some("hadamard-group-size", 0.2, 16, 32)
	some("svd-rank", 0.3, 2, 64)
	some("svd-steps", 0.2, 0, 2)
	some("codebook", 0.2, true)
	some("codebook-scale", 0.1, true)
	some("scale-dtype", 0.25, stores...)
	some("zero-point-dtype", 0.25, stores...)
	some("quantized-matmul", 0.5, true)
	some("quantized-matmul-conv", 0.4, true)
	some("quantized-matmul-dtype", 0.25, "int8", "float8_e4m3fn", "float16", "int4", "uint4")
	some("dequantize-fp32", 0.25, false)
	some("model-dtype", 0.2, "bf16", "f16", "f32")
	some("stochastic-rounding", 0.1, true)
	return dtypes[r.IntN(len(dtypes))], settings, r.Float64() < 0.1
}

// TestCombinationsComeBack: whatever combination of settings is accepted, what is
// written must be read again, in both layouts with the same values.
func TestCombinationsComeBack(t *testing.T) {
	t.Parallel()
	var tensors []safetensors.Tensor
	for name, shape := range combinationShapes {
		tensors = append(tensors, safetensors.Tensor{Name: name, Dtype: safetensors.BF16, Shape: shape})
	}
	source := fixture.Written(t, tensors)
	var dtypes []string
	for _, d := range dtype.All() {
		if d.Storable() {
			dtypes = append(dtypes, d.Name)
		}
	}
	usual := []string{"int8", "uint8", "int4", "uint4", "uint3", "int5", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "float6_e3m2fn", "uint1", "int16"}
	n := 150
	switch {
	case *everyCase:
		n = 400
	case testing.Short():
		n = 30
	}
	r := rand.New(rand.NewPCG(16, 7))
	accepted := 0
	for i := range n {
		from := usual
		if i%3 == 0 {
			from = dtypes
		}
		d, settings, exact := combination(r, from)
		if combinationComesBack(t, source, d, settings, exact) {
			accepted++
		}
	}
	if accepted < n/4 {
		t.Errorf("%d of %d combinations were accepted: the others tell nothing", accepted, n)
	}
}

func combinationComesBack(t *testing.T, source, d string, settings tensorpress.Settings, exact bool) (accepted bool) {
	t.Helper()
	label := fmt.Sprint(d, settings, exact)
	var plain []string
	for _, layout := range []string{"sdnq", "comfy"} {
		name := d
		if layout == "comfy" {
			name = "sdnq:" + d
		}
		o := tensorpress.Options{
			Layout: layout, Layer: fixture.Also(settings, tensorpress.Settings{Dtype: name, ExactReference: new(exact)}), Conv: true, Embedding: true, Preset: "none", MinNumel: fixture.Ptr(0), MinChannels: fixture.Ptr(0), Threads: 1,
		}
		dir := t.TempDir()
		dest := filepath.Join(dir, "out.safetensors")
		_, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), o)
		if errors.Is(err, tensorpress.ErrUsage) {
			return false
		}
		if err != nil {
			t.Errorf("%s %s: %v", layout, label, err)
			return false
		}
		v, err := tensorpress.Verify(t.Context(), files.Dir(dest), tensorpress.VerifyOptions{Source: files.Dir(source), Threads: o.Threads, Memory: o.Memory, Progress: o.Progress})
		if err != nil || !v.OK {
			t.Errorf("%s %s: %v, %v", layout, label, v.Problems[:min(3, len(v.Problems))], err)
			return true
		}
		if len(v.Layers) == 0 { // whose dtype holds none of them
			return true
		}
		back := filepath.Join(dir, "plain.safetensors")
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(dest), files.Dir(back), tensorpress.DequantizeOptions{Dtype: "f32", Threads: o.Threads, Memory: o.Memory, Progress: o.Progress}); err != nil {
			t.Errorf("%s %s: %v", layout, label, err)
			return true
		}
		plain = append(plain, back)
	}
	if list := fixture.Differences(t, plain[0], plain[1]); len(list) > 0 {
		t.Errorf("%s: the layouts decode to other values: %v", label, slices.Sorted(slices.Values(list))[:1])
	}
	return true
}

// TestComfyCombinationsComeBack: the same for ComfyUI's formats and
// convert_to_quant's, which have settings of their own.
func TestComfyCombinationsComeBack(t *testing.T) {
	t.Parallel()
	var tensors []safetensors.Tensor
	for name, shape := range combinationShapes {
		tensors = append(tensors, safetensors.Tensor{Name: name, Dtype: safetensors.BF16, Shape: shape})
	}
	tensors = append(tensors, safetensors.Tensor{Name: "g.proj.weight", Dtype: safetensors.BF16, Shape: []int{160, 256}})
	source := fixture.Written(t, tensors)
	formats := []string{
		"int8_tensorwise", "float8_e4m3fn", "float8_e5m2", "mxfp8", "nvfp4", "convrot_w4a4", "asym_w4a8_int8", "awq_w4a16", "svdquant_w4a4",
		"float8_e4m3fn_rowwise", "float8_e4m3fn_blockwise", "float8_e4m3fn_block3d", "int8_blockwise",
	}
	n := 150
	switch {
	case *everyCase:
		n = 300
	case testing.Short():
		n = 40
	}
	r := rand.New(rand.NewPCG(16, 2))
	accepted := 0
	for range n {
		var settings tensorpress.Settings
		some := func(key string, chance float64, values ...any) {
			if r.Float64() < chance {
				say(&settings, key, values[r.IntN(len(values))])
			}
		}
		some("block-size", 0.2, 8, 16, 32, 64)
		some("convrot", 0.2, true)
		some("convrot-group-size", 0.2, 16, 64, 256)
		some("group-size", 0.1, 16, 32)
		some("bits", 0.1, 4, 6)
		some("full-precision-matmul", 0.2, true)
		some("input-scale", 0.1, true)
		o := tensorpress.Options{Layout: "comfy", Layer: fixture.Also(settings, tensorpress.Settings{Dtype: formats[r.IntN(len(formats))]}), Preset: "none", Embedding: r.IntN(3) == 0, QuantizationMetadata: r.IntN(3) == 0, Threads: 1}
		if r.IntN(4) == 0 {
			o.Layer.Scale = []string{"tensor", "row", "block"}[r.IntN(3)]
		}
		label := fmt.Sprint(o.Layer)
		dir := t.TempDir()
		dest := filepath.Join(dir, "out.safetensors")
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(dest), o); errors.Is(err, tensorpress.ErrUsage) {
			continue
		} else if err != nil {
			t.Errorf("%s: %v", label, err)
			continue
		}
		accepted++
		v, err := tensorpress.Verify(t.Context(), files.Dir(dest), tensorpress.VerifyOptions{Source: files.Dir(source), MaxRelMSE: fixture.Ptr(0.35), Threads: o.Threads, Memory: o.Memory, Progress: o.Progress})
		if err != nil || !v.OK {
			t.Errorf("%s: %v, %v", label, v.Problems[:min(3, len(v.Problems))], err)
			continue
		}
		if len(v.Layers) == 0 {
			continue
		}
		if _, err := tensorpress.Dequantize(t.Context(), files.Dir(dest), files.Dir(filepath.Join(dir, "plain.safetensors")), tensorpress.DequantizeOptions{Threads: o.Threads, Memory: o.Memory, Progress: o.Progress}); err != nil {
			t.Errorf("%s: %v", label, err)
		}
	}
	if accepted < n/4 {
		t.Errorf("%d of %d combinations were accepted: the others tell nothing", accepted, n)
	}
}
