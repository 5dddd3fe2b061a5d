package layout

import (
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// foreignFiles are what programs write of weights that are not decoded, and what
// the error of the layer must name.
var foreignFiles = []struct {
	name    string
	config  string // of the model
	tensors map[string]string
	layer   string
	want    []string
}{
	{"bitsandbytes nf4, its JSON damaged", "", map[string]string{
		"a.weight": "U8 16 1", "a.weight.absmax": "U8 4", "a.weight.nested_absmax": "F32 1", "a.weight.quant_map": "F32 16",
		"a.weight.quant_state.bitsandbytes__nf4": "U8 90",
	}, "a", []string{"bitsandbytes: a.weight, a.weight.absmax", "quant_state.bitsandbytes__nf4: byte 0: no JSON"}},
	{"nf4 without its JSON", "", map[string]string{"a.weight": "BF16 8 1", "a.weight.absmax": "F32 4", "a.weight.quant_map": "F32 16"}, "a", []string{"quant_state.bitsandbytes__nf4 is missing"}},
	{"GPTQ", "", map[string]string{"a.qweight": "I32 4 32", "a.qzeros": "I32 1 4", "a.scales": "F16 1 32", "a.g_idx": "I32 32"}, "a", []string{"GPTQ: a.g_idx, a.qweight, a.qzeros, a.scales: no config says whether zero points"}},
	{"GPTQ without g_idx", "", map[string]string{"a.qweight": "I32 4 32", "a.qzeros": "I32 1 4", "a.scales": "F16 1 32"}, "a", []string{"GPTQ: a.qweight"}},
	{"AWQ under GPTQ's name", `{"quantization_config": {"quant_method": "gptq", "bits": 4}}`, map[string]string{"a.qweight": "I32 32 4", "a.qzeros": "I32 1 4", "a.scales": "F16 1 32"}, "a", []string{"AWQ, though quantization_config of config.json (GPTQ) says otherwise: a.qweight"}},
	{"GPTQ under AWQ's name", `{"quantization_config": {"quant_method": "awq", "bits": 4}}`, map[string]string{"a.qweight": "I32 4 32", "a.qzeros": "I32 1 4", "a.scales": "F16 1 32"}, "a", []string{"GPTQ, though quantization_config of config.json (AWQ) says otherwise: a.qweight"}},
	{"compressed-tensors, shape damaged", "", map[string]string{"a.weight_packed": "I32 4 4", "a.weight_scale": "BF16 4 1", "a.weight_shape": "I64 2"}, "a", []string{"compressed-tensors", "a.weight_packed", "weight_shape has 0"}},
	{"MX scales by rows", "", map[string]string{"a.weight": "F8_E4M3 16 64", "a.weight_scale": "U8 16 2"}, "a", []string{"mxfp8: a.weight", "by rows"}},
	{"powers of two for groups", "", map[string]string{"a.weight": "F8_E5M2 16 64", "a.weight_scale": "F8_E8M0 16 2"}, "a", []string{"MX scales by rows"}},
	{"MXFP4 experts under another method", `{"quantization_config": {"quant_method": "awq"}}`, map[string]string{"m.gate_up_proj_blocks": "U8 2 4 1 16", "m.gate_up_proj_scales": "U8 2 4 1", "m.gate_up_proj_bias": "BF16 2 4"}, "m.gate_up_proj", []string{"MXFP4, though quantization_config of config.json (AWQ) says otherwise: m.gate_up_proj_blocks, m.gate_up_proj_scales"}},
	{"nunchaku", "", map[string]string{"a.qweight": "I8 4 4", "a.wscales": "BF16 1 4", "a.smooth": "BF16 8", "a.proj_down": "BF16 8 2", "a.proj_up": "BF16 4 2"}, "a", []string{"nunchaku"}},
	{"HQQ", "", map[string]string{"a.W_q": "U8 4 4", "a.scale": "BF16 4 1", "a.zero": "BF16 4 1"}, "a", []string{"HQQ: a.W_q"}},
	{"EETQ", "", map[string]string{"a.weight": "I8 4 8", "a.weight_scales": "F16 8"}, "a", []string{"EETQ"}},
	{"quanto", "", map[string]string{"a.weight._data": "I8 4 8", "a.weight._scale": "BF16 4 1"}, "a", []string{"quanto: a.weight._data"}},
	{"quanto in four bits", "", map[string]string{"a.weight._data._data": "U8 2 8", "a.weight._scale": "BF16 4 1", "a.weight._shift": "BF16 4 1"}, "a", []string{"quanto: a.weight._data._data"}},
	{"torchao", "", map[string]string{"a.weight:qdata": "I8 4 8", "a.weight:scale": "BF16 4 1"}, "a", []string{"torchao: a.weight:qdata, a.weight:scale"}},
	{"torchao's older names", "", map[string]string{"a.weight.tensor_impl.int_data": "I8 4 8", "a.weight.tensor_impl.scale": "BF16 4"}, "a", []string{"torchao: a.weight.tensor_impl.int_data"}},
	{"MXFP4 experts under their first names", "", map[string]string{"m.mlp1_weight.blocks": "U8 2 4 1 16", "m.mlp1_weight.scales": "U8 2 4 1"}, "m.mlp1_weight", []string{"MXFP4: m.mlp1_weight.blocks, m.mlp1_weight.scales"}},
	{"awq_w4a16", "", map[string]string{"a.weight": "I8 32 32", "a.weight_scale": "BF16 1 32", "a.weight_zeros": "BF16 1 32"}, "a", []string{"awq_w4a16 without its description: a.weight, a.weight_scale, a.weight_zeros"}},
	{"the weight of an attention", "", map[string]string{"a.in_proj_weight": "I8 24 8"}, "a.in_proj_weight", []string{"a.in_proj_weight is I8 [24 8], and nothing says"}},
	{"fused experts without a scale", "", map[string]string{"e.gate_up_proj": "U8 2 4 8"}, "e.gate_up_proj", []string{"nothing says"}},
	{"AQLM", "", map[string]string{"a.codes": "I8 4 1 1", "a.codebooks": "F16 1 256 1 8", "a.scales": "F16 4 1 1 1"}, "a", []string{"AQLM"}},
	{"MLX", "", map[string]string{"a.weight": "U32 4 8", "a.scales": "BF16 4 1", "a.biases": "BF16 4 1"}, "a", []string{"MLX"}},
	{"SDNQ, config lost", "", map[string]string{"a.weight": "U8 64", "a.scale": "F32 4 2 1", "a.zero_point": "F32 4 2 1"}, "a", []string{"SDNQ", "a.zero_point", ConfigFile}},
	{"int8 of SDNQ or another's", "", map[string]string{"a.weight": "I8 4 8", "a.scale": "F32 4 1"}, "a", []string{"may be SDNQ's", "`MigrateOptions.AddKeys` '{\"format\": \"int8_tensorwise\"}'"}},
	{"int8 of SDNQ by columns", "", map[string]string{"a.weight": "I8 8 4", "a.scale": "F32 1 4"}, "a", []string{"may be SDNQ's"}},
	{"fp8 of SDNQ or another's", "", map[string]string{"a.weight": "F8_E4M3 4 8", "a.scale": "F32 4 1"}, "a", []string{`"float8_e4m3fn_rowwise"`}},
	{"int8 without a scale", "", map[string]string{"a.weight": "I8 4 8"}, "a", []string{"a.weight is I8 [4 8], and nothing says"}},
	{"words without a scale", "", map[string]string{"a.weight": "I32 4 8"}, "a", []string{"nothing says"}},
	{"4-bit floats", "", map[string]string{"a.weight": "F4 4 8"}, "a", []string{"nothing says"}},
	{"experts in eight bits", "", map[string]string{"e.gate_up_proj": "F8_E4M3 2 4 8", "e.gate_up_proj_scale_inv": "F32 2 1 1"}, "e.gate_up_proj", []string{"e.gate_up_proj_scale_inv", "not known"}},
	{"packed experts", "", map[string]string{"e.down_proj": "U8 2 4 8", "e.down_proj_weight_scale": "F32 2 1 1"}, "e.down_proj", []string{"e.down_proj_weight_scale"}},
	{"another scale", "", map[string]string{"a.weight": "F8_E4M3 4 8", "a.weight_scale": "F32", "a.weight_scale_3": "F32"}, "a", []string{"a.weight_scale_3, which is not known"}},
	{"int8 in groups", "", map[string]string{"a.weight": "I8 4 64", "a.weight_scale": "F32 4 2"}, "a", []string{"a scale for every 32 columns"}},
	{"a method whose codes mean something else", `{"quantization_config": {"quant_method": "bitnet"}}`, map[string]string{"a.weight": "I8 4 8", "a.weight_scale": "F32 1"}, "a", []string{"BitNet: a.weight, a.weight_scale"}},
}

// TestForeignAreNamed: weights of other programs that are not decoded are layers
// with an error that names program and tensors, and no plain tensors.
func TestForeignAreNamed(t *testing.T) {
	for _, tt := range foreignFiles {
		t.Run(tt.name, func(t *testing.T) {
			f := file{tensors: tt.tensors}
			if tt.config != "" {
				f.beside = map[string]string{"config.json": tt.config}
			}
			m := read(t, f.with("n.weight", "BF16 8"))
			if len(m.Layers) != 1 || m.Layers[0].Name != tt.layer || m.Layers[0].Err == nil {
				t.Fatalf("%d layers, %v", len(m.Layers), m.Failed())
			}
			for _, want := range tt.want {
				if !strings.Contains(m.Failed().Error(), want) {
					t.Errorf("%v, want it to hold %q", m.Failed(), want)
				}
			}
			if len(m.Layers[0].Tensors) != len(tt.tensors) && !strings.Contains(tt.name, "another scale") {
				t.Errorf("%d tensors belong, want %d", len(m.Layers[0].Tensors), len(tt.tensors))
			}
			for _, one := range m.Plain {
				if IsCode(one.Dtype) {
					t.Errorf("%s is a plain tensor", one.Name)
				}
			}
		})
	}
}

// TestIntegersThatAreNoCodes: positions, masks, counters, tokenizers and tables of
// integers stay as they are.
func TestIntegersThatAreNoCodes(t *testing.T) {
	m := read(t, file{tensors: map[string]string{
		"embeddings.position_ids": "I64 1 77", "bn.num_batches_tracked": "I64", "attn.relative_position_index": "I64 49 49",
		"attn.logit_scale": "F32 4", "spiece_model": "U8 100", "tekken_model": "U8 100", "attn_mask": "BOOL 4 4", "table": "I32 4 4",
		"token_type_ids": "I64 1 77", "g_idx": "I32 8", "norm.scale": "F32 8", "norm.weight": "BF16 8", "a.weight": "BF16 4 8",
		"causal_mask": "U8 1 1 4 4", "list.weight": "I64 8", "hash.weight": "F64 4 4",
	}})
	if len(m.Layers) != 0 || m.Failed() != nil {
		t.Errorf("%d layers, %v", len(m.Layers), m.Failed())
	}
}

// TestUndescribed: ComfyUI's formats that nothing describes are read by their
// names, dtypes and shapes.
func TestUndescribed(t *testing.T) {
	nvfp4 := map[string]string{"a.weight": "U8 64 32", "a.weight_scale": "F8_E4M3 128 4", "a.weight_scale_2": "F32", "a.input_scale": "F32"}
	for _, tt := range []struct {
		name, format string
		file         file
		shape        []int
	}{
		{"nvfp4", "nvfp4", file{tensors: nvfp4}, []int{64, 64}},
		{"nvfp4, scales as U8", "nvfp4", file{tensors: nvfp4}.with("a.weight_scale", "U8 128 4"), []int{64, 64}},
		{"mxfp8", "mxfp8", file{tensors: map[string]string{"a.weight": "F8_E4M3 64 64", "a.weight_scale": "F8_E8M0 128 4"}}, []int{64, 64}},
		{"mxfp8, both orders fit", "mxfp8", file{tensors: map[string]string{"a.weight": "F8_E4M3 128 128", "a.weight_scale": "F8_E8M0 128 4"}}, []int{128, 128}},
		{"mxfp8, scales as U8", "mxfp8", file{tensors: map[string]string{"a.weight": "F8_E4M3 64 64", "a.weight_scale": "U8 128 4"}}, []int{64, 64}},
		{"blocks of powers of two", "float8_e4m3fn_blockwise", file{tensors: map[string]string{"a.weight": "F8_E4M3 256 256", "a.weight_scale": "F8_E8M0 2 2"}}, []int{256, 256}},
		{"int8", "int8_tensorwise", file{tensors: map[string]string{"a.weight": "I8 8 64", "a.weight_scale": "F32 8 1"}}, []int{8, 64}},
		{"fp8 with .scale", "float8_e4m3fn", file{tensors: map[string]string{"a.weight": "F8_E4M3 8 64", "a.scale": "F32"}}, []int{8, 64}},
		{"fp8 blocks with .scale", "float8_e4m3fn_blockwise", file{tensors: map[string]string{"a.weight": "F8_E4M3 256 256", "a.scale": "F8_E8M0 2 2"}}, []int{256, 256}},
		{"int8 with .scale", "int8_tensorwise", file{tensors: map[string]string{"a.weight": "I8 8 64", "a.scale": "F32 8"}}, []int{8, 64}},
	} {
		m := read(t, tt.file)
		if len(m.Layers) != 1 || m.Failed() != nil || m.Layers[0].Format != tt.format || !slices.Equal(m.Layers[0].Shape(), tt.shape) || len(m.Plain) != 0 {
			t.Errorf("%s: %d layers, %v, %d plain", tt.name, len(m.Layers), m.Failed(), len(m.Plain))
			continue
		}
	}
}

// TestOrderOfBlocksIsOne: a layer whose shape tells that scales lie by rows tells
// it of the others.
func TestOrderOfBlocksIsOne(t *testing.T) {
	m := read(t, file{tensors: map[string]string{
		"a.weight": "U8 128 32", "a.weight_scale": "F8_E4M3 128 4", "a.weight_scale_2": "F32",
		"b.weight": "U8 16 32", "b.weight_scale": "F8_E4M3 16 4", "b.weight_scale_2": "F32",
	}})
	for _, l := range m.Layers {
		if l.Err != nil || l.Layout != nvfp4ByRows.Layout {
			t.Errorf("layer %s: %s, %v", l.Name, l.Layout.Name, l.Err)
		}
	}
	m = read(t, file{tensors: map[string]string{
		"a.weight": "F8_E4M3 128 128", "a.weight_scale": "U8 128 4", "b.weight": "F8_E4M3 16 64", "b.weight_scale": "U8 16 2",
	}})
	for _, l := range m.Layers {
		if l.Err == nil || !strings.Contains(l.Err.Error(), "by rows") {
			t.Errorf("layer %s: %v", l.Name, l.Err)
		}
	}
}

// TestRotatedNeighbours: no shape tells whether rows are rotated, so where others
// are, a layer without a description is not guessed.
func TestRotatedNeighbours(t *testing.T) {
	m := read(t, file{tensors: map[string]string{
		"a.weight": "I8 4 256", "a.weight_scale": "F32 4 1", "a.comfy_quant": `={"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 256}`,
		"b.weight": "I8 4 256", "b.weight_scale": "F32 4 1",
	}})
	if b := m.Layers[1]; b.Err == nil || !b.Ambiguous || !strings.Contains(b.Err.Error(), "convrot") {
		t.Errorf("%v", b.Err)
	}
	m = read(t, file{tensors: map[string]string{
		"a.weight": "I8 4 128", "a.weight_scale": "F32 4", "a.comfy_quant": `={"format": "convrot_w4a4"}`,
		"b.weight": "I8 4 128", "b.weight_scale": "F32 4",
	}})
	if b := m.Layers[1]; b.Err == nil || !b.Ambiguous || !strings.Contains(b.Err.Error(), "convrot_w4a4") {
		t.Errorf("codes that may be two to a byte: %v", b.Err)
	}
}

// TestScalesInOneDimension: a file that lost all its descriptions must not be read as
// int8 where its scales are shaped as those of two codes to a byte.
func TestScalesInOneDimension(t *testing.T) {
	for scale, doubtful := range map[string]bool{"F32 4": true, "F32 4 1": false, "F32": false, "F32 1": false} {
		m := read(t, file{tensors: map[string]string{"a.weight": "I8 4 128", "a.weight_scale": scale}})
		if got := m.Layers[0].Ambiguous; got != doubtful {
			t.Errorf("scale %s: ambiguous is %v: %v", scale, got, m.Layers[0].Err)
		}
	}
}

// TestDeclarations: a method that is not known is an error of the whole, one that
// is known leaves it to the tensors.
func TestDeclarations(t *testing.T) {
	for _, tt := range []struct{ config, method, want string }{
		{`{"quantization_config": {"quant_method": "gptq", "bits": 4}}`, "GPTQ", ""},
		{`{"quantization_config": {"quant_method": "compressed-tensors"}}`, "compressed-tensors", ""},
		{`{"quantization_config": {"load_in_8bit": true}}`, "bitsandbytes", ""},
		{`{"quantization": {"group_size": 64, "bits": 4}}`, "MLX", ""},
		{`{"quantization_config": {"group_size": 64, "bits": 4, "mode": "affine"}}`, "MLX", ""},
		{`{"quantization": {"codebook": 4}}`, "", ""},
		{`{"text_config": {"quantization_config": {"quant_method": "fp8"}}}`, "FP8", ""},
		{`{"thinker_config": {"text_config": {"quantization_config": {"quant_method": "gptq"}}}}`, "GPTQ", ""},
		{`{"text_config": {"compression_config": {"quant_method": "compressed-tensors"}}}`, "compressed-tensors", ""},
		{`{"quantization_config": {"quant_method": "sdnq", "weights_dtype": "int8"}}`, "", ""},
		{`{"quantization_config": {"quant_method": "homemade"}}`, "homemade", `quantization method "homemade", which is not known`},
		{`{"quantization_config": {"bits": 3}}`, "", "names no quantization method that is known"},
		{`{"quantization_config": {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"u": {}}}}}`, "compressed-tensors", "rotated"},
	} {
		m := read(t, file{tensors: map[string]string{"a.weight": "BF16 4 8"}, beside: map[string]string{"config.json": tt.config}})
		if (m.Declared == nil) != (tt.method == "" && tt.want == "") || m.Declared != nil && m.Declared.Method != tt.method {
			t.Errorf("%s: %+v", tt.config, m.Declared)
		}
		if without, err := pyjson.ParseObject([]byte(tt.config)); err != nil || m.Declared != nil && inConfig(WithoutDeclarations(without)) != nil {
			t.Errorf("%s: a declaration is left in %v, %v", tt.config, WithoutDeclarations(without), err)
		}
		err := m.Failed()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.config, err, tt.want)
		}
	}
	m := read(t, file{tensors: map[string]string{"a.weight": "BF16 4 8"}, beside: map[string]string{
		"hf_quant_config.json": `{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}`,
	}})
	if m.Declared == nil || m.Declared.Method != "NVIDIA ModelOpt" || m.Failed() != nil {
		t.Errorf("%+v, %v", m.Declared, m.Failed())
	}
}

