"""ComfyUI's own model classes, as small as they go, for the names and shapes of
single files. The first argument of the command is a folder that holds the
package comfy of ComfyUI 0.33.0."""
import re
import sys

sys.path.insert(0, sys.argv[1])

import torch

import comfy.cli_args

comfy.cli_args.args.cpu = True
import comfy.ops

FLUX = dict(in_channels=4, out_channels=4, patch_size=2, hidden_size=64, num_heads=4, depth=2, depth_single_blocks=2, axes_dim=[4, 6, 6], theta=10000, mlp_ratio=2.0, qkv_bias=True,
            context_in_dim=48, vec_in_dim=40, guidance_embed=True, txt_ids_dims=[])
CHROMA = {k: v for k, v in FLUX.items() if k not in ("guidance_embed", "patch_size", "in_channels", "out_channels")}
CHROMA |= dict(in_dim=16, out_dim=64, hidden_dim=48, n_layers=2)
NEXT = dict(in_channels=4, dim=64, n_layers=2, n_refiner_layers=1, n_heads=4, n_kv_heads=4, qk_norm=True, cap_feat_dim=48, axes_dims=[4, 6, 6], axes_lens=[8, 8, 8], multiple_of=32)
DIT = dict(num_layers=2, attention_head_dim=16, num_attention_heads=4)
WAN = dict(dim=64, ffn_dim=96, freq_dim=32, text_dim=48, num_heads=4, num_layers=2)
HUNYUAN = dict(in_channels=4, out_channels=4, patch_size=[1, 2, 2], hidden_size=64, num_heads=4, depth=2, depth_single_blocks=2, axes_dim=[4, 6, 6], theta=256, mlp_ratio=2.0, qkv_bias=True,
               context_in_dim=48, vec_in_dim=40, guidance_embed=True, byt5=False, meanflow=False, use_cond_type_embedding=False, vision_in_dim=None, meanflow_sum=False)
LTX = dict(in_channels=16, cross_attention_dim=64, attention_head_dim=16, num_attention_heads=4, caption_channels=48, num_layers=3)
UNET = dict(image_size=16, in_channels=4, out_channels=4, model_channels=32, num_res_blocks=1, channel_mult=(1, 2), num_heads=4, use_spatial_transformer=True, context_dim=48, legacy=False)

