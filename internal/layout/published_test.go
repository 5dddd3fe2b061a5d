package layout

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// gptqFile is a layer of 4-bit codes in two groups, with its config.
func gptqFile(config string) file {
	return file{
		tensors: map[string]string{"a.qweight": "I32 8 32", "a.qzeros": "I32 2 4", "a.scales": "F16 2 32", "a.g_idx": "I32 64", "a.bias": "F16 32"},
		beside:  map[string]string{"config.json": `{"quantization_config": {"quant_method": "gptq", ` + config + `}}`},
	}
}

func awqFile(config string) file {
	return file{
		tensors: map[string]string{"a.qweight": "I32 64 4", "a.qzeros": "I32 2 4", "a.scales": "F16 2 32"},
		beside:  map[string]string{"config.json": `{"quantization_config": {"quant_method": "awq", ` + config + `}}`},
	}
}

// compressedFile is a layer of compressed-tensors' with what a scheme says of it.
func compressedFile(scheme, more string, tensors map[string]string) file {
	return file{tensors: tensors, beside: map[string]string{
		"config.json": `{"quantization_config": {"quant_method": "compressed-tensors", ` + more + `"config_groups": {"group_0": {"targets": ["Linear"], "weights": {` + scheme + `}}}}}`,
	}}
}

var (
	bytesFile  = map[string]string{"a.weight": "I8 4 64", "a.weight_scale": "BF16 4 2", "a.weight_zero_point": "I8 4 2", "a.input_scale": "F32 1"}
	foursFile  = map[string]string{"a.weight_packed": "U8 4 32", "a.weight_scale": "F8_E4M3 4 4", "a.weight_global_scale": "F32 1", "a.input_global_scale": "F32 1"}
	packedFile = map[string]string{"a.weight_packed": "I32 4 8", "a.weight_scale": "BF16 4 2", "a.weight_shape": "I64 2"}
)

