"""Loads whole models as ComfyUI does, quantized in every native format, and
compares a forward pass with the dequantized file's.

whole.py COMFY TENSORPRESS [CASE…]: COMFY is a checkout of ComfyUI 0.33.0.
DTYPES in the environment names the formats, with commas between, for fewer
than all, PRESETS the presets for fewer than auto and none.

Every case is built of ComfyUI's own classes with random weights, quantized with
--for comfyui, with the family's preset and with none, and loaded with
comfy.sd.load_diffusion_model, load_clip or load_checkpoint_guess_config. As
many weights must be quantized as the report says: 0 would mean that codes were
taken for weights. Cases that ComfyUI would not read must be refused.
"""
import functools
import itertools
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, sys.argv[1])

import comfy.cli_args

comfy.cli_args.args.cpu = True
import comfy.ops
import comfy.sd
import torch
from comfy.quant_ops import QuantizedTensor
from safetensors import safe_open
from safetensors.torch import load_file, save_file

logging.disable(logging.CRITICAL)
torch.set_grad_enabled(False)
binary = sys.argv[2]
ALL = ("nvfp4", "mxfp8", "int8_tensorwise", "int8_tensorwise --convrot", "float8_e4m3fn", "float8_e5m2", "convrot_w4a4", "asym_w4a8_int8")
FORMATS = tuple(os.environ["DTYPES"].split(",")) if "DTYPES" in os.environ else ALL
PRESETS = tuple(os.environ.get("PRESETS", "auto,none").split(","))
BF16 = torch.bfloat16


def r(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5)).to(BF16)


def t(value=0.5):
    return torch.full((1,), value, dtype=BF16)


FLUX = dict(out_channels=16, depth=2, depth_single_blocks=2, axes_dim=[16, 56, 56], theta=10000, mlp_ratio=4.0, qkv_bias=True, guidance_embed=True, txt_ids_dims=[], image_model="flux",
            in_channels=16, patch_size=2, hidden_size=512, num_heads=4, context_in_dim=4096, vec_in_dim=768)
UNET = dict(image_size=32, out_channels=4, use_spatial_transformer=True, legacy=False, in_channels=4, model_channels=320, num_res_blocks=[2, 2, 2, 2], channel_mult=(1, 2, 4, 4),
            transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_middle=1, transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], num_heads=8, context_dim=768)
XL = dict(UNET, num_res_blocks=[2, 2, 2], channel_mult=(1, 2, 4), transformer_depth=[0, 0, 2, 2, 10, 10], transformer_depth_middle=10, transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
          num_heads=-1, num_head_channels=64, context_dim=2048, use_linear_in_transformer=True, num_classes="sequential", adm_in_channels=2816)

