#!/usr/bin/env python3
"""Whole models quantized and saved by sdnq, for byte comparison.

    python conformance/golden/make_sdnq_files.py [FOLDER]

writes FOLDER/*.src.safetensors, one directory per case and FOLDER/dequant.tsv
(default FOLDER: testdata/golden/sdnq of this repository). It only calls sdnq
and diffusers; README.md beside this script describes the files.
"""
import hashlib
import json
import os
import pathlib
import shutil
import sys

if os.environ.get("PYTHONHASHSEED") != "0":  # sdnq keeps its lists in sets: fix their order
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable] + sys.argv)
os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file, save_file

from sdnq import SDNQConfig, sdnq_post_load_quant
from sdnq.loader import load_sdnq_model, save_sdnq_model
from sdnq.utils import get_sdnq_params

nn = torch.nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q = nn.Linear(128, 128)
        self.gate = nn.Linear(128, 8, bias=False)  # too few values to be quantized


class Feed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.ModuleList([nn.Linear(256, 64)])


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(128)
        self.attn = Attention()
        self.ff = Feed()


class GoldenModel(ModelMixin, ConfigMixin):
    """A class that sdnq has no list for."""

    @register_to_config
    def __init__(self, depth: int = 1):
        super().__init__()
        self.embed = nn.Embedding(16, 128)
        self.conv_in = nn.Conv2d(4, 8, 3)
        self.blocks = nn.ModuleList([Block() for _ in range(depth)])
        self.norm_final = nn.LayerNorm(128, elementwise_affine=True)
        self.proj_out = nn.Linear(128, 4)


class GoldenListModel(ModelMixin, ConfigMixin):
    """Every reason for which sdnq keeps a weight."""

    @register_to_config
    def __init__(self, width: int = 128):
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(width, width), nn.SiLU())  # skip key .time_embed
        self.tokens = nn.Embedding(16, width)  # embeddings are off
        self.conv_in = nn.Conv2d(4, 8, 3)  # convolutions are off
        self.to_q = nn.Linear(width, width)  # quantized: exactly 16384 values
        self.small = nn.Linear(width, 16)  # too few values
        self.thin = nn.Linear(28, 600, bias=False)  # too few columns
        self.norm = nn.LayerNorm(width)
        self.group_norm = nn.GroupNorm(4, width)
        self.plain_norm = nn.LayerNorm(width, elementwise_affine=False)  # no weight
        self.lm_head = nn.Linear(width, 8, bias=False)  # skip key lm_head
        self.proj_out = nn.ModuleList([nn.Linear(width, 8)])  # skip key .proj_out


# name -> (source, settings)
CASES = {
    "int8": ("small", dict(weights_dtype="int8")),
    "uint4": ("small", dict(weights_dtype="uint4")),
    "float8_e4m3fn": ("small", dict(weights_dtype="float8_e4m3fn")),
    "int5": ("small", dict(weights_dtype="int5")),
    "float6_e3m2fn": ("small", dict(weights_dtype="float6_e3m2fn")),
    "uint4_tensor": ("small", dict(weights_dtype="uint4", group_size=-2)),
    "uint1": ("small", dict(weights_dtype="uint1")),
    "int8_matmul": ("small", dict(weights_dtype="int8", use_quantized_matmul=True)),
    "mixed": ("small", dict(
        weights_dtype="int8",
        modules_dtype_dict={"float8_e4m3fn_sdnq": ["norm_out_of_use", "blocks.*.attn"]},
        modules_quant_config={"blocks.*.ff": {"weights_dtype": "uint3", "group_size": 64}},
    )),
    "lists": ("lists", dict(weights_dtype="int8")),
}
SOURCES = {"small": GoldenModel, "lists": GoldenListModel}


def fill(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            x = torch.randn(p.shape, generator=g, dtype=torch.float64)
            if p.ndim > 1:
                rows = torch.exp(0.5 * torch.randn((p.shape[0],) + (1,) * (p.ndim - 1), generator=g, dtype=torch.float64))
                x = x * 0.04 * rows
            elif "norm" in name and name.endswith("weight"):
                x = 1 + 0.1 * x
            else:
                x = 0.01 * x
            p.copy_(x.to(torch.float32))
    return model.to(torch.bfloat16)


def build(source):
    return fill(SOURCES[source](), {"small": 31, "lists": 32}[source])


def digest(t):
    return hashlib.sha256(t.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden" / "sdnq"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    for source in SOURCES:
        model = build(source)
        path = folder / f"{source}.src.safetensors"
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata={"format": "pt"})
        path.chmod(0o644)

    lines = ["# case layer F32=hash BF16=hash: first 16 hex digits of the SHA-256 of the dequantized values, little-endian, in the shape of the source"]
    for case, (source, settings) in CASES.items():
        model = build(source)
        model = sdnq_post_load_quant(model, torch_dtype=torch.bfloat16, quantization_config=SDNQConfig(**settings))
        out = folder / case
        shutil.rmtree(out, ignore_errors=True)
        save_sdnq_model(model, str(out))
        for p in out.iterdir():
            p.chmod(0o644)
        # it loads, strictly
        again = load_sdnq_model(str(out), model_cls=SOURCES[source], dtype=torch.bfloat16)
        plain = load_file(folder / f"{source}.src.safetensors")
        for name, module in sorted(again.named_modules()):
            if not hasattr(module, "sdnq_dequantizer"):
                continue
            deq, hashes = module.sdnq_dequantizer, []
            for tag, dtype in (("F32", torch.float32), ("BF16", torch.bfloat16)):
                params = {k: v.clone() for k, v in get_sdnq_params(module).items() if v is not None}
                v = deq(**params, skip_quantized_matmul=deq.use_quantized_matmul, skip_compile=True, dtype=dtype)
                assert v.shape == plain[name + ".weight"].shape and v.dtype == dtype
                hashes.append(f"{tag}={digest(v)}")
            lines.append("\t".join([case, name, *hashes]))
    (folder / "dequant.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
