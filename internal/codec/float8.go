package codec

import (
	"github.com/tensorpress/tensorpress/internal/formats/comfy"
	"github.com/tensorpress/tensorpress/internal/formats/sdnq"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/safetensors"
)

// The formats with one scale per tensor. convert_to_quant has no e5m2.
var (
	float8E4M3 = &Format{
		Name: "float8_e4m3fn", Bits: 8, Storage: safetensors.F8_E4M3, Max: 448, ComfyUI: AnyRelease, Banks: bankRelease,
		Scales: map[string]string{"tensor": "float8_e4m3fn", "row": "float8_e4m3fn_rowwise", "block": "float8_e4m3fn_blockwise"},
		Takes:  []string{"input-scale", "full-precision-matmul", "output-dtype", "scale-as-input", "search"},
		make:   newE4M3, Open: openFloat8(comfy.E4M3Tensor), Embeddings: AnyRelease,
		Kin: Kin{Dtype: "float8_e4m3fn"}, toSDNQ: oneScaleOf("float8_e4m3fn"), fromSDNQ: []origin{{"float8_e4m3fn", oneScale}},
	}
	float8E5M2 = &Format{
		Name: "float8_e5m2", Bits: 8, Storage: safetensors.F8_E5M2, Max: 57344, ComfyUI: AnyRelease, Banks: bankRelease,
		Scales: map[string]string{"tensor": "float8_e5m2"},
		Takes:  []string{"input-scale", "full-precision-matmul", "search"},
		make:   newE5M2, Open: openFloat8(comfy.E5M2Tensor), Embeddings: AnyRelease,
		Kin: Kin{Dtype: "float8_e5m2"}, toSDNQ: oneScaleOf("float8_e5m2"), fromSDNQ: []origin{{"float8_e5m2", oneScale}},
	}
)

func newE4M3(src Source, s Settings) (Codec, pyjson.Object, error) {
	c, err := newFloat8(src, comfy.E4M3Tensor, s)
	return c, describe("float8_e4m3fn", s, 0), err
}

func newE5M2(src Source, s Settings) (Codec, pyjson.Object, error) {
	c, err := newFloat8(src, comfy.E5M2Tensor, s)
	return c, describeNative("float8_e5m2", s), err
}

func newFloat8(src Source, rule *comfy.ScaleRule, s Settings) (Codec, error) {
	c, err := newScaled(src, rule, false, s)
	if err == nil && s.InputScale {
		c = withInputScale{c, 1}
	}
	return c, err
}

func openFloat8(rule *comfy.ScaleRule) func(*Stored) (Codec, error) {
	return func(l *Stored) (Codec, error) { return openScaled(l, rule, false) }
}

// oneScaleOf is SDNQ's dtype of that name with one scale.
func oneScaleOf(name string) func(pyjson.Object, Codec) (Settings, error) {
	return func(pyjson.Object, Codec) (Settings, error) { return sdnqSettings(name, -2), nil }
}

func oneScale(s *sdnq.Scheme) (Settings, bool) {
	return Settings{}, s.GroupSize == -2 && s.Hadamard == 0
}
