"""Small diffusers models, one or more a family, by the name of the golden file."""
import diffusers

FLUX = dict(in_channels=64, num_layers=2, attention_head_dim=128, num_attention_heads=1, joint_attention_dim=32, num_single_layers=2)
WAN = dict(num_attention_heads=1, attention_head_dim=128, in_channels=16, out_channels=16, text_dim=4096, freq_dim=256, ffn_dim=48, num_layers=2)
LTX = dict(in_channels=128, out_channels=128, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32, num_layers=2, caption_channels=4096)
UNET = dict(sample_size=8, norm_num_groups=4, cross_attention_dim=24)
UP, DOWN = "CrossAttnUpBlock2D", "CrossAttnDownBlock2D"


def flux(**more):
    return diffusers.FluxTransformer2DModel(**FLUX | dict(pooled_projection_dim=24, guidance_embeds=True) | more)


def sd3(**more):
    return diffusers.SD3Transformer2DModel(
        sample_size=8, attention_head_dim=64, joint_attention_dim=32, pooled_projection_dim=24, pos_embed_max_size=4,
        **dict(num_layers=2, num_attention_heads=2, caption_projection_dim=128) | more)


def pixart(**more):
    return diffusers.PixArtTransformer2DModel(
        num_layers=2, attention_head_dim=72, num_attention_heads=16, cross_attention_dim=1152, caption_channels=4096, **more)


MODELS = {
    "flux": flux,
    "flux-schnell": lambda: flux(guidance_embeds=False, num_layers=1, num_single_layers=3),
    "flux2": lambda: diffusers.Flux2Transformer2DModel(**FLUX | dict(in_channels=128)),
    "flux2-klein": lambda: diffusers.Flux2Transformer2DModel(**FLUX | dict(in_channels=128, guidance_embeds=False)),
    "chroma": lambda: diffusers.ChromaTransformer2DModel(**FLUX | dict(approximator_num_channels=64, approximator_hidden_dim=32, approximator_layers=5)),
    "hunyuan-video": lambda: diffusers.HunyuanVideoTransformer3DModel(
        in_channels=16, out_channels=16, num_attention_heads=2, attention_head_dim=128, num_layers=2, num_single_layers=2, num_refiner_layers=2,
        text_embed_dim=24, pooled_projection_dim=768),
    "hidream": lambda: diffusers.HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2, caption_channels=[24, 24],
        text_emb_dim=24, num_routed_experts=2, num_activated_experts=1, axes_dims_rope=(8, 4, 4)),
    "sd3": sd3,
    "sd35-medium": lambda: sd3(num_layers=3, num_attention_heads=3, caption_projection_dim=192, dual_attention_layers=(0, 1), qk_norm="rms_norm"),
    "auraflow": lambda: diffusers.AuraFlowTransformer2DModel(
        sample_size=8, num_mmdit_layers=2, num_single_dit_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=2048,
        caption_projection_dim=32, pos_embed_max_size=16),
    "z-image": lambda: diffusers.ZImageTransformer2DModel(
        dim=64, n_layers=2, n_refiner_layers=2, n_heads=2, n_kv_heads=2, cap_feat_dim=24, axes_dims=[16, 8, 8]),
    "lumina2": lambda: diffusers.Lumina2Transformer2DModel(
        sample_size=8, hidden_size=128, num_layers=2, num_refiner_layers=2, num_attention_heads=4, num_kv_heads=2, cap_feat_dim=24, axes_dim_rope=(16, 8, 8)),
    "qwen-image": lambda: diffusers.QwenImageTransformer2DModel(
        in_channels=64, out_channels=16, num_layers=2, attention_head_dim=128, num_attention_heads=1, joint_attention_dim=32),
    "wan": lambda: diffusers.WanTransformer3DModel(**WAN),
    "wan-i2v": lambda: diffusers.WanTransformer3DModel(**WAN | dict(in_channels=36, image_dim=1280, added_kv_proj_dim=128)),
    "wan-flf2v": lambda: diffusers.WanTransformer3DModel(**WAN | dict(in_channels=36, image_dim=1280, added_kv_proj_dim=128, pos_embed_seq_len=6)),
    "wan-vace": lambda: diffusers.WanVACETransformer3DModel(**WAN | dict(vace_layers=[0], vace_in_channels=96)),
    "ltx": lambda: diffusers.LTXVideoTransformer3DModel(**LTX),
    "ltx2": lambda: diffusers.LTX2VideoTransformer3DModel(
        **LTX, audio_in_channels=8, audio_out_channels=8, audio_num_attention_heads=2, audio_attention_head_dim=8, audio_cross_attention_dim=16),
    "pixart": lambda: pixart(sample_size=32),
    "pixart-ms": lambda: pixart(sample_size=128),
    "sd15": lambda: diffusers.UNet2DConditionModel(**UNET, block_out_channels=(8, 16, 24, 24), attention_head_dim=4),
    "sd21": lambda: diffusers.UNet2DConditionModel(**UNET, block_out_channels=(8, 16, 24, 24), attention_head_dim=4, use_linear_projection=True),
    "sdxl": lambda: diffusers.UNet2DConditionModel(
        **UNET, block_out_channels=(8, 16, 24), down_block_types=("DownBlock2D", DOWN, DOWN), up_block_types=(UP, UP, "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3), use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64, attention_head_dim=(2, 4, 4)),
    "sdxl-refiner": lambda: diffusers.UNet2DConditionModel(
        **UNET, block_out_channels=(8, 16, 24, 24), down_block_types=("DownBlock2D", DOWN, DOWN, "DownBlock2D"), up_block_types=("UpBlock2D", UP, UP, "UpBlock2D"),
        transformer_layers_per_block=2, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64, attention_head_dim=4),
    "vae": lambda: diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, norm_num_groups=4),
}