# case -> (module, class, settings, prefix of the names, preset or "")
DIFFUSION = {
    "flux": ("flux.model", "Flux", dict(FLUX, image_model="flux"), "", ""),
    "flux2": ("flux.model", "Flux", dict(FLUX, image_model="flux2", vec_in_dim=None, global_modulation=True, mlp_silu_act=True, qkv_bias=False, ops_bias=False), "", "flux2"),
    "chroma": ("chroma.model", "Chroma", dict(CHROMA, in_channels=16, out_channels=16, patch_size=2), "", "distillation_large"),
    "chroma-radiance": ("chroma_radiance.model", "ChromaRadiance", dict(CHROMA, in_channels=3, out_channels=3, patch_size=4, nerf_hidden_size=16, nerf_mlp_ratio=2, nerf_depth=2, nerf_max_freqs=4,
                        nerf_tile_size=32, nerf_final_head_type="conv", nerf_embedder_dtype=torch.float32, use_x0=True, use_sequential_txt_ids=False), "model.diffusion_model.", "nerf_large"),
    "z-image": ("lumina.model", "NextDiT", dict(NEXT, z_image_modulation=True, pad_tokens_multiple=32), "model.diffusion_model.", "zimage"),
    "lumina2": ("lumina.model", "NextDiT", NEXT, "", ""),
    "qwen-image": ("qwen_image.model", "QwenImageTransformer2DModel", dict(DIT, in_channels=16, out_channels=4, joint_attention_dim=48, axes_dims_rope=(4, 6, 6)), "", "qwen"),
    "wan": ("wan.model", "WanModel", WAN, "model.diffusion_model.", "wan"),
    "wan-i2v": ("wan.model", "WanModel", dict(WAN, model_type="i2v", in_dim=36), "", "wan"),
    "hunyuan-video": ("hunyuan_video.model", "HunyuanVideo", HUNYUAN, "", "hunyuan"),
    "hunyuan-video-comfy": ("hunyuan_video.model", "HunyuanVideo", HUNYUAN, "model.model.", "hunyuan"),
    "hunyuan-video-1.5": ("hunyuan_video.model", "HunyuanVideo", dict(HUNYUAN, vec_in_dim=None, guidance_embed=False, byt5=True, use_cond_type_embedding=True, vision_in_dim=40, meanflow_sum=True,
                          depth_single_blocks=0), "", "hunyuan"),
    "ltx2": ("lightricks.av_model", "LTXAVModel", dict(LTX, audio_in_channels=16, audio_cross_attention_dim=32, audio_attention_head_dim=8, audio_num_attention_heads=4), "model.diffusion_model.", "ltxv2"),
    "ltx": ("lightricks.model", "LTXVModel", LTX, "", ""),
    "sd3": ("modules.diffusionmodules.mmdit", "MMDiT", dict(input_size=None, in_channels=4, depth=2, adm_in_channels=40, context_size=48, pos_embed_max_size=8, num_patches=64,
            context_embedder_config=dict(target="torch.nn.Linear", params=dict(in_features=48, out_features=128))), "model.diffusion_model.", ""),
    "sdxl-unet": ("modules.diffusionmodules.openaimodel", "UNetModel", dict(UNET, num_classes="sequential", adm_in_channels=56, use_linear_in_transformer=True, transformer_depth=[0, 2], transformer_depth_middle=2,
                  transformer_depth_output=[0, 0, 2, 2]), "model.diffusion_model.", ""),
    "sd15-unet": ("modules.diffusionmodules.openaimodel", "UNetModel", dict(UNET, transformer_depth=[1, 0], transformer_depth_middle=1, transformer_depth_output=[1, 1, 0, 0]), "model.diffusion_model.", ""),
    "pixart": ("pixart.pixartms", "PixArtMS", dict(input_size=8, hidden_size=64, depth=2, num_heads=4, caption_channels=48, micro_condition=False), "", ""),
    "auraflow": ("aura.mmdit", "MMDiT", dict(in_channels=4, out_channels=4, patch_size=2, dim=64, n_layers=3, n_double_layers=1, n_heads=4, cond_seq_dim=48, max_seq=16), "model.", ""),
    "krea2": ("krea2.model", "SingleStreamDiT", dict(features=64, tdim=32, txtdim=48, heads=4, kvheads=2, multiplier=2, layers=2, patch=2, channels=4, txtlayers=3, txtheads=3, txtkvheads=3), "", "krea2"),
    "lens": ("lens.model", "LensTransformer2DModel", dict(DIT, in_channels=16, out_channels=4, enc_hidden_dim=48, axes_dims_rope=(4, 6, 6)), "", "lens"),
    "ideogram4": ("ideogram4.model", "Ideogram4Transformer2DModel", dict(DIT, in_channels=16, intermediate_size=96, adaln_dim=32, llm_features_dim=48, mrope_section=(4, 2, 2)), "", "ideogram4"),
    "boogu": ("boogu.model", "BooguTransformer2DModel", dict(hidden_size=64, num_layers=2, num_double_stream_layers=1, num_refiner_layers=1, num_attention_heads=4, num_kv_heads=2, multiple_of=32, axes_dim_rope=(4, 6, 6), instruction_feat_dim=48), "", "boogu"),
    "minimax-h3": ("minimax.model", "MiniMaxH3Model", dict(num_layers=2, hidden_size=64, token_refiner_num_layers=1, num_attention_heads=4, attention_head_dim=16, ffn_hidden_size=96, text_dim=48, timestep_input_dim=32, time_embed_hidden_size=64,
                   time_embed_dim=32), "", "minimaxh3"),
}

# ComfyUI renames the tensors of these as it loads them, and saves them with its own names.
PUBLISHED = {
    case: (
        (r"txt_in\.c_embedder\.in_layer\.", "txt_in.c_embedder.linear_1."), (r"txt_in\.c_embedder\.out_layer\.", "txt_in.c_embedder.linear_2."),
        (r"(t_embedder|time_in|guidance_in)\.in_layer\.", r"\1.mlp.0."), (r"(t_embedder|time_in|guidance_in)\.out_layer\.", r"\1.mlp.2."),
        (r"_mod\.lin\.", "_mod.linear."), (r"\.modulation\.lin\.", ".modulation.linear."),
        (r"_mlp\.0\.", "_mlp.fc1."), (r"_mlp\.2\.", "_mlp.fc2."), (r"(refiner\.blocks\.\d+)\.mlp\.0\.", r"\1.mlp.fc1."), (r"(refiner\.blocks\.\d+)\.mlp\.2\.", r"\1.mlp.fc2."),
        (r"_attn\.norm\.query_norm\.", "_attn_q_norm."), (r"_attn\.norm\.key_norm\.", "_attn_k_norm."), (r"\.norm\.query_norm\.", ".q_norm."), (r"\.norm\.key_norm\.", ".k_norm."),
        (r"_attn\.(qkv|proj)\.", r"_attn_\1."),
    )
    for case in ("hunyuan-video", "hunyuan-video-1.5")
}


def shapes(case, differ=None):
    """The names and shapes of a case, with settings that differ."""
    module, name, settings, prefix, _ = DIFFUSION[case]
    cls = getattr(__import__("comfy.ldm." + module, fromlist=["x"]), name)
    model = cls(**{**settings, **(differ or {})}, dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init)
    out = {}
    for k, v in model.state_dict().items():
        for comfy_name, name in PUBLISHED.get(case, ()):
            k = re.sub(comfy_name, name, k)
        out[prefix + k] = tuple(v.shape)
    return out
