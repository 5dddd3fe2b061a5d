package app

import (
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// traced is a weight as ComfyUI's own classes have it, and what its detection
// reads of it; conformance/comfy/detection.py writes them.
type traced struct {
	name, kind, sides string
	shape             []int
}

func readTraced(t *testing.T) (cases map[string][]traced) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "golden", "comfyui", "models.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	cases, name := map[string][]traced{}, ""
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimRight(line, "\n")+"\t\t\t", "\t")
		switch {
		case strings.HasPrefix(line, "#"):
		case fields[0] == "case":
			name = fields[1]
		default:
			one := traced{name: fields[0], kind: fields[2], sides: fields[3]}
			for side := range strings.SplitSeq(fields[1], "x") {
				if n, err := strconv.Atoi(side); err == nil {
					one.shape = append(one.shape, n)
				}
			}
			cases[name] = append(cases[name], one)
		}
	}
	if len(cases) < 50 {
		t.Fatalf("%d cases", len(cases))
	}
	return cases
}

func tensorsOf(list []traced) iter.Seq2[string, []int] {
	return func(yield func(string, []int) bool) {
		for _, one := range list {
			if !yield(one.name, one.shape) {
				return
			}
		}
	}
}

// besides are sides that the table has and the trace has not: read as the model
// is loaded, or in another variant.
var besides = []string{"core.pixel_embedder.proj.weight", "lq_proj.gate_modules.0.content_proj.weight"}

// TestComfyReads: a weight by whose shape ComfyUI tells a model, and that is
// packed, makes it another model or none; one that no linear layer reads comes
// out as noise.
func TestComfyReads(t *testing.T) {
	for name, list := range readTraced(t) {
		m := RecogniseComfy(tensorsOf(list))
		if m == nil || m.Err() != nil {
			t.Errorf("%s: taken for %v, %v", name, m, m.Err())
			continue
		}
		for _, one := range list {
			if len(one.shape) != 2 || !strings.HasSuffix(one.name, ".weight") || slices.Contains(besides, one.name) {
				continue
			}
			for side, mark := range []string{"0", "1"} {
				packed := slices.Clone(one.shape)
				packed[side] *= 2
				err := m.CheckLayer(Stored{Name: one.name, Format: "int8_tensorwise", Shape: one.shape, Packed: packed})
				if want := one.kind == "-" || strings.Contains(one.sides, mark); (err != nil) != want {
					t.Errorf("%s: %s %v, another side %s: %v; it is read: %v", name, one.name, one.shape, mark, err, want)
				}
			}
			for format, reads := range map[string]string{"int8_tensorwise": "le", "float8_e4m3fn": "le", "float8_e5m2": "le", "nvfp4": "l", "mxfp8": "l"} {
				err := m.CheckLayer(Stored{Name: one.name, Format: format, Shape: one.shape, Packed: one.shape})
				if want := strings.Contains(reads, one.kind); (err == nil) != want {
					t.Errorf("%s: %s (%s) as %s: %v, want it read: %v", name, one.name, one.kind, format, err, want)
				}
			}
		}
	}
}

