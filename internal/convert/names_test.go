package convert_test

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/safetensors"
)

// smallFlux writes a Flux of diffusers' names, with layers that become one, that are
// split on the way back, and whose halves change places. alike has all weights of the
// same greatest value.
func smallFlux(t *testing.T, alike bool) string {
	t.Helper()
	var tensors []safetensors.Tensor
	data := map[string][]byte{}
	add := func(name string, shape ...int) {
		one := safetensors.Tensor{Name: name, Dtype: safetensors.BF16, Shape: shape}
		raw := fixture.BellShaped(2 * one.Numel())
		if !alike { // each of its own size
			for i := 0; i < len(raw); i += 2 {
				v := math.Float32frombits(uint32(raw[i])<<16|uint32(raw[i+1])<<24) * float32(len(tensors)+1) * 1.1
				b := kernel.ToBF16(v)
				raw[i], raw[i+1] = byte(b), byte(b>>8)
			}
		}
		if alike {
			raw[0], raw[1] = 0x80, 0x3E // 0.25, more than all others
		}
		tensors, data[name] = append(tensors, one), raw
	}
	const width = 256
	add("x_embedder.weight", width, 64)
	add("time_text_embed.text_embedder.linear_1.weight", width, 128)
	for _, name := range []string{"to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0"} {
		add("transformer_blocks.0.attn."+name+".weight", width, width)
		add("transformer_blocks.0.attn."+name+".bias", width)
	}
	for _, name := range []string{"attn.to_q", "attn.to_k", "attn.to_v"} {
		add("single_transformer_blocks.0."+name+".weight", width, width)
	}
	add("single_transformer_blocks.0.proj_mlp.weight", 2*width, width)
	add("norm_out.linear.weight", 2*width, width)
	path := filepath.Join(t.TempDir(), "flux.safetensors")
	fixture.Write(t, path, tensors, data)
	return path
}

// namesCases are formats, and settings of SDNQ's.
func namesCases() map[string]tensorpress.Options {
	cases := map[string]tensorpress.Options{}
	for _, f := range codec.Formats() {
		if f == codec.SDNQ() || f.ReadOnly != "" {
			continue
		}
		cases[f.Name] = tensorpress.Options{Layout: "comfy", Layer: tensorpress.Settings{Dtype: f.Name}}
		for scale := range f.Scales {
			cases[f.Name+" "+scale] = tensorpress.Options{Layout: "comfy", Layer: tensorpress.Settings{Dtype: f.Name, Scale: scale}}
		}
	}
	cases["int8_tensorwise rotated"] = tensorpress.Options{Layout: "comfy", Layer: tensorpress.Settings{Dtype: "int8_tensorwise", ConvRot: new(true)}}
	cases["asym_w4a8_int8 6"] = tensorpress.Options{Layout: "comfy", Layer: tensorpress.Settings{Dtype: "asym_w4a8_int8", Bits: new(6)}}
	for name, s := range map[string]tensorpress.Settings{
		"uint4": {Dtype: "uint4", GroupSize: new(64)}, "int3": {Dtype: "int3", GroupSize: new(32)}, "uint1": {Dtype: "uint1"}, "int12": {Dtype: "int12"},
		"rows": {Dtype: "int8", GroupSize: new(-1)}, "one scale": {Dtype: "uint8", GroupSize: new(-2)}, "one codebook": {Dtype: "uint4", GroupSize: new(-2), Codebook: new(true)},
		"codebooks": {Dtype: "uint4", GroupSize: new(64), Codebook: new(true)}, "rotated": {Dtype: "int6", GroupSize: new(64), Hadamard: new(true)},
		"for products": {Dtype: "int8", GroupSize: new(-1), QuantizedMatmul: new(true)}, "one for products": {Dtype: "int8", GroupSize: new(-2), QuantizedMatmul: new(true)},
		"low rank": {Dtype: "uint4", GroupSize: new(64), SVDRank: new(6), SVDSteps: new(1)}, "low rank for products": {Dtype: "int8", GroupSize: new(-1), SVDRank: new(6), SVDSteps: new(1), QuantizedMatmul: new(true)},
		"scales in uint8": {Dtype: "uint4", GroupSize: new(64), ScaleDtype: "uint8"}, "low rank, scales in uint8": {Dtype: "uint4", GroupSize: new(64), ScaleDtype: "uint8", SVDRank: new(6), SVDSteps: new(1)}, "scales in uint3": {Dtype: "uint4", GroupSize: new(64), ScaleDtype: "uint3", ZeroPointDtype: "none"},
		"scales in BF16": {Dtype: "int8", GroupSize: new(64), DequantizeFP32: new(false)}, "float6": {Dtype: "float6_e3m2fn"},
	} {
		for i, layout := range []string{"comfy", "sdnq"} {
			if testing.Short() && (i+len(name))%2 > 0 { // each in one of the two
				continue
			}
			own := s
			own.Dtype = "sdnq:" + s.Dtype
			cases[layout+", "+name] = tensorpress.Options{Layout: layout, Layer: own}
		}
	}
	return cases
}

