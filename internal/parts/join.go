package parts

import (
	"fmt"
	"slices"
	"strings"
)

// family says which prefixes ComfyUI expects in an all-in-one checkpoint with a diffusion
// model.
type family struct {
	kind string // of the model, as internal/app calls it, "" for all others
	// has is a name that the model has, or the beginning of one; with =N the second side of
	// that many. "" asks for nothing.
	has        string
	model, vae string            // prefixes
	texts      map[string]string // of the text encoders that it has; * for all others
}

var general = map[string]string{"*": "text_encoders.*.transformer."}

// conditioned is of models whose text encoders stand where those of SD 1.5 do.
var conditioned = map[string]string{"*": "cond_stage_model.*.transformer."}

// crossAttention is the weight by which UNets are told: it reads the text.
const crossAttention = "attn2.to_k.weight"

var families = []family{
	{kind: "UNet", has: crossAttention + "=768", model: unet, vae: first, texts: map[string]string{"clip_l": "cond_stage_model.transformer."}},
	{kind: "UNet", has: crossAttention + "=1024", model: unet, vae: first, texts: map[string]string{"clip_h": "cond_stage_model.model."}},
	{kind: "UNet", has: crossAttention + "=1280", model: unet, vae: first, texts: map[string]string{"clip_g": "conditioner.embedders.0.model."}},
	{kind: "UNet", has: crossAttention + "=2048", model: unet, vae: first, texts: map[string]string{"clip_l": "conditioner.embedders.0.transformer.", "clip_g": "conditioner.embedders.1.model."}},
	{kind: "Stable Diffusion 3", model: unet, vae: first, texts: general},
	{kind: "Flux, Chroma or their kin", has: "distilled_guidance_layer.", model: unet, vae: first, texts: conditioned},
	{kind: "Cosmos Predict 2 or Anima", model: unet, vae: first, texts: conditioned},
	{kind: "Stable Audio", model: "model.model.", vae: "pretransform.model.", texts: general},
	{kind: "Stable Cascade C", model: unet, vae: "vae.", texts: map[string]string{"clip_g": "text_encoder."}},
	{kind: "Stable Cascade B", model: unet, vae: "vae.", texts: map[string]string{"clip_g": "text_encoder."}},
	{kind: "Hunyuan Video", model: "model.model.", vae: "vae.", texts: general},
	{kind: "Hunyuan 3D 2", model: "model.", vae: "vae.", texts: general},
	{kind: "Hunyuan 3D 2.1", model: "model.", vae: "vae.", texts: general},
	{model: unet, vae: "vae.", texts: general},
}

const (
	unet  = "model.diffusion_model."
	first = "first_stage_model."
)

// Home is where the parts beside a diffusion model stand.
type Home struct {
	family
	kind string
}

// HomeOf finds it by the kind of a model and by its tensors, named as in its own file.
func HomeOf(kind string, model Shapes) Home {
	i := slices.IndexFunc(families, func(f family) bool { return (f.kind == "" || f.kind == kind) && model.fits(f.has) })
	return Home{families[i], kind}
}

func (s Shapes) fits(has string) bool {
	end, columns, sized := strings.Cut(has, "=")
	switch {
	case has == "":
		return true
	case !sized:
		return s.has(end)
	}
	for name, shape := range s {
		if strings.HasSuffix(name, end) {
			return len(shape) > 1 && fmt.Sprint(shape[1]) == columns
		}
	}
	return false
}

// Prefix is what the names of a part begin with in the whole; own are the part's tensors,
// named as in its own file.
func (h Home) Prefix(part string, own Shapes) (string, error) {
	switch part {
	case Model:
		return h.model, nil
	case VAE:
		return h.vae, nil
	case Rest:
		return "", nil
	case Vision:
		return "", fmt.Errorf("an image encoder is loaded by itself: it has no place that is known in a checkpoint")
	}
	prefix, ok := h.texts[part]
	if !ok {
		prefix, ok = h.texts["*"]
	}
	if !ok {
		return "", fmt.Errorf("a text encoder %s has no place beside this model (%s), which has %s", part, h.kind, strings.Join(h.known(), ", "))
	}
	prefix = strings.Replace(prefix, "*", part, 1)
	openCLIP := own.has("transformer.resblocks.")
	switch converts := strings.HasSuffix(prefix, ".model."); {
	case openCLIP && !converts:
		return "", fmt.Errorf("has OpenCLIP's names, which ComfyUI does not read there: it needs those of transformers (text_model.encoder.layers.0.…)")
	case !openCLIP && converts:
		prefix += "transformer."
	}
	if isCLIP(part) && own.has("encoder.layers.0.") { // as transformers 5 names them
		prefix += "text_model."
	}
	return prefix, nil
}

func isCLIP(part string) bool { return strings.HasPrefix(part, "clip_") }

