#!/usr/bin/env python3
"""Small files with 8-bit weights and scales as other programs leave them, and
the hashes of the values that the references restore.

    python conformance/golden/make_foreign.py [FOLDER]

writes FOLDER/*.safetensors and FOLDER/foreign.tsv (default FOLDER:
testdata/golden/foreign of this repository). Fields: file, layer, hash of the
values in binary32. What restores them: comfy-kitchen where there is one scale,
transformers' Fp8Dequantize where blocks of 128 have one each (weights that do
not divide are padded for it, and cut), torch's product where rows have.
"""
import hashlib
import pathlib
import sys

import numpy as np
import torch
from comfy_kitchen.tensor import QuantizedTensor, TensorCoreFP8Layout
from safetensors.torch import save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

E4M3, E5M2, F32, BF16 = torch.float8_e4m3fn, torch.float8_e5m2, torch.float32, torch.bfloat16
rng = np.random.default_rng(7)


def codes(rows, cols, dtype=E4M3):
    """Every code but NaN and infinity occurs."""
    all_ = torch.arange(256, dtype=torch.uint8).view(dtype)
    finite = torch.isfinite(all_.float()).nonzero()[:, 0]
    pick = torch.from_numpy(rng.integers(0, len(finite), rows * cols))
    pick[: min(len(finite), rows * cols)] = torch.arange(min(len(finite), rows * cols))
    return all_.view(torch.uint8)[finite[pick]].view(dtype).reshape(rows, cols)


def scales(shape, dtype=F32):
    return torch.from_numpy(rng.uniform(0.001, 0.003, shape).astype(np.float32)).to(dtype)


def one(w, s):
    params = TensorCoreFP8Layout.Params(scale=s.float().reshape(()), orig_dtype=F32, orig_shape=tuple(w.shape))
    return QuantizedTensor(w, "TensorCoreFP8Layout", params).dequantize()


def blocks(w, s):
    rows, cols = w.shape
    padded = torch.zeros(s.shape[0] * 128, s.shape[1] * 128).to(w.dtype)
    padded.view(torch.uint8)[:rows, :cols] = w.view(torch.uint8)
    return Fp8Dequantize(None)._dequantize_one(padded, s, F32)[:rows, :cols]


def rows(w, s):
    return w.float() * s.float().reshape(-1, 1)


def plain(*shape):
    return torch.from_numpy(rng.normal(0, 1, shape).astype(np.float32)).to(BF16)


def sources():
    scale = ".scale_weight"
    yield "scaled_fp8", {"scaled_fp8": torch.zeros(2, dtype=E4M3)}, scale, {
        "one": (codes(24, 32), scales(()), one),
        "one_dim": (codes(16, 48), scales((1,)), one),
        "e5m2": (codes(16, 32, E5M2), scales(()), one),
        "half": (codes(8, 32), scales((), BF16), one),
        "row": (codes(24, 32), scales((24,)), rows),
    }, {"one.scale_input": torch.tensor(1.0), "one.bias": plain(24)}
    inv = ".weight_scale_inv"
    yield "weight_scale_inv", {}, inv, {
        "whole": (codes(128, 256), scales((1, 2)), blocks),
        "edges": (codes(130, 150), scales((2, 2)), blocks),
        "small": (codes(20, 40), scales((1, 1)), blocks),
        "half": (codes(20, 140), scales((1, 2), BF16), blocks),
        "tensor": (codes(150, 20), scales(()), one),
    }, {"norm.weight": plain(20)}
    yield "weight_scale", {}, ".weight_scale", {
        "row": (codes(24, 32), scales((24, 1)), rows),
        "row_bf16": (codes(24, 32), scales((24, 1), BF16), rows),
        "tensor": (codes(24, 32), scales((1,)), one),
        "blocks": (codes(140, 30), scales((2, 1)), blocks),
    }, {"tensor.input_scale": torch.tensor(0.5), "norm.weight": plain(20)}


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden" / "foreign"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# torch {torch.__version__}", "# file layer hash"]
    for name, tensors, suffix, layers, more in sources():
        tensors |= more
        for layer, (w, s, restore) in layers.items():
            tensors |= {layer + ".weight": w, layer + suffix: s}
            value = restore(w, s).contiguous()
            assert value.dtype == F32
            lines.append(f"{name}\t{layer}\t{hashlib.sha256(value.numpy().tobytes()).hexdigest()[:16]}")
        path = folder / f"{name}.safetensors"
        save_file(tensors, path)
        path.chmod(0o644)
    (folder / "foreign.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
