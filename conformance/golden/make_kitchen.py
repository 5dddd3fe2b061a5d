#!/usr/bin/env python3
"""Golden hashes of comfy-kitchen's float8 and int8 layouts, eager backend, CPU.

    python conformance/golden/make_kitchen.py [FOLDER]

reads FOLDER/inputs.safetensors and FOLDER/ctq/*.safetensors (make_sdnq.py and
make_ctq.py make them) and writes FOLDER/kitchen.tsv (default FOLDER:
testdata/golden of this repository). It only calls comfy-kitchen.
"""
import hashlib
import pathlib
import sys

import torch
from safetensors.torch import load_file

import comfy_kitchen
from comfy_kitchen.tensor import TensorCoreFP8Layout, TensorWiseINT8Layout

OUT = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
FORMATS = {
    "float8_e4m3fn": (TensorCoreFP8Layout, dict(dtype=torch.float8_e4m3fn)),
    "float8_e5m2": (TensorCoreFP8Layout, dict(dtype=torch.float8_e5m2)),
    "int8_tensor": (TensorWiseINT8Layout, dict(is_weight=True, per_channel=False)),
    "int8_row": (TensorWiseINT8Layout, dict(is_weight=True, per_channel=True)),
}
KEPT = {  # kept outputs of convert_to_quant that stock layouts read
    "ctq/one.fp8": "float8_e4m3fn",
    "ctq/one.int8": "int8_tensor",
    "ctq/one.int8_row": "int8_row",
    "ctq/small.fp8_meta": "float8_e4m3fn",
    "ctq/small.int8_row_meta": "int8_row",
}
NAMES = {
    torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}
NAN = {torch.float32: (torch.int32, 0x7FC00000), torch.bfloat16: (torch.int16, 0x7FC0), torch.float16: (torch.int16, 0x7E00)}


def digest(t):
    t = t.detach().contiguous().clone()
    if t.dtype in NAN:
        view, bits = NAN[t.dtype]
        nan = t.isnan()
        if bool(nan.any()):
            t.view(view)[nan] = bits
    return hashlib.sha256(t.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def describe(t):
    return f"{NAMES[t.dtype]}:{'x'.join(map(str, t.shape))}:{digest(t)}"


def dequantized(layout, data, params):
    out = []
    for tag, dtype in OUT.items():
        p = layout.Params(scale=params.scale, orig_dtype=dtype, orig_shape=tuple(data.shape))
        v = layout.dequantize(data, p)
        assert v.dtype == dtype and v.shape == data.shape
        out.append(f"{tag}={digest(v)}")
    return "\t".join(out)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden"
    torch.set_num_threads(1)
    for name in ("cuda", "triton", "hip", "ascend"):
        comfy_kitchen.disable_backend(name)
    from importlib.metadata import version

    lines = [
        f"# comfy-kitchen {version('comfy-kitchen')} (eager), torch {torch.__version__}, cpu capability {torch.backends.cpu.get_cpu_capability()}",
        "# input format weight scale f32 bf16 f16",
        "# weight, scale: what the layout makes of the input widened to binary32 (inputs ctq/...: as in that file); f32, bf16, f16: the dequantized values in that dtype",
        "# DTYPE:shape:first 16 hex digits of the SHA-256 of the little-endian bytes, every NaN as 7fc00000, 7fc0, 7e00",
    ]
    for name, tensor in load_file(folder / "inputs.safetensors").items():
        if name.startswith("nonfinite"):
            continue
        for fmt, (layout, args) in FORMATS.items():
            data, params = layout.quantize(tensor.float().clone(), **args)
            lines.append(f"{name}\t{fmt}\tweight={describe(data)}\tscale={describe(params.scale)}\t{dequantized(layout, data, params)}")
    for file, fmt in KEPT.items():
        layout = FORMATS[fmt][0]
        tensors = load_file(folder / f"{file}.safetensors")
        for key in sorted(tensors):
            if not key.endswith(".weight_scale"):
                continue
            layer = key[: -len(".weight_scale")]
            data, scale = tensors[layer + ".weight"], tensors[key]
            params = layout.Params(scale=scale, orig_dtype=torch.float32, orig_shape=tuple(data.shape))
            lines.append(f"{file}:{layer}\t{fmt}\tweight={describe(data)}\tscale={describe(scale)}\t{dequantized(layout, data, params)}")
    (folder / "kitchen.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
