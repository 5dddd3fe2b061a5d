package app

// ComfyRelease is the release of ComfyUI that the tables describe.
const ComfyRelease = "0.33.0"

// comfyKind is a kind of model as ComfyUI recognises it by the names of its tensors.
// The rows describe [ComfyRelease]: comfy/model_detection.py and supported_models.py
// for diffusion models, comfy/sd.py for text encoders and VAEs, controlnet.py,
// clip_vision.py; conformance/comfy checks them against it.
type comfyKind struct {
	name string
	// signs are sets of names; a file is of the kind if it fits one of them. A set
	// lists names that the file has and, after a bar, names that it lacks. A name that
	// ends in a dot matches the beginning of names; =N demands N rows.
	signs []string
	// reads are the weights by whose shape the detection finds sizes of the model, as
	// NAME:SIDES, with 0 for rows and 1 for columns. # matches any number.
	reads string
	// other are weights that no linear layer reads: NAME:embedding, or just NAME if the
	// module that reads it takes no quantized weight.
	other string
	// banks are the weights that are the experts of a layer, matrices in one tensor, and
	// that ComfyUI reads quantized: those of its class MoEExperts.
	banks string
	// texts are the text encoders that may be quantized in an all-in-one checkpoint,
	// where they stand after text_encoders.
	texts string
	// why says why ComfyUI does not read the kind quantized, "" if it does.
	why string
	// kind is what a file is that holds it, where it is not that of the others in its
	// table; unsure where nobody knows.
	kind Kind
}

// comfyCheckpoints are files that hold more than a diffusion model. Without a text encoder
// it depends on the model which node loads them.
var comfyCheckpoints = []comfyKind{
	{kind: allInOne, signs: []string{"text_encoders.", "cond_stage_model.", "conditioner.embedders.0.transformer.", "conditioner.embedders.0.model."}},
	{kind: withoutTexts, signs: []string{"first_stage_model.", "vae.", "conditioner."}},
}

// Reasons why ComfyUI does not read a kind quantized.
const (
	plainOnly = "ComfyUI reads no quantized layers in it: it needs the plain file"
	renamed   = "the names are those of diffusers, and ComfyUI renames and joins such tensors as it loads them and loses their scales: " + given
	unnamed   = "the names are those of diffusers, by which ComfyUI does not know the model: " + given
	given     = "`Names` comfyui gives it the model's own, in one file"
	// Of models whose names are not known here.
	unknownNames = "the names are those of diffusers, by which ComfyUI does not know the model: it needs a file with the model's own names"
	clipNames    = "ComfyUI takes a text encoder with such names for CLIP: it looks for model.layers.0.…"
)

