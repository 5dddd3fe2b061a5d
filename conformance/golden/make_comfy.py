#!/usr/bin/env python3
"""Golden hashes of ComfyUI's further formats, CPU.

    python conformance/golden/make_comfy.py [FOLDER]

reads FOLDER/inputs.safetensors (make_sdnq.py makes it) and writes
FOLDER/comfy.tsv and FOLDER/comfy.safetensors (default FOLDER: testdata/golden
of this repository). It calls comfy-kitchen's layouts, convert_to_quant's for
the formats that only it has, and sdnq's uint4 for the codes of awq_w4a16.
"""
import hashlib
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file

import comfy_kitchen
from comfy_kitchen.tensor import TensorWiseINT8Layout
from comfy_kitchen.tensor.awq_w4a16 import TensorCoreAWQW4A16Layout
from comfy_kitchen.tensor.convrot_w4a4 import TensorCoreConvRotW4A4Layout
from comfy_kitchen.tensor.mxfp8 import TensorCoreMXFP8Layout
from comfy_kitchen.tensor.nvfp4 import TensorCoreNVFP4Layout
from comfy_kitchen.tensor.w4a8_int8 import AsymW4A8Int8Layout
from convert_to_quant.comfy.quant_ops import BlockWiseFP8Layout, BlockWiseINT8Layout, RowWiseFP8Layout
from sdnq.quantizer import sdnq_quantize_layer_weight

from importlib.metadata import version

from make_kitchen import NAMES, OUT, digest

NAMES.update({torch.uint8: "U8", torch.float8_e8m0fnu: "U8"})


def describe(t):
    return f"{NAMES[t.dtype]}:{'x'.join(map(str, t.shape))}:{digest(t.view(torch.uint8) if t.dtype == torch.float8_e8m0fnu else t)}"


def again(layout, params, dtype, w, data):
    fields = {k: getattr(params, k) for k in params.__dataclass_fields__}
    fields.update(orig_dtype=dtype, orig_shape=tuple(w.shape))
    return layout.dequantize(data, layout.Params(**fields))[: w.shape[0], : w.shape[1]].to(dtype)


def kitchen(layout, w, **args):
    data, params = layout.quantize(w.clone(), **args)
    tensors = {"weight" + k: v for k, v in layout.state_dict_tensors(data, params).items()}
    return tensors, {tag: again(layout, params, dtype, w, data) for tag, dtype in OUT.items()}


def ctq(layout, w, block=None, **args):
    kw = {} if block is None else {"block_size": block}
    data, params = layout.quantize(w.clone(), **kw, **args)
    out = {tag: layout.dequantize(data, params["scale"], orig_dtype=dtype, **kw, **args).to(dtype) for tag, dtype in OUT.items()}
    return {"weight": data, "weight_scale": params["scale"].reshape(()) if params["scale"].numel() == 1 else params["scale"]}, out


