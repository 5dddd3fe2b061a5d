"""Models of ComfyUI's own classes, and which of their tensors its detection
reads the shapes of. The first argument of the command is a folder that holds
the package comfy of ComfyUI 0.33.0."""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "families"))

import torch

import comfy_models
from comfy_models import DIFFUSION, DIT, FLUX, HUNYUAN, NEXT, PUBLISHED, UNET, WAN

import comfy.model_detection
import comfy.ops

COSMOS = dict(max_img_h=8, max_img_w=8, max_frames=2, in_channels=16, out_channels=16, patch_spatial=2, patch_temporal=1, model_channels=64, num_blocks=2, num_heads=4,
              crossattn_emb_channels=48, pos_emb_cls="rope3d", pos_emb_interpolation="crop", use_adaln_lora=True, adaln_lora_dim=16)
PRED2 = dict(COSMOS, min_fps=1, max_fps=30)
AUDIO = dict(io_channels=8, embed_dim=64, cond_token_dim=48, global_cond_dim=40, depth=2, num_heads=1, audio_model="dit1.0")

# case -> (module, class, settings, prefix of the names, preset or "")
MORE = {
    "flux-guided": ("flux.model", "Flux", dict(FLUX, image_model="flux", in_channels=16), "model.diffusion_model.", ""),
    "longcat-image": ("flux.model", "Flux", dict(FLUX, image_model="flux", vec_in_dim=None, guidance_embed=False), "", ""),
    "stable-cascade-c": ("cascade.stage_c", "StageC", dict(c_cond=64, c_hidden=[64, 64], nhead=[4, 4], blocks=[[1, 1], [1, 1]], c_clip_text=48, c_clip_text_pooled=40, c_clip_img=56), "", ""),
    "stable-cascade-b": ("cascade.stage_b", "StageB", dict(c_hidden=[32, 64, 64, 64], nhead=[-1, -1, 4, 4], blocks=[[1, 1, 1, 1], [1, 1, 1, 1]], block_repeat=[[1, 1, 1, 1], [1, 1, 1, 1]], c_cond=48, c_clip=40), "", ""),
    "stable-audio": ("audio.dit", "AudioDiffusionTransformer", AUDIO, "model.model.", ""),
    "stable-audio-3": ("audio.dit", "AudioDiffusionTransformer", dict(AUDIO, global_cond_type="adaLN", global_cond_shared_embed=True, local_add_cond_dim=24), "", ""),
    "hunyuan-dit": ("hydit.models", "HunYuanDiT", dict(input_size=None, hidden_size=64, depth=2, num_heads=4, text_states_dim=48, text_states_dim_t5=40, size_cond=True, use_style_cond=True), "", ""),
    "ace-step-1": ("ace.model", "ACEStepTransformer2DModel", dict(num_layers=2, inner_dim=64, attention_head_dim=16, num_attention_heads=4, speaker_embedding_dim=24, text_embedding_dim=40, lyric_hidden_size=48, ssl_latent_dims=[56, 40], max_width=64), "", ""),
    "cosmos-1": ("cosmos.model", "GeneralDIT", dict(COSMOS, block_x_format="THWBD", affline_emb_norm=True, pos_emb_learnable=False, patch_spatial=2), "net.", ""),
    "cosmos": ("cosmos.predict2", "MiniTrainDIT", PRED2, "net.", ""),
    "anima": ("anima.model", "Anima", PRED2, "net.", "anima"),
    "pixeldit": ("pixeldit.model", "PixDiT_T2I", dict(num_groups=4, hidden_size=96, pixel_attn_hidden_size=64, pixel_num_groups=4, patch_depth=2, pixel_depth=1, txt_embed_dim=48), "core.", ""),
    "pid": ("pixeldit.pid", "PidNet", dict(num_groups=4, hidden_size=96, pixel_attn_hidden_size=64, pixel_num_groups=4, patch_depth=2, pixel_depth=1, txt_embed_dim=48, lq_hidden_dim=64), "", ""),
    "z-image-pixel": ("lumina.model", "NextDiTPixelSpace", dict(NEXT, dim=3840, n_layers=2, n_heads=30, n_kv_heads=30, axes_dims=[32, 48, 48], ffn_dim_multiplier=0.05, in_channels=3, patch_size=4, z_image_modulation=True, pad_tokens_multiple=32, decoder_hidden_size=32, decoder_num_res_blocks=2, decoder_max_freqs=4), "", "zimage"),
    "newbie": ("lumina.model", "NextDiT", dict(NEXT, clip_text_dim=40), "", ""),
    "cogvideox": ("cogvideo.model", "CogVideoXTransformer3DModel", dict(num_attention_heads=4, attention_head_dim=16, time_embed_dim=48, text_embed_dim=40, num_layers=2, use_rotary_positional_embeddings=True), "", ""),
    "cogvideox-1.5": ("cogvideo.model", "CogVideoXTransformer3DModel", dict(num_attention_heads=4, attention_head_dim=16, time_embed_dim=48, ofs_embed_dim=48, text_embed_dim=40, num_layers=2, patch_size_t=2, use_rotary_positional_embeddings=True), "", ""),
    "wan-vace": ("wan.model", "VaceWanModel", dict(WAN, model_type="vace", vace_layers=1, vace_in_dim=96), "", "wan"),
    "hunyuan-3d": ("hunyuan3d.model", "Hunyuan3Dv2", dict(in_channels=16, context_in_dim=48, hidden_size=64, num_heads=4, depth=2, depth_single_blocks=2, guidance_embed=True), "model.", ""),
    "hunyuan-3d-2.1": ("hunyuan3dv2_1.hunyuandit", "HunYuanDiTPlain", dict(in_channels=16, hidden_size=64, context_dim=48, depth=4, num_heads=4, num_moe_layers=1, num_experts=2, guidance_cond_proj_dim=None), "", ""),
    "hidream": ("hidream.model", "HiDreamImageTransformer2DModel", dict(patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=4, caption_channels=[48, 40], text_emb_dim=56, num_routed_experts=4, axes_dims_rope=(8, 4, 4), llama_layers=[0, 1]), "", ""),
    "omnigen2": ("omnigen.omnigen2", "OmniGen2Transformer2DModel", dict(in_channels=4, hidden_size=64, num_layers=2, num_refiner_layers=1, num_attention_heads=4, num_kv_heads=2, multiple_of=32, axes_dim_rope=(4, 6, 6), axes_lens=(8, 8, 8), text_feat_dim=48), "", ""),
    "mage-flow": ("mage_flow.model", "MageFlowTransformer2DModel", dict(num_layers=2, num_attention_heads=4, attention_head_dim=16, axes_dims_rope=(4, 6, 6)), "", ""),
    "kandinsky5": ("kandinsky5.model", "Kandinsky5", dict(in_text_dim=48, in_text_dim2=40, time_dim=32, model_dim=1792, ff_dim=96, visual_embed_dim=36, num_text_blocks=1, num_visual_blocks=2), "", ""),
    "ernie": ("ernie.model", "ErnieImageModel", dict(hidden_size=64, num_attention_heads=4, num_layers=2, ffn_hidden_size=96, in_channels=16, out_channels=16, text_in_dim=48, rope_axes_dim=(4, 6, 6)), "", ""),
    "joyimage": ("joyimage.model", "JoyImageTransformer3DModel", dict(in_channels=4, hidden_size=64, num_attention_heads=4, text_dim=48, num_layers=2, rope_dim_list=[4, 6, 6]), "", ""),
    "sd2-unet": ("modules.diffusionmodules.openaimodel", "UNetModel", dict(UNET, transformer_depth=[1, 0], transformer_depth_middle=1, transformer_depth_output=[1, 1, 0, 0], use_linear_in_transformer=True), "model.diffusion_model.", ""),
}
CASES = {**DIFFUSION, **MORE}