// comfyDiffusion are diffusion models in ComfyUI's own order; the first that matches
// counts. Their names follow the prefix that ComfyUI strips.
var comfyDiffusion = []comfyKind{
	{name: "MiniMax Music 3", kind: unsure, signs: []string{"cond_layer_logits latent_conditioners.0.weight diffusion_transformer.transformer.layers.0.self_attn.to_qkv.weight"}},
	{
		name: "Stable Diffusion 3", signs: []string{"joint_blocks.0.context_block.attn.qkv.weight"},
		reads: "x_embedder.proj.weight:01 final_layer.linear.weight:0 y_embedder.mlp.0.weight:1 context_embedder.weight:01", texts: "t5xxl",
	},
	{name: "Stable Cascade C", signs: []string{"clf.1.weight clip_txt_mapper.weight"}, reads: "clip_txt_mapper.weight:0"},
	{name: "Stable Cascade B", signs: []string{"clf.1.weight"}, reads: "down_blocks.1.0.channelwise.0.weight:1"},
	{name: "Trellis 2", kind: unsure, signs: []string{"img2shape.t_embedder.mlp.0.weight", "shape2txt.t_embedder.mlp.0.weight"}},
	{
		name: "Stable Audio", signs: []string{"transformer.rotary_pos_emb.inv_freq"},
		reads: `to_global_embed.0.weight:1 to_cond_embed.0.weight:01 to_timestep_embed.0.weight:0 transformer.layers.0.self_attn.to_qkv.weight:01
			postprocess_conv.weight:0 transformer.project_in.weight:1 transformer.layers.0.to_local_embed.0.weight:1`,
		other: "timestep_features.weight",
	},
	{name: "AuraFlow", signs: []string{"double_layers.0.attn.w1q.weight"}, reads: "cond_seq_linear.weight:1"},
	{name: "Hunyuan DiT", signs: []string{"mlp_t5.0.weight"}, reads: "x_embedder.proj.weight:0 extra_embedder.0.weight:1", other: "style_embedder.weight:embedding"},
	{
		name: "Hunyuan Video", signs: []string{"txt_in.individual_token_refiner.blocks.0.norm1.weight"},
		reads: "img_in.proj.weight:01 final_layer.linear.weight:0 txt_in.input_embedder.weight:1 vision_in.proj.0.weight:0",
		other: "cond_type_embedding.weight", texts: "llama qwen25_7b",
	},
	{
		name: "Flux, Chroma or their kin",
		signs: []string{
			"double_blocks.0.img_attn.norm.key_norm.weight img_in.weight", "double_blocks.0.img_attn.norm.key_norm.scale img_in.weight",
			"double_blocks.0.img_attn.norm.key_norm.weight distilled_guidance_layer.norms.0.", "double_blocks.0.img_attn.norm.key_norm.scale distilled_guidance_layer.norms.0.",
		},
		reads: "img_in.weight:01 txt_in.weight:01 vector_in.in_layer.weight:1 img_in_patch.weight:3", texts: "t5xxl qwen3_4b qwen3_8b mistral3_24b qwen25_7b",
	},
	{name: "Mochi 1", signs: []string{"t5_yproj.weight"}, texts: "t5xxl"},
	{name: "PixArt", signs: []string{"adaln_single.emb.timestep_embedder.linear_1.bias pos_embed.proj.bias"}, why: renamed},
	{
		name: "MiniMax H3", signs: []string{"video_patch_proj.weight audio_patch_proj.weight"},
		reads: `video_patch_proj.weight:0 final_layer.video_out.weight:0 final_layer.audio_out.weight:0 blocks.0.attn.qkv_proj.weight:0 blocks.0.mlp.fc1.weight:0
			condition_proj.weight:1 time_embedder.proj_in.weight:01 time_embedder.proj_out.weight:0`,
		texts: "qwen3vl_32b",
	},
	{name: "LTX", signs: []string{"adaln_single.emb.timestep_embedder.linear_1.bias"}, reads: "transformer_blocks.0.attn2.to_k.weight:01", texts: "t5xxl"},
	{name: "ACE-Step", signs: []string{"genre_embedder.weight"}, other: "lyric_embs.weight:embedding"},
	{name: "PixArt", signs: []string{"t_block.1.weight"}},
	{
		name: "Cosmos 1", signs: []string{"blocks.block0.blocks.0.block.attn.to_q.0.weight"},
		reads: "x_embedder.proj.1.weight:1 blocks.block0.blocks.0.block.attn.to_q.0.weight:0", texts: "t5xxl",
	},
	{
		name: "PiD", signs: []string{"lq_proj.latent_proj.0.weight"}, reads: "lq_proj.latent_proj.0.weight:01 lq_proj.gate_modules.0.content_proj.weight:0",
		other: "net.pixel_blocks.#.adaLN_modulation.0.weight core.pixel_blocks.#.adaLN_modulation.0.weight",
	},
	{
		name: "PixelDiT", signs: []string{"core.pixel_embedder.proj.weight"}, reads: "core.pixel_embedder.proj.weight:0",
		other: "core.pixel_blocks.#.adaLN_modulation.0.weight",
	},
	{
		name: "Z-Image in pixels", signs: []string{"cap_embedder.1.weight noise_refiner.0.attention.k_norm.weight dec_net.cond_embed.weight"},
		reads: `cap_embedder.1.weight:01 siglip_embedder.0.weight:0 x_embedder.weight:1 dec_net.cond_embed.weight:0
			dec_net.final_layer.linear.weight:0 dec_net.input_embedder.embedder.0.weight:1`,
		texts: "qwen3_4b",
	},
	{
		name: "Lumina 2 or Z-Image", signs: []string{"cap_embedder.1.weight noise_refiner.0.attention.k_norm.weight"},
		reads: "cap_embedder.1.weight:01 clip_text_pooled_proj.0.weight:0 siglip_embedder.0.weight:0", texts: "gemma2_2b qwen3_4b",
	},
	{
		name: "CogVideoX", signs: []string{"blocks.0.norm1.linear.weight"},
		reads: "blocks.0.norm1.linear.weight:01 patch_embed.proj.weight:1 patch_embed.text_proj.weight:1 ofs_embedding_linear_1.weight:1", texts: "t5xxl",
	},
	{
		name: "SeedVR 2", signs: []string{"blocks.35.mlp.vid.proj_out.weight=3072", "blocks.35.mlp.all.proj_in_gate.weight", "blocks.31.mlp.all.proj_in_gate.weight"},
		reads: "blocks.35.mlp.vid.proj_out.weight:0",
	},
	{
		name: "Wan", signs: []string{"head.modulation"}, reads: "head.head.weight:0 blocks.0.ffn.0.weight:0 patch_embedding.weight:1 vace_patch_embedding.weight:1 ref_conv.weight:1",
		texts: "umt5xxl",
	},
	{name: "Hunyuan 3D 2", signs: []string{"latent_in.weight"}, reads: "latent_in.weight:01 cond_in.weight:1"},
	{name: "Hunyuan 3D 2.1", signs: []string{"t_embedder.mlp.2.weight blocks.0.attn1.k_norm.weight"}, reads: "x_embedder.weight:01", other: "blocks.#.moe.gate.weight"},
	{name: "TripoSplat", signs: []string{"cam_out_layer.weight repo_layers.0.final_map.weight"}},
	{
		name: "HiDream-O1", kind: unsure, signs: []string{"t_embedder1.mlp.0.weight x_embedder.proj1.weight"},
		other: "visual.pos_embed.weight:embedding language_model.embed_tokens.weight:embedding",
	},
	{
		name: "HiDream-I1", signs: []string{"caption_projection.0.linear.weight"},
		other: "double_stream_blocks.#.block.ff_i.gate.weight single_stream_blocks.#.block.ff_i.gate.weight",
	},
	{
		name: "Cosmos Predict 2 or Anima", signs: []string{"blocks.0.mlp.layer1.weight"}, reads: "x_embedder.proj.1.weight:01",
		other: "llm_adapter.embed.weight:embedding", texts: "t5xxl qwen3_06b",
	},
	{
		name: "Boogu Image", signs: []string{"double_stream_layers.0.img_instruct_attn.processor.img_to_q.weight"},
		reads: "x_embedder.weight:0 time_caption_embed.caption_embedder.0.weight:0", texts: "qwen3vl_8b",
	},
	{name: "Lumina 2", signs: []string{"layers.0.norm1.linear.weight time_caption_embed. | ref_image_patch_embedder."}, why: unnamed}, // ComfyUI takes it for OmniGen 2
	{name: "OmniGen 2", signs: []string{"time_caption_embed.timestep_embedder.linear_1.bias"}, texts: "qwen25_3b"},
	{
		name: "LENS", signs: []string{"transformer_blocks.0.attn.norm_added_q.weight transformer_blocks.0.img_mlp.w1.weight"},
		reads: "img_in.weight:01 proj_out.weight:0", texts: "gpt_oss",
	},
	{name: "Mage-Flow", signs: []string{"txt_norm.weight=2560 proj_out.weight=128"}, reads: "proj_out.weight:0", texts: "qwen3vl_4b"},
	{name: "Qwen-Image", signs: []string{"txt_norm.weight"}, reads: "img_in.weight:1", other: "time_text_embed.addition_t_embedding.weight:embedding", texts: "qwen25_7b"},
	{
		name: "Ideogram 4", signs: []string{"embed_image_indicator.weight"}, reads: "input_proj.weight:1",
		other: "embed_image_indicator.weight:embedding", texts: "qwen3vl_8b",
	},
	{
		name: "Krea 2", signs: []string{"txtfusion.projector.weight"},
		reads: "first.weight:01 blocks.0.attn.wq.weight:0 blocks.0.attn.wk.weight:0 txtfusion.projector.weight:1", texts: "qwen3vl_4b",
	},
	{
		name: "Kandinsky 5", signs: []string{"visual_transformer_blocks.0.cross_attention.key_norm.weight"},
		reads: "visual_embeddings.in_layer.weight:1 visual_transformer_blocks.0.feed_forward.in_layer.weight:0", texts: "qwen25_7b",
	},
	{
		name: "ACE-Step 1.5", signs: []string{"encoder.lyric_encoder.layers.0.input_layernorm.weight"},
		reads: "decoder.layers.0.mlp.gate_proj.weight:0 decoder.layers.0.self_attn.q_proj.weight:0 encoder.lyric_encoder.layers.0.self_attn.q_proj.weight:0",
		texts: "qwen3_2b qwen3_4b",
	},
	{name: "RT-DETR v4", signs: []string{"encoder.pan_blocks.1.cv4.conv.weight"}, reads: "encoder.pan_blocks.1.cv4.conv.weight:0"},
	{
		name: "Depth Anything 3", kind: depthModel, signs: []string{"backbone.embeddings.patch_embeddings.projection.weight"},
		reads: "cam_enc.pose_branch.fc2.weight:0 cam_dec.fc_t.weight:1",
	},
	{name: "Ernie Image", signs: []string{"layers.0.mlp.linear_fc2.weight"}},
	{name: "SAM 3", kind: unsure, signs: []string{"detector.backbone.vision_backbone.trunk.blocks.0.attn.qkv.weight detector.transformer.decoder.query_embed.weight"}, other: "detector.transformer.decoder.query_embed.weight"},
	{
		name: "JoyImage", signs: []string{"double_blocks.0.attn.img_attn_qkv.weight double_blocks.0.attn.img_attn_q_norm.weight condition_embedder.time_embedder.linear_1.weight img_in.weight"},
		reads: "img_in.weight:01", texts: "qwen3vl",
	},
	{
		name: "UNet", signs: []string{"input_blocks.0.0.weight"},
		reads: `label_emb.0.0.weight:1 input_blocks.0.0.weight:01 out.2.weight:0 input_blocks.#.0.out_layers.3.weight:0
			input_blocks.#.1.transformer_blocks.0.attn2.to_k.weight:1 output_blocks.#.1.transformer_blocks.0.attn2.to_k.weight:1`,
	},
}