def awq(w, group):
    _, r = sdnq_quantize_layer_weight(w.clone(), layer_class_name="Linear", torch_dtype=torch.float32, weights_dtype="uint4", group_size=group, dequantize_fp32=True)
    codes, scale, zero = r["weight"], r["scale"], r["zero_point"]
    n, k = w.shape
    data = codes.reshape(n, k // 2).view(torch.int8)
    scale, zero = scale.reshape(n, -1), zero.reshape(n, -1)
    scales = scale.t().contiguous().to(torch.bfloat16)
    zeros = (zero + 8.0 * scale).t().contiguous().to(torch.bfloat16)
    params = TensorCoreAWQW4A16Layout.Params(scale=scales, zeros=zeros, orig_dtype=torch.float32, orig_shape=(n, k), group_size=group)
    out = {tag: again(TensorCoreAWQW4A16Layout, params, dtype, w, data) for tag, dtype in OUT.items()}
    return {"weight": data, "weight_scale": scales, "weight_zeros": zeros}, out


def cases(w):
    """(name, group or block, result) of every format that fits."""
    m, n = w.shape
    yield "mxfp8", 0, kitchen(TensorCoreMXFP8Layout, w)
    if w.abs().max() > 0:
        yield "nvfp4", 0, kitchen(TensorCoreNVFP4Layout, w)
    yield "float8_e4m3fn_rowwise", 0, ctq(RowWiseFP8Layout, w)
    for b in (1, 7, 8, 16, 32):
        if m % b == 0 and n % b == 0:
            yield "float8_e4m3fn_blockwise", b, ctq(BlockWiseFP8Layout, w, b)
            yield "int8_blockwise", b, ctq(BlockWiseINT8Layout, w, b, is_weight=True)
    for g in (32, 64):
        if n % g == 0 and n > g:
            yield "awq_w4a16", g, awq(w, g)


def rotated(w):
    n = w.shape[1]
    for g in (4, 16, 64, 256):
        if n % g:
            continue
        yield "int8_convrot", g, kitchen(TensorWiseINT8Layout, w, is_weight=True, per_channel=True, convrot=True, convrot_groupsize=g)
        if n % 64 == 0:
            yield "convrot_w4a4", g, kitchen(TensorCoreConvRotW4A4Layout, w, convrot_groupsize=g)
        if n % 32 == 0 and g >= 16:
            yield "asym_w4a8_int8", g, kitchen(AsymW4A8Int8Layout, w, convrot_groupsize=g)
            yield "asym_w4a8_int8_6", g, kitchen(AsymW4A8Int8Layout, w, convrot_groupsize=g, bits=6)


def matrix():
    """Section of exact sums: every value is a small multiple of a power of two."""
    i, j = torch.arange(64).reshape(-1, 1), torch.arange(256).reshape(1, -1)
    a = (((37 * i + 101 * j + 13 * i * j) % 257 - 128).float() / 64) * 2.0 ** -(i % 5).float()
    a[3] = 0
    a[7, 16:32] = 0
    a[8, 32:64] = 0
    return a


def formula(rows, columns):
    """Heavy tails, the same in any language."""
    i = torch.arange(rows * columns, dtype=torch.int64)
    h = i * 2654435761 % 2**32
    h = (h ^ h >> 15) * 1266822519 % 2**32
    s = (h // 65536 - 32768).float() / 32768
    s4 = (s * s) * (s * s)
    return (s4 * s4 * s4 * s).reshape(rows, columns)


def row(name, fmt, size, tensors, out):
    stored = ",".join(f"{k}={describe(v)}" for k, v in tensors.items())
    return "\t".join([name, fmt, str(size), stored, *(f"{tag}={digest(v)}" for tag, v in out.items())])


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden"
    torch.set_num_threads(1)
    for name in ("cuda", "triton", "hip", "ascend"):
        comfy_kitchen.disable_backend(name)
    lines = [
        f"# comfy-kitchen {version('comfy-kitchen')} (eager), convert_to_quant {version('convert-to-quant')}, sdnq {version('sdnq')}, torch {torch.__version__}, cpu capability {torch.backends.cpu.get_cpu_capability()}",
        "# input format group-or-block stored f32 bf16 f16",
        "# stored: DTYPE:shape:first 16 hex digits of the SHA-256 of the bytes, by name; f32, bf16, f16: the dequantized values, every NaN as 7fc00000, 7fc0, 7e00",
    ]
    inputs = load_file(folder / "inputs.safetensors")
    for name, tensor in inputs.items():
        if name.startswith("nonfinite"):
            continue
        for fmt, size, (tensors, out) in cases(tensor.float()):
            lines.append(row(name, fmt, size, tensors, out))
    for fmt, size, (tensors, out) in rotated(matrix()):
        lines.append(row("matrix", fmt, size, tensors, out))
    (folder / "comfy.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    # Rotations of other values depend on the order of sums: the bytes themselves.
    kept = {}
    gen = torch.Generator().manual_seed(5)
    heavy = (torch.randn(24, 256, generator=gen) ** 5 * 0.02).float()  # heavy tails even when rotated
    sparse = torch.zeros(24, 256)
    sparse[torch.arange(24), torch.randint(0, 256, (24,), generator=gen)] = torch.randn(24, generator=gen)
    kept["heavy"], kept["sparse"] = heavy, sparse
    for name, g, w in (("normal.bf16", 64, None), ("normal.f32", 64, None), ("wide.f16", 256, None), ("one.bf16", 64, None), ("heavy", 4, heavy), ("sparse", 4, sparse)):
        w = inputs[name].float() if w is None else w
        results = list(rotated(w)) if g > 4 else [
            ("asym_w4a8_int8", 4, kitchen(AsymW4A8Int8Layout, w, convrot_groupsize=4, group_size=64)),
        ]
        for fmt, size, (tensors, out) in results:
            if size != g:
                continue
            for key, v in tensors.items():
                kept[f"{name}:{fmt}:{g}:{key}"] = v.contiguous()
            if name in ("normal.f32", "heavy"):
                kept[f"{name}:{fmt}:{g}:bf16"] = out["bf16"].contiguous()
    for rows, columns in ((640, 1024), (5000, 1024)):
        data, params = AsymW4A8Int8Layout.quantize(formula(rows, columns), convrot_groupsize=4, group_size=64)
        kept[f"{rows}x{columns}:formula:4:weight_codebook"] = params.codebook
    save_file(kept, folder / "comfy.safetensors")
    (folder / "comfy.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