def build(case):
    """The model of a case without memory, and the prefix of its names."""
    module, name, settings, prefix, _ = CASES[case]
    cls = getattr(__import__("comfy.ldm." + module, fromlist=["x"]), name)
    return cls(**(settings or {}), dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init), prefix


def published(case, name):
    for comfy_name, file_name in PUBLISHED.get(case, ()):
        name = re.sub(comfy_name, file_name, name)
    return name


OPS = comfy.ops.disable_weight_init


def tensors(case):
    """name -> (shape, kind): what the file of a case holds, and of which kind
    the module is that reads a weight: l(inear), e(mbedding) or - for another."""
    model, prefix = build(case)
    kinds = {}
    for name, module in model.named_modules():
        kinds[name + ".weight"] = "l" if isinstance(module, OPS.Linear) else "e" if isinstance(module, OPS.Embedding) else "-"
    return {prefix + published(case, k): (tuple(v.shape), kinds.get(k, "-")) for k, v in model.state_dict().items()}


class Traced:
    """Stands for a tensor and remembers which sides anyone asks for."""

    def __init__(self, shape, read):
        self.real, self.read = shape, read

    @property
    def shape(self):
        return Shape(self.real, self.read)

    def size(self, dim):
        return self.shape[dim]

    @property
    def ndim(self):
        self.read.add("n")
        return len(self.real)

    dtype = torch.bfloat16

    def item(self):
        return 0


class Shape:
    def __init__(self, real, read):
        self.real, self.read = real, read

    def __len__(self):
        self.read.add("n")
        return len(self.real)

    def __getitem__(self, i):
        places = range(len(self.real))[i]
        self.read.update(map(str, [places] if isinstance(places, int) else places))
        return self.real[i]


def detected(shapes, prefix=None):
    """What ComfyUI finds in names and shapes, as it strips the prefix itself."""
    if prefix is None:
        prefix = comfy.model_detection.unet_prefix_from_state_dict(shapes)
        stripped = {k.removeprefix(prefix): v for k, v in shapes.items() if k.startswith(prefix)}
        shapes = stripped or shapes
    return comfy.model_detection.detect_unet_config(shapes, "")


def trace(shapes):
    """What is found, and name -> sides of it that were read."""
    read = {k: set() for k in shapes}
    config = detected({k: Traced(shape, read[k]) for k, shape in shapes.items()})
    return config, {k: "".join(sorted(v)) for k, v in read.items() if v}
