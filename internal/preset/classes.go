package preset

import (
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/sdnqconfig"
)

// class is what SDNQ and the library that runs it, diffusers or Transformers, know
// about a class of models.
type class struct {
	name string
	// tied are the weights that the class may tie to each other, that of the output
	// first. They are in SDNQ's list whether they are tied or not.
	tied       []string
	alwaysTied bool
	// last is the output embedding or the last parameter. Transformers adds it without
	// ".weight", so that it has an effect only if it contains no dot. # stands for the
	// highest number at its place.
	last    string
	float32 []string
	renames []rename
}

// rename turns a name in the file into the name in memory. It replaces the beginning of
// a name, or any part of it if from begins with a dot.
type rename struct{ from, to string }

func (r rename) apply(name string) (string, bool) {
	if strings.HasPrefix(r.from, ".") {
		return strings.Replace(name, r.from, r.to, 1), strings.Contains(name, r.from)
	}
	rest, ok := strings.CutPrefix(name, r.from)
	return r.to + rest, ok
}

// commonSkipKeys are SDNQ's keys for models whose class it does not know.
var commonSkipKeys = strings.Fields(`
	.time_embed .context_embedder .condition_embedder .x_embedder .t_embedder .y_embedder
	.proj_in .emb_in .txt_in .img_in .vid_in .proj_out .norm_out .emb_out .txt_out .img_out .vid_out
	.final_layer multi_modal_projector time_text_embed patch_embedding patch_embed patch_emb lm_head wte`)

// classSkipKeys are SDNQ's keys for the classes that it knows.
var classSkipKeys = lists(`
FluxTransformer2DModel LongCatImageTransformer2DModel: single_transformer_blocks.0.norm.linear.weight time_text_embed time_embed context_embedder x_embedder .proj_out norm_out
Flux2Transformer2DModel: double_stream_modulation_img double_stream_modulation_txt single_stream_modulation time_guidance_embed context_embedder x_embedder .proj_out norm_out
ChromaTransformer2DModel: distilled_guidance_layer time_text_embed context_embedder x_embedder .proj_out norm_out
QwenImageTransformer2DModel: transformer_blocks.0.img_mod.1.weight time_text_embed txt_in img_in proj_out norm_out
WanTransformer3DModel ChronoEditTransformer3DModel: scale_shift_table patch_embedding condition_embedder proj_out norm_out
LongCatVideoTransformer3DModel: blocks.0.adaLN_modulation.1.weight x_embedder t_embedder y_embedder final_layer
LTX2VideoTransformer3DModel: audio_time_embed time_embed audio_caption_projection caption_projection proj_in audio_proj_in proj_out audio_proj_out av_cross_attn_audio_scale_shift av_cross_attn_audio_v2a_gate av_cross_attn_video_a2v_gate av_cross_attn_video_scale_shift
Lumina2Transformer2DModel: layers.0.norm1.linear.weight time_caption_embed x_embedder norm_out
ZImageTransformer2DModel: layers.0.adaLN_modulation.0.weight t_embedder cap_embedder siglip_embedder all_x_embedder all_final_layer
Ideogram4Transformer2DModel: layers.0.adaln_modulation.weight input_proj llm_cond_proj llm_cond_norm final_layer t_embedding adaln_proj embed_image_indicator
CosmosTransformer3DModel: transformer_blocks.0.norm* patch_embed time_embed norm_out proj_out crossattn_proj
GlmImageTransformer2DModel: transformer_blocks.0.norm1.linear.weight image_projector glyph_projector prior_projector time_condition_embed norm_out proj_out
GlmImageForConditionalGeneration: lm_head patch_embed embeddings embed_tokens vqmodel
HunyuanImage3ForCausalMM: lm_head patch_embed time_embed time_embed_2 final_layer wte ln_f timestep_emb vae vision_aligner head post_layernorm embeddings
Emu3ForCausalLM: lm_head vq_model tokenizer
Gemma3nForCausalLM Gemma3nForConditionalGeneration: lm_head correction_coefs prediction_coefs embedding_projection
Gemma4ForConditionalGeneration: lm_head embed_audio embed_vision patch_embedder embed_tokens subsample_conv_projection output_proj
MoondreamModel HfMoondream: lm_head region wte post_ln proj_mlp patch_emb pos_emb
NaDiT NaDiTUpscaler: .emb_in .txt_in .vid_in .emb_scale .vid_out .vid_out_norm .vid_out_ada
HiDreamO1Qwen3VLTransformer: lm_head embed_tokens x_embedder t_embedder1 final_layer2 patch_embed pos_embed
`)

