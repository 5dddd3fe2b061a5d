package names

// The tables are facts of ComfyUI 0.33.0 (comfy/utils.py, model_detection.py and the
// modules of its ldm folder) and of diffusers 0.42 (loaders/single_file_utils.py);
// conformance/names holds them against both programs.

// checkpoints is what stands before a diffusion model in files that may hold more.
var checkpoints = []string{"model.diffusion_model.", "diffusion_model.", "model."}

// Rows of tables that several families share.
const (
	// fluxAttention are the two streams of a double block; older files call the
	// norms' weights so, and ComfyUI reads either.
	fluxAttention = `
		img_attn.qkv = attn.to_q + attn.to_k + attn.to_v
		txt_attn.qkv = attn.add_q_proj + attn.add_k_proj + attn.add_v_proj
		img_attn.proj = attn.to_out.0
		txt_attn.proj = attn.to_add_out
		img_attn.norm.query_norm.scale = attn.norm_q.weight
		img_attn.norm.key_norm.scale = attn.norm_k.weight
		txt_attn.norm.query_norm.scale = attn.norm_added_q.weight
		txt_attn.norm.key_norm.scale = attn.norm_added_k.weight
		img_attn.norm.query_norm.weight -> attn.norm_q.weight
		img_attn.norm.key_norm.weight -> attn.norm_k.weight
		txt_attn.norm.query_norm.weight -> attn.norm_added_q.weight
		txt_attn.norm.key_norm.weight -> attn.norm_added_k.weight`
	fluxSingleNorms = `
		norm.query_norm.scale = attn.norm_q.weight
		norm.key_norm.scale = attn.norm_k.weight
		norm.query_norm.weight -> attn.norm_q.weight
		norm.key_norm.weight -> attn.norm_k.weight`
	fluxDoubleMLP = `
		img_mlp.0 = ff.net.0.proj
		img_mlp.2 = ff.net.2
		txt_mlp.0 = ff_context.net.0.proj
		txt_mlp.2 = ff_context.net.2`
	fluxSingle = `
		linear1 = attn.to_q:c + attn.to_k:c + attn.to_v:c + proj_mlp
		linear2 = proj_out`
	fluxEnds = `
		img_in = x_embedder
		txt_in = context_embedder
		final_layer.linear = proj_out`
	luminaBlock = `
		attention.qkv = attn.to_q:c + attn.to_k + attn.to_v
		attention.out = attn.to_out.0
		attention.q_norm = attn.norm_q
		attention.k_norm = attn.norm_k
		feed_forward.w1 = feed_forward.linear_1
		feed_forward.w2 = feed_forward.linear_2
		feed_forward.w3 = feed_forward.linear_3
		attention_norm2 = norm2
		ffn_norm1
		ffn_norm2`
)

// tokenizers are files that ComfyUI's text encoders have in them.
const tokenizers = `
	spiece_model ->
	tekken_model ->
	tokenizer_json ->`

// The tokenizers that ComfyUI does not have itself: UMT5's, of which every block has a
// bias of its own, Gemma's and Mistral's.
var (
	ofUMT5    = wanted{`encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight`, Want{Name: "spiece_model", Files: []string{"spiece.model", "tokenizer.model"}}}
	ofGemma   = wanted{`model.layers.0.post_feedforward_layernorm.weight`, Want{Name: "spiece_model", Files: []string{"tokenizer.model"}}}
	ofGptOss  = wanted{`layers.0.self_attn.sinks`, Want{Name: "tokenizer_json", Files: []string{"tokenizer.json"}}}
	ofMistral = wanted{`model.layers.`, Want{Name: "tekken_model", Files: []string{"tekken.json"}}}
)

// ltxAttention renames the norms of attentions; all else in them has one name.
var ltxAttention = block{
	`transformer_blocks.#.attn1. transformer_blocks.#.attn2. transformer_blocks.#.audio_attn1. transformer_blocks.#.audio_attn2.
		transformer_blocks.#.audio_to_video_attn. transformer_blocks.#.video_to_audio_attn.`,
	`
		q_norm = norm_q
		k_norm = norm_k
		to_q
		to_k
		to_v
		to_out.0
		to_gate_logits`,
}

