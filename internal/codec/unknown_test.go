package codec

import (
	"slices"
	"strings"
	"testing"
)

// TestAliasesInComfy: whoever types fp8 for ComfyUI wants what ComfyUI loads.
func TestAliasesInComfy(t *testing.T) {
	for _, tt := range []struct{ name, comfy, sdnq string }{
		{"fp8", "float8_e4m3fn", "sdnq"},
		{"float8", "float8_e4m3fn", ""},
		{"float8_e4m3fn", "float8_e4m3fn", "sdnq"},
		{"float8_e5m2", "float8_e5m2", "sdnq"},
		{"sdnq:fp8", "sdnq", "sdnq"},
		{"sdnq:float8_e4m3fn", "sdnq", "sdnq"},
		{"ufp8", "sdnq", "sdnq"},
		{"int8", "sdnq", "sdnq"},
		{"nvfp4", "nvfp4", ""},
	} {
		for sdnqLayout, want := range map[bool]string{false: tt.comfy, true: tt.sdnq} {
			f, err := Resolve(tt.name, sdnqLayout)
			switch {
			case want == "" && err == nil:
				t.Errorf("%s, sdnq layout %v: %s, want an error", tt.name, sdnqLayout, f.Name)
			case want != "" && (err != nil || f.Name != want):
				t.Errorf("%s, sdnq layout %v: %v, want %s", tt.name, sdnqLayout, err, want)
			}
		}
	}
}

// TestUnknownDtypes: what is suggested is what the layout takes, nearest by the
// letters or else in kind.
func TestUnknownDtypes(t *testing.T) {
	for _, tt := range []struct{ name, comfy, sdnq string }{
		{"flot8_e4m3fn", "float8_e4m3fn", "float8_e4m3fn"},
		{"int8tensorwise", "int8_tensorwise", "int8"},
		{"int8_tensorwize", "int8_tensorwise", "int8"},
		{"INT8", "int8", "int8"},
		{"nvpf4", "nvfp4", "uint4"},
		{"nvfp4", "", "uint4"},
		{"int8_tensorwise", "", "int8"},
		{"mxfp8", "", "float8_e4m3fn"},
		{"float8", "", "float8_e4m3fn"},
		{"float8_e4m3fn_rowwise", "", "float8_e4m3fn"},
		{"q4_k_m", "nvfp4", "uint4"},
		{"Q6_K", "int8_tensorwise", "uint6"},
		{"q8_0", "int8_tensorwise", "int8"},
		{"asym_w4a8", "asym_w4a8_int8", "uint4"},
		{"convrot", "convrot_w4a4", "uint4"},
		{"float4", "nvfp4", "uint4"},
		{"nvfp8", "float8_e4m3fn", "fp8"},
		{"fp8e5m2", "float8_e5m2", "float8_e5m2"},
		{"float8_e4m3", "float8_e4m3fn", "float8_e4m3fn"},
		{"iq3_xxs", "nvfp4", "uint3"},
		{"nf4", "nvfp4", "uint4"},
		{"8bit", "int8_tensorwise", "int8"},
		{"4-bit", "nvfp4", "uint4"},
		{"load_in_4bit", "nvfp4", "uint4"},
		{"gptq", "nvfp4", "uint4"},
		{"gptq-8bit", "int8_tensorwise", "int8"},
		{"awq", "nvfp4", "uint4"},
		{"w8a8", "int8_tensorwise", "int8"},
		{"w4a16", "nvfp4", "uint4"},
		{"e4m3", "float8_e4m3fn", "float8_e4m3fn"},
		{"fp8_scaled", "float8_e4m3fn", "float8_e4m3fn"},
		{"mxfp4", "nvfp4", "fp4"},
		{"uint44", "uint4", "uint4"},
	} {
		for sdnqLayout, want := range map[bool]string{false: tt.comfy, true: tt.sdnq} {
			_, err := Resolve(tt.name, sdnqLayout)
			switch {
			case want == "" && err != nil:
				t.Errorf("%s: %v", tt.name, err)
			case want == "":
			case err == nil:
				t.Errorf("%s, sdnq layout %v: no error", tt.name, sdnqLayout)
			case !slices.Contains(strings.FieldsFunc(err.Error(), func(r rune) bool { return strings.ContainsRune(" ,?", r) }), want):
				t.Errorf("%s, sdnq layout %v: %v, want %s", tt.name, sdnqLayout, err, want)
			}
		}
	}
	if _, err := Resolve("photograph", true); err == nil || !strings.Contains(err.Error(), "tensorpress formats lists them") {
		t.Errorf("photograph: %v", err)
	}
}

// TestSuggestionsExist: nothing is suggested that the layout refuses.
func TestSuggestionsExist(t *testing.T) {
	for bits := 1; bits <= 8; bits++ {
		for _, float := range []bool{true, false} {
			for _, sdnqLayout := range []bool{true, false} {
				f, err := Resolve(ofBits(bits, float, sdnqLayout), sdnqLayout)
				if err != nil || !sdnqLayout && f.ComfyUI == "" {
					t.Errorf("%d bits, float %v, sdnq layout %v: %v", bits, float, sdnqLayout, err)
				}
			}
		}
	}
}