// TestHeaderPrefix: entries of the header find their layers under another known
// prefix, with all that they say; the rest is told.
func TestHeaderPrefix(t *testing.T) {
	entry := `{"format": "float8_e4m3fn", "full_precision_matrix_mult": true}`
	for _, tt := range []struct{ name, entry, tensor string }{
		{"taken off the tensors", "model.diffusion_model.", ""}, {"put before the tensors", "", "model.diffusion_model."},
		{"exchanged", "diffusion_model.", "model.diffusion_model."}, {"another", "net.", "model."}, {"transformer", "transformer.", ""},
	} {
		f := file{tensors: map[string]string{tt.tensor + "b.0.weight": "F8_E4M3 4 8", tt.tensor + "b.0.weight_scale": "F32"}}
		m := read(t, f.header(`{"layers": {"`+tt.entry+`b.0": `+entry+`}}`))
		if len(m.Layers) != 1 || m.Layers[0].Name != tt.tensor+"b.0" || m.Layout != Comfy || m.Failed() != nil || len(m.Renamed) != 1 || len(m.Unmatched) != 0 {
			t.Errorf("%s: %d layers, %v, %v", tt.name, len(m.Layers), m.Unmatched, m.Failed())
			continue
		}
		if v, _ := m.Layers[0].Options.Get("full_precision_matrix_mult"); v != true {
			t.Errorf("%s: %v", tt.name, m.Layers[0].Options)
		}
	}
	m := read(t, file{tensors: map[string]string{"b.0.weight": "F8_E4M3 4 8", "b.0.weight_scale": "F32"}}.header(`{"layers": {"c.0": `+entry+`}}`))
	if !slices.Equal(m.Unmatched, []string{"c.0"}) {
		t.Errorf("unmatched: %v", m.Unmatched)
	}
}
