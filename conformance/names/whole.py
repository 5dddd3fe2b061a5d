"""Models that sdnq quantized and diffusers saved become one file by one command, which
ComfyUI loads; and back.

    whole.py COMFYUI TENSORPRESS [CASE…]

LABELS in the environment names settings, with semicolons between, for fewer than all.

A small model of a family, with random weights, is quantized by sdnq, run in diffusers
and saved. What `transcode --names comfyui` makes of the folder is loaded by ComfyUI,
where as many weights must be quantized as the report says, and run on the same inputs.
Formats that stock ComfyUI does not load stay SDNQ's (--rename): their file is compared,
weight by weight, with what is restored from the folder. The way back gives each tensor
that was not joined the same bytes, and the others the same values.
"""
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ |= {"SDNQ_USE_TORCH_COMPILE": "0", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, sys.argv[1])

import torch

import comfy.cli_args

comfy.cli_args.args.cpu = True
import comfy.sd
import diffusers
from comfy.quant_ops import QuantizedTensor
from safetensors import safe_open
from safetensors.torch import load_file
from sdnq import SDNQConfig

logging.disable(logging.CRITICAL)
torch.set_grad_enabled(False)
BINARY, BF16 = sys.argv[2], torch.bfloat16


def r(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5)).to(BF16)


def at(value):
    return torch.full((1,), value, dtype=BF16)


def packed(x):
    """Latents as tokens of 2 by 2 places."""
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpacked(x, h, w):
    b, _, c = x.shape
    return x.view(b, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, h, w)


