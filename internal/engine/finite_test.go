package engine_test

import (
	"encoding/binary"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestModerate: what is called finite without a look at the values must be so, for
// every code of eight bits, and wherever it stands.
func TestModerate(t *testing.T) {
	for _, d := range []safetensors.Dtype{safetensors.F8_E4M3, safetensors.F8_E5M2} {
		for code := range 256 {
			for _, at := range []int{0, 7, 8, 12} {
				raw := make([]byte, 13)
				raw[at] = byte(code)
				want := d == safetensors.F8_E4M3 && code&0x7F != 0x7F || d == safetensors.F8_E5M2 && code&0x7C != 0x7C
				if got := engine.Moderate(raw, d, true); got != want {
					t.Errorf("%s %#x at %d: %v", d, code, at, got)
				}
			}
		}
	}
	for _, tt := range []struct {
		x    float32
		want bool
	}{{0, true}, {-1, true}, {1 << 30, true}, {1 << 31, false}, {float32(math.NaN()), false}, {float32(math.Inf(-1)), false}, {-3e38, false}} {
		raw := make([]byte, 4*300)
		binary.LittleEndian.PutUint32(raw[4*299:], math.Float32bits(tt.x))
		if got := engine.Moderate(raw, safetensors.F32, false); got != tt.want {
			t.Errorf("%g: %v", tt.x, got)
		}
	}
}

// TestNonfiniteLayers: a layer that decodes to NaN or infinity gets the same verdict
// from every command, whatever makes it so.
func TestNonfiniteLayers(t *testing.T) {
	source := fixture.Written(t, []safetensors.Tensor{{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{64, 64}}})
	inf, large := fixture.Float32Bytes(float32(math.Inf(1))), fixture.Float32Bytes(3e38)
	for _, tt := range []struct {
		dtype, layout, to, tensor string
		data                      []byte
	}{
		{"int8_tensorwise", "comfy", "sdnq", "a.weight_scale", inf},
		{"int8_tensorwise", "comfy", "sdnq", "a.weight_scale", large},
		{"float8_e4m3fn", "comfy", "sdnq", "a.weight", []byte{0x7F}},
		{"float8_e4m3fn", "comfy", "sdnq", "a.weight_scale", large},
		{"nvfp4", "comfy", "", "a.weight_scale", []byte{0x7F}},
		{"mxfp8", "comfy", "", "a.weight_scale", []byte{0xFF}},
		{"uint4", "sdnq", "comfy", "a.zero_point", inf},
		{"int8", "sdnq", "comfy", "a.scale", inf},
	} {
		path := filepath.Join(t.TempDir(), "layers.safetensors")
		o := tensorpress.Options{Layout: tt.layout, Layer: tensorpress.Settings{Dtype: tt.dtype}, Preset: "none", MinNumel: fixture.Ptr(0), MinChannels: fixture.Ptr(0)}
		if tt.layout == "sdnq" {
			o.Layer.GroupSize = new(-1)
		}
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(path), o); err != nil {
			t.Fatal(err)
		}
		fixture.Patched(t, path, tt.tensor, 0, tt.data)
		label := tt.dtype + " " + tt.tensor
		if v, err := tensorpress.Verify(t.Context(), files.Dir(path), tensorpress.VerifyOptions{}); err != nil || v.OK {
			t.Errorf("%s: verify: %v, %v", label, v, err)
		}
		refused := func(what string, err error) {
			if !errors.Is(err, tensorpress.ErrSource) || !strings.Contains(err.Error(), "layer a: value [0, ") {
				t.Errorf("%s: %s: %v", label, what, err)
			}
		}
		dest := filepath.Join(t.TempDir(), "out.safetensors")
		_, err := tensorpress.Dequantize(t.Context(), files.Dir(path), files.Dir(dest), tensorpress.DequantizeOptions{})
		refused("dequantize", err)
		_, err = tensorpress.Quantize(t.Context(), files.Dir(path), files.Dir(dest), tensorpress.Options{Layout: "comfy", Preset: "none"})
		refused("quantize", err)
		_, err = tensorpress.Quantize(t.Context(), files.Dir(path), files.Dir(dest), tensorpress.Options{Layout: tt.layout, Keep: []string{"."}})
		refused("quantize --keep", err)
		if tt.to != "" {
			_, err = tensorpress.Transcode(t.Context(), files.Dir(path), files.Dir(dest), tensorpress.TranscodeOptions{Layout: tt.to, Rename: tt.to == "comfy"})
			refused("transcode", err)
		}
	}
}

// TestRestoredValuesFit: a value that F16 does not hold is no infinity in the output.
func TestRestoredValuesFit(t *testing.T) {
	source := fixture.Written(t, []safetensors.Tensor{{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{64, 64}}})
	path := fixture.Quantized(t, source, tensorpress.Options{Preset: "none"})
	fixture.Patched(t, path, "a.weight_scale", 0, fixture.Float32Bytes(1e6))
	dest := filepath.Join(t.TempDir(), "out.safetensors")
	if _, err := tensorpress.Dequantize(t.Context(), files.Dir(path), files.Dir(dest), tensorpress.DequantizeOptions{Dtype: "f16"}); !errors.Is(err, tensorpress.ErrSource) || !strings.Contains(err.Error(), "F16 does not hold") {
		t.Errorf("%v", err)
	}
	if _, err := tensorpress.Dequantize(t.Context(), files.Dir(path), files.Dir(dest), tensorpress.DequantizeOptions{Dtype: "bf16"}); err != nil {
		t.Error(err)
	}
}
