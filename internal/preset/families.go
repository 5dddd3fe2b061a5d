package preset

import (
	"fmt"
	"slices"
	"strings"
)

// Family is what is known about a model family.
type Family struct {
	Name  string
	About string
	// Classes are its classes in diffusers and Transformers; the first is assumed if
	// nothing shows the class. A star at the beginning matches any text.
	Classes []class
	// Signs identify the family by tensor names.
	Signs []Sign
	// Single are the names of the class's skip keys in single files, where tensors have
	// other names; nil means the common list.
	Single []string
	Kinds  []KindRule
	// Filters are the names of convert_to_quant's presets for the family.
	Filters []string
	// Safe are what the comfy layout keeps beside that, see Preset.
	Safe []string
}

// Sign identifies a family by names: the file has all of All and none of None. A name
// that ends in a dot matches the beginning of names.
type Sign struct {
	All, None []string
	Class     string // the class, if the names show it
	Single    bool   // the names are those of single files, not of the class
}

// sign makes a Sign of names and, after a bar, names that must not exist.
func sign(names string) Sign {
	all, none, _ := strings.Cut(names, "|")
	return Sign{All: strings.Fields(all), None: strings.Fields(none)}
}

func (s Sign) of(class string) Sign { s.Class = class; return s }

// single makes a Sign of names in single files.
func single(names string) Sign {
	s := sign(names)
	s.Single = true
	return s
}

func (s Sign) String() string {
	text := strings.Join(s.All, " and ")
	if len(s.None) > 0 {
		text += " without " + strings.Join(s.None, " or ")
	}
	return text
}

// preset returns the family's preset.
func (f *Family) preset() *Preset {
	p := generic(f)
	if len(f.Classes) > 0 {
		p.class = f.Classes[0]
		p.SkipKeys = p.class.skipKeys(false, nil)
	}
	if len(f.Filters) > 0 {
		var list []*Filter
		for _, name := range f.Filters {
			list = append(list, FilterByName(name))
		}
		p.filter(list)
		p.Safe = f.Safe
	}
	return p
}

// Recognised lists the classes and names by which the family is recognised.
func (p *Preset) Recognised() []string {
	if p.family == nil {
		return nil
	}
	var lines []string
	for _, c := range p.family.Classes {
		lines = append(lines, "class "+c.name)
	}
	for _, s := range p.family.Signs {
		lines = append(lines, fmt.Sprintf("tensors %v", s))
	}
	return lines
}

// findClass returns the family that has a class of that name; classes with a star are
// tried last.
func findClass(name string) (*Family, *class) {
	if name == "" {
		return nil, nil
	}
	for _, exact := range []bool{true, false} {
		for i := range families {
			f := &families[i]
			if c := f.class(name, exact); c != nil {
				return f, c
			}
		}
	}
	return nil, nil
}

func (f *Family) class(name string, exact bool) *class {
	i := slices.IndexFunc(f.Classes, func(c class) bool {
		suffix, star := strings.CutPrefix(c.name, "*")
		return exact && c.name == name || !exact && star && strings.HasSuffix(name, suffix)
	})
	if i < 0 {
		return nil
	}
	c := f.Classes[i]
	c.name = name
	return &c
}

// Kinds of layers in several families. SDNQ does not count subclasses of torch's
// classes as those classes.
var (
	ownConv3d     = []KindRule{{5, "", Other}}
	ownEmbeddings = []KindRule{{2, "embed_tokens", Other}}
	fusedExperts  = []KindRule{{2, ".experts.", Other}}
)

