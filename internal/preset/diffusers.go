package preset

import "strings"

// diffusersFacts are what the classes of diffusers 0.42.1 declare about their modules:
// the parts that are kept in float32 and, after the bar, those that layerwise casting
// skips. SDNQ skips both, but the latter only for classes without a list of their own.
var diffusersFacts = facts(`
AllegroTransformer3DModel: | pos_embed norm adaln_single
AnyFlowFARTransformer3DModel: time_embedder scale_shift_table norm1 norm2 norm3 | patch_embedding far_patch_embedding condition_embedder norm
AnyFlowTransformer3DModel: time_embedder scale_shift_table norm1 norm2 norm3 | patch_embedding condition_embedder norm
AsymmetricAutoencoderKL: | decoder
AuraFlowTransformer2DModel: | pos_embed norm
AutoencoderKLMiniMaxH3: encoder quant_conv norm1 norm2 norm_out scale1 scale2 | norm
AutoencoderKLMiniMaxH3Audio: encoder decoder pre_block dec_in_proj mean_proj logs_proj |
BriaFibo2Transformer2DModel: | t_embedder
ChromaTransformer2DModel: | pos_embed norm
ChronoEditTransformer3DModel: time_embedder scale_shift_table norm1 norm2 norm3 | patch_embedding condition_embedder norm
CogVideoXTransformer3DModel: | patch_embed norm
CogView3PlusTransformer2DModel: | patch_embed norm
CogView4Transformer2DModel: | patch_embed norm proj_out
Cosmos3OmniTransformer: time_embedder | embed_tokens time_embedder norm
CosmosControlNetModel: learnable_pos_embed | patch_embed patch_embed_base time_embed
CosmosTransformer3DModel: learnable_pos_embed | patch_embed final_layer norm
DiTTransformer2DModel: | pos_embed norm
DreamLiteTransformer2DModel: | norm
DreamLiteUNetModel: | norm
EasyAnimateTransformer3DModel: | ^proj$ norm ^proj_out$
Flux2Transformer2DModel: | pos_embed norm
Flux3Transformer2DModel: norm_q norm_k | pos_embed norm
FluxTransformer2DModel: | pos_embed norm
GlmImageTransformer2DModel: | patch_embed norm proj_out
HeliosTransformer3DModel: time_embedder scale_shift_table norm1 norm2 norm3 history_key_scale | patch_embedding patch_short patch_mid patch_long condition_embedder norm
HunyuanDiT2DModel: | pos_embed norm pooler
HunyuanImageTransformer2DModel: | x_embedder context_embedder norm
HunyuanVideo15Transformer3DModel: | x_embedder context_embedder norm
HunyuanVideoFramepackTransformer3DModel: | x_embedder context_embedder norm
HunyuanVideoTransformer3DModel: | x_embedder context_embedder norm
Ideogram4Transformer2DModel: | t_embedding adaln_proj embed_image_indicator
JoyImageEditPlusTransformer3DModel: time_embedder norm1 norm2 norm_out | img_in condition_embedder norm
JoyImageEditTransformer3DModel: time_embedder norm1 norm2 norm_out | img_in condition_embedder norm
Kandinsky5Transformer3DModel: time_embeddings modulation visual_modulation text_modulation |
Kandinsky6SRTransformer3DModel: time_embeddings pooled_bias modulation | norm
Kandinsky6Transformer3DModel: time_embeddings modulation | norm
Krea2Transformer2DModel: norm norm1 norm2 norm_q norm_k | time_embed norm
LTX2VideoTransformer3DModel: | norm
LTXVideoTransformer3DModel: | norm
LatteTransformer3DModel: | pos_embed norm
Lumina2Transformer2DModel: | x_embedder norm
LuminaNextDiT2DModel: | patch_embedder norm ffn_norm
MiniMaxH3Transformer3DModel: proj_in audio_proj_in time_embedder proj_out audio_proj_out rope | norm
MiniMaxMusic3Transformer1DModel: | time_proj norm
MochiTransformer3DModel: | patch_embed norm
MotifVideoTransformer3DModel: | x_embedder context_embedder norm
NucleusMoEImageTransformer2DModel: | pos_embed norm
OmniGenTransformer2DModel: | patch_embedding embed_tokens norm
OvisImageTransformer2DModel: | pos_embed norm
PixArtTransformer2DModel: | pos_embed norm adaln_single
QwenImage21Transformer2DModel: | pos_embed norm
QwenImageTransformer2DModel: | pos_embed norm
RFD4ProteinaAutoencoder: latent_decoder_mean_n_log_scale norm | norm embedding
RFD4ProteinaTransformer: cond_factory norm ln_out | norm ln_out embedding
SD3Transformer2DModel: | pos_embed norm
SanaControlNetModel: | patch_embed norm
SanaTransformer2DModel: | patch_embed norm
SanaVideoTransformer3DModel: | patch_embedding norm
SanaWMLTX2RefinerTransformer3DModel: | norm
SanaWMTransformer3DModel: | x_embedder plucker_embedder norm
SkyReelsV2Transformer3DModel: rope time_embedder scale_shift_table norm1 norm2 norm3 | patch_embedding condition_embedder norm
StableAudioDiTModel: | preprocess_conv postprocess_conv ^proj_in$ ^proj_out$ norm
Transformer2DModel: | latent_image_embedding norm
TransformerTemporalModel: | norm
UNet1DModel: | norm
UNet2DConditionModel: | norm
UNet2DModel: | norm
UNet3DConditionModel: | norm time_embedding
UNetMotionModel: | norm
VQModel: | quantize
WanAnimate2Transformer3DModel: time_embedding time_projection scale_shift_table norm1 norm2 norm3 modulation | patch_embedding img_emb norm
WanAnimateTransformer3DModel: time_embedder scale_shift_table norm1 norm2 norm3 motion_synthesis_weight rope | patch_embedding condition_embedder norm
WanTransformer3DModel: rope time_embedder scale_shift_table norm1 norm2 norm3 | patch_embedding condition_embedder norm
WanVACETransformer3DModel: rope time_embedder scale_shift_table norm1 norm2 norm3 | patch_embedding vace_patch_embedding condition_embedder norm
ZImageTransformer2DModel: | t_embedder cap_embedder
`)

type fact struct{ float32, layerwise []string }

func facts(table string) map[string]fact {
	m := map[string]fact{}
	for line := range strings.Lines(strings.TrimSpace(table)) {
		class, lists, _ := strings.Cut(line, ":")
		float32, layerwise, _ := strings.Cut(lists, "|")
		m[class] = fact{strings.Fields(float32), strings.Fields(layerwise)}
	}
	return m
}