// TestNamesKeepValues: under other names every layer must restore to the values of its
// rows, in every format; back again, to what it was. What cannot be one layer as it is
// has to be refused, and to be restored all the same.
func TestNamesKeepValues(t *testing.T) {
	t.Parallel()
	for _, alike := range []bool{false, true} {
		source := smallFlux(t, alike)
		for name, o := range namesCases() {
			if alike && testing.Short() && !mustDiffer(name, false) {
				continue
			}
			t.Run(fmt.Sprint(name, alike), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				at := func(name string) files.Dir { return files.Dir(filepath.Join(dir, name+".safetensors")) }
				o.Preset, o.Only = "none", []string{"attn", "proj_mlp", "norm_out"}
				if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), at("diffusers"), o); err != nil {
					t.Fatal(err)
				}
				if _, err := tensorpress.Dequantize(t.Context(), at("diffusers"), at("want"), tensorpress.DequantizeOptions{Names: "comfyui", Dtype: "f32"}); err != nil {
					t.Fatal(err)
				}
				moves := tensorpress.TranscodeOptions{Layout: "comfy", Names: "comfyui", Rename: true}
				_, err := tensorpress.Transcode(t.Context(), at("diffusers"), at("comfyui"), moves)
				if refused := errors.Is(err, tensorpress.ErrUsage); refused != mustDiffer(name, alike) || err != nil && !refused {
					t.Fatalf("refused: %v", err)
				}
				if err != nil {
					moves.Requantize = true
					_, err := tensorpress.Transcode(t.Context(), at("diffusers"), at("comfyui"), moves)
					if err != nil {
						t.Fatalf("with Requantize: %v", err)
					}
					if worst := worstError(t, string(at("comfyui")), string(at("want"))); worst > 0.1 {
						t.Errorf("quantized again, they are %v apart", worst)
					}
					return
				}
				small := moves
				small.Threads, small.Memory = 1, 32<<20
				if _, err := tensorpress.Transcode(t.Context(), at("diffusers"), at("same"), small); err != nil {
					t.Fatal(err)
				}
				if a, b := fixture.FileHash(t, string(at("comfyui"))), fixture.FileHash(t, string(at("same"))); a != b {
					t.Error("other bytes with other threads and memory")
				}
				lowRank := strings.Contains(name, "low rank")
				if list := fixture.Differences(t, fixture.Plain(t, string(at("comfyui"))), string(at("want"))); len(list) > 0 && !lowRank {
					t.Errorf("other values: %v", list)
				}
				if worst := worstError(t, string(at("comfyui")), string(at("want"))); worst > 1e-6 {
					t.Errorf("they are %v apart", worst)
				}
				back := tensorpress.TranscodeOptions{Layout: o.Layout, Names: "diffusers", Rename: o.Layout == "comfy"}
				if _, err := tensorpress.Transcode(t.Context(), at("comfyui"), at("back"), back); err != nil {
					t.Fatal(err)
				}
				if list := fixture.Differences(t, fixture.Plain(t, string(at("back"))), fixture.Plain(t, string(at("diffusers")))); len(list) > 0 && !lowRank {
					t.Errorf("other values when they are back: %v", list)
				}
				if _, err := tensorpress.Dequantize(t.Context(), at("comfyui"), at("plain"), tensorpress.DequantizeOptions{Names: "diffusers", Dtype: "f32"}); err != nil {
					t.Fatal(err)
				}
				if list := fixture.Differences(t, string(at("plain")), fixture.Plain(t, string(at("back")))); len(list) > 0 && !lowRank {
					t.Errorf("restored under the other names, other values: %v", list)
				}
			})
		}
	}
}

// mustDiffer tells formats with one number for all rows, which layers of their own
// cannot share.
func mustDiffer(name string, alike bool) bool {
	if strings.Contains(name, "scales in") && !strings.Contains(name, "BF16") {
		return !alike || strings.Contains(name, "uint8") // zero points, whose range goes by all
	}
	switch name {
	case "float8_e4m3fn", "float8_e4m3fn tensor", "float8_e5m2", "float8_e5m2 tensor", "nvfp4":
		return !alike
	}
	return false
}

// worstError is the greatest relative error of the values of a tensor of a file that is
// quantized.
func worstError(t *testing.T, path, want string) (worst float64) {
	t.Helper()
	plain := fixture.Plain(t, path)
	f, err := safetensors.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, one := range f.Header().Tensors {
		if len(one.Shape) < 2 || one.Dtype != safetensors.F32 {
			continue
		}
		var off, all float64
		x, y := fixture.ValuesOf(t, plain, one.Name), fixture.ValuesOf(t, want, one.Name)
		for i := range y {
			d := float64(x[i]) - float64(y[i])
			off, all = off+d*d, all+float64(y[i])*float64(y[i])
		}
		worst = max(worst, off/all)
	}
	return worst
}