// TestPublished: layers that other programs publish are read where config and tensors
// agree, and errors name what contradicts what.
func TestPublished(t *testing.T) {
	with := func(f file, shape ...byte) file {
		f.bodies = map[string][]byte{"a.weight_shape": {shape[0], 0, 0, 0, 0, 0, 0, 0, shape[1], 0, 0, 0, 0, 0, 0, 0}}
		return f
	}
	four := `"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32`
	three := strings.Replace(four, "4", "3", 1)
	threeFile := func(words string) map[string]string {
		return map[string]string{"a.weight_packed": "I32 4 " + words, "a.weight_scale": "BF16 4 2", "a.weight_shape": "I64 2"}
	}
	for _, tt := range []struct {
		name  string
		file  file
		dtype string // what it is read as
		want  string // of the error, "" for none
	}{
		{"GPTQ", gptqFile(`"bits": 4, "group_size": 32`), "uint4", ""},
		{"GPTQ, a group that is not whole", gptqFile(`"bits": 4, "group_size": 48`), "uint4", ""},
		{"GPTQ, other bits for some", gptqFile(`"bits": 8, "group_size": 128, "dynamic": {"a": {"bits": 4}}`), "uint4", ""},
		{"GPTQ of 8 bits", gptqFile(`"bits": 8, "group_size": 32`), "", "its config says bits 8, and zero points of shape [2 4] for 32 rows are of 4"},
		{"GPTQ of 5 bits", gptqFile(`"bits": 5, "group_size": 32`), "", "bits 5, and 2, 3, 4 and 8 are read"},
		{"GPTQ in other groups", gptqFile(`"bits": 4, "group_size": 128`), "", "its config says group_size 128, and its scales are of 2 groups for 64 columns"},
		{"GPTQ in one group", gptqFile(`"bits": 4, "group_size": -1`), "", "its config says group_size -1, and its scales are of 2 groups"},
		{"GPTQ in order", gptqFile(`"bits": 4, "group_size": 32, "desc_act": true`).with("a.g_idx", ""), "", "its config says desc_act, and there is no g_idx"},
		{"GPTQ without g_idx", gptqFile(`"bits": 4, "group_size": 32`).with("a.g_idx", ""), "uint4", ""},
		{"GPTQ, g_idx of others", gptqFile(`"bits": 4, "group_size": 32`).with("a.g_idx", "I32 96"), "", "its g_idx is of 96 columns, and its codes are of 64"},
		{"GPTQ for Marlin", gptqFile(`"bits": 4, "group_size": 32, "checkpoint_format": "marlin"`), "", "checkpoint_format marlin, and gptq and gptq_v2 are read"},
		{"GPTQ, is_marlin_format", gptqFile(`"bits": 4, "group_size": 32, "is_marlin_format": true`), "", "is_marlin_format"},
		{"GPTQ without scales", gptqFile(`"bits": 4`).with("a.scales", ""), "", "its scales are missing"},
		{"GPTQ without zero points", gptqFile(`"bits": 4`).with("a.qzeros", ""), "", "its zero points are missing"},
		{"GPTQ, scales of other rows", gptqFile(`"bits": 4`).with("a.scales", "F16 2 40"), "", "its scales have shape [2 40], want [2 32]"},
		{"GPTQ, scales that are codes", gptqFile(`"bits": 4`).with("a.scales", "I8 2 32"), "", "its scales are I8, want F16, BF16 or F32"},
		{"GPTQ, 3 bits in words of 4", gptqFile(`"bits": 3`).with("a.qzeros", "I32 2 3"), "", "3-bit ones fill three words at a time"},
		{"GPTQ beside the plain weight", gptqFile(`"bits": 4`).with("a.weight", "F16 32 64"), "", "a.weight, F16 [32 64], is there too, and nothing says which of them counts"},
		{"compressed-tensors, 3 bits over the ends of words", with(compressedFile(three, `"version": "0.18.0", `, threeFile("6")), 4, 64), "uint3", ""},
		{"compressed-tensors, 3 bits in whole words", with(compressedFile(three, `"version": "0.9.4", `, threeFile("7")), 4, 64), "uint3", ""},
		{"compressed-tensors, 3 bits in whole words, and no version", with(compressedFile(three, "", threeFile("7")), 4, 64), "uint3", ""},
		{"compressed-tensors, 3 bits in other words", with(compressedFile(three, "", threeFile("8")), 4, 64), "", "its config says num_bits 3, and its codes have shape [4 8] for a weight of [4 64]"},
		{"GPTQ of half a bit", gptqFile(`"bits": 4.5`), "", "its config says bits 4.5, want a whole number"},
		{"GPTQ, bits as a text", gptqFile(`"bits": "4"`), "uint4", ""},
		{"GPTQ, other bits as a text", gptqFile(`"bits": "8"`), "", "its config says bits 8, and zero points"},
		{"GPTQ in groups of less than none", gptqFile(`"bits": 4, "group_size": -5`), "", "its config says group_size -5, want a whole number"},
		{"GPTQ of no columns", gptqFile(`"bits": 4`).with("a.qweight", "I32 0 32"), "", "its codes have shape [0 32], which holds nothing"},
		{"AWQ", awqFile(`"bits": 4, "group_size": 32, "version": "gemm"`), "uint4", ""},
		{"AWQ, as its tensors tell", file{tensors: awqFile("").tensors}, "uint4", ""},
		{"AWQ's gemv", awqFile(`"bits": 4, "group_size": 32, "version": "gemv"`), "", "its config says version gemv, and gemm is read"},
		{"AWQ without zero points", awqFile(`"bits": 4, "zero_point": false`), "", "zero_point false, and there are qzeros"},
		{"AWQ of 8 bits", awqFile(`"bits": 8`), "", "its config says bits 8, and 4 are read"},
		{"AWQ in other groups", awqFile(`"bits": 4, "group_size": 64`), "", "its config says group_size 64, and its scales are of 2 groups"},
		{"packed", with(compressedFile(four, "", packedFile), 4, 64), "uint4", ""},
		{"packed, as its tensors tell", with(file{tensors: packedFile}, 4, 64), "uint4", ""},
		{"packed, of 8 bits", with(compressedFile(strings.Replace(four, "4", "8", 1), "", packedFile), 4, 64), "", "its config says num_bits 8, and its codes have shape [4 8] for a weight of [4 64]"},
		{"packed, other rows", with(compressedFile(four, "", packedFile), 5, 64), "", "its weight_shape is [5 64], and its codes have shape [4 8]"},
		{"packed, asymmetric", with(compressedFile(strings.Replace(four, "true", "false", 1), "", packedFile), 4, 64), "", "its config says symmetric false, and its zero points are missing"},
		{"packed, a scale a row", with(compressedFile(strings.Replace(four, `"group"`, `"channel"`, 1), "", packedFile), 4, 64), "", "its config says strategy channel, and its weight_scale has shape [4 2]"},
		{"packed, floats", with(compressedFile(strings.Replace(four, `"int"`, `"float"`, 1), "", packedFile), 4, 64), "", "its config says type float, and its codes are of integers"},
		{"packed and ignored", with(compressedFile(four, `"ignore": ["lm_head", "re:a.*"], `, packedFile), 4, 64), "", `its config ignores it by "re:a.*", and it is quantized`},
		{"packed, ignored by a word", with(compressedFile(four, `"ignore": "a", `, packedFile), 4, 64), "", "its config has ignore or targets that are no list"},
		{"packed, groups in a list", with(file{tensors: packedFile, beside: map[string]string{"config.json": `{"quantization_config": {"quant_method": "compressed-tensors", "config_groups": [4]}}`}}, 4, 64), "", "its config has config_groups that are no object"},
		{"packed, without its shape", compressedFile(four, "", packedFile).with("a.weight_shape", ""), "", "its weight_shape is missing"},
		{"bytes with zero points", compressedFile(`"num_bits": 8, "type": "int", "symmetric": false, "strategy": "group", "group_size": 32`, "", bytesFile), "uint8", ""},
		{"bytes in groups", compressedFile(`"num_bits": 8, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32`, "", map[string]string{"a.weight": "I8 4 64", "a.weight_scale": "BF16 4 2"}), "uint8", ""},
		{"nvfp4", compressedFile(`"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16`, "", foursFile), "float4_e2m1fn", ""},
		{"nvfp4, as its tensors tell", file{tensors: foursFile}, "float4_e2m1fn", ""},
		{"nvfp4 in other groups", compressedFile(`"num_bits": 4, "type": "float", "group_size": 32`, "", foursFile), "", "its config says group_size 32, and its scales are of 16"},
		{"nvfp4, scales of another weight", file{tensors: foursFile}.with("a.weight_scale", "F8_E4M3 4 8"), "", "its scales have shape [4 8], want [4 4]"},
		{"mxfp4", file{tensors: map[string]string{"a.weight_packed": "U8 4 32", "a.weight_scale": "U8 4 2"}}, "float4_e2m1fn", ""},
		{"mxfp4, scales of floats", file{tensors: map[string]string{"a.weight_packed": "U8 4 32", "a.weight_scale": "F16 4 2"}}, "", "its scales are F16, want U8 or F8_E8M0"},
		{"ModelOpt's nvfp4", file{
			tensors: map[string]string{"a.weight": "U8 128 32", "a.weight_scale": "F8_E4M3 128 4", "a.weight_scale_2": "F32", "a.input_scale": "F32"},
			beside:  map[string]string{"hf_quant_config.json": `{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}`},
		}, "float4_e2m1fn", ""},
		{"bitsandbytes int8", file{tensors: map[string]string{"a.weight": "I8 4 8", "a.SCB": "F32 4", "a.weight_format": "U8"}}, "int8", ""},
		{"bitsandbytes int8 in tiles", file{tensors: map[string]string{"a.weight": "I8 4 8", "a.SCB": "F32 4", "a.weight_format": "U8"}, bodies: map[string][]byte{"a.weight_format": {2}}}, "", "its weight_format is 2, and 0, by rows, is read"},
		{"bitsandbytes int8 of other rows", file{tensors: map[string]string{"a.weight": "I8 4 8", "a.SCB": "F32 5"}}, "", "its SCB has shape [5] for a weight of [4 8]"},
		{"nf4", levelsFile(`{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4, 32]}`), "nf4", ""},
		{"nf4 of another shape", levelsFile(`{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4, 33]}`), "", "its quant_state says shape [4 33], and its codes are U8 [64 1]"},
		{"nf4 of a shape beyond all", levelsFile(`{"quant_type": "nf4", "blocksize": 64, "shape": [2147483647, 2147483647, 2147483647]}`), "", "quant_state says shape"},
		{"nf4 in no blocks", levelsFile(`{"quant_type": "nf4", "blocksize": 0, "shape": [4, 32]}`), "", "blocksize 0"},
		{"nf4 in blocks of a word", levelsFile(`{"quant_type": "nf4", "blocksize": "all", "shape": [4, 32]}`), "", "its quant_state says blocksize all, want a whole number"},
		{"MXFP4 without scales", file{tensors: map[string]string{"a.w_blocks": "U8 2 32 2 16"}}, "", "a.w_blocks is U8 [2 32 2 16], and nothing says what these codes stand for"},
		{"MXFP4 without blocks", file{tensors: map[string]string{"a.w_scales": "U8 2 32 2"}, beside: map[string]string{"config.json": `{"quantization_config": {"quant_method": "mxfp4"}}`}}, "", "MXFP4: a.w_scales is U8 [2 32 2], and nothing says"},
		{"nf5", levelsFile(`{"quant_type": "nf5", "blocksize": 64, "shape": [4, 32]}`), "", `quant_type "nf5", want nf4 or fp4`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := read(t, tt.file)
			if len(m.Layers) != 1 {
				t.Fatalf("%d layers", len(m.Layers))
			}
			l := m.Layers[0]
			switch {
			case tt.want == "" && (l.Err != nil || l.Dtype != tt.dtype || l.Codec == nil || slices.ContainsFunc(l.Parts, func(p checkpoint.Tensor) bool { return p.Name == "" })):
				t.Errorf("%s, %v", l.Dtype, l.Err)
			case tt.want != "" && (l.Err == nil || !strings.Contains(l.Err.Error(), tt.want) || !strings.Contains(l.Err.Error(), "a.")):
				t.Errorf("%v, want it to hold %q", l.Err, tt.want)
			}
			for _, one := range m.Plain {
				if one.Name != "a.bias" && !strings.Contains(tt.name, "beside the plain weight") {
					t.Errorf("%s is a plain tensor", one.Name)
				}
			}
		})
	}
}