def flux_ids(h, w):
    ids = torch.zeros(h // 2, w // 2, 3)
    ids[..., 1] += torch.arange(h // 2)[:, None]
    ids[..., 2] += torch.arange(w // 2)[None]
    return ids.reshape(-1, 3)


def flux(model):
    x, text = r(1, 16, 16, 16), r(1, 8, 4096)
    if isinstance(model, diffusers.FluxTransformer2DModel):
        out = model(hidden_states=packed(x), encoder_hidden_states=text, pooled_projections=r(1, 768), timestep=at(0.5), guidance=at(3.5),
                    img_ids=flux_ids(16, 16), txt_ids=torch.zeros(8, 3), return_dict=False)[0]
        return unpacked(out, 16, 16)
    return model(x=x, timestep=at(0.5), context=text, y=r(1, 768), guidance=at(3.5), transformer_options={})


def wan(model):
    x, text = r(1, 16, 1, 16, 16), r(1, 8, 4096)
    if isinstance(model, diffusers.WanTransformer3DModel):
        return model(hidden_states=x, timestep=at(500.0), encoder_hidden_states=text, return_dict=False)[0]
    return model(x=x, timestep=at(500.0), context=text, transformer_options={})


def z_image(model):
    x, text = r(1, 16, 16, 16), r(1, 32, 2560)
    if isinstance(model, diffusers.ZImageTransformer2DModel):
        return torch.stack([-one for one in model([x[0][:, None]], at(0.5), [text[0]], return_dict=False)[0]])[:, :, 0]
    return model(x=x, timesteps=at(0.5), context=text, num_tokens=32, transformer_options={})


MODELS = {
    "flux": (flux, diffusers.FluxTransformer2DModel, dict(
        in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=128, num_attention_heads=4, joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=True)),
    "wan": (wan, diffusers.WanTransformer3DModel, dict(
        num_attention_heads=4, attention_head_dim=128, in_channels=16, out_channels=16, text_dim=4096, freq_dim=256, ffn_dim=1024, num_layers=2)),
    "z-image": (z_image, diffusers.ZImageTransformer2DModel, dict(n_layers=1, cap_feat_dim=2560, dim=3840, n_heads=30, n_kv_heads=30)),
}
# label -> sdnq's settings; those of formats that stock ComfyUI has come first
NATIVE = {
    "int8 rows": dict(weights_dtype="int8", group_size=-1),
    "int8 for products": dict(weights_dtype="int8", group_size=-1, use_quantized_matmul=True),
    "int8, one scale": dict(weights_dtype="int8", group_size=-2),
    "int8 rotated": dict(weights_dtype="int8", group_size=-1, use_hadamard=True, hadamard_group_size=256),
    "float8, one scale": dict(weights_dtype="float8_e4m3fn", group_size=-2),
}
KEPT = {
    "uint4": dict(weights_dtype="uint4", group_size=64),
    "uint4, low rank": dict(weights_dtype="uint4", group_size=64, use_svd=True, svd_rank=16),
    "uint3, rotated": dict(weights_dtype="uint3", group_size=64, use_hadamard=True),
    "uint4, codebooks": dict(weights_dtype="uint4", group_size=64, use_codebook=True),
    "uint4, scales in uint8": dict(weights_dtype="uint4", group_size=64, modules_quant_config={"*": dict(scale_dtype="uint8")}),
    "uint4, dynamic": dict(weights_dtype="uint4", use_dynamic_quantization=True),
}
# Those of which layers that become one have numbers of their own for all rows, or codes
# of different bits.
AGAIN = ("float8, one scale", "uint4, scales in uint8", "uint4, dynamic")


def randomized(model):
    g = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if p.ndim >= 2:
            p.copy_(torch.randn(p.shape, generator=g) / (p.numel() / p.shape[0]) ** 0.5)
        else:
            p.copy_((1 if name.endswith("weight") else 0) + 0.02 * torch.randn(p.shape, generator=g))
    return model


def tensorpress(*args):
    run = subprocess.run([BINARY, *map(str, args), "--force", "-q"], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"status {run.returncode}: {run.stderr.strip()[:400]}")
    return run.stdout


def distance(a, b):
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def in_comfyui(path, run):
    patcher = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": BF16}, disable_dynamic=True)
    model = patcher.model.diffusion_model
    return run(model), sum(isinstance(p.data, QuantizedTensor) or isinstance(p, QuantizedTensor) for p in model.parameters())


def differing(a, b, cast=False):
    """The tensors of two files that differ."""
    a, b = load_file(a), load_file(b)
    return [name for name in sorted(a.keys() | b.keys()) if name not in a or name not in b or a[name].shape != b[name].shape
            or not (torch.equal(a[name].view(torch.uint8) if a[name].ndim else a[name], b[name].view(torch.uint8) if b[name].ndim else b[name]))]


def weights(folder):
    return next(p for p in folder.glob("*.safetensors"))


def check(case, folder):
    run, cls, settings = MODELS[case]
    plain = folder / "plain"
    with torch.device("cpu"):
        randomized(cls(**settings).to(BF16)).save_pretrained(plain)
    for label, given in {**NATIVE, **KEPT}.items():
        if label not in os.environ.get("LABELS", label).split(";"):
            continue
        start, quantized = time.time(), folder / "pipe" / "transformer"
        model = cls.from_pretrained(plain, quantization_config=SDNQConfig(**given), torch_dtype=BF16)
        model.save_pretrained(quantized)
        want = run(model)
        del model
        out, back, restored = folder / "out.safetensors", folder / "back.safetensors", folder / "restored.safetensors"
        how = ["--names", "comfyui", *([] if label in NATIVE else ["--rename"])]
        try:
            try:
                tensorpress("transcode", quantized, out, "--layout", "comfy", *how)
                said = ""
            except RuntimeError as e:
                if label not in AGAIN:
                    raise
                said = f"; refused, as they are: {str(e).split('(', 1)[1].split(')')[0]}; with --requantize"
                how.append("--requantize")
                tensorpress("transcode", quantized, out, "--layout", "comfy", *how)
            report = json.loads(tensorpress("transcode", quantized, out, "--layout", "comfy", *how, "--dry-run", "--json"))
            layers = sum(layer["action"] != "keep" for layer in report["layers"])
            tensorpress("dequantize", quantized, restored, "--names", "comfyui")
            got, found = in_comfyui(restored, run)
            text = f"restored {distance(got, want):.4f} from diffusers'"
            good = found == 0 and distance(got, want) < 0.02
            if label in NATIVE:
                got, found = in_comfyui(out, run)
                text += f", {found} of {layers} layers, {distance(got, want):.4f}"
                good &= found == layers and layers > 0 and distance(got, want) < 0.05
            # The way back: what is restored under diffusers' names equals what the folder restores to.
            tensorpress("transcode", out, back, "--layout", "sdnq", "--names", "diffusers")
            tensorpress("dequantize", quantized, folder / "a.safetensors", "--dtype", "f32")
            tensorpress("dequantize", back, folder / "b.safetensors", "--dtype", "f32")
            apart = differing(folder / "a.safetensors", folder / "b.safetensors")
            bytes_apart = differing(weights(quantized), back)
            text += f"; back {len(apart)} other values, {len(bytes_apart)} other tensors"
            if "low rank" in label or said:
                a, b = load_file(folder / "a.safetensors"), load_file(folder / "b.safetensors")
                most = max(((a[k].float() - b[k].float()).abs().max() / a[k].float().abs().max()).item() for k in a if a[k].numel())
                text += f", by {most:.1e}"
                good &= bool(said) or most < 1e-5
            else:
                good &= not apart
        except Exception as e:
            if os.environ.get("TRACE"):
                raise
            good, text, said = False, f"{type(e).__name__} {str(e)[:400]}", ""
        print(f"  {'ok  ' if good else 'FAIL'} {label} ({time.time() - start:.0f} s): {text}{said}", flush=True)
        yield good


failed = 0
for case in sys.argv[3:] or MODELS:
    print(case, flush=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        failed += sum(not good for good in check(case, pathlib.Path(folder)))
sys.exit(failed > 0)