# case -> (module, class, settings, inputs of the forward pass)
MODELS = {
    "flux": ("flux.model", "Flux", FLUX, lambda: dict(x=r(1, 16, 16, 16), timestep=t(), context=r(1, 8, 4096), y=r(1, 768), guidance=t(3.5))),
    "flux2": ("flux.model", "Flux", dict(FLUX, image_model="flux2", in_channels=128, out_channels=128, patch_size=1, axes_dim=[32, 32, 32, 32], theta=2000, mlp_ratio=3.0, qkv_bias=False, ops_bias=False, vec_in_dim=None,
              global_modulation=True, mlp_silu_act=True, txt_ids_dims=[3], context_in_dim=1024), lambda: dict(x=r(1, 128, 8, 8), timestep=t(), context=r(1, 8, 1024), guidance=t(3.5))),
    "wan": ("wan.model", "WanModel", dict(dim=512, ffn_dim=1024, num_heads=4, num_layers=2, in_dim=16, out_dim=16), lambda: dict(x=r(1, 16, 1, 16, 16), timestep=t(), context=r(1, 8, 4096))),
    "hunyuan-video": ("hunyuan_video.model", "HunyuanVideo", dict(in_channels=16, out_channels=16, patch_size=[1, 2, 2], hidden_size=512, num_heads=4, depth=2, depth_single_blocks=2, axes_dim=[16, 56, 56], theta=256, mlp_ratio=4.0,
                      qkv_bias=True, context_in_dim=4096, vec_in_dim=768, guidance_embed=True, byt5=False, meanflow=False, use_cond_type_embedding=False, vision_in_dim=None, meanflow_sum=False),
                      lambda: dict(x=r(1, 16, 1, 16, 16), timestep=t(), context=r(1, 8, 4096), y=r(1, 768), guidance=t(3.5))),
    "ltx": ("lightricks.model", "LTXVModel", dict(in_channels=128, cross_attention_dim=512, attention_head_dim=16, num_attention_heads=32, caption_channels=4096, num_layers=2),
            lambda: dict(x=r(1, 128, 1, 8, 8), timestep=t(), context=r(1, 8, 4096), attention_mask=None, frame_rate=25)),
    "sd3": ("modules.diffusionmodules.mmdit", "OpenAISignatureMMDITWrapper", dict(input_size=None, in_channels=16, depth=4, adm_in_channels=2048, context_size=4096, pos_embed_max_size=32, num_patches=1024, pos_embed_scaling_factor=None,
            context_embedder_config=dict(target="torch.nn.Linear", params=dict(in_features=4096, out_features=256))), lambda: dict(x=r(1, 16, 16, 16), timesteps=t(), context=r(1, 8, 4096), y=r(1, 2048))),
    "auraflow": ("aura.mmdit", "MMDiT", dict(in_channels=4, out_channels=4, patch_size=2, dim=3072, n_layers=2, n_double_layers=1, n_heads=12, cond_seq_dim=2048, max_seq=1024),
                 lambda: dict(x=r(1, 4, 16, 16), timestep=t(), context=r(1, 8, 2048))),
    "qwen-image": ("qwen_image.model", "QwenImageTransformer2DModel", dict(in_channels=64, num_layers=1), lambda: dict(x=r(1, 16, 1, 16, 16), timestep=t(), context=r(1, 8, 3584))),
    "z-image": ("lumina.model", "NextDiT", dict(patch_size=2, in_channels=16, dim=3840, n_layers=2, qk_norm=True, cap_feat_dim=2560, n_heads=30, n_kv_heads=30, axes_dims=[32, 48, 48], axes_lens=[1536, 512, 512], rope_theta=256.0,
                ffn_dim_multiplier=8 / 3, z_image_modulation=True, time_scale=1000.0, pad_tokens_multiple=32), lambda: dict(x=r(1, 16, 16, 16), timesteps=t(), context=r(1, 32, 2560), num_tokens=32)),
    "lumina2": ("lumina.model", "NextDiT", dict(patch_size=2, in_channels=16, dim=2304, n_layers=1, qk_norm=True, cap_feat_dim=2304, n_heads=24, n_kv_heads=8, axes_dims=[32, 32, 32], axes_lens=[300, 512, 512], rope_theta=10000.0,
                ffn_dim_multiplier=4.0), lambda: dict(x=r(1, 16, 16, 16), timesteps=t(), context=r(1, 8, 2304), num_tokens=8)),
    "chroma": ("chroma.model", "Chroma", dict({k: v for k, v in FLUX.items() if k != "guidance_embed"}, image_model="chroma", vec_in_dim=None, in_channels=64, out_channels=64, hidden_size=3072, num_heads=24, depth=1,
               depth_single_blocks=1, in_dim=64, out_dim=3072, hidden_dim=5120, n_layers=5), lambda: dict(x=r(1, 16, 16, 16), timestep=t(), context=r(1, 8, 4096), guidance=t(0))),
    # Latents narrower than 33 have no place in its position embedding.
    "pixart": ("pixart.pixartms", "PixArtMS", dict(depth=2, micro_condition=False, model_max_length=300), lambda: dict(x=r(1, 4, 8, 88), timesteps=t(500.0), context=r(1, 8, 4096))),
    "sd15-unet": ("modules.diffusionmodules.openaimodel", "UNetModel", UNET, lambda: dict(x=r(1, 4, 16, 16), timesteps=t(500.0), context=r(1, 8, 768))),
    "sdxl-unet": ("modules.diffusionmodules.openaimodel", "UNetModel", XL, lambda: dict(x=r(1, 4, 16, 16), timesteps=t(500.0), context=r(1, 8, 2048), y=r(1, 2816))),
}
LARGE = {"sdxl-unet": ("nvfp4", "int8_tensorwise"), "z-image": ("nvfp4", "float8_e4m3fn", "int8_tensorwise"), "chroma": ("nvfp4", "float8_e4m3fn", "int8_tensorwise"),
         "qwen-image": ("nvfp4", "float8_e4m3fn", "int8_tensorwise"), "sd15-unet": ("nvfp4", "mxfp8", "int8_tensorwise", "asym_w4a8_int8"), "lumina2": ("nvfp4", "int8_tensorwise"),
         "auraflow": ("nvfp4", "mxfp8", "int8_tensorwise", "asym_w4a8_int8")}


