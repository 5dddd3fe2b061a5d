package preset

import (
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Filter is a preset of convert_to_quant 1.3.4: parts of tensor names that it keeps or
// drops. Keep joins its lists "exclude" and "highprec", which have the same effect.
type Filter struct {
	Name     string // the name of its flag
	Category string
	Keep     []string
	Remove   []string
	Final    bool   // keeps the last layer of the language model too
	Alias    string // the name of the filter that this one stands for
}

// Avoid is what most text filters keep, and what the nvfp4 and mxfp8 paths always keep.
var Avoid = strings.Fields(`
	norm bias embed_tokens lm_head shared patch_embedding audio_model.patch_embedding ref_conv control_adapter
	motion_encoder.enc.net_app face_encoder.conv pose_patch_embedding motion_encoder.enc.fc img_emb.proj k_norm q_norm
	motion_encoder.dec head.modulation casual_audio_encoder cond_encoder frame_packer norm_k norm_q tekken_model
	multi_modal_projector patch_conv ln_pre input_layernorm attention_norm post_attention_layernorm mm_input_projection_weight`)

var zimageNorms = `cap_embedder.0 cap_pad_token attention_norm1 attention_norm2 ffn_norm1 ffn_norm2 k_norm q_norm x_pad_token `

var filters = []Filter{
	{Name: "gemma4", Category: "text", Keep: strings.Fields(`audio per_layer_input_gate per_layer_projection vision multi_modal_projector`)},
	{Name: "qwen_vlm", Category: "text", Keep: strings.Fields(`.layers.0. lm_head embed_tokens in_proj_a in_proj_b visual. mtp.`), Final: true},
	{Name: "qwen35", Category: "text", Alias: "qwen_vlm"},
	{Name: "t5xxl", Category: "text", Keep: Avoid, Remove: strings.Fields(`decoder lm_head`)},
	{Name: "mistral", Category: "text", Keep: Avoid},
	{Name: "visual", Category: "text", Keep: strings.Fields(`mlp.down_proj mlp.up_proj mlp.gate_proj`)},
	{Name: "generic_text", Category: "text"},
	{Name: "anima", Category: "diffusion", Keep: strings.Fields(`net.blocks.0. net.blocks.1.adaln_modulation final_layer llm_adapter t_embedder x_embedder`)},
	{Name: "lens", Category: "diffusion", Keep: strings.Fields(`time_text_embed img_in norm_out proj_out img_mod.1 txt_mod.1 txt_in`)},
	{Name: "flux2", Category: "diffusion", Keep: strings.Fields(`stream_modulation guidance_in time_in final_layer img_in txt_in`)},
	{Name: "distillation_large", Category: "diffusion", Keep: strings.Fields(`distilled_guidance_layer final_layer img_in txt_in`)},
	{Name: "distillation_small", Category: "diffusion", Keep: strings.Fields(`distilled_guidance_layer`)},
	{Name: "nerf_large", Category: "diffusion", Keep: strings.Fields(`distilled_guidance_layer nerf_blocks nerf_image_embedder txt_in _attn.proj`)},
	{Name: "nerf_small", Category: "diffusion", Keep: strings.Fields(`distilled_guidance_layer nerf_blocks nerf_image_embedder`)},
	{Name: "radiance", Category: "diffusion", Keep: strings.Fields(`img_in_patch nerf_final_layer_conv __x0__`)},
	{Name: "krea2", Category: "diffusion", Keep: strings.Fields(`firs las tml txtfusion last.modulatio tpro`)},
	{Name: "ideogram4", Category: "diffusion", Keep: strings.Fields(`embed_image_indicator t_embedding llm_cond_proj adaln_proj final_layer input_proj`)},
	{Name: "wan", Category: "video", Keep: slices.Concat(Avoid, strings.Fields(`
		text_embedding time_embedding audio_model.text_embedding casual_audio_encoder frame_packer trainable_cond_mask cond_encoder audio_model.time_embedding
		time_projection video_model.time_projection head.head face_encoder.out_proj face_adapter audio_injector`))},
	{Name: "hunyuan", Category: "video", Keep: strings.Fields(`
		layernorm img_attn_k_norm img_attn_q_norm txt_attn_k_norm txt_attn_q_norm norm1 norm2 vision_in.proj.0 vision_in.proj.4 img_in.proj cond_type_embedding`)},
	{Name: "minimaxh3", Category: "video", Keep: strings.Fields(`audio_patch_proj condition_proj final_layer time_embedder token_refiner video_patch_proj`)},
	{Name: "qwen", Category: "image", Keep: strings.Fields(`
		norm_added_k norm_added_q norm_k norm_q txt_norm time_text_embed img_in norm_out proj_out transformer_blocks.0.img_mod.1 txt_in`)},
	{Name: "zimage", Category: "image", Keep: strings.Fields(zimageNorms + `
		x_embedder clip_text_pooled_proj final_layer cap_embedder.1 adaLN_modulation t_embedder time_text_embed`)},
	{Name: "zimage_refiner", Category: "image", Keep: strings.Fields(zimageNorms + `context_refiner noise_refiner`)},
	{Name: "boogu", Category: "image", Keep: strings.Fields(`
		image_index_embedding ref_image_patch_embedder time_caption_embed x_embedder norm_out.linear_1 norm_out.linear_2`)},
	{Name: "ltxv2", Category: "video", Keep: strings.Fields(`
		scale_shift_table text_embedding_projection audio_vae audio_embeddings_connector adaln_single audio_adaln_single audio_patchify_proj audio_proj_out
		audio_prompt_adaln_single av_ca_a2v_gate_adaln_single av_ca_audio_scale_shift_adaln_single av_ca_v2a_gate_adaln_single
		av_ca_video_scale_shift_adaln_single patchify_proj proj_out prompt_adaln_single transformer_blocks.0. transformer_blocks.1. transformer_blocks.46.
		transformer_blocks.47. video_embeddings_connector vae.decoder vae.encoder vocoder to_gate_logits`)},
}

// Filters returns every preset of convert_to_quant.
func Filters() []Filter { return filters }

// FilterByName returns the preset of a flag with aliases resolved, nil if there is
// none.
func FilterByName(name string) *Filter {
	for i, f := range filters {
		switch {
		case f.Name != name:
		case f.Alias != "":
			return FilterByName(f.Alias)
		default:
			return &filters[i]
		}
	}
	return nil
}

// Patterns returns the parts of names that a filter keeps in a checkpoint with these
// tensors.
func (f *Filter) Patterns(names iter.Seq[string]) []string {
	if !f.Final {
		return f.Keep
	}
	return slices.Concat(f.Keep, finalLayers(names))
}

var languageLayer = regexp.MustCompile(`(?:^|\.)((?:model\.)?language_model\.layers|model\.layers)\.(\d+)\.`)

// finalLayers returns the beginning of the last layer's names, for each place where
// language layers stand.
func finalLayers(names iter.Seq[string]) []string {
	last := map[string]int{}
	for name := range names {
		if m := languageLayer.FindStringSubmatch(name); m != nil {
			if n, err := strconv.Atoi(m[2]); err == nil {
				last[m[1]] = max(last[m[1]], n)
			}
		}
	}
	var patterns []string
	for at, n := range last {
		patterns = append(patterns, at+"."+strconv.Itoa(n)+".")
	}
	slices.Sort(patterns)
	return patterns
}

// filter makes a preset keep what the filters keep, and nothing because of its shape.
func (p *Preset) filter(list []*Filter) {
	p.Parts, p.MinNumel, p.MinChannels = nil, 0, 0
	for _, f := range list {
		if f.Alias != "" {
			f = FilterByName(f.Alias)
		}
		p.Parts = append(p.Parts, f.Keep...)
		p.Remove = append(p.Remove, f.Remove...)
		p.finalOnly = p.finalOnly || f.Final
	}
}