// comfyRenamed are diffusion models with diffusers' names, for which ComfyUI looks if
// it knows none of the names of comfyDiffusion. Those that it renames come first.
var comfyRenamed = []comfyKind{
	{name: "AuraFlow", signs: []string{"joint_transformer_blocks.0.attn.add_k_proj.weight"}, why: renamed},
	{name: "Z-Image", signs: []string{"noise_refiner.0.attention.norm_k.weight"}, why: renamed},
	{name: "Stable Diffusion 3", signs: []string{"transformer_blocks.0.attn.add_q_proj.weight pos_embed.proj.weight"}, why: renamed},
	{name: "UNet", signs: []string{"conv_in.weight time_embedding.linear_1.weight down_blocks.0."}, why: renamed},
	{name: "Flux, Chroma or their kin", signs: []string{"x_embedder.weight transformer_blocks.0.", "x_embedder.weight single_transformer_blocks.0."}, why: renamed},
	{name: "Hunyuan Video", signs: []string{"context_embedder.token_refiner."}, why: unnamed},
	{name: "Wan", signs: []string{"blocks.0.attn1.to_q.weight condition_embedder.time_embedder.linear_1.weight patch_embedding.weight"}, why: unnamed},
	{name: "LTX", signs: []string{"transformer_blocks.0.scale_shift_table time_embed.emb. proj_in.weight"}, why: unnamed},
	{name: "LTX-2", signs: []string{"audio_proj_in.weight av_cross_attn_video_scale_shift."}, why: unnamed},
	{name: "PixArt", signs: []string{"adaln_single.emb.timestep_embedder.linear_1.weight pos_embed.proj.weight"}, why: renamed},
	{name: "Mochi 1", signs: []string{"time_embed.caption_proj.weight time_embed.pooler."}, why: unknownNames},
	{name: "CogVideoX", signs: []string{"patch_embed.text_proj.weight time_embedding.linear_1.weight"}, why: unknownNames},
	{name: "CogView", signs: []string{"patch_embed.text_proj.weight time_condition_embed."}, why: unknownNames},
	{name: "Cosmos", signs: []string{"transformer_blocks.0.norm1.linear_1.weight patch_embed.proj.weight"}, why: unknownNames},
	{name: "Sana", signs: []string{"caption_norm.weight transformer_blocks.0.ff.conv_inverted.weight"}, why: unknownNames},
	{name: "GLM-Image", signs: []string{"prior_token_embedding.weight glyph_projector."}, why: unknownNames},
	{name: "Krea 2", signs: []string{"text_fusion.projector.weight"}, why: unknownNames},
	{name: "MiniMax H3", signs: []string{"token_refiner.refiner_blocks.0. audio_proj_in.weight"}, why: unknownNames},
	{name: "ACE-Step", signs: []string{"proj_in_conv.weight proj_out_conv.weight time_embed_r."}, why: unknownNames},
}