func (h Home) known() (names []string) {
	for name := range h.texts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Words are the names of parts that stand in a file by the side of a part's own names, and
// go to the whole under others.
func Words(part, name string) (string, bool) {
	if slices.Contains([]string{"spiece_model", "tekken_model", "tokenizer_json"}, name) {
		return "text_encoders." + part + "." + name, true
	}
	return name, part == Model && slices.ContainsFunc(places, func(p place) bool { return p.part == Model && p.prefix == name })
}

// encoder is a text encoder that is told by its names.
type encoder struct {
	part string
	has  string // a name, or the beginning of one
	size string // of the tensors NAME:SIDE=SIZE, "" for none
}

// encoders in their order; the first that fits counts. Which of several language models of
// one size it is, the family tells.
var encoders = []encoder{
	{part: "clip_g", has: "text_model.encoder.layers.30."},
	{part: "clip_h", has: "text_model.encoder.layers.22."},
	{part: "clip_l", has: "text_model.encoder.layers.0."},
	{part: "clip_g", has: "transformer.resblocks.30."},
	{part: "clip_h", has: "transformer.resblocks.22."},
	{part: "clip_g", has: "encoder.layers.30.self_attn.q_proj."},
	{part: "clip_h", has: "encoder.layers.22.self_attn.q_proj."},
	{part: "clip_l", has: "encoder.layers.0.self_attn.q_proj."},
	{part: "umt5xxl", has: "encoder.block.23.layer.1.DenseReluDense.wi_1.weight", size: "shared.weight:0=256384"},
	{part: "t5xxl", has: "encoder.block.23.layer.1.DenseReluDense.wi_1.weight", size: "encoder.block.23.layer.1.DenseReluDense.wi_1.weight:0=10240"},
	{part: "t5xxl", has: "encoder.block.23.layer.1.DenseReluDense.wi.weight"},
	{part: "gpt_oss", has: "layers.0.self_attn.sinks"},
	{part: "gemma2_2b", has: "model.layers.0.post_feedforward_layernorm.weight", size: "model.layers.0.input_layernorm.weight:0=2304"},
	{part: "llama", has: "model.layers.31.", size: "model.embed_tokens.weight:0=128320"},
	{part: "llama", has: "model.layers.31.", size: "model.embed_tokens.weight:0=128256"},
	{part: "qwen25_3b", has: "model.layers.0.self_attn.k_proj.bias", size: "model.layers.0.self_attn.k_proj.bias:0=256"},
	{part: "qwen25_7b", has: "model.layers.0.self_attn.k_proj.bias", size: "model.layers.0.self_attn.k_proj.bias:0=512"},
	{part: "qwen3vl_4b", has: "model.visual.deepstack_merger_list.0.norm.weight", size: "model.visual.merger.linear_fc2.weight:0=2560"},
	{part: "qwen3vl_8b", has: "model.visual.deepstack_merger_list.0.norm.weight"},
	{part: "qwen3_06b", has: "model.layers.0.self_attn.q_norm.weight", size: "model.layers.0.post_attention_layernorm.weight:0=1024"},
	{part: "qwen3_2b", has: "model.layers.0.self_attn.q_norm.weight", size: "model.layers.0.post_attention_layernorm.weight:0=2048"},
	{part: "qwen3_4b", has: "model.layers.0.self_attn.q_norm.weight", size: "model.layers.0.post_attention_layernorm.weight:0=2560"},
	{part: "qwen3_8b", has: "model.layers.0.self_attn.q_norm.weight", size: "model.layers.0.post_attention_layernorm.weight:0=4096"},
	{part: "mistral3_24b", has: "model.layers.39.", size: "model.layers.0.post_attention_layernorm.weight:0=5120"},
}

// EncoderOf tells which text encoder a file is, "" for none that is known.
func EncoderOf(own Shapes) string {
	for _, e := range encoders {
		name, size, _ := strings.Cut(e.size, "=")
		name, side, _ := strings.Cut(name, ":")
		if own.has(e.has) && (size == "" || fmt.Sprint(own.side(name, int(side[0]-'0'))) == size) {
			return e.part
		}
	}
	return ""
}

// IsWhole reports whether names are those of an all-in-one checkpoint, or of its rest.
func IsWhole(all Shapes) bool {
	for _, part := range Divide(all, "") {
		if slices.ContainsFunc(part.Tensors, func(names [2]string) bool { return names[0] != names[1] }) {
			return true
		}
	}
	return false
}

// Names are those of all parts, text encoders as ComfyUI calls them.
func Names() []string {
	return slices.Concat([]string{Model, VAE, Rest}, strings.Fields(`clip_l clip_g clip_h hydit_clip t5xxl t5base umt5xxl umt5base mt5xl pile_t5xl byt5_small
		llama gemma2_2b gpt_oss mistral3_24b ministral3_3b qwen25_3b qwen25_7b qwen3_06b qwen3_2b qwen3_4b qwen3_8b qwen3vl qwen3vl_4b qwen3vl_8b qwen3vl_32b`))
}
