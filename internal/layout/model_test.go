package layout

import "testing"

// TestSecondScale: a weight with two scales is two weights to two programs.
func TestSecondScale(t *testing.T) {
	for name, f := range map[string]file{
		"beside SDNQ's": sdnqFile.with("a.scale_weight", "F32"), "ComfyUI's beside SDNQ's": sdnqFile.with("a.weight_scale", "F32 4 1"),
		"beside ComfyUI's": int8File.with("a.scale_weight", "F32"), "DeepSeek's beside ComfyUI's": int8File.with("a.weight_scale_inv", "F32 1 1"),
		"of two others": {tensors: map[string]string{"a.weight": "F8_E4M3 4 8", "a.scale_weight": "F32", "a.weight_scale": "F32"}},
	} {
		m := read(t, f)
		if len(m.Layers) != 1 {
			t.Errorf("%s: %d layers", name, len(m.Layers))
			continue
		}
		checkLayer(t, m, m.Layers[0], "programs differ in which applies")
	}
}
