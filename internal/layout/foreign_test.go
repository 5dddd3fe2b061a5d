package layout

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/safetensors"
)

var (
	scaledFile = file{tensors: map[string]string{
		"scaled_fp8": "F8_E4M3 0", "a.weight": "F8_E4M3 4 8", "a.scale_weight": "F32", "a.scale_input": "F32", "a.bias": "BF16 4",
	}}
	scaleInvFile = file{tensors: map[string]string{
		"a.weight": "F8_E4M3 130 150", "a.weight_scale_inv": "F32 2 2", "a.activation_scale": "F32", "n.weight": "BF16 4",
	}}
	weightScaleFile = file{tensors: map[string]string{"a.weight": "F8_E4M3 4 8", "a.weight_scale": "BF16 4 1", "a.input_scale": "F32"}}
)

// TestForeignLayers: eight bits with a scale beside them are a layer by any of
// the names that programs use, or a problem that names the scale.
func TestForeignLayers(t *testing.T) {
	config := func(text string) file {
		f := scaleInvFile
		f.beside = map[string]string{"config.json": text}
		return f
	}
	tests := []struct {
		name   string
		file   file
		layout *Layout
		dtype  string
		want   string // what the layer's error holds, "" for none
	}{
		{"scaled_fp8", scaledFile, ScaledFP8, "float8_e4m3fn", ""},
		{"without its mark", scaledFile.with("scaled_fp8", ""), ScaledFP8, "float8_e4m3fn", ""},
		{"e5m2", scaledFile.with("a.weight", "F8_E5M2 4 8"), ScaledFP8, "float8_e5m2", ""},
		{"int8", scaledFile.with("a.weight", "I8 4 8", "a.scale_weight", "F32 4 1"), ScaledFP8, "int8_tensorwise", ""},
		{"rows", scaledFile.with("a.scale_weight", "F32 4"), ScaledFP8, "float8_e4m3fn_rowwise", ""},
		{"blocks", scaledFile.with("a.scale_weight", "F32 2 4"), ScaledFP8, "float8_e4m3fn_blockwise", ""},
		{"blocks in a row", scaledFile.with("a.scale_weight", "F32 8"), ScaledFP8, "float8_e4m3fn_blockwise", ""},
		{"groups", scaledFile.with("a.scale_weight", "F32 4 2 1"), ScaledFP8, "float8_e4m3fn_block3d", ""},
		{"convolution", scaledFile.with("a.weight", "F8_E4M3 4 2 3 3", "a.scale_weight", "F32 4"), ScaledFP8, "float8_e4m3fn_blockwise", ""},
		{"odd scale", scaledFile.with("a.scale_weight", "F32 3"), ScaledFP8, "float8_e4m3fn", "tensor a.scale_weight: its scale has shape [3]"},
		{"empty scale", scaledFile.with("a.scale_weight", "F32 0"), ScaledFP8, "float8_e4m3fn", "a.scale_weight"},
		{"scale of codes", scaledFile.with("a.scale_weight", "I8"), ScaledFP8, "float8_e4m3fn", "scale is I8"},
		{"scale of a plain weight", scaledFile.with("a.weight", "BF16 4 8"), ScaledFP8, "BF16", "a.scale_weight: programs differ"},
		{"zero point", scaledFile.with("a.weight_zero_point", "F32"), ScaledFP8, "float8_e4m3fn", "a.weight_zero_point"},
		{"DeepSeek", scaleInvFile, ScaleInv, "float8_e4m3fn_blockwise", ""},
		{"BF16 scales", scaleInvFile.with("a.weight_scale_inv", "BF16 2 2"), ScaleInv, "float8_e4m3fn_blockwise", ""},
		{"powers of two", scaleInvFile.with("a.weight_scale_inv", "F8_E8M0 2 2"), ScaleInv, "float8_e4m3fn_blockwise", ""},
		{"one scale", scaleInvFile.with("a.weight_scale_inv", "F32"), ScaleInv, "float8_e4m3fn", ""},
		{"one scale in two dimensions", scaleInvFile.with("a.weight_scale_inv", "F32 1 1"), ScaleInv, "float8_e4m3fn", ""},
		{"too few blocks", scaleInvFile.with("a.weight_scale_inv", "F32 1 2"), ScaleInv, "float8_e4m3fn", "tensor a.weight_scale_inv: its scale has shape [1 2], which does not fit a weight of shape [130 150] in blocks of 128×128"},
		{"blocks turned", scaleInvFile.with("a.weight", "F8_E4M3 130 300"), ScaleInv, "float8_e4m3fn", "a.weight_scale_inv"},
		{"blocks of the config", config(`{"quantization_config": {"quant_method": "fp8", "weight_block_size": [65, 75]}}`), ScaleInv, "float8_e4m3fn_blockwise", ""},
		{"not those of the config", config(`{"quantization_config": {"weight_block_size": [64, 64]}}`), ScaleInv, "float8_e4m3fn", "in blocks of 64×64"},
		{"scale gone", scaleInvFile.with("b.weight", "F8_E4M3 4 8", "b.weight_scale_inv", "F32 1 1", "a.weight_scale_inv", "", "a.activation_scale", ""), ScaleInv, "F8_E4M3", "tensor a.weight_scale_inv is missing"},
		{"weight_scale", weightScaleFile, WeightScale, "float8_e4m3fn_rowwise", ""},
		{"int8 with weight_scale", weightScaleFile.with("a.weight", "I8 4 8"), WeightScale, "int8_tensorwise", ""},
		{"weight_scale of a tensor", weightScaleFile.with("a.weight_scale", "F32 1"), WeightScale, "float8_e4m3fn", ""},
		{"experts", weightScaleFile.with("a.weight", "F8_E4M3 2 128 256", "a.weight_scale", "F32 2 1 2"), WeightScale, "float8_e4m3fn_blockwise", ""},
		{"beside layers that describe themselves", int8File.with("b.weight", "I8 4 8", "b.weight_scale", "F32 4 1", "b.comfy_quant", int8File.tensors["a.comfy_quant"], "a.comfy_quant", "", "a.weight", "F8_E4M3 4 8"), Comfy, "float8_e4m3fn_rowwise", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := read(t, tt.file)
			if len(m.Layers) == 0 || m.Layout != tt.layout {
				t.Fatalf("%d layers, layout %v", len(m.Layers), m.Layout)
			}
			l := m.Layers[0]
			if l.Name != "a" || l.Dtype != tt.dtype {
				t.Errorf("layer %s is %q, want %q", l.Name, l.Dtype, tt.dtype)
			}
			switch {
			case tt.want == "" && (m.Failed() != nil || len(l.Parts) != 2 || !slices.Equal(l.Shape(), l.Parts[0].Shape)):
				t.Errorf("%v, %d parts", l.Err, len(l.Parts))
			case tt.want != "" && (l.Err == nil || !strings.Contains(l.Err.Error(), tt.want) || l.Codec != nil):
				t.Errorf("%v, want it to hold %q", l.Err, tt.want)
			}
			for _, one := range m.Plain {
				if strings.Contains(one.Name, "scale") {
					t.Errorf("%s is a plain tensor", one.Name)
				}
			}
		})
	}
}