def randomized(state):
    g = torch.Generator().manual_seed(1)
    out = {}
    for name, v in state.items():
        if v.ndim >= 2:
            out[name] = (torch.randn(v.shape, generator=g) / (v.numel() / v.shape[0]) ** 0.5).to(BF16)
        else:
            out[name] = ((1 if name.endswith(("weight", "scale")) else 0) + 0.02 * torch.randn(v.shape, generator=g)).to(BF16)
    return out


def model_state(case):
    module, name, settings, _ = MODELS[case]
    cls = getattr(__import__("comfy.ldm." + module, fromlist=["x"]), name)
    return randomized(cls(**settings, dtype=BF16, device="meta", operations=comfy.ops.disable_weight_init).state_dict())


def tensorpress(*args):
    return subprocess.run([binary, *map(str, args)], capture_output=True, text=True)


def quantize_layers(source, out, *options):
    """Quantizes and returns the names of the layers that were."""
    run = tensorpress("quantize", source, out, "--force", "-q", "--json", "--for", "comfyui", *options)
    if run.returncode:
        return None, run.stderr.strip()
    return [layer["name"] for layer in json.loads(run.stdout)["layers"] if layer["action"] == "quantize"], ""


def quantize(source, out, *options):
    layers, error = quantize_layers(source, out, *options)
    return layers and len(layers), error


def shapes(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}


def dequantize(out, plain, source):
    """Restores a file; sides that a format pads are cut to the source's, which
    ComfyUI knows from its classes and the file does not say."""
    tensorpress("dequantize", out, plain, "--force", "-q")
    want = shapes(source)
    if shapes(plain) != want:
        save_file({name: v[tuple(slice(n) for n in want[name])].contiguous() for name, v in load_file(plain).items()}, plain)


def quantized(module):
    return sum(isinstance(p.data, QuantizedTensor) or isinstance(p, QuantizedTensor) for p in module.parameters())


def forward(path, case):
    patcher = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": BF16}, disable_dynamic=True)
    return run_model(patcher, case)


def run_model(patcher, case):
    model = patcher.model.diffusion_model
    return model(**MODELS[case][3](), transformer_options={}).float(), quantized(model)


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


def check_model(case, folder):
    source, out, plain = (folder / name for name in ("in.safetensors", "out.safetensors", "plain.safetensors"))
    save_file(model_state(case), source)
    exact, _ = forward(source, case)
    good, lines = True, []
    for dtype, preset in itertools.product([f for f in FORMATS if f in LARGE.get(case, FORMATS)], PRESETS):
        if case in ("sdxl-unet", "z-image", "chroma", "qwen-image") and preset == "none" and dtype != "nvfp4":
            continue
        n, error = quantize(source, out, "--dtype", *dtype.split(), "--preset", preset)
        verified = tensorpress("verify", out, "--for", "comfyui", "-q").returncode
        dequantize(out, plain, source)
        try:
            want, _ = forward(plain, case)
            got, found = forward(out, case)
        except Exception as e:
            good = False
            lines.append(f"FAIL {dtype} {preset}: {type(e).__name__} {str(e)[:200]} {error}")
            continue
        lost, off = distance(want, exact), distance(got, want)
        fine = found == n and n > 0 and verified == 0 and off <= max(0.05, 1.5 * lost)
        good = good and fine
        lines.append(f"{'ok  ' if fine else 'FAIL'} {dtype} {preset}: {found} of {n} layers, {off:.4f} from the dequantized file's output, which is {lost:.4f} from the source's")
    return good, lines