// TestComfyKinds: codes of a kind that ComfyUI does not read quantized, or that
// it renames, would be taken for weights.
func TestComfyKinds(t *testing.T) {
	for _, test := range []struct{ names, err string }{
		{"text_model.encoder.layers.0.mlp.fc1.weight", "CLIP text encoder: ComfyUI reads no quantized layers in it"},
		{"text_model.encoder.layers.0.mlp.fc1.weight text_model.encoder.layers.30.mlp.fc1.weight text_projection.weight", "CLIP text encoder"},
		{"encoder.block.23.layer.1.DenseReluDense.wi_1.weight=10240 encoder.block.0.layer.0.SelfAttention.k.weight", ""},
		{"encoder.block.23.layer.1.DenseReluDense.wi_1.weight=5120 encoder.block.0.layer.0.SelfAttention.k.weight", "no T5-XXL"},
		{"encoder.block.23.layer.1.DenseReluDense.wi.weight=65536 encoder.block.0.layer.0.SelfAttention.k.weight", ""},
		{"encoder.block.0.layer.0.SelfAttention.k.weight encoder.block.11.layer.0.SelfAttention.k.weight", "no T5-XXL"},
		{"model.layers.0.self_attn.k_proj.weight model.layers.0.post_attention_layernorm.weight", ""},
		{"model.layers.0.self_attn.qkv_proj.weight model.layers.0.post_attention_layernorm.weight", "reads no quantized layers in it"},
		{"layers.0.self_attn.q_proj.weight embed_tokens.weight", "takes a text encoder with such names for CLIP"},
		{"model.language_model.layers.0.self_attn.k_proj.weight model.visual.blocks.0.attn.qkv.weight", "for CLIP"},
		{"model.language_model.layers.0.self_attn.k_proj.weight model.visual.deepstack_merger_list.0.norm.weight", ""},
		{"encoder.conv_in.weight decoder.conv_in.weight decoder.mid.block_1.conv1.weight", "VAE: ComfyUI reads no quantized"},
		{"decoder.transformer_blocks.0.scale1 encoder.down.5.block.0.conv1.weight decoder.conv_in.weight", ""},
		{"vision_model.encoder.layers.0.layer_norm1.weight vision_model.encoder.layers.0.mlp.fc1.weight", "image encoder"},
		{"double_blocks.0.img_attn.norm.key_norm.scale img_in.weight controlnet_blocks.0.weight", "controlnet"},
		{"input_blocks.0.0.weight input_hint_block.0.weight zero_convs.0.0.weight", "controlnet"},
		{"x_embedder.weight transformer_blocks.0.attn.to_q.weight single_transformer_blocks.0.proj_mlp.weight", "names are those of diffusers, and ComfyUI renames"},
		{"conv_in.weight time_embedding.linear_1.weight down_blocks.0.resnets.0.conv1.weight mid_block.resnets.0.conv1.weight", "UNet: the names are those of diffusers"},
		{"joint_transformer_blocks.0.attn.add_k_proj.weight", "AuraFlow: the names"},
		{"transformer_blocks.0.attn.add_q_proj.weight pos_embed.proj.weight", "Stable Diffusion 3: the names"},
		{"adaln_single.emb.timestep_embedder.linear_1.bias adaln_single.emb.timestep_embedder.linear_1.weight pos_embed.proj.bias pos_embed.proj.weight", "PixArt: the names"},
		{"noise_refiner.0.attention.norm_k.weight layers.0.attention.to_q.weight", "Z-Image: the names"},
		{"blocks.0.attn1.to_q.weight condition_embedder.time_embedder.linear_1.weight patch_embedding.weight", "by which ComfyUI does not know the model"},
		{"diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale diffusion_model.img_in.weight", "does not strip diffusion_model."},
		{"transformer.x_embedder.weight transformer.transformer_blocks.0.attn.to_q.weight", "names are those of diffusers"},
		{"layers.4.layers.1.attn_block.attn.qkv.weight layers.4.layers.1.attn_block.attn.proj.weight", "VAE: "},
		{"encoder.layer_norm.bias encoder.layers.0.attention.q_proj.weight feature_projection.projection.weight", "audio encoder: "},
		{"model.encoder.embed_positions.weight model.encoder.layers.0.fc1.weight", "audio encoder: "},
		{"control_all_x_embedder.2-1.weight control_layers.0.adaLN_modulation.0.weight", "model patch: "},
		{"controlnet_blocks.0.y_rms.weight controlnet_blocks.0.input_proj.weight img_in.weight", "controlnet: "},
		{"position_net.null_positive_feature position_net.linears.0.weight", "GLIGEN: "},
		{"initial_conv.weight post_upsample_res_blocks.0.conv2.bias", "latent upscaler: "},
		{"redux_down.weight redux_up.weight", "style model: "},
		{"layers.0.self_attn.sinks layers.0.mlp.experts.gate_up_proj.weight layers.0.mlp.router.weight", ""},
		{"bert.encoder.layer.0.attention.self.query.weight", ""},
		{"a.weight b.weight", ""},
	} {
		shapes := map[string][]int{}
		for entry := range strings.FieldsSeq(test.names) {
			name, rows, _ := strings.Cut(entry, "=")
			n, _ := strconv.Atoi(rows)
			shapes[name] = []int{n, 8}
		}
		m := RecogniseComfy(maps.All(shapes))
		switch err := m.Err(); {
		case test.err == "" && err != nil, test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%s: %v, want %q", test.names, err, test.err)
		}
	}
}