// families are in the order in which names are looked at: those that others
// contain come first.
var families = []Family{
	{
		Name: "flux2", About: "FLUX.2", Classes: each(`Flux2Transformer2DModel`, class{}),
		Signs:   []Sign{sign(`double_stream_modulation_img.linear.weight`), single(`double_stream_modulation_img.lin.weight`)},
		Single:  strings.Fields(`double_stream_modulation_img double_stream_modulation_txt single_stream_modulation time_in guidance_in txt_in img_in final_layer`),
		Filters: []string{"flux2"},
		Safe:    strings.Fields(`x_embedder context_embedder time_guidance_embed norm_out proj_out`),
	}, {
		Name: "chroma-radiance", About: "Chroma Radiance",
		Signs:   []Sign{single(`distilled_guidance_layer.in_proj.weight nerf_blocks.`)},
		Single:  strings.Fields(`distilled_guidance_layer txt_in img_in_patch nerf_image_embedder nerf_final_layer_conv`),
		Filters: []string{"nerf_large", "radiance"},
	}, {
		Name: "chroma", About: "Chroma", Classes: each(`ChromaTransformer2DModel`, class{}),
		Signs: []Sign{
			sign(`distilled_guidance_layer.in_proj.weight transformer_blocks.0.`),
			single(`distilled_guidance_layer.in_proj.weight double_blocks.0. | nerf_blocks.`),
		},
		Single:  strings.Fields(`distilled_guidance_layer txt_in img_in final_layer`),
		Filters: []string{"distillation_large"},
		Safe:    strings.Fields(`x_embedder context_embedder proj_out`),
	}, {
		Name: "hunyuan-video", About: "Hunyuan Video, 1.0 and 1.5, and Hunyuan Image",
		Classes: each(`HunyuanVideoTransformer3DModel HunyuanVideo15Transformer3DModel HunyuanImageTransformer2DModel HunyuanVideoFramepackTransformer3DModel`, class{}),
		Signs: []Sign{
			sign(`context_embedder.token_refiner. cond_type_embed.weight`).of("HunyuanVideo15Transformer3DModel"),
			sign(`context_embedder.token_refiner.`),
			single(`txt_in.individual_token_refiner.blocks.0.norm1.weight`),
		},
		Single:  strings.Fields(`img_in txt_in time_in vector_in guidance_in final_layer single_blocks.*.modulation`),
		Filters: []string{"hunyuan"},
		Safe:    strings.Fields(`txt_in time_in vector_in guidance_in final_layer byt5_in img_in vision_in x_embedder context_embedder context_embedder_2 image_embedder cond_type_embed time_text_embed time_guidance_embed time_embed norm_out proj_out`),
	}, {
		Name: "flux", About: "FLUX.1 and its kin", Classes: each(`FluxTransformer2DModel LongCatImageTransformer2DModel`, class{}),
		Signs: []Sign{
			sign(`single_transformer_blocks.0.norm.linear.weight single_transformer_blocks.0.proj_mlp.weight x_embedder.weight`),
			single(`double_blocks.0.img_attn.norm.key_norm.scale img_in.weight`),
			single(`double_blocks.0.img_attn.norm.key_norm.weight img_in.weight`),
		},
		Single: strings.Fields(`single_blocks.0.modulation.lin.weight time_in vector_in guidance_in txt_in img_in final_layer`),
	}, {
		Name: "lens", About: "LENS",
		Signs:   []Sign{single(`transformer_blocks.0.attn.norm_added_q.weight transformer_blocks.0.img_mlp.w1.weight`)},
		Filters: []string{"lens"},
	}, {
		Name: "qwen-image", About: "Qwen-Image", Classes: each(`QwenImageTransformer2DModel`, class{}),
		Signs:   []Sign{sign(`transformer_blocks.0.img_mod.1.weight txt_norm.weight | transformer_blocks.0.img_mlp.w1.weight`)},
		Filters: []string{"qwen"},
	}, {
		Name: "z-image", About: "Z-Image", Classes: each(`ZImageTransformer2DModel`, class{}),
		Signs: []Sign{
			sign(`layers.0.adaLN_modulation.0.weight all_x_embedder.`),
			single(`layers.0.adaLN_modulation.0.weight cap_embedder.1.weight x_embedder.weight`),
		},
		Single:  strings.Fields(`layers.0.adaLN_modulation.0.weight t_embedder cap_embedder siglip_embedder x_embedder final_layer`),
		Filters: []string{"zimage"},
		Safe:    strings.Fields(`siglip_embedder`),
	}, {
		Name: "boogu", About: "Boogu Image",
		Signs:   []Sign{single(`double_stream_layers.0.img_instruct_attn.processor.img_to_q.weight`)},
		Filters: []string{"boogu"},
	}, {
		Name: "lumina2", About: "Lumina Image 2.0", Classes: each(`Lumina2Transformer2DModel`, class{}),
		Signs: []Sign{
			sign(`layers.0.norm1.linear.weight time_caption_embed. | ref_image_patch_embedder.`),
			single(`cap_embedder.1.weight layers.0.adaLN_modulation.1.weight noise_refiner.`),
		},
		Single: strings.Fields(`layers.0.adaLN_modulation.1.weight t_embedder cap_embedder x_embedder final_layer`),
	}, {
		Name: "wan", About: "Wan 2.1 and 2.2, VACE, Chrono-Edit",
		Classes: each(`WanTransformer3DModel WanVACETransformer3DModel ChronoEditTransformer3DModel WanAnimateTransformer3DModel SkyReelsV2Transformer3DModel`, class{}),
		Signs: []Sign{
			sign(`blocks.0.attn1.to_q.weight condition_embedder.time_embedder.linear_1.weight patch_embedding.weight vace_blocks.`).of("WanVACETransformer3DModel"),
			sign(`blocks.0.attn1.to_q.weight condition_embedder.time_embedder.linear_1.weight patch_embedding.weight`),
			single(`head.modulation patch_embedding.weight`),
		},
		Single:  strings.Fields(`patch_embedding text_embedding time_embedding time_projection img_emb head`),
		Filters: []string{"wan"},
		Safe:    strings.Fields(`condition_embedder proj_out`),
	}, {
		Name: "ltx2", About: "LTX-2", Classes: each(`LTX2VideoTransformer3DModel`, class{}),
		Signs: []Sign{sign(`audio_proj_in.weight av_cross_attn_video_scale_shift.`), single(`audio_patchify_proj.weight audio_adaln_single.`)},
		Single: strings.Fields(`audio_adaln_single adaln_single audio_caption_projection caption_projection patchify_proj audio_patchify_proj proj_out audio_proj_out
			av_ca_audio_scale_shift_adaln_single av_ca_v2a_gate_adaln_single av_ca_a2v_gate_adaln_single av_ca_video_scale_shift_adaln_single`),
		Filters: []string{"ltxv2"},
		Safe: strings.Fields(`caption_projection audio_caption_projection proj_in audio_proj_in time_embed audio_time_embed av_cross_attn_audio_scale_shift av_cross_attn_video_scale_shift
			av_cross_attn_audio_v2a_gate av_cross_attn_video_a2v_gate`),
	}, {
		Name: "ltx", About: "LTX Video", Classes: each(`LTXVideoTransformer3DModel`, class{}),
		Signs: []Sign{
			sign(`transformer_blocks.0.scale_shift_table time_embed.emb. caption_projection. proj_in.weight | audio_proj_in.weight`),
			single(`patchify_proj.weight adaln_single.emb. | audio_patchify_proj.weight`),
		},
		Single: strings.Fields(`adaln_single patchify_proj proj_out`),
	}, {
		Name: "auraflow", About: "AuraFlow", Classes: each(`AuraFlowTransformer2DModel`, class{}),
		Signs:  []Sign{sign(`joint_transformer_blocks.0. context_embedder.weight`), single(`double_layers.0.attn.w1q.weight`)},
		Single: strings.Fields(`init_x_linear cond_seq_linear modF final_linear`),
	}, {
		Name: "sd3", About: "Stable Diffusion 3 and 3.5", Classes: each(`SD3Transformer2DModel`, class{}),
		Signs: []Sign{
			sign(`transformer_blocks.0.norm1_context.linear.weight pos_embed.proj.weight context_embedder.weight`),
			single(`joint_blocks.0.context_block.attn.qkv.weight`),
		},
		Single: strings.Fields(`x_embedder t_embedder y_embedder context_embedder final_layer`),
	}, {
		Name: "pixart", About: "PixArt Alpha and Sigma", Classes: each(`PixArtTransformer2DModel`, class{}),
		Signs:  []Sign{sign(`adaln_single.emb.timestep_embedder.linear_1.weight pos_embed.proj.weight`), single(`t_block.1.weight blocks.0.cross_attn.kv_linear.weight`)},
		Single: strings.Fields(`x_embedder t_embedder csize_embedder ar_embedder t_block final_layer`),
	}, {
		Name: "glm-image", About: "GLM-Image", Classes: each(`GlmImageTransformer2DModel`, class{}),
		Signs: []Sign{sign(`prior_token_embedding.weight glyph_projector.`)},
	}, {
		Name: "cogview4", About: "CogView 4", Classes: each(`CogView4Transformer2DModel CogView3PlusTransformer2DModel`, class{}),
		Signs: []Sign{sign(`patch_embed.text_proj.weight time_condition_embed.`)},
	}, {
		Name: "cogvideox", About: "CogVideoX", Classes: each(`CogVideoXTransformer3DModel`, class{}),
		Signs: []Sign{sign(`patch_embed.text_proj.weight time_embedding.linear_1.weight`)},
	}, {
		Name: "sana", About: "Sana", Classes: each(`SanaTransformer2DModel`, class{}),
		Signs: []Sign{sign(`caption_norm.weight transformer_blocks.0.ff.conv_inverted.weight`)},
	}, {
		Name: "mochi", About: "Mochi 1", Classes: each(`MochiTransformer3DModel`, class{}),
		Signs:  []Sign{sign(`time_embed.caption_proj.weight time_embed.pooler.`), single(`t5_yproj.weight`)},
		Single: strings.Fields(`x_embedder t_embedder t5_yproj t5_y_embedder final_layer`),
	}, {
		Name: "hidream", About: "HiDream-I1", Classes: each(`HiDreamImageTransformer2DModel`, class{}),
		Signs: []Sign{sign(`double_stream_blocks.0.block.attn1.to_q.weight caption_projection.0.linear.weight`)},
	}, {
		Name: "anima", About: "Anima",
		Signs:   []Sign{single(`blocks.0.mlp.layer1.weight llm_adapter.`)},
		Filters: []string{"anima"},
	}, {
		Name: "cosmos", About: "Cosmos Predict 2", Classes: each(`CosmosTransformer3DModel`, class{}),
		Signs:  []Sign{sign(`transformer_blocks.0.norm1.linear_1.weight patch_embed.proj.weight`), single(`blocks.0.mlp.layer1.weight x_embedder.proj.1.weight | llm_adapter.`)},
		Single: strings.Fields(`blocks.0.adaln_modulation* x_embedder t_embedder final_layer`),
	}, {
		Name: "ideogram4", About: "Ideogram 4", Classes: each(`Ideogram4Transformer2DModel`, class{}),
		Signs:   []Sign{sign(`embed_image_indicator.weight llm_cond_proj.weight`)},
		Filters: []string{"ideogram4"},
	}, {
		Name: "krea2", About: "Krea 2", Classes: each(`Krea2Transformer2DModel`, class{}),
		Signs:   []Sign{sign(`text_fusion.projector.weight`), single(`txtfusion.projector.weight`)},
		Single:  strings.Fields(`first tmlp txtmlp last`),
		Filters: []string{"krea2"},
		Safe:    strings.Fields(`final_layer img_in time_embed time_mod_proj txt_in text_fusion.projector`),
	}, {
		Name: "minimax-h3", About: "MiniMax H3", Classes: each(`MiniMaxH3Transformer3DModel`, class{}),
		Signs:   []Sign{sign(`token_refiner.refiner_blocks.0. audio_proj_in.weight`), single(`video_patch_proj.weight audio_patch_proj.weight`)},
		Single:  strings.Fields(`video_patch_proj audio_patch_proj condition_proj time_embedder final_layer`),
		Filters: []string{"minimaxh3"},
		Safe:    strings.Fields(`audio_proj_in audio_proj_out context_embedder norm_out proj_in proj_out`),
	}, {
		Name: "kandinsky5", About: "Kandinsky 5", Classes: each(`Kandinsky5Transformer3DModel`, class{}),
		Signs: []Sign{sign(`visual_transformer_blocks.0. text_transformer_blocks.0.`)},
	}, {
		Name: "ace-step", About: "ACE-Step 1.5", Classes: each(`AceStepTransformer1DModel`, class{}),
		Signs: []Sign{sign(`proj_in_conv.weight proj_out_conv.weight time_embed_r.`)},
	}, {
		Name: "sdxl-unet", About: "Stable Diffusion XL", Classes: each(`UNet2DConditionModel`, class{}),
		Signs: []Sign{
			sign(`conv_in.weight time_embedding.linear_1.weight add_embedding.linear_1.weight down_blocks.0. mid_block.`),
			single(`input_blocks.0.0.weight label_emb.0.0.weight`),
		},
		Single: strings.Fields(`time_embed`),
	}, {
		Name: "sd-unet", About: "Stable Diffusion 1 and 2", Classes: each(`UNet2DModel UNet3DConditionModel UNetMotionModel UNetSpatioTemporalConditionModel`, class{}),
		Signs: []Sign{
			sign(`conv_in.weight time_embedding.linear_1.weight down_blocks.0. mid_block. | add_embedding.linear_1.weight`).of("UNet2DConditionModel"),
			single(`input_blocks.0.0.weight time_embed.0.weight | label_emb.0.0.weight`),
		},
		Single: strings.Fields(`time_embed`),
	}, {
		Name: "stable-cascade", About: "Stable Cascade", Classes: each(`StableCascadeUNet`, class{}),
		Signs: []Sign{sign(`clip_txt_pooled_mapper.weight clf.1.weight`)},
	}, {
		Name: "autoencoder-wan", About: "the autoencoders of Wan and Qwen-Image", Classes: each(`AutoencoderKLWan AutoencoderKLQwenImage`, class{}),
		Signs: []Sign{sign(`decoder.conv_in.weight decoder.mid_block.resnets.0.norm1.gamma`), single(`decoder.middle.0.residual.0.gamma`)},
		Kinds: ownConv3d,
	}, {
		Name: "autoencoder-conv3d", About: "autoencoders with convolutions of a class of their own",
		Classes: each(`AutoencoderKLCogVideoX AutoencoderKLCosmos AutoencoderKLMagvit`, class{}),
		Kinds:   ownConv3d,
	}, {
		Name: "autoencoder-audio", About: "autoencoders of sound", Classes: each(`AutoencoderOobleck`, class{}),
		Signs: []Sign{sign(`decoder.conv1.weight_v encoder.conv1.weight_v`)},
	}, {
		Name: "dac", About: "Descript audio codec", Classes: each(`DacModel`, class{last: "quantizer.quantizers.#.codebook"}),
		Signs: []Sign{sign(`decoder.block.0.conv_t1.weight quantizer.quantizers.0.codebook.weight`)},
	}, {
		Name: "autoencoder", About: "autoencoders of images and video",
		Classes: each(`AutoencoderKL AutoencoderKLFlux2 AutoencoderKLHunyuanVideo AutoencoderKLLTXVideo AutoencoderKLLTX2Video AutoencoderDC AutoencoderTiny`, class{}),
		Signs: []Sign{
			sign(`decoder.conv_in.weight encoder.conv_in.weight decoder.mid_block.`),
			sign(`decoder.conv_in.conv.weight encoder.conv_in.conv.weight decoder.mid_block.`),
			single(`decoder.conv_in.weight encoder.conv_in.weight decoder.mid.block_1.`),
		},
	},

	{
		Name: "t5", About: "T5 and UMT5",
		Classes: slices.Concat(
			each(`T5EncoderModel UMT5EncoderModel`, class{float32: []string{"wo"}, tied: t5Shared, alwaysTied: true, last: "encoder.final_layer_norm"}),
			each(`T5ForConditionalGeneration UMT5ForConditionalGeneration`, class{float32: []string{"wo"}, tied: t5Head, alwaysTied: true, last: "lm_head"})),
		Signs: []Sign{
			sign(`encoder.block.0.layer.0.SelfAttention.q.weight decoder.block.0.`).of("T5ForConditionalGeneration"),
			sign(`encoder.block.0.layer.0.SelfAttention.q.weight`),
		},
		Filters: []string{"t5xxl"},
	}, {
		Name: "clip", About: "CLIP, both towers", Classes: each(`CLIPModel`, class{last: "text_projection"}),
		Signs: []Sign{sign(`text_model.encoder.layers.0.self_attn.q_proj.weight vision_model.encoder.layers.0.self_attn.q_proj.weight`)},
	}, {
		Name: "clip-text", About: "CLIP's text encoder",
		Classes: slices.Concat(
			each(`CLIPTextModel`, class{last: "final_layer_norm.bias", renames: []rename{{"text_model.", ""}}}),
			each(`CLIPTextModelWithProjection`, class{last: "text_projection"})),
		Signs: []Sign{
			sign(`text_model.embeddings.token_embedding.weight text_projection.weight`).of("CLIPTextModelWithProjection"),
			sign(`text_model.embeddings.token_embedding.weight`),
			sign(`embeddings.token_embedding.weight encoder.layers.0.self_attn.q_proj.weight`),
		},
	}, {
		Name: "siglip-vision", About: "SigLIP's image encoder",
		Classes: each(`SiglipVisionModel`, class{last: "head.mlp.fc2.bias", renames: []rename{{"vision_model.", ""}}}),
		Signs:   []Sign{sign(`vision_model.encoder.layers.0.self_attn.q_proj.weight vision_model.head.probe`), sign(`encoder.layers.0.self_attn.q_proj.weight head.probe`)},
	}, {
		Name: "clip-vision", About: "CLIP's image encoder",
		Classes: slices.Concat(
			each(`CLIPVisionModelWithProjection`, class{last: "visual_projection"}),
			each(`CLIPVisionModel`, class{last: "post_layernorm.bias", renames: []rename{{"vision_model.", ""}}})),
		Signs: []Sign{
			sign(`vision_model.embeddings.class_embedding visual_projection.weight`).of("CLIPVisionModelWithProjection"),
			sign(`vision_model.embeddings.class_embedding`).of("CLIPVisionModel"),
		},
	}, {
		Name: "bert", About: "BERT and RoBERTa",
		Classes: slices.Concat(
			each(`BertModel`, class{last: "pooler.dense.bias", renames: []rename{{"bert.", ""}}}),
			each(`RobertaModel XLMRobertaModel`, class{last: "pooler.dense.bias", renames: []rename{{"roberta.", ""}}}),
			each(`BertForMaskedLM`, class{tied: bertHead, last: "cls.predictions.decoder"}),
			each(`BertForSequenceClassification`, class{last: "classifier.bias"})),
		Signs: []Sign{
			sign(`bert.embeddings.word_embeddings.weight cls.predictions.bias`).of("BertForMaskedLM"),
			sign(`bert.embeddings.word_embeddings.weight classifier.weight`).of("BertForSequenceClassification"),
			sign(`bert.embeddings.word_embeddings.weight`),
			sign(`roberta.embeddings.word_embeddings.weight`).of("RobertaModel"),
			sign(`embeddings.word_embeddings.weight encoder.layer.0.attention.self.query.weight`),
		},
	}, {
		Name: "gpt2", About: "GPT-2", Classes: each(`GPT2LMHeadModel`, class{tied: []string{"lm_head.weight", "transformer.wte.weight"}, last: "lm_head",
			renames: []rename{{"h.", "transformer.h."}, {"wte.", "transformer.wte."}, {"wpe.", "transformer.wpe."}, {"ln_f.", "transformer.ln_f."}}}),
		Signs: []Sign{sign(`transformer.h.0.attn.c_attn.weight transformer.wte.weight`), sign(`h.0.attn.c_attn.weight wte.weight`)},
		Kinds: []KindRule{{2, ".c_attn.", Other}, {2, ".c_proj.", Other}, {2, ".c_fc.", Other}}, // stored transposed
	}, {
		Name: "whisper", About: "Whisper", Classes: each(`WhisperForConditionalGeneration`, class{tied: []string{"proj_out.weight", "model.decoder.embed_tokens.weight"}, last: "proj_out"}),
		Signs: []Sign{sign(`model.encoder.conv1.weight model.decoder.embed_positions.weight`)},
		Kinds: []KindRule{{2, "decoder.embed_positions", Other}},
	}, {
		Name: "gemma4", About: "Gemma 4", Classes: each(`Gemma4ForConditionalGeneration Gemma4ForCausalLM`, class{tied: visionHead, last: "lm_head"}),
		Signs:   []Sign{sign(`model.language_model.layers.0.per_layer_input_gate.weight`), sign(`model.layers.0.per_layer_input_gate.weight | model.layers.0.laurel.`)},
		Filters: []string{"gemma4"},
		Safe:    strings.Fields(`.embed_tokens .embed_tokens_per_layer .lm_head .per_layer_model_projection`),
	}, {
		Name: "qwen3-vl", About: "Qwen3-VL", Classes: each(`Qwen3VLForConditionalGeneration`, class{tied: visionHead, last: "lm_head"}),
		Signs:   []Sign{sign(`model.visual.deepstack_merger_list.`)},
		Filters: []string{"qwen_vlm"},
	}, {
		Name: "qwen2.5-vl", About: "Qwen2-VL and Qwen2.5-VL", Classes: each(`Qwen2_5_VLForConditionalGeneration Qwen2VLForConditionalGeneration`, class{tied: visionHead, last: "lm_head", renames: flatLanguage}),
		Signs:   []Sign{sign(`visual.blocks.0. visual.merger. model.layers.0.`), sign(`model.visual.blocks.0. model.visual.merger. model.language_model.layers.0. | model.visual.deepstack_merger_list.`)},
		Filters: []string{"qwen_vlm"},
	}, {
		Name: "qwen3.5", About: "Qwen3.5", Classes: each(`Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration`, class{tied: visionHead, last: "lm_head"}),
		Kinds:   fusedExperts,
		Filters: []string{"qwen_vlm"},
	}, {
		Name: "gemma3-vision", About: "Gemma 3 with its image encoder", Classes: each(`Gemma3ForConditionalGeneration`, class{tied: visionHead, last: "lm_head", renames: nestedLanguage}),
		Signs: []Sign{sign(`multi_modal_projector.mm_input_projection_weight`), sign(`model.multi_modal_projector.mm_input_projection_weight`)},
		Kinds: ownEmbeddings,
	}, {
		Name: "mistral3", About: "Mistral Small 3 with its image encoder", Classes: each(`Mistral3ForConditionalGeneration`, class{tied: visionHead, last: "lm_head", renames: nestedLanguage}),
		Signs:   []Sign{sign(`multi_modal_projector.patch_merger.merging_layer.weight`), sign(`model.multi_modal_projector.patch_merger.merging_layer.weight`)},
		Filters: []string{"mistral"},
	}, {
		Name: "mixtral", About: "Mixtral",
		Classes: each(`MixtralForCausalLM`, class{tied: languageHead, last: "lm_head", renames: []rename{{".block_sparse_moe.", ".mlp."}}}),
		Signs:   []Sign{sign(`model.layers.0.block_sparse_moe.gate.weight`)},
		Kinds:   fusedExperts,
	}, {
		Name: "gpt-oss", About: "gpt-oss",
		Classes: each(`GptOssForCausalLM`, class{float32: strings.Fields(`post_attention_layernorm input_layernorm norm`), tied: languageHead, last: "lm_head"}),
		Signs:   []Sign{sign(`model.layers.0.mlp.router.weight model.layers.0.self_attn.sinks`)},
	}, {
		Name: "qwen3-moe", About: "language models whose experts are fused in memory: Qwen MoE, DeepSeek V3",
		Classes: causal(`Qwen3MoeForCausalLM Qwen2MoeForCausalLM DeepseekV3ForCausalLM DeepseekV2ForCausalLM Glm4MoeForCausalLM OlmoeForCausalLM Qwen3NextForCausalLM`),
		Signs: []Sign{
			sign(`model.layers.0.mlp.experts.0.gate_proj.weight`),
			sign(`model.layers.1.mlp.experts.0.gate_proj.weight`).of("DeepseekV3ForCausalLM"),
			sign(`model.layers.3.mlp.experts.0.gate_proj.weight`).of("DeepseekV3ForCausalLM"),
		},
		Kinds: fusedExperts,
	}, {
		Name: "gemma3", About: "Gemma 1 to 3, text alone",
		Classes: slices.Concat(causal(`Gemma3ForCausalLM Gemma2ForCausalLM GemmaForCausalLM`), base(`Gemma3TextModel Gemma2Model GemmaModel`)),
		Signs: []Sign{
			sign(`model.layers.0.pre_feedforward_layernorm.weight | model.layers.0.per_layer_input_gate.weight`),
			sign(`layers.0.pre_feedforward_layernorm.weight`).of("Gemma3TextModel"),
		},
		Kinds: ownEmbeddings,
	}, {
		Name: "qwen3", About: "Qwen3, text alone",
		Classes: slices.Concat(causal(`Qwen3ForCausalLM`), base(`Qwen3Model`)),
		Signs: []Sign{
			sign(`model.layers.0.self_attn.q_norm.weight model.embed_tokens.weight model.layers.0.mlp.gate_proj.weight`),
			sign(`layers.0.self_attn.q_norm.weight embed_tokens.weight layers.0.mlp.gate_proj.weight`).of("Qwen3Model"),
		},
	}, {
		Name: "mistral", About: "Mistral", Classes: causal(`MistralForCausalLM`),
		Filters: []string{"mistral"},
	}, {
		Name: "llama", About: "Llama and language models like it",
		Classes: slices.Concat(
			causal(`LlamaForCausalLM Qwen2ForCausalLM Phi3ForCausalLM GraniteForCausalLM Glm4ForCausalLM SmolLM3ForCausalLM *ForCausalLM`),
			base(`LlamaModel MistralModel Qwen2Model`)),
		Signs: []Sign{
			sign(`model.layers.0.self_attn.q_proj.weight model.embed_tokens.weight | visual.merger. vision_tower.`),
			sign(`model.layers.0.self_attn.qkv_proj.weight model.embed_tokens.weight`),
			sign(`layers.0.self_attn.q_proj.weight embed_tokens.weight`).of("LlamaModel"),
		},
		Kinds: fusedExperts,
	}, {
		Name: "vision-language", About: "language models that see", Classes: each(`*ForConditionalGeneration`, class{tied: visionHead, last: "lm_head"}),
		Kinds: fusedExperts,
	},
}