TOKENS = "a photograph of an astronaut riding a horse"


# What detection asks of T5-XXL, 24 blocks with 10240 rows in their feed-forward
# parts, and narrow otherwise: ComfyUI's config is changed as it reads it.
NARROW = dict(d_model=256, d_kv=64, num_heads=4)


def narrow_t5():
    narrow("d_model", 4096, NARROW)


def narrow(key, value, sizes):
    """ComfyUI reads other sizes in the config of a text encoder that has a value."""
    import comfy.sd1_clip

    load = comfy.sd1_clip.json.load

    def narrowed(*args, **kw):
        config = load(*args, **kw)
        return dict(config, **sizes) if isinstance(config, dict) and config.get(key) == value else config

    comfy.sd1_clip.json = type("json", (), {"load": staticmethod(narrowed), "loads": json.loads, "dumps": json.dumps})


# Language models: case -> (model of comfy.text_encoders.llama, sizes that its
# config has instead of its own, what the text encoder is for). Detection goes by
# the number of layers or by widths that stay.
LANGUAGE = {
    "qwen3-0.6b": ("Qwen3_06B", "Qwen3_06BConfig", {}, "STABLE_DIFFUSION"),
    "qwen3-4b": ("Qwen3_4B", "Qwen3_4BConfig", dict(num_hidden_layers=36, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2, vocab_size=151936), "STABLE_DIFFUSION"),
    "qwen2.5-7b": ("Qwen25_7BVLI", "Qwen25_7BVLI_Config", dict(hidden_size=512, intermediate_size=1024, num_attention_heads=4), "QWEN_IMAGE"),
    "gemma2-2b": ("Gemma2_2B", "Gemma2_2B_Config", dict(hidden_size=512, intermediate_size=1024, num_attention_heads=4, num_key_value_heads=2), "LUMINA2"),
}


def resize(config, sizes):
    """ComfyUI makes every config of a class with other sizes from here on."""
    import comfy.text_encoders.llama

    cls = getattr(comfy.text_encoders.llama, config)
    init = cls.__init__
    cls.__init__ = lambda self, **kw: init(self, **{**kw, **sizes})


def language_state(name):
    import comfy.text_encoders.llama

    model = getattr(comfy.text_encoders.llama, name)({}, BF16, "meta", comfy.ops.manual_cast)
    state = randomized(model.state_dict())
    if name.startswith("Gemma"):  # which brings its tokenizer along; any will do here
        path = pathlib.Path(comfy.text_encoders.llama.__file__).parent / "t5_pile_tokenizer" / "tokenizer.model"
        state["spiece_model"] = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    return state


def t5_state():
    import comfy.text_encoders.t5

    path = pathlib.Path(comfy.text_encoders.t5.__file__).parent / "t5_config_xxl.json"
    return comfy.text_encoders.t5.T5(dict(json.loads(path.read_text()), **NARROW), BF16, "meta", comfy.ops.manual_cast).state_dict()


def small_queries(state):
    """Makes queries as small as T5's own, or 24 layers make noise of any rounding."""
    return {k: v / 8 if k.endswith("SelfAttention.q.weight") else v for k, v in state.items()}


def clip_state():
    import comfy.clip_model

    path = pathlib.Path(comfy.clip_model.__file__).parent / "sd1_clip_config.json"
    return comfy.clip_model.CLIPTextModel(json.loads(path.read_text()), BF16, "meta", comfy.ops.manual_cast).state_dict()


def encode(path, kind):
    clip = comfy.sd.load_clip(ckpt_paths=[str(path)], embedding_directory=None, clip_type=kind, disable_dynamic=True)
    return clip.encode_from_tokens(clip.tokenize(TOKENS)).float(), quantized(clip.cond_stage_model)


