"""Models that sdnq quantized and diffusers saved become one file by one command, which
ComfyUI loads; and back.

    whole.py COMFYUI TENSORPRESS [CASE…]

LABELS in the environment names settings, with semicolons between, for fewer than all.

A small model of a family, with random weights, is quantized by sdnq, run in diffusers
and saved. What `transcode --names comfyui` makes of the folder is loaded by ComfyUI,
where as many weights must be quantized as the report says, and run on the same inputs.
Layers that stay SDNQ's (--rename) are loaded through the custom node, by the parts that
need no server. The way back gives each tensor that was not joined the same bytes, and
the others the same values; diffusers and sdnq load it and compute what they did; and
what is restored, under either side's names, is loaded by from_pretrained and
from_single_file.
"""
import importlib.util
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ |= {"SDNQ_USE_TORCH_COMPILE": "0", "HF_HUB_OFFLINE": "1"}
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [sys.argv[1], str(ROOT / "python" / "src")]

import torch

import comfy.cli_args

comfy.cli_args.args.cpu = True
import comfy.model_detection
import comfy.sd
import diffusers
import diffusers.models.transformers.transformer_z_image as z_module
from comfy.quant_ops import QuantizedTensor
from safetensors import safe_open
from sdnq import SDNQConfig

# The parts of the node without its __init__, which asks for ComfyUI's server.
package = importlib.util.module_from_spec(importlib.util.spec_from_loader("node", None, is_package=True))
package.__path__ = [str(ROOT / "comfyui" / "ComfyUI-tensorpress")]
sys.modules["node"] = package
from node import loading
from node.operations import Held

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
    x, text = r(1, 16, 8, 16), r(1, 32, 256)
    if isinstance(model, diffusers.ZImageTransformer2DModel):
        return torch.stack([-one for one in model([x[0][:, None]], at(0.5), [text[0]], return_dict=False)[0]])[:, :, 0]
    return model(x=x, timesteps=at(0.5), context=text, num_tokens=32, transformer_options={})


MODELS = {
    "flux": (flux, diffusers.FluxTransformer2DModel, dict(
        in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=128, num_attention_heads=4, joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=True)),
    "wan": (wan, diffusers.WanTransformer3DModel, dict(
        num_attention_heads=4, attention_head_dim=128, in_channels=16, out_channels=16, text_dim=4096, freq_dim=256, ffn_dim=1024, num_layers=2)),
    "z-image": (z_image, diffusers.ZImageTransformer2DModel, dict(n_layers=1, n_refiner_layers=1, cap_feat_dim=256, dim=3840, n_heads=30, n_kv_heads=30)),
}
# On a CPU, torch multiplies int8 in a plain loop; float64 holds the sums too.
torch._int_mm = lambda a, b: (a.double() @ b.double()).to(torch.int32)
detect = comfy.model_detection.detect_unet_config
narrow, HIDDEN = z_module.FeedForward.__init__, 512


def small_z_image(*args, **kw):
    """ComfyUI knows Z-Image by its width of 3840, and takes it for having two layers of
    each refiner and a wide MLP, which are most of a small one."""
    found = detect(*args, **kw)
    if found and found.get("image_model") == "lumina2":
        found |= dict(n_refiner_layers=1, ffn_dim_multiplier=HIDDEN / 3840)
    return found