// comfyControl are controlnets. ComfyUI looks for them first, because a controlnet has
// many names of the model that it controls.
var comfyControl = []comfyKind{
	{
		name: "controlnet", why: plainOnly,
		signs: []string{
			"controlnet_cond_embedding.conv_in.weight", "controlnet_blocks.0.", "control_blocks.0.after_proj.weight", "controlnet_x_embedder.weight",
			"control_model.zero_convs.0.0.weight", "zero_convs.0.0.weight", "lora_controlnet", "after_proj_list.18.bias", "pos_embed_input.proj.weight",
		},
	},
}

const (
	gptOss        = "gpt_oss"
	gptOssBanks   = "layers.#.mlp.experts.gate_up_proj.weight layers.#.mlp.experts.down_proj.weight"
	t5Other       = "shared.weight:embedding encoder.embed_tokens.weight:embedding encoder.block.#.layer.0.SelfAttention.relative_attention_bias.weight:embedding"
	languageOther = `model.embed_tokens.weight:embedding model.embed_tokens_per_layer.weight:embedding model.language_model.embed_tokens.weight:embedding
		visual.pos_embed.weight:embedding model.visual.pos_embed.weight:embedding vision_model.embeddings.position_embedding.weight:embedding lm_head.weight`
)

// comfyTexts are the text encoders. ComfyUI reads quantized layers in those in which
// its t5xxl_detect and llama_detect look for them.
var comfyTexts = []comfyKind{
	{
		name: "CLIP text encoder", why: plainOnly,
		signs: []string{
			"text_model.encoder.layers.0.mlp.fc1.weight", "transformer.resblocks.0.ln_1.weight",
			"embeddings.token_embedding.weight encoder.layers.0.self_attn.q_proj.weight", "text_model.embeddings.token_embedding.weight",
		},
	},
	{name: "Jina CLIP text encoder", signs: []string{"model.encoder.layers.0.mixer.Wqkv.weight"}, why: plainOnly},
	{
		name: "T5-XXL", other: t5Other,
		signs: []string{"encoder.block.23.layer.1.DenseReluDense.wi_1.weight=10240", "encoder.block.23.layer.1.DenseReluDense.wi.weight | encoder.block.23.layer.1.DenseReluDense.wi_1.weight"},
	},
	{name: "T5 that is no T5-XXL", signs: []string{"encoder.block.0.layer.0.SelfAttention.k.weight"}, why: plainOnly},
	{name: "T5-Gemma", signs: []string{"model.encoder.layers.0.pre_self_attn_layernorm.weight"}, why: plainOnly},
	{name: "gpt-oss", signs: []string{"layers.0.self_attn.sinks layers.0.mlp.experts.gate_up_proj.weight"}, other: "embed_tokens.weight:embedding layers.#.mlp.router.weight", banks: gptOssBanks},
	{name: "MiniMax Music 3", signs: []string{"model.audio_decoder.projection.weight"}, other: languageOther},
	{
		name: "language model", other: languageOther,
		signs: []string{
			"model.layers.0.self_attn.k_proj.weight", "model.layers.0.linear_attn.in_proj_a.weight",
			"model.language_model.layers.0.linear_attn.A_log", "model.language_model.layers.0. model.visual.deepstack_merger_list.0.norm.weight",
		},
	},
	{name: "language model without model.layers.0.self_attn.k_proj", signs: []string{"model.layers.0.post_attention_layernorm.weight"}, why: plainOnly},
	{
		name: "language model", why: clipNames,
		signs: []string{"model.language_model.layers.0.", "language_model.model.layers.0.", "layers.0.self_attn.q_proj.weight embed_tokens.weight"},
	},
}