// levelsFile is a weight of bitsandbytes' with a JSON that says what it is.
func levelsFile(state string) file {
	return file{
		tensors: map[string]string{"a.weight": "U8 64 1", "a.weight.absmax": "F32 2", "a.weight.quant_map": "F32 16", "a.weight.quant_state.bitsandbytes__nf4": fmt.Sprintf("U8 %d", len(state))},
		bodies:  map[string][]byte{"a.weight.quant_state.bitsandbytes__nf4": []byte(state)},
	}
}

// TestSchemes: a layer's scheme is that of the group which names it, before one that
// names the class of modules.
func TestSchemes(t *testing.T) {
	f := file{tensors: map[string]string{"n.weight": "BF16 8"}, beside: map[string]string{"config.json": `{"quantization_config": {"quant_method": "compressed-tensors",
		"ignore": ["lm_head", "re:.*gate$"], "config_groups": {
		"group_0": {"targets": ["Embedding"], "weights": {"num_bits": 8}}, "group_1": {"targets": ["Linear"], "weights": {"num_bits": 4}},
		"group_2": {"targets": ["re:model.*mlp"], "weights": {"num_bits": 3}}, "group_3": {"targets": ["model.a.b"], "weights": {"num_bits": 2}}}}}`}}
	m := read(t, f)
	for name, bits := range map[string]int{"x": 4, "model.0.mlp.up": 3, "model.a.b": 2, "lm_head": 4, "model.0.mlp.gate": 3, "a.model.mlp": 4} {
		s := m.scheme(name)
		if got := number(s.weights, "num_bits"); got != bits || s.err != nil || (s.ignored != "") != (name == "lm_head" || strings.HasSuffix(name, "gate")) {
			t.Errorf("%s: %d bits, ignored by %q, %v", name, got, s.ignored, s.err)
		}
	}
}

// TestSpaced: the version of compressed-tensors tells how codes are packed.
func TestSpaced(t *testing.T) {
	for version, want := range map[string]string{
		"0.3.0": "true", "0.10.2": "true", "0.17.1": "true", "0.9.4.a20250401": "true", "0.18.0": "false", "0.20.1": "false", "1.0": "false", "": "unknown", "next": "unknown",
	} {
		got := "unknown"
		c, err := compressedOf(pyjson.Object{{Key: "version", Value: version}})
		if err != nil {
			t.Fatal(err)
		}
		if c.Spaced != nil {
			got = fmt.Sprint(*c.Spaced)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", version, got, want)
		}
	}
}