z_module.FeedForward.__init__ = lambda self, dim, hidden_dim: narrow(self, dim, HIDDEN)
comfy.model_detection.detect_unet_config = small_z_image
# label -> sdnq's settings; those of formats that stock ComfyUI has come first
NATIVE = {
    "int8 rows": dict(weights_dtype="int8", group_size=-1),
    "int8 for products": dict(weights_dtype="int8", group_size=-1, use_quantized_matmul=True),
    "int8, one scale": dict(weights_dtype="int8", group_size=-2),
    "int8 rotated": dict(weights_dtype="int8", group_size=-1, use_hadamard=True, hadamard_group_size=256),
    "float8, one scale": dict(weights_dtype="float8_e4m3fn", group_size=-2),
    "int8, to_k plain": dict(weights_dtype="int8", group_size=-1, modules_to_not_convert=["to_k"]),
    "int8, to_k in float8": dict(weights_dtype="int8", group_size=-1, modules_dtype_dict={"float8_e4m3fn": ["to_k"]}),
}
KEPT = {
    "int8 rows, node": dict(weights_dtype="int8", group_size=-1),
    "float8, one scale, node": dict(weights_dtype="float8_e4m3fn", group_size=-2),
    "uint4": dict(weights_dtype="uint4", group_size=64),
    "uint4, low rank": dict(weights_dtype="uint4", group_size=64, use_svd=True, svd_rank=16),
    "uint3, rotated": dict(weights_dtype="uint3", group_size=64, use_hadamard=True),
    "uint4, codebooks": dict(weights_dtype="uint4", group_size=64, use_codebook=True),
    "uint4, scales in uint8": dict(weights_dtype="uint4", group_size=64, modules_quant_config={"*": dict(scale_dtype="uint8")}),
    "uint4, dynamic": dict(weights_dtype="uint4", use_dynamic_quantization=True),
}
# Those of which layers that become one have numbers of their own for all rows, or codes
# of different dtypes.
AGAIN = ("float8, one scale", "int8, to_k plain", "int8, to_k in float8", "uint4, scales in uint8", "uint4, dynamic")


def randomized(model):
    g = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if p.ndim >= 2:
            p.copy_(torch.randn(p.shape, generator=g) / (p.numel() / p.shape[0]) ** 0.5)
        else:
            p.copy_((1 if name.endswith("weight") else 0) + 0.02 * torch.randn(p.shape, generator=g))
    return model


def tensorpress(*args):
    force = [] if args[0] == "verify" else ["--force"]
    run = subprocess.run([BINARY, *map(str, args), "-q", *force], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"status {run.returncode}: {run.stderr.strip()[:400]}")
    return run.stdout


def distance(a, b):
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def in_comfyui(path, run):
    patcher = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": BF16}, disable_dynamic=True)
    model = patcher.model.diffusion_model
    return run(model), sum(isinstance(p.data, QuantizedTensor) or isinstance(p, QuantizedTensor) for p in model.parameters())


def in_node(path, run):
    model = loading.load_diffusion_model(str(path), {"dtype": BF16}, disable_dynamic=True).model.diffusion_model
    return run(model), sum(isinstance(m, Held) and m.holds_codes for m in model.modules())


def in_diffusers(cls, folder, run, config=None):
    """What diffusers computes with the weights in a folder, with that config."""
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return run(cls.from_pretrained(folder, torch_dtype=BF16))


def differing(a, b):
    """The tensors of two files that differ."""
    found = []
    with safe_open(a, "pt") as x, safe_open(b, "pt") as y:
        names = set(x.keys()), set(y.keys())
        found += names[0] ^ names[1]
        for name in names[0] & names[1]:
            one, other = x.get_tensor(name), y.get_tensor(name)
            if one.dtype != other.dtype or one.shape != other.shape or not torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)):
                found.append(name)
    return sorted(found)


def furthest(a, b):
    """How far values of two files are apart, of the largest of their tensors."""
    most = 0.0
    with safe_open(a, "pt") as x, safe_open(b, "pt") as y:
        for name in x.keys():
            one, other = x.get_tensor(name).float(), y.get_tensor(name).float()
            if one.numel():
                most = max(most, ((one - other).abs().max() / one.abs().max().clamp(min=1e-20)).item())
    return most


