#!/usr/bin/env python3
"""Makes what the tests compare with: layers as the program writes them, and what it restores them to.

    TENSORPRESS=… python tests/make_goldens.py

A weight stands in goldens.json as the SHA-256 of its float32 values, little-endian.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

import tensorpress  # noqa: E402
from tensorpress.torch.dtypes import DTYPES  # noqa: E402

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
Layers = dict[str, tuple[tuple[int, ...], str, torch.dtype]]

# Shapes, settings and dtypes of the sources, with what each is there for.
CASES: list[tuple[str, tuple[int, ...], str, torch.dtype, list[str]]] = [
    ("groups", (24, 64), "group-size=16", BF16, ["uint4", "int5", "uint13", "float6_e3m2fn", "float9_e4m5fnu"]),
    ("groups-f32", (24, 96), "group-size=32", F32, ["uint4", "uint8", "float4_e2m1fn"]),
    ("rows", (20, 24), "group-size=-1", F16, ["int8", "uint3", "uint16"]),
    ("tensor", (24, 32), "group-size=-2", BF16, ["int8", "uint4", "float16_e5m10fn"]),
    ("rank", (24, 64), "svd-rank=5,group-size=32", BF16, ["uint4", "int8"]),
    ("rank-f32", (24, 64), "svd-rank=5,group-size=32", F32, ["uint4"]),
    ("rank-f16", (24, 64), "svd-rank=5,group-size=32", F16, ["uint4"]),
    ("rotated-8", (16, 72), "hadamard", BF16, ["uint4"]),
    ("rotated-16", (16, 48), "hadamard,svd-rank=3", BF16, ["uint4"]),
    ("rotated-64", (16, 64), "hadamard,hadamard-group-size=64,group-size=32", F32, ["int8", "uint5"]),
    ("rotated-512", (8, 512), "hadamard,hadamard-group-size=512", BF16, ["uint2"]),
    ("matmul", (32, 48), "quantized-matmul,group-size=-1", BF16, ["int8", "uint8", "uint4", "float8_e4m3fn"]),
    ("matmul-rank", (32, 48), "quantized-matmul,group-size=-1,svd-rank=4,hadamard", BF16, ["int8", "uint4"]),
    ("low", (24, 64), "dequantize-fp32=false,group-size=32", BF16, ["uint4", "int9", "uint14"]),
    ("low-f16", (24, 64), "dequantize-fp32=false,group-size=32,svd-rank=2", F16, ["uint4", "int12"]),
    ("twice", (16, 64), "scale-dtype=uint8,group-size=8", BF16, ["uint4", "int8"]),
    ("twice-mixed", (16, 64), "scale-dtype=int5,zero-point-dtype=float6_e3m2fn,group-size=8", BF16, ["uint4"]),
    ("twice-book", (16, 64), "scale-dtype=uint4,codebook-scale,group-size=8", BF16, ["uint4"]),
    ("book", (16, 64), "codebook,group-size=32", BF16, ["uint2", "uint4"]),
    ("book-rows", (16, 64), "codebook,group-size=-1,hadamard,svd-rank=2", BF16, ["uint3"]),
    ("book-tensor", (16, 64), "codebook,group-size=-2", BF16, ["uint4"]),
    ("embedding", (40, 32), "kind=embedding,group-size=16", BF16, ["uint4", "uint3", "int8"]),
    ("embedding-odd", (32, 36), "kind=embedding,svd-rank=3,hadamard", BF16, ["uint5", "uint1"]),
    ("conv1d", (16, 12, 3), "kind=conv1d,group-size=4", BF16, ["uint4"]),
    ("conv2d", (16, 16, 3, 3), "kind=conv2d,svd-rank=3,hadamard", BF16, ["uint4", "int8"]),
    ("conv2d-matmul", (32, 32, 2, 2), "kind=conv2d,quantized-matmul-conv,group-size=-1", BF16, ["int8"]),
    ("conv2d-book", (16, 16, 2, 2), "kind=conv2d,codebook,group-size=8", BF16, ["uint2"]),
    ("conv3d", (8, 8, 2, 1, 2), "kind=conv3d", BF16, ["uint4"]),
    ("transpose1d", (8, 12, 4), "kind=conv-transpose1d", BF16, ["uint4"]),
    ("transpose2d", (12, 8, 2, 2), "kind=conv-transpose2d,svd-rank=2", BF16, ["int8"]),
    ("transpose3d-book", (16, 4, 2, 2, 1), "kind=conv-transpose3d,codebook", BF16, ["uint2"]),
]

# ComfyUI's own formats.
NATIVE: Layers = {
    "native.float8_e4m3fn": ((16, 32), "float8_e4m3fn", BF16),
    "native.float8_e5m2": ((16, 32), "float8_e5m2", BF16),
    "native.int8_rows": ((16, 32), "int8_tensorwise", BF16),
    "native.int8_tensor": ((16, 32), "int8_tensorwise,scale=tensor", BF16),
    "native.int8_rotated": ((16, 64), "int8_tensorwise,convrot,convrot-group-size=64", BF16),
    "native.nvfp4": ((32, 64), "nvfp4", BF16),
    "native.mxfp8": ((32, 64), "mxfp8", BF16),
    "native.convrot_w4a4": ((8, 64), "convrot_w4a4,convrot-group-size=16", BF16),
    "native.asym_w4a8": ((8, 64), "asym_w4a8_int8,convrot-group-size=64", BF16),
    "native.asym_w6a8": ((8, 64), "asym_w4a8_int8,bits=6,convrot-group-size=64", BF16),
    "native.awq": ((8, 128), "awq_w4a16", BF16),
    "native.float8_rows": ((16, 32), "float8_e4m3fn_rowwise", BF16),
    "native.float8_blocks": ((16, 32), "float8_e4m3fn_blockwise,block-size=8", BF16),
    "native.float8_block3d": ((16, 32), "float8_e4m3fn_block3d,block-size=8", BF16),
    "native.int8_blocks": ((16, 32), "int8_blockwise,block-size=8", BF16),
}

# A small model, in both layouts: see test_loading.py.
MODEL: Layers = {
    "embed": ((40, 32), "uint4,kind=embedding,group-size=16", BF16),
    "blocks.0.proj": ((64, 32), "uint4,group-size=16,svd-rank=4", BF16),
    "blocks.0.rows": ((64, 64), "int8,group-size=-1,hadamard,hadamard-group-size=16", BF16),
    "conv": ((16, 8, 3, 3), "int5,kind=conv2d", BF16),
    "up": ((16, 8, 2, 2), "int8,kind=conv-transpose2d", BF16),
}


def all_layers() -> Layers:
    layers: Layers = {}
    for name in DTYPES:
        layers[f"all.{name}"] = ((8, 32), f"sdnq:{name},group-size=16", BF16)
    for case, shape, settings, dtype, names in CASES:
        for name in names:
            layers[f"{case}.{name}"] = (shape, f"sdnq:{name},{settings}", dtype)
    return layers | NATIVE


def make(
    layers: Layers, folder: Path, layout: str, more: dict[str, torch.Tensor]
) -> tuple[Path, dict[str, str], dict[str, str]]:
    source, made, plain = (folder / f"{name}.safetensors" for name in ("source", "made", "plain"))
    tensors = dict(more)
    for name, (shape, _, dtype) in layers.items():
        tensors[f"{name}.weight"] = (torch.randn(shape) * 0.05).to(dtype)
    save_file(tensors, source)
    sets = [f"^{name}\\.weight$={settings}" for name, (_, settings, _) in layers.items()]
    least = 1 if layout == "sdnq" else None
    tensorpress.quantize(
        source, made, layout=layout, preset="none", set=sets, conv=True, embedding=True, keep=[r"norm|head"],
        min_numel=least, min_channels=least, force=True, quiet=True,
    )  # fmt: skip
    tensorpress.dequantize(made, plain, dtype="f32", force=True, quiet=True)
    exact = load_file(plain)
    tensorpress.dequantize(made, plain, dtype="bf16", force=True, quiet=True)
    low = load_file(plain)
    # What the dtype of the result changes but for its rounding.
    other = {n: low[f"{n}.weight"].float() for n in layers if n.startswith(("rotated", "native", "conv2d"))}
    return made, {n: digest(exact[f"{n}.weight"]) for n in layers}, {n: digest(t) for n, t in other.items()}


def digest(x: torch.Tensor) -> str:
    return hashlib.sha256(x.contiguous().numpy().astype("<f4").tobytes()).hexdigest()


def main() -> None:
    torch.manual_seed(1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        more = {
            "blocks.0.proj.bias": torch.randn(64).to(BF16) * 0.1,
            "blocks.0.norm.weight": torch.ones(64, dtype=BF16),
            "head.weight": torch.randn(10, 64).to(BF16) * 0.1,
            "conv.bias": torch.randn(16).to(BF16) * 0.1,
        }
        for name, layers, layout, kept in (
            ("layers", all_layers(), "comfy", {}),
            ("model", MODEL, "comfy", more),
            ("model-sdnq", MODEL, "sdnq", more),
        ):
            made, found[name], found[f"{name}-bf16"] = make(layers, Path(folder), layout, kept)
            (HERE / "goldens" / f"{name}.safetensors").write_bytes(made.read_bytes())
    text = json.dumps(found, indent=1, sort_keys=True)
    (HERE / "goldens" / "goldens.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