// TestComfyOutside: in an all-in-one checkpoint some text encoders are read
// quantized, VAEs and CLIP are not.
func TestComfyOutside(t *testing.T) {
	shapes := map[string][]int{"model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight": {8, 8}}
	m := RecogniseComfy(maps.All(shapes))
	for name, want := range map[string]bool{
		"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight":                   true,
		"text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.k.weight": true,
		"text_encoders.t5xxl.transformer.shared.weight":                                  false,
		"text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight":    false,
		"first_stage_model.decoder.mid.attn_1.q.weight":                                  false,
	} {
		if err := m.CheckLayer(Stored{Name: name, Format: "nvfp4", Shape: []int{8, 8}, Packed: []int{8, 4}}); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestComfyNames: what ComfyUI itself makes of models with the names of
// diffusers' and transformers' classes; conformance/comfy/kinds.py asked it.
func TestComfyNames(t *testing.T) {
	folder := filepath.Join("..", "..", "testdata", "golden")
	text, err := os.ReadFile(filepath.Join(folder, "comfyui", "kinds.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		name, verdict, found := strings.Cut(strings.TrimSpace(line), "\t")
		if !found {
			continue
		}
		n++
		m := RecogniseComfy(familyTensors(t, filepath.Join(folder, "families", name+".tsv")))
		switch err := m.Err(); verdict {
		case "reads":
			misread := name == "lumina2" // for OmniGen 2, so that it does not load
			if m == nil || (err != nil) != misread {
				t.Errorf("%s: %v, ComfyUI reads it", name, err)
			}
		case "renamed":
			if err == nil || !strings.Contains(err.Error(), "names are those of diffusers") {
				t.Errorf("%s: %v, ComfyUI renames its tensors", name, err)
			}
		case "plain":
			if err == nil {
				t.Errorf("%s: ComfyUI reads no quantized layers in it", name)
			}
		default:
			if m != nil && err == nil {
				t.Errorf("%s: taken for %s, ComfyUI does not know it", name, m.name)
			}
		}
	}
	if n < 70 {
		t.Errorf("%d cases", n)
	}
}

// familyTensors reads a list of package preset's, which leaves biases out.
func familyTensors(t *testing.T, path string) iter.Seq2[string, []int] {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	shapes := map[string][]int{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || name == "config" || name == "list" {
			continue
		}
		rows, _, _ := strings.Cut(rest, "x")
		n, _ := strconv.Atoi(rows)
		shapes[name] = []int{n, 1}
		if layer, ok := strings.CutSuffix(name, "weight"); ok {
			shapes[layer+"bias"] = []int{n}
		}
	}
	return maps.All(shapes)
}

// textEncoder is one as ComfyUI tells it from its names and shapes, and the
// kinds of modules that read its weights; conformance/comfy/texts.py writes them.
type textEncoder struct {
	name    string
	reads   bool
	tensors []traced
}

func readTexts(t *testing.T) (cases []textEncoder) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "golden", "comfyui", "texts.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimRight(line, "\n")+"\t\t", "\t")
		switch {
		case strings.HasPrefix(line, "#"):
		case fields[0] == "case":
			cases = append(cases, textEncoder{name: fields[1], reads: fields[2] == "reads"})
		default:
			one := traced{name: fields[0], kind: fields[2]}
			for side := range strings.SplitSeq(fields[1], "x") {
				if n, err := strconv.Atoi(side); err == nil {
					one.shape = append(one.shape, n)
				}
			}
			last := &cases[len(cases)-1]
			last.tensors = append(last.tensors, one)
		}
	}
	return cases
}

// TestComfyTexts: codes of a text encoder that ComfyUI reads plain would be
// taken for its weights, and one that it reads quantized is not to be refused.
func TestComfyTexts(t *testing.T) {
	cases := readTexts(t)
	if len(cases) < 40 {
		t.Errorf("%d cases", len(cases))
	}
	for _, c := range cases {
		m := RecogniseComfy(tensorsOf(c.tensors))
		if m == nil || (m.Err() == nil) != c.reads {
			t.Errorf("%s: taken for %v, %v; ComfyUI reads it quantized: %v", c.name, m, m.Err(), c.reads)
			continue
		}
		for _, one := range c.tensors {
			if one.kind == "" {
				continue
			}
			for format, reads := range map[string]string{"int8_tensorwise": "le", "nvfp4": "l"} {
				err := m.CheckLayer(Stored{Name: one.name, Format: format, Shape: []int{8, 8}, Packed: []int{8, 8}})
				if want := strings.Contains(reads, one.kind); (err == nil) != want {
					t.Errorf("%s: %s (%s) as %s: %v, want it read: %v", c.name, one.name, one.kind, format, err, want)
				}
			}
		}
	}
}

// TestEveryTextEncoderIsKnown: names by which ComfyUI tells text encoders (detect_te_model of
// comfy/sd.py) are those of a model.
func TestEveryTextEncoderIsKnown(t *testing.T) {
	for _, names := range []string{
		"text_model.encoder.layers.0.mlp.fc1.weight", "model.encoder.layers.0.mixer.Wqkv.weight",
		"encoder.block.0.layer.0.SelfAttention.k.weight encoder.block.23.layer.1.DenseReluDense.wi_1.weight",
		"encoder.block.0.layer.0.SelfAttention.k.weight encoder.block.23.layer.1.DenseReluDense.wi.weight", "encoder.block.0.layer.0.SelfAttention.k.weight",
		"model.encoder.layers.0.pre_self_attn_layernorm.weight", "model.layers.0.post_feedforward_layernorm.weight model.layers.0.self_attn.k_proj.weight",
		"layers.0.self_attn.sinks layers.0.mlp.experts.gate_up_proj.weight", "model.layers.0.self_attn.k_proj.bias model.layers.0.self_attn.k_proj.weight",
		"model.language_model.layers.0.linear_attn.A_log model.language_model.layers.0.input_layernorm.weight",
		"model.visual.deepstack_merger_list.0.norm.weight model.language_model.layers.0.self_attn.k_proj.weight",
		"visual.deepstack_merger_list.0.norm.weight model.layers.49.self_attn.q_proj.weight model.layers.0.self_attn.k_proj.weight",
		"model.layers.0.post_attention_layernorm.weight", "model.layers.0.post_attention_layernorm.weight model.layers.0.self_attn.q_norm.weight",
	} {
		if m := RecogniseComfy(shapesOf(strings.Fields(names))); m == nil {
			t.Errorf("%s: no model of ComfyUI's", names)
		}
	}
	if m := RecogniseComfy(shapesOf([]string{"encoder.layer.0.attention.self.query.weight"})); m != nil {
		t.Errorf("BERT is taken for %s", m.Kind())
	}
}

func shapesOf(names []string) iter.Seq2[string, []int] {
	return func(yield func(string, []int) bool) {
		for _, name := range names {
			if !yield(name, []int{64, 64}) {
				return
			}
		}
	}
}