class Steps:
    """One settings' way to ComfyUI and back; text says what was seen."""

    def __init__(self, case, label, given, plain, folder):
        self.run, self.cls, _ = MODELS[case]
        self.label, self.given, self.plain, self.folder = label, given, plain, folder
        self.quantized = folder / "pipe" / "transformer"
        self.said, self.text, self.good = "", [], True

    def found(self, good, text):
        self.good &= bool(good)
        self.text.append(text if good else f"WRONG {text}")

    def all(self):
        model = self.cls.from_pretrained(self.plain, quantization_config=SDNQConfig(**self.given), torch_dtype=BF16)
        model.save_pretrained(self.quantized)
        self.want = self.run(model)
        del model
        self.to_comfyui()
        self.back()
        return self

    def to_comfyui(self):
        out, native = self.folder / "out.safetensors", self.label in NATIVE
        how = ["transcode", self.quantized, out, "--layout", "comfy", "--names", "comfyui", *(["--for", "comfyui"] if native else ["--rename"])]
        try:
            tensorpress(*how)
        except RuntimeError as e:
            if self.label not in AGAIN:
                raise
            self.said = f"; refused, as they are: {str(e).split('(', 1)[1].split(')')[0]}; with --requantize"
            how.append("--requantize")
            tensorpress(*how)
        report = json.loads(tensorpress(*how, "--dry-run", "--json"))
        layers = sum(layer["action"] != "keep" for layer in report["layers"])
        got, found = (in_comfyui if native else in_node)(out, self.run)
        off = distance(got, self.want)
        # ComfyUI quantizes inputs of int8 layers too; so does sdnq those for products.
        least = 0.05 if native or self.given.get("use_quantized_matmul") else 0.02
        self.found(found == layers > 0 and (off < least or self.said), f"{found} of {layers} layers {'in ComfyUI' if native else 'in the node'}, {off:.4f} from diffusers'")
        restored = self.folder / "restored.safetensors"
        tensorpress("dequantize", self.quantized, restored, "--names", "comfyui")
        got, found = in_comfyui(restored, self.run)
        off = distance(got, self.want)
        self.found(found == 0 and off < 0.02, f"restored {off:.4f}")
        verified = json.loads(tensorpress("verify", out, "--source", self.quantized, "--json"))
        rel = max(layer["rel_mse"] for layer in verified["layers"])
        self.found(verified["ok"] and len(verified["layers"]) == layers and (rel < 1e-12 or self.said), f"verify --source: rel_mse up to {rel:.1e}")

    def back(self):
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        back, config = home / "diffusion_pytorch_model.safetensors", json.loads((self.plain / "config.json").read_text())
        tensorpress("transcode", self.folder / "out.safetensors", back, "--layout", "sdnq", "--names", "diffusers")
        a, b = self.folder / "a.safetensors", self.folder / "b.safetensors"
        tensorpress("dequantize", self.quantized, a, "--dtype", "f32")
        tensorpress("dequantize", back, b, "--dtype", "f32")
        values, most = differing(a, b), furthest(a, b)
        stored = differing(next(self.quantized.glob("*.safetensors")), back)
        joined = "low rank" in self.label
        self.found(not values or self.said or joined and most < 1e-5, f"back {len(values)} other values{f' by {most:.1e}' if values else ''}, {len(stored)} other tensors")
        again = in_diffusers(self.cls, home, self.run, config | {"quantization_config": json.loads((home / "quantization_config.json").read_text())})
        # Where it loads quantized weights, diffusers rounds their scales to BF16.
        off = distance(again, in_diffusers(self.cls, self.quantized, self.run))
        self.found(off < (0.02 if self.said else 1e-3 if joined else 1e-9), f"in diffusers with sdnq {off:.4f}")
        (home / "quantization_config.json").unlink()
        tensorpress("dequantize", self.folder / "out.safetensors", back, "--names", "diffusers")
        off = distance(in_diffusers(self.cls, home, self.run, config), self.want)
        self.found(off < 0.02, f"restored in diffusers {off:.4f}")
        if self.label == "int8 rows" and self.cls is not diffusers.FluxTransformer2DModel:  # for which it has the real one's sizes
            single = self.cls.from_single_file(str(self.folder / "restored.safetensors"), config=str(home), torch_dtype=BF16, local_files_only=True)
            off = distance(self.run(single), self.want)
            self.found(off < 0.02, f"from_single_file {off:.4f}")


def check(case, folder):
    _, cls, settings = MODELS[case]
    plain = folder / "plain"
    randomized(cls(**settings).to(BF16)).save_pretrained(plain)
    for label, given in {**NATIVE, **KEPT}.items():
        if label not in os.environ.get("LABELS", label).split(";"):
            continue
        start, steps = time.time(), Steps(case, label, given, plain, folder)
        try:
            steps.all()
        except Exception as e:
            if os.environ.get("TRACE"):
                raise
            steps.found(False, f"{type(e).__name__} {str(e)[:400]}")
        print(f"  {'ok  ' if steps.good else 'FAIL'} {label} ({time.time() - start:.0f} s): {'; '.join(steps.text)}{steps.said}", flush=True)
        yield steps.good


failed = 0
for case in sys.argv[3:] or MODELS:
    print(case, flush=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        failed += sum(not good for good in check(case, pathlib.Path(folder)))
sys.exit(failed > 0)