// comfyOthers are further kinds that names show.
var comfyOthers = []comfyKind{
	{name: "MiniMax H3 VAE", kind: vae, signs: []string{"decoder.transformer_blocks.0.scale1 encoder.down.5.block.0.conv1.weight"}},
	{
		name: "VAE", kind: vae, why: plainOnly,
		signs: []string{
			"decoder.conv_in.", "decoder.conv_in_x_t.weight", "decoder.mid.block_1.", "decoder.up_blocks.0.", "decoder.middle.0.residual.0.gamma",
			"decoder.unpatcher3d.wavelets", "decoder.layers.1.layers.0.beta", "decoder.layers.3.transformers.0.pre_norm.alpha", "decoder.model.0.weight_g",
			"taesd_decoder.1.weight", "vquantizer.codebook.weight", "decoder.22.bias", "geo_decoder.cross_attn_decoder.ln_1.bias",
			"vocoder.", "student.dconv_encoder.proj_out.weight", "pre_block.attn.zero_k_bias", "first_stage_model.decoder. | model.diffusion_model.",
			"blocks.2.blocks.3.stack.5.weight", "decoder.blocks.2.blocks.3.stack.5.weight", "layers.4.layers.1.attn_block.attn.qkv.weight",
			"encoder.layers.4.layers.1.attn_block.attn.qkv.weight", "pixel_space_vae", "octree.out_proj.weight gs.base_offset_scale",
			"decoder.conv1.weight_v encoder.conv1.weight_v", "shape_dec.blocks.1.16.to_subdiv.weight", "txt_dec.blocks.3.4.conv2.weight",
		},
	},
	{
		name: "image encoder", kind: imageEncoder, why: plainOnly,
		signs: []string{
			"vision_model.encoder.layers.0.layer_norm1.weight", "visual.transformer.resblocks.0.attn.in_proj_weight",
			"encoder.layer.0.layer_scale2.lambda1", "layer.0.norm1.weight layer.0.attention.o_proj.bias", "encoder.layers.0.layer_norm1.weight head.probe",
		},
	},
	{name: "style model", kind: styleModel, signs: []string{"style_embedding", "redux_down.weight"}, why: plainOnly},
	{name: "upscaler", kind: upscaler, signs: []string{"model.0.weight model.1.sub.0."}, why: plainOnly},
	{name: "latent upscaler", kind: latentUpscaler, signs: []string{"post_upsample_res_blocks.0.conv2.bias", "up.0.block.0.conv1.conv.weight", "blocks.0.block.0.conv.weight in_conv.conv.weight"}, why: plainOnly},
	{
		name: "audio encoder", kind: audioEncoder, why: plainOnly,
		signs: []string{"model.encoder.embed_positions.weight", "encoder.layer_norm.bias feature_projection.", "wav2vec2.encoder.layer_norm.bias"},
	},
	{
		name: "model patch", kind: modelPatch, why: plainOnly,
		signs: []string{
			"control_all_x_embedder.2-1.weight", "controlnet_patch_embedding.weight", "feature_embedder.mid_layer_norm.bias", "audio_proj.proj1.weight blocks.0.audio_cross_attn.proj.weight",
			"lllite_conditioning1.conv1.weight", "attention_pooler.query_tokens", "control_model.input_hint_block.0.weight", "model.control_model.input_hint_block.0.weight",
		},
	},
	{name: "GLIGEN", kind: gligen, signs: []string{"position_net.null_positive_feature"}, why: plainOnly},
	{name: "background removal", kind: backgroundModel, signs: []string{"bb.layers.1.blocks.0.attn.relative_position_index"}, why: plainOnly},
}
