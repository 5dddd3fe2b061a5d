#!/usr/bin/env python3
"""Golden hashes of the references' Hadamard rotations.

    python conformance/golden/make_rotation.py [FOLDER]

reads FOLDER/inputs.safetensors (make_sdnq.py makes it) and writes
FOLDER/rotation.tsv (default FOLDER: testdata/golden of this repository). It
only calls sdnq and comfy-kitchen; README.md beside this script describes the
file. The order of sums in single precision depends on the processor.
"""
import importlib.metadata
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file

import sdnq.common
from comfy_kitchen.tensor import TensorWiseINT8Layout
from make_sdnq import describe, digest
from sdnq.quant_utils import get_hadamard_group_size, rotate_hadamard
from sdnq.quantizer import sdnq_quantize_layer_weight

SIZES = (4, 8, 16, 32, 64, 128, 256)
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def quantized(weight, n):
    _, data = sdnq_quantize_layer_weight(
        weight.float().clone(), layer_class_name="Linear", torch_dtype=weight.dtype, weights_dtype="int8",
        group_size=-1, use_hadamard=True, hadamard_group_size=n)
    return f"weight={describe(data['weight'])}\tscale={describe(data['scale'])}"


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden"
    torch.set_num_threads(1)
    inputs = load_file(folder / "inputs.safetensors")
    lines = [
        f"# torch {torch.__version__}, sdnq {sdnq.common.sdnq_version}, kitchen {importlib.metadata.version('comfy-kitchen')}, cpu capability {torch.backends.cpu.get_cpu_capability()}",
        "# size columns want n | f32 input n hash | int8 input n weight scale | BF16, F16 input n bytes in hex (first 8 rows) | convrot input n weight scale",
    ]
    for columns in (3072, 2560, 1152, 320, 96, 1000, 50, 77, 256, 4096, 11008, 4, 3, 1, 12, 640):
        for want in (256, 64, 128, 100, 4, 8, 1, 2048, 5):
            use, n = get_hadamard_group_size(columns, want)
            lines.append(f"size\t{columns}\t{want}\t{n if use else 0}")
    cases = [f"{c}.{t}" for c in ("normal", "wide", "edge", "huge", "odd", "tiny") for t in ("f32", "bf16", "f16")]
    for name in cases:
        w = inputs[name]
        for n in SIZES:
            if w.shape[1] % n:
                continue
            lines.append(f"f32\t{name}\t{n}\t{digest(rotate_hadamard(w.float().clone(), group_size=n))}")
            if not name.startswith("huge"):
                lines.append(f"int8\t{name}\t{n}\t{quantized(w, n)}")
            tag = {"bf16": "BF16", "f16": "F16"}.get(name.split(".")[1])
            if tag and name.split(".")[0] in ("normal", "edge") and n in (4, 32, 64, 128):
                part = w[:8] if name.startswith("normal") else w[-8:]
                r = rotate_hadamard(part.clone(), group_size=n)
                assert r.dtype == DTYPES[tag]
                lines.append(f"{tag}\t{name}\t{n}\t{r.contiguous().view(torch.uint8).numpy().tobytes().hex()}")
            if n in (4, 16, 64, 256) and not name.startswith(("huge", "edge")):
                q, p = TensorWiseINT8Layout.quantize(w.float(), is_weight=True, per_channel=True, convrot=True, convrot_groupsize=n)
                scale = p.scale.float().contiguous().view(torch.uint8).numpy().tobytes().hex()
                lines.append(f"convrot\t{name}\t{n}\t{describe(q)}\t{scale}")
    (folder / "rotation.tsv").write_text("\n".join(lines) + "\n")
    print(len(lines), "lines", file=sys.stderr)


if __name__ == "__main__":
    main()