// lists reads lines of the form "names: keys", where the keys apply to each name.
func lists(table string) map[string][]string {
	m := map[string][]string{}
	for line := range strings.Lines(strings.TrimSpace(table)) {
		names, entries, _ := strings.Cut(line, ":")
		for _, name := range strings.Fields(names) {
			m[name] = strings.Fields(entries)
		}
	}
	return m
}

// skipKeys returns the keys that SDNQ and the library put into the list for a class
// before they look at any weight.
func (c *class) skipKeys(tied bool, highest func(before, after string) string) []string {
	host := diffusersFacts[c.name]
	list := slices.Concat(c.float32, host.float32, c.tied)
	if c.last != "" {
		last := c.last
		if before, after, ok := strings.Cut(last, "#"); ok && highest != nil {
			last = before + highest(before, after) + after
		}
		list = append(list, last)
	}
	if tied || c.alwaysTied {
		for _, name := range c.tied {
			list = append(list, strings.TrimSuffix(name, ".weight"))
		}
	}
	if own, ok := classSkipKeys[c.name]; ok {
		list = append(list, own...)
	} else {
		list = slices.Concat(list, commonSkipKeys, host.layerwise)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// The weights that text models tie to each other.
var (
	languageHead = strings.Fields(`lm_head.weight model.embed_tokens.weight`)
	visionHead   = strings.Fields(`lm_head.weight model.language_model.embed_tokens.weight`)
	t5Shared     = strings.Fields(`encoder.embed_tokens.weight shared.weight`)
	t5Head       = strings.Fields(`lm_head.weight encoder.embed_tokens.weight decoder.embed_tokens.weight shared.weight`)
	bertHead     = strings.Fields(`cls.predictions.decoder.weight cls.predictions.decoder.bias cls.predictions.bias bert.embeddings.word_embeddings.weight`)
)

// nestedLanguage are the renames of models with a vision tower.
var nestedLanguage = []rename{
	{"language_model.model.", "model.language_model."},
	{"language_model.lm_head.", "lm_head."},
	{"vision_tower.vision_model.", "model.vision_tower."},
	{"vision_tower.", "model.vision_tower."},
	{"multi_modal_projector.", "model.multi_modal_projector."},
}

// flatLanguage are the renames of models that had their language layers directly in
// model.
var flatLanguage = []rename{
	{"model.language_model.", "model.language_model."},
	{"model.visual.", "model.visual."},
	{"model.", "model.language_model."},
	{"visual.", "model.visual."},
}

func causal(names string) []class {
	return each(names, class{tied: languageHead, last: "lm_head"})
}

func base(names string) []class {
	return each(names, class{last: "norm", renames: []rename{{"model.", ""}}})
}

func each(names string, c class) []class {
	var out []class
	for _, name := range strings.Fields(names) {
		c.name = name
		out = append(out, c)
	}
	return out
}

// MemoryNames returns the names of a parameter in the loaded model, nil if it is the
// same as in the file. SDNQ matches its lists against these.
func (p *Preset) MemoryNames(param string) []string {
	for _, r := range p.class.renames {
		if name, ok := r.apply(param); ok {
			if name == param {
				break
			}
			return []string{name}
		}
	}
	return nil
}

// Skip returns the entry of SDNQ's list that keeps a parameter, and whether there is
// one.
func (p *Preset) Skip(param string) (entry string, ok bool) {
	if names := p.MemoryNames(param); names != nil {
		param = names[0]
	}
	return sdnqconfig.Match(param, p.SkipKeys)
}