def check_clip(folder):
    """CLIP-L is refused in every format."""
    source, out = folder / "in.safetensors", folder / "out.safetensors"
    save_file(randomized(clip_state()), source)
    good, lines = True, []
    for dtype in FORMATS:
        run = tensorpress("quantize", source, out, "--force", "-q", "--dtype", *dtype.split(), "--for", "comfyui")
        tensorpress("quantize", source, out, "--force", "-q", "--layout", "comfy", "--dtype", *dtype.split())
        verified = tensorpress("verify", out, "--for", "comfyui", "-q").returncode
        try:
            _, found = encode(out, comfy.sd.CLIPType.STABLE_DIFFUSION)
        except Exception as e:
            found = type(e).__name__
        fine = run.returncode == 2 and verified == 4 and found != 1
        good = good and fine
        lines.append(f"{'ok  ' if fine else 'FAIL'} {dtype}: status {run.returncode}, verify {verified}; without --for ComfyUI loads {found} quantized layers")
    return good, lines


def check_t5(folder):
    """T5-XXL is read in every format."""
    narrow_t5()
    return check_texts(folder, small_queries(randomized(t5_state())), "PIXART")


def check_language(case, folder):
    name, config, sizes, kind = LANGUAGE[case]
    resize(config, sizes)
    return check_texts(folder, language_state(name), kind)


def check_texts(folder, state, kind):
    source, out, plain = (folder / name for name in ("in.safetensors", "out.safetensors", "plain.safetensors"))
    save_file(state, source)
    kind = getattr(comfy.sd.CLIPType, kind)
    exact, _ = encode(source, kind)
    good, lines = True, []
    for dtype, preset in itertools.product(FORMATS, PRESETS):
        n, error = quantize(source, out, "--dtype", *dtype.split(), "--preset", preset)
        verified = tensorpress("verify", out, "--for", "comfyui", "-q").returncode
        dequantize(out, plain, source)
        try:
            got, found = encode(out, kind)
            want, _ = encode(plain, kind)
        except Exception as e:
            good = False
            lines.append(f"FAIL {dtype} {preset}: {type(e).__name__} {str(e)[:200]} {error}")
            continue
        off, lost = distance(got, want), distance(want, exact)
        fine = found == n and n > 0 and verified == 0 and off <= max(0.05, 1.5 * lost)
        good = good and fine
        lines.append(f"{'ok  ' if fine else 'FAIL'} {dtype} {preset}: {found} of {n} layers, {off:.4f} from the dequantized file's output, which is {lost:.4f} from the source's {error}")
    return good, lines


VAE = dict(double_z=True, z_channels=4, resolution=256, in_channels=3, out_ch=3, ch=128, ch_mult=[1, 2, 4, 4], num_res_blocks=2, attn_resolutions=[], dropout=0.0)


def vae_state(channels):
    """A VAE as of Stable Diffusion 1 (4 channels) or of Flux (16)."""
    import comfy.ldm.models.autoencoder as autoencoder

    settings, part = dict(VAE, z_channels=channels), "comfy.ldm.modules.diffusionmodules.model."
    with torch.device("meta"):
        model = autoencoder.AutoencoderKL(ddconfig=settings, embed_dim=4) if channels == 4 else autoencoder.AutoencodingEngine(
            regularizer_config=dict(target="comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"),
            encoder_config=dict(target=part + "Encoder", params=settings), decoder_config=dict(target=part + "Decoder", params=settings))
    return randomized(model.state_dict())


# All-in-one checkpoints: case -> (diffusion model, the prefixes of CLIP-L, of
# T5-XXL if it has one, and of the VAE, the VAE's channels).
CHECKPOINTS = {
    "sd15-checkpoint": ("sd15-unet", "cond_stage_model.transformer.", None, "first_stage_model.", 4),
    "flux-checkpoint": ("flux", "text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer.", "vae.", 16),
}