// families are in the order in which names are looked at: those that others
// contain come first.
var families = []family{
	{
		name: "FLUX.2", prefixes: checkpoints,
		comfy: []string{`double_stream_modulation_img.lin.weight double_blocks.`}, diffusers: []string{`double_stream_modulation_img.linear.weight transformer_blocks.`},
		blocks: []block{
			{``, fluxEnds + `
				time_in.in_layer = time_guidance_embed.timestep_embedder.linear_1
				time_in.out_layer = time_guidance_embed.timestep_embedder.linear_2
				guidance_in.in_layer = time_guidance_embed.guidance_embedder.linear_1
				guidance_in.out_layer = time_guidance_embed.guidance_embedder.linear_2
				double_stream_modulation_img.lin = double_stream_modulation_img.linear
				double_stream_modulation_txt.lin = double_stream_modulation_txt.linear
				single_stream_modulation.lin = single_stream_modulation.linear
				final_layer.adaLN_modulation.1 ~ norm_out.linear`},
			{`double_blocks.#.=transformer_blocks.#.`, fluxAttention + `
				img_mlp.0 = ff.linear_in
				img_mlp.2 = ff.linear_out
				txt_mlp.0 = ff_context.linear_in
				txt_mlp.2 = ff_context.linear_out`},
			{`single_blocks.#.=single_transformer_blocks.#.`, fluxSingleNorms + `
				linear1 = attn.to_qkv_mlp_proj
				linear2 = attn.to_out`},
		},
	}, {
		name: "Chroma", prefixes: checkpoints,
		comfy:     []string{`distilled_guidance_layer.in_proj.weight double_blocks. | nerf_blocks.`},
		diffusers: []string{`distilled_guidance_layer.in_proj.weight transformer_blocks.`},
		blocks: []block{
			{``, fluxEnds},
			{`distilled_guidance_layer.`, `
				in_proj
				out_proj
				layers.#.in_layer = layers.#.linear_1
				layers.#.out_layer = layers.#.linear_2
				norms.#.scale = norms.#.weight
				norms.#.weight -> norms.#.weight`},
			{`double_blocks.#.=transformer_blocks.#.`, fluxAttention + fluxDoubleMLP},
			{`single_blocks.#.=single_transformer_blocks.#.`, fluxSingleNorms + fluxSingle},
		},
	}, {
		name: "Hunyuan Video", prefixes: checkpoints,
		comfy:     []string{`txt_in.individual_token_refiner.blocks.0.self_attn_qkv.weight double_blocks.0.img_attn_qkv.weight vector_in.`},
		diffusers: []string{`context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight time_text_embed.text_embedder. single_transformer_blocks.`},
		blocks: []block{
			{``, `
				img_in.proj = x_embedder.proj
				time_in.mlp.0 = time_text_embed.timestep_embedder.linear_1
				time_in.mlp.2 = time_text_embed.timestep_embedder.linear_2
				vector_in.in_layer = time_text_embed.text_embedder.linear_1
				vector_in.out_layer = time_text_embed.text_embedder.linear_2
				guidance_in.mlp.0 = time_text_embed.guidance_embedder.linear_1
				guidance_in.mlp.2 = time_text_embed.guidance_embedder.linear_2
				final_layer.linear = proj_out
				final_layer.adaLN_modulation.1 ~ norm_out.linear`},
			{`txt_in.=context_embedder.`, `
				input_embedder = proj_in
				t_embedder.mlp.0 = time_text_embed.timestep_embedder.linear_1
				t_embedder.mlp.2 = time_text_embed.timestep_embedder.linear_2
				c_embedder.linear_1 = time_text_embed.text_embedder.linear_1
				c_embedder.linear_2 = time_text_embed.text_embedder.linear_2`},
			{`txt_in.individual_token_refiner.blocks.#.=context_embedder.token_refiner.refiner_blocks.#.`, `
				self_attn_qkv = attn.to_q + attn.to_k + attn.to_v
				self_attn_proj = attn.to_out.0
				norm1
				norm2
				mlp.fc1 = ff.net.0.proj
				mlp.fc2 = ff.net.2
				adaLN_modulation.1 = norm_out.linear`},
			{`double_blocks.#.=transformer_blocks.#.`, `
				img_attn_qkv = attn.to_q + attn.to_k + attn.to_v
				img_attn_proj = attn.to_out.0
				img_attn_q_norm = attn.norm_q
				img_attn_k_norm = attn.norm_k
				img_mod.linear = norm1.linear
				img_mlp.fc1 = ff.net.0.proj
				img_mlp.fc2 = ff.net.2
				txt_attn_qkv = attn.add_q_proj + attn.add_k_proj + attn.add_v_proj
				txt_attn_proj = attn.to_add_out
				txt_attn_q_norm = attn.norm_added_q
				txt_attn_k_norm = attn.norm_added_k
				txt_mod.linear = norm1_context.linear
				txt_mlp.fc1 = ff_context.net.0.proj
				txt_mlp.fc2 = ff_context.net.2`},
			{`single_blocks.#.=single_transformer_blocks.#.`, fluxSingle + `
				q_norm = attn.norm_q
				k_norm = attn.norm_k
				modulation.linear = norm.linear`},
		},
	}, {
		name: "HiDream-I1", prefixes: checkpoints, same: true,
		comfy:     []string{`caption_projection.0.linear.weight double_stream_blocks.`},
		diffusers: []string{`caption_projection.0.linear.weight double_stream_blocks.`},
		blocks:    []block{{``, `*`}},
	}, {
		name: "FLUX.1", prefixes: checkpoints,
		comfy:     []string{`double_blocks.0.img_attn.qkv.weight img_in.weight vector_in. | txt_in.individual_token_refiner.`},
		diffusers: []string{`transformer_blocks.0.attn.add_q_proj.weight x_embedder.weight time_text_embed.text_embedder. | context_embedder.token_refiner.`},
		blocks: []block{
			{``, fluxEnds + `
				time_in.in_layer = time_text_embed.timestep_embedder.linear_1
				time_in.out_layer = time_text_embed.timestep_embedder.linear_2
				vector_in.in_layer = time_text_embed.text_embedder.linear_1
				vector_in.out_layer = time_text_embed.text_embedder.linear_2
				guidance_in.in_layer = time_text_embed.guidance_embedder.linear_1
				guidance_in.out_layer = time_text_embed.guidance_embedder.linear_2
				final_layer.adaLN_modulation.1 ~ norm_out.linear`},
			{`double_blocks.#.=transformer_blocks.#.`, fluxAttention + fluxDoubleMLP + `
				img_mod.lin = norm1.linear
				txt_mod.lin = norm1_context.linear`},
			{`single_blocks.#.=single_transformer_blocks.#.`, fluxSingleNorms + fluxSingle + `
				modulation.lin = norm.linear`},
		},
	}, {
		name: "Stable Diffusion 3", prefixes: checkpoints,
		comfy:     []string{`joint_blocks.0.context_block.attn.qkv.weight`},
		diffusers: []string{`transformer_blocks.0.attn.add_q_proj.weight pos_embed.proj.weight context_embedder.weight`},
		blocks: []block{
			{``, `
				pos_embed = pos_embed.pos_embed
				x_embedder.proj = pos_embed.proj
				context_embedder
				t_embedder.mlp.0 = time_text_embed.timestep_embedder.linear_1
				t_embedder.mlp.2 = time_text_embed.timestep_embedder.linear_2
				y_embedder.mlp.0 = time_text_embed.text_embedder.linear_1
				y_embedder.mlp.2 = time_text_embed.text_embedder.linear_2
				final_layer.adaLN_modulation.1 ~ norm_out.linear
				final_layer.linear = proj_out`},
			// The last block ends the text's stream, with a norm like the model's own.
			{`joint_blocks.$.=transformer_blocks.$.`, `
				context_block.adaLN_modulation.1 ~ norm1_context.linear`},
			{`joint_blocks.#.=transformer_blocks.#.`, `
				x_block.adaLN_modulation.1 = norm1.linear
				x_block.attn.qkv = attn.to_q + attn.to_k + attn.to_v
				x_block.attn.proj = attn.to_out.0
				x_block.attn.ln_q = attn.norm_q
				x_block.attn.ln_k = attn.norm_k
				x_block.attn2.qkv = attn2.to_q + attn2.to_k + attn2.to_v
				x_block.attn2.proj = attn2.to_out.0
				x_block.attn2.ln_q = attn2.norm_q
				x_block.attn2.ln_k = attn2.norm_k
				x_block.mlp.fc1 = ff.net.0.proj
				x_block.mlp.fc2 = ff.net.2
				context_block.adaLN_modulation.1 = norm1_context.linear
				context_block.attn.qkv = attn.add_q_proj + attn.add_k_proj + attn.add_v_proj
				context_block.attn.proj = attn.to_add_out
				context_block.attn.ln_q = attn.norm_added_q
				context_block.attn.ln_k = attn.norm_added_k
				context_block.mlp.fc1 = ff_context.net.0.proj
				context_block.mlp.fc2 = ff_context.net.2`},
		},
	}, {
		name: "AuraFlow", prefixes: checkpoints,
		comfy: []string{`double_layers.0.attn.w1q.weight`}, diffusers: []string{`joint_transformer_blocks.0.attn.add_k_proj.weight`},
		blocks: []block{
			{``, `
				positional_encoding = pos_embed.pos_embed
				register_tokens
				t_embedder.mlp.0 = time_step_proj.linear_1
				t_embedder.mlp.2 = time_step_proj.linear_2
				cond_seq_linear = context_embedder
				init_x_linear = pos_embed.proj
				final_linear = proj_out
				modF.1 ~ norm_out.linear`},
			{`double_layers.#.=joint_transformer_blocks.#.`, `
				attn.w2q = attn.to_q
				attn.w2k = attn.to_k
				attn.w2v = attn.to_v
				attn.w2o = attn.to_out.0
				attn.w1q = attn.add_q_proj
				attn.w1k = attn.add_k_proj
				attn.w1v = attn.add_v_proj
				attn.w1o = attn.to_add_out
				mlpX.c_fc1 = ff.linear_1
				mlpX.c_fc2 = ff.linear_2
				mlpX.c_proj = ff.out_projection
				mlpC.c_fc1 = ff_context.linear_1
				mlpC.c_fc2 = ff_context.linear_2
				mlpC.c_proj = ff_context.out_projection
				modX.1 = norm1.linear
				modC.1 = norm1_context.linear`},
			{`single_layers.#.=single_transformer_blocks.#.`, `
				attn.w1q = attn.to_q
				attn.w1k = attn.to_k
				attn.w1v = attn.to_v
				attn.w1o = attn.to_out.0
				mlp.c_fc1 = ff.linear_1
				mlp.c_fc2 = ff.linear_2
				mlp.c_proj = ff.out_projection
				modCX.1 = norm1.linear`},
		},
	}, {
		name: "Z-Image", prefixes: checkpoints,
		comfy:     []string{`noise_refiner.0.attention.k_norm.weight layers.0.adaLN_modulation.0.weight x_embedder.weight`},
		diffusers: []string{`noise_refiner.0.attention.norm_k.weight all_x_embedder.2-1.weight`},
		blocks: []block{
			{``, `
				x_embedder = all_x_embedder.2-1
				final_layer. = all_final_layer.2-1.
				cap_embedder.0
				cap_embedder.1
				t_embedder.mlp.0
				t_embedder.mlp.2
				x_pad_token
				cap_pad_token
				siglip_embedder.0
				siglip_embedder.1
				siglip_pad_token
				norm_final ->`},
			{`layers.#. noise_refiner.#. context_refiner.#. siglip_refiner.#.`, `
				attention.qkv = attention.to_q + attention.to_k + attention.to_v
				attention.out = attention.to_out.0
				attention.q_norm = attention.norm_q
				attention.k_norm = attention.norm_k
				attention_norm1
				attention_norm2
				feed_forward.w1
				feed_forward.w2
				feed_forward.w3
				ffn_norm1
				ffn_norm2
				adaLN_modulation.0`},
		},
	}, {
		name: "Lumina 2", prefixes: checkpoints,
		comfy:     []string{`noise_refiner.0.attention.k_norm.weight layers.0.adaLN_modulation.1.weight cap_embedder.1.weight`},
		diffusers: []string{`layers.0.norm1.linear.weight time_caption_embed.caption_embedder. | ref_image_patch_embedder.`},
		blocks: []block{
			{``, `
				x_embedder
				cap_embedder.0 = time_caption_embed.caption_embedder.0
				cap_embedder.1 = time_caption_embed.caption_embedder.1
				t_embedder.mlp.0 = time_caption_embed.timestep_embedder.linear_1
				t_embedder.mlp.2 = time_caption_embed.timestep_embedder.linear_2
				final_layer.adaLN_modulation.1 = norm_out.linear_1
				final_layer.linear = norm_out.linear_2
				norm_final ->`},
			{`layers.#. noise_refiner.#.`, luminaBlock + `
				adaLN_modulation.1 = norm1.linear
				attention_norm1 = norm1.norm`},
			{`context_refiner.#.`, luminaBlock + `
				attention_norm1 = norm1`},
		},
	}, {
		name: "Qwen-Image", prefixes: checkpoints, same: true,
		comfy: []string{`txt_norm.weight transformer_blocks.0.attn.add_q_proj.weight`}, diffusers: []string{`txt_norm.weight transformer_blocks.0.attn.add_q_proj.weight`},
		blocks: []block{{``, `
			__index_timestep_zero__ ->
			*`}},
		wants: []wanted{{`txt_norm.weight`, Want{Name: "__index_timestep_zero__", Setting: "zero_cond_t"}}},
	}, {
		name: "Wan", prefixes: checkpoints,
		comfy:     []string{`blocks.0.self_attn.q.weight head.head.weight patch_embedding.weight | face_adapter. motion_encoder.`},
		diffusers: []string{`blocks.0.attn1.to_q.weight condition_embedder.time_embedder.linear_1.weight patch_embedding.weight | face_adapter. motion_encoder.`},
		blocks: []block{
			{``, `
				patch_embedding
				vace_patch_embedding
				time_embedding.0 = condition_embedder.time_embedder.linear_1
				time_embedding.2 = condition_embedder.time_embedder.linear_2
				text_embedding.0 = condition_embedder.text_embedder.linear_1
				text_embedding.2 = condition_embedder.text_embedder.linear_2
				time_projection.1 = condition_embedder.time_proj
				img_emb.emb_pos = condition_embedder.image_embedder.pos_embed
				img_emb.proj.0 = condition_embedder.image_embedder.norm1
				img_emb.proj.1 = condition_embedder.image_embedder.ff.net.0.proj
				img_emb.proj.3 = condition_embedder.image_embedder.ff.net.2
				img_emb.proj.4 = condition_embedder.image_embedder.norm2
				head.modulation = scale_shift_table
				head.head = proj_out`},
			{`blocks.#. vace_blocks.#.`, `
				modulation = scale_shift_table
				self_attn.q = attn1.to_q
				self_attn.k = attn1.to_k
				self_attn.v = attn1.to_v
				self_attn.o = attn1.to_out.0
				self_attn.norm_q = attn1.norm_q
				self_attn.norm_k = attn1.norm_k
				cross_attn.q = attn2.to_q
				cross_attn.k = attn2.to_k
				cross_attn.v = attn2.to_v
				cross_attn.o = attn2.to_out.0
				cross_attn.norm_q = attn2.norm_q
				cross_attn.norm_k = attn2.norm_k
				cross_attn.k_img = attn2.add_k_proj
				cross_attn.v_img = attn2.add_v_proj
				cross_attn.norm_k_img = attn2.norm_added_k
				norm3 = norm2
				ffn.0 = ffn.net.0.proj
				ffn.2 = ffn.net.2
				before_proj = proj_in
				after_proj = proj_out`},
		},
	}, {
		name: "LTX-2", prefixes: checkpoints,
		comfy: []string{`audio_patchify_proj.weight patchify_proj.weight`}, diffusers: []string{`audio_proj_in.weight proj_in.weight av_cross_attn_video_scale_shift.`},
		blocks: []block{
			{``, `
				patchify_proj = proj_in
				audio_patchify_proj = audio_proj_in
				proj_out
				audio_proj_out
				scale_shift_table
				audio_scale_shift_table
				caption_projection.
				audio_caption_projection.
				adaln_single. = time_embed.
				audio_adaln_single. = audio_time_embed.
				av_ca_video_scale_shift_adaln_single. = av_cross_attn_video_scale_shift.
				av_ca_a2v_gate_adaln_single. = av_cross_attn_video_a2v_gate.
				av_ca_audio_scale_shift_adaln_single. = av_cross_attn_audio_scale_shift.
				av_ca_v2a_gate_adaln_single. = av_cross_attn_audio_v2a_gate.
				video_embeddings_connector. ->
				audio_embeddings_connector. ->`},
			ltxAttention,
			{`transformer_blocks.#.`, `
				scale_shift_table_a2v_ca_video = video_a2v_cross_attn_scale_shift_table
				scale_shift_table_a2v_ca_audio = audio_a2v_cross_attn_scale_shift_table
				scale_shift_table
				audio_scale_shift_table
				ff.
				audio_ff.`},
		},
	}, {
		name: "LTX", prefixes: checkpoints,
		comfy:     []string{`patchify_proj.weight adaln_single.emb.timestep_embedder.linear_1.weight`},
		diffusers: []string{`transformer_blocks.0.scale_shift_table time_embed.emb. proj_in.weight`},
		blocks: []block{
			{``, `
				patchify_proj = proj_in
				adaln_single. = time_embed.
				caption_projection.
				proj_out
				scale_shift_table`},
			ltxAttention,
			{`transformer_blocks.#.`, `
				scale_shift_table
				ff.`},
		},
	}, {
		name: "PixArt", prefixes: checkpoints,
		comfy:     []string{`t_block.1.weight y_embedder.y_proj.fc1.weight`},
		diffusers: []string{`adaln_single.emb.timestep_embedder.linear_1.weight pos_embed.proj.weight caption_projection.`},
		blocks: []block{
			{``, `
				x_embedder.proj = pos_embed.proj
				y_embedder.y_proj.fc1 = caption_projection.linear_1
				y_embedder.y_proj.fc2 = caption_projection.linear_2
				t_embedder.mlp.0 = adaln_single.emb.timestep_embedder.linear_1
				t_embedder.mlp.2 = adaln_single.emb.timestep_embedder.linear_2
				csize_embedder.mlp.0 = adaln_single.emb.resolution_embedder.linear_1
				csize_embedder.mlp.2 = adaln_single.emb.resolution_embedder.linear_2
				ar_embedder.mlp.0 = adaln_single.emb.aspect_ratio_embedder.linear_1
				ar_embedder.mlp.2 = adaln_single.emb.aspect_ratio_embedder.linear_2
				t_block.1 = adaln_single.linear
				final_layer.linear = proj_out
				final_layer.scale_shift_table = scale_shift_table
				y_embedder.y_embedding <- caption_projection.y_embedding
				y_embedder.y_embedding ->
				pos_embed ->`},
			{`blocks.#.=transformer_blocks.#.`, `
				scale_shift_table
				attn.qkv = attn1.to_q + attn1.to_k + attn1.to_v
				attn.proj = attn1.to_out.0
				cross_attn.q_linear = attn2.to_q
				cross_attn.kv_linear = attn2.to_k + attn2.to_v
				cross_attn.proj = attn2.to_out.0
				mlp.fc1 = ff.net.0.proj
				mlp.fc2 = ff.net.2`},
		},
	}, {
		name: "UNet of Stable Diffusion 1, 2 or XL", prefixes: checkpoints,
		comfy:     []string{`input_blocks.0.0.weight middle_block. output_blocks.`},
		diffusers: []string{`conv_in.weight time_embedding.linear_1.weight down_blocks.0. up_blocks.`},
		blocks: []block{
			{``, `
				input_blocks.0.0 = conv_in
				time_embed.0 = time_embedding.linear_1
				time_embed.2 = time_embedding.linear_2
				label_emb = class_embedding
				out.0 = conv_norm_out
				out.2 = conv_out`},
			{`middle_block.0.=mid_block.resnets.0. middle_block.2.=mid_block.resnets.1.`, unetResnet},
			{`middle_block.1.=mid_block.attentions.0.`, unetAttention},
		},
		grow: unetBlocks,
	}, {
		name: "AutoencoderKL", prefixes: []string{"first_stage_model.", "vae."},
		comfy:     []string{`decoder.up.0.block.0.conv1.weight decoder.mid.attn_1.q.weight`},
		diffusers: []string{`decoder.up_blocks.0.resnets.0.conv1.weight decoder.mid_block.attentions.0.to_q.weight`},
		blocks: []block{
			{``, `
				quant_conv
				post_quant_conv`},
			{`encoder. decoder.`, `
				conv_in
				conv_out
				norm_out = conv_norm_out`},
			{`encoder.mid.attn_1.=encoder.mid_block.attentions.0. decoder.mid.attn_1.=decoder.mid_block.attentions.0.`, `
				norm = group_norm
				q ^ to_q
				k ^ to_k
				v ^ to_v
				proj_out ^ to_out.0`},
			{`encoder.mid.block_1.=encoder.mid_block.resnets.0. encoder.mid.block_2.=encoder.mid_block.resnets.1.
				decoder.mid.block_1.=decoder.mid_block.resnets.0. decoder.mid.block_2.=decoder.mid_block.resnets.1.
				encoder.down.#.block.#.=encoder.down_blocks.#.resnets.#.`, vaeResnet},
			{`encoder.down.#.=encoder.down_blocks.#.`, `
				downsample.conv = downsamplers.0.conv`},
		},
		grow: vaeBlocks,
	}, {
		name: "T5", same: true,
		comfy: []string{`encoder.block.0.layer.0.SelfAttention.k.weight`}, diffusers: []string{`encoder.block.0.layer.0.SelfAttention.k.weight`},
		blocks: []block{{``, tokenizers + `
			*`}},
		wants: []wanted{ofUMT5},
	}, {
		name: "CLIP text encoder", same: true,
		comfy:     []string{`text_model.encoder.layers.0.self_attn.q_proj.weight text_model.embeddings. | vision_model.`},
		diffusers: []string{`text_model.encoder.layers.0.self_attn.q_proj.weight text_model.embeddings. | vision_model.`},
		blocks:    []block{{``, `*`}},
	}, {
		// Transformers 5 writes a model without a projection so, and reads either.
		name:      "CLIP text encoder without a prefix",
		diffusers: []string{`encoder.layers.0.self_attn.q_proj.weight embeddings.token_embedding.weight final_layer_norm.weight`},
		blocks: []block{{`text_model.=`, `
			embeddings.
			encoder.
			final_layer_norm`}},
	}, {
		name:     "OpenCLIP text encoder",
		comfy:    []string{`transformer.resblocks.0.attn.in_proj_weight token_embedding.weight | visual. text_projection`},
		prefixes: []string{"conditioner.embedders.0.model.", "conditioner.embedders.1.model.", "cond_stage_model.model."},
		blocks: []block{
			{``, `
				token_embedding = text_model.embeddings.token_embedding
				positional_embedding = text_model.embeddings.position_embedding.weight
				ln_final = text_model.final_layer_norm
				text_projection.weight
				logit_scale`},
			{`transformer.resblocks.#.=text_model.encoder.layers.#.`, `
				ln_1 = layer_norm1
				ln_2 = layer_norm2
				mlp.c_fc = mlp.fc1
				mlp.c_proj = mlp.fc2
				attn.out_proj = self_attn.out_proj
				attn.in_proj_weight = self_attn.q_proj.weight + self_attn.k_proj.weight + self_attn.v_proj.weight
				attn.in_proj_bias = self_attn.q_proj.bias + self_attn.k_proj.bias + self_attn.v_proj.bias`},
		},
	}, {
		// ComfyUI's experts are matrices as linear layers have them. Transformers has theirs
		// turned, or, made by programs that train adapters or quantize, each as a layer, or as
		// three, as in other models: a row of the gate and one of the other stand in turn.
		name:      "gpt-oss",
		comfy:     []string{`layers.0.self_attn.sinks layers.0.mlp.router.weight`},
		diffusers: []string{`model.layers.0.self_attn.sinks model.layers.0.mlp.router.`},
		blocks: []block{
			{`layers.#.mlp.=model.layers.#.mlp.`, `
				experts.gate_up_proj.weight % experts.gate_up_proj
				experts.down_proj.weight % experts.down_proj
				experts.gate_up_proj.bias = experts.gate_up_proj_bias
				experts.down_proj.bias = experts.down_proj_bias
				experts.gate_up_proj <@ experts.gate_up_projs.@
				experts.down_proj <@ experts.down_projs.@
				experts.gate_up_proj <@ experts.@.gate_proj + experts.@.up_proj
				experts.down_proj <@ experts.@.down_proj
				router <- router.linear`},
			{`=model.`, `
				layers.
				embed_tokens
				norm`},
			{``, `
				tokenizer_json ->
				- <- lm_head`},
		},
		wants: []wanted{ofGptOss},
	}, {
		// Qwen's that also see have their own names for all that, which ComfyUI takes.
		name: "language model", same: true,
		comfy:     languageModel,
		diffusers: languageModel,
		blocks: []block{{``, tokenizers + `
			*`}},
		wants: []wanted{ofGemma},
	}, {
		// A model without a head is written so, and read with the prefix, too.
		name:      "language model without a prefix",
		diffusers: []string{`layers.0.self_attn.q_proj.weight embed_tokens.weight norm.weight`},
		blocks: []block{{`model.=`, `
			layers.
			embed_tokens
			norm`}},
		wants: []wanted{ofGemma},
	}, {
		name:      "Gemma 3 that also sees",
		diffusers: []string{`language_model.model.layers.0.self_attn.q_proj.weight multi_modal_projector.mm_soft_emb_norm.weight`},
		blocks: []block{
			{`model.=language_model.model.`, `
				layers.
				embed_tokens
				norm`},
			{``, `
				multi_modal_projector.
				lm_head = language_model.lm_head
				- <- vision_tower.head.
				vision_model. <- vision_tower.vision_model.
				vision_model. <- vision_tower.`},
		},
		wants: []wanted{ofGemma},
	}, {
		// ComfyUI has Mistral's without its eyes.
		name:      "Mistral that also sees",
		diffusers: []string{`language_model.model.layers.0.self_attn.q_proj.weight multi_modal_projector.patch_merger.`},
		blocks: []block{
			{`model.=language_model.model.`, `
				layers.
				embed_tokens
				norm`},
			{``, `
				lm_head = language_model.lm_head
				- <- vision_tower.
				- <- multi_modal_projector.`},
		},
		wants: []wanted{ofMistral},
	},
}

// languageModel are the signs of names that transformers and ComfyUI share.
var languageModel = []string{
	`model.layers.0.self_attn.q_proj.weight model.embed_tokens.weight | model.layers.0.mlp.router.`,
	`model.language_model.layers.0.self_attn.q_proj.weight model.visual.deepstack_merger_list.`,
}