// TestForeignPlain: what has no scale is no layer, and a scale of 1 beside a
// plain weight is nothing.
func TestForeignPlain(t *testing.T) {
	one := scaledFile.with("a.weight", "BF16 4 8", "a.scale_weight", "F32 1")
	one.bodies = map[string][]byte{"a.scale_weight": {0, 0, 0x80, 0x3F}}
	for name, f := range map[string]file{
		"scale of 1": one,
		"no scale":   scaledFile.with("a.scale_weight", "", "a.scale_input", ""),
		"plain":      weightScaleFile.with("a.weight", "BF16 4 8"),
	} {
		if m := read(t, f); len(m.Layers) != 0 || m.Layout != nil {
			t.Errorf("%s: %d layers", name, len(m.Layers))
		}
	}
	if m := read(t, one); len(m.Plain) != 2 || len(m.Markers) != 3 {
		t.Errorf("%d plain tensors, %d markers, want 2 and 3", len(m.Plain), len(m.Markers))
	}
}

// TestFullPrecision: a mark of two elements asks for it, and the restored dtype
// is the config's.
func TestFullPrecision(t *testing.T) {
	f := scaledFile.with("scaled_fp8", "F8_E4M3 2")
	f.beside = map[string]string{"config.json": `{"dtype": "float16"}`}
	l := read(t, f).Layers[0]
	if v, _ := l.Options.Get("full_precision_matrix_mult"); v != true || l.OrigDtype != safetensors.F16 {
		t.Errorf("%v, %v", l.Options, l.OrigDtype)
	}
}

// TestAcceptUnscaled: weights without a scale are plain then.
func TestAcceptUnscaled(t *testing.T) {
	m := read(t, scaleInvFile.with("b.weight", "F8_E4M3 4 8"))
	if m.Failed() == nil {
		t.Error("no error without the scale of b")
	}
	if m.AcceptUnscaled(); m.Failed() != nil || len(m.Layers) != 1 || len(m.Plain) != 2 {
		t.Errorf("%d layers, %d plain tensors, %v", len(m.Layers), len(m.Plain), m.Failed())
	}
}

// TestLostScaleOfSDNQ: codes of 8-bit floats whose scale is lost, or has another name,
// would be taken for numbers. Those that the config keeps, and convolutions, which configs
// do not name, are numbers.
func TestLostScaleOfSDNQ(t *testing.T) {
	const float8 = `{"weights_dtype": "float8_e4m3fn", "modules_to_not_convert": ["kept"]}`
	alone := file{tensors: map[string]string{"a.weight": "F8_E4M3 4 8", "norm.weight": "BF16 8"}}.described(float8)
	among := file{tensors: map[string]string{"a.weight": "F8_E4M3 4 8", "b.weight": "F8_E4M3 4 8", "b.scale": "F32 4 1"}}.described(float8)
	for name, c := range map[string]struct {
		file
		want string
	}{
		"the only layer":    {alone, "layer a: tensor a.scale is missing"},
		"one of two":        {among, "layer a: tensor a.scale is missing"},
		"under a prefix":    {among.with("model.a.scale", "F32 4 1"), "layer a: tensor a.scale is missing"},
		"kept":              {among.with("a.weight", "", "kept.weight", "F8_E4M3 4 8"), ""},
		"a convolution":     {among.with("a.weight", "F8_E4M3 4 8 3 3"), ""},
		"another's config":  {file{tensors: alone.tensors}.described(`{"quant_method": "fp8"}`), ""},
		"of one dimension":  {among.with("a.weight", "F8_E4M3 8"), ""},
		"no config of ours": {file{tensors: alone.tensors}, ""},
	} {
		err := read(t, c.file).Failed()
		if got := fmt.Sprint(err); (err == nil) != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