def checkpoint_state(case):
    model, clip, t5, vae, channels = CHECKPOINTS[case]
    parts = {"model.diffusion_model.": model_state(model), clip: randomized(clip_state()), vae: vae_state(channels)}
    parts[clip]["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    if t5:
        parts[t5] = small_queries(randomized(t5_state()))
    return {prefix + name: v for prefix, state in parts.items() for name, v in state.items()}


def run_checkpoint(path, case):
    """What the parts of a checkpoint give, and how many weights of each are quantized."""
    patcher, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path), model_options={"dtype": BF16}, disable_dynamic=True)
    out, in_model = run_model(patcher, CHECKPOINTS[case][0])
    text, pooled = clip.encode_from_tokens(clip.tokenize(TOKENS), return_pooled=True)
    picture = vae.decode(r(1, CHECKPOINTS[case][4], 8, 8).float())
    return dict(model=out, text=text.float(), pooled=pooled.float(), picture=picture.float()), [in_model, quantized(clip.cond_stage_model), quantized(vae.first_stage_model)]


def check_checkpoint(case, folder):
    """The diffusion model and T5-XXL are read quantized; CLIP and the VAE stay as
    they are, and give what they gave."""
    if t5 := CHECKPOINTS[case][2]:
        narrow_t5()
    source, out, plain = (folder / name for name in ("in.safetensors", "out.safetensors", "plain.safetensors"))
    save_file(checkpoint_state(case), source)
    exact, _ = run_checkpoint(source, case)
    good, lines = True, []
    for dtype, preset in itertools.product([f for f in FORMATS if f in LARGE.get(CHECKPOINTS[case][0], FORMATS)], PRESETS):
        layers, error = quantize_layers(source, out, "--dtype", *dtype.split(), "--preset", preset)
        verified = tensorpress("verify", out, "--for", "comfyui", "-q").returncode
        dequantize(out, plain, source)
        try:
            want, _ = run_checkpoint(plain, case)
            got, found = run_checkpoint(out, case)
        except Exception as e:
            good = False
            lines.append(f"FAIL {dtype} {preset}: {type(e).__name__} {str(e)[:200]} {error}")
            continue
        n = [sum(name.startswith(prefix) for name in layers) for prefix in ("model.diffusion_model.", t5 or "-")]
        fine = found == [*n, 0] and sum(n) == len(layers) and min(n[: 2 if t5 else 1]) > 0 and verified == 0
        fine = fine and all(torch.equal(got[part], exact[part]) for part in ("pooled", "picture", *(() if t5 else ("text",))))
        off = {part: (distance(got[part], want[part]), distance(want[part], exact[part])) for part in ("model", "text")}
        fine = fine and all(away <= max(0.05, 1.5 * lost) for away, lost in off.values())
        good = good and fine
        told = ", ".join(f"{part} {away:.4f} from the dequantized file's, which is {lost:.4f} from the source's" for part, (away, lost) in off.items())
        lines.append(f"{'ok  ' if fine else 'FAIL'} {dtype} {preset}: {found} of {n} layers of model, text encoders and VAE; {told} {error}")
    return good, lines


SPECIAL = {"clip-l": check_clip, "t5-xxl": check_t5, **{case: functools.partial(check_language, case) for case in LANGUAGE},
           **{case: functools.partial(check_checkpoint, case) for case in CHECKPOINTS}}
if __name__ == "__main__":
    failed = []
    for case in sys.argv[3:] or [*MODELS, *SPECIAL]:
        start = time.time()
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            try:
                good, lines = SPECIAL[case](pathlib.Path(folder)) if case in SPECIAL else check_model(case, pathlib.Path(folder))
            except Exception as e:
                good, lines = False, [f"FAIL {type(e).__name__} {str(e)[:300]}"]
                if os.environ.get("TRACE"):
                    raise
        failed += [] if good else [case]
        print(f"{case} ({time.time() - start:.0f} s)", *lines, sep="\n  ", flush=True)
    print(f"ComfyUI: {', '.join(failed) or 'nothing'} failed")
    sys.exit(bool(failed))
