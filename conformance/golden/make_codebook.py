#!/usr/bin/env python3
"""Golden hashes of sdnq's codebooks and of its quantized scales.

    python conformance/golden/make_codebook.py [FOLDER]

reads FOLDER/inputs.safetensors (make_sdnq.py makes it) and writes
FOLDER/codebook.tsv and FOLDER/scales.tsv (default FOLDER: testdata/golden of
this repository). It only calls sdnq; README.md beside this script describes
the files.
"""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file

import sdnq.common
from make_sdnq import describe, digest
from sdnq.quantizer import sdnq_quantize_layer_weight

SCALES = (
    "uint8", "int8", "uint4", "uint1", "uint2", "uint3", "uint5", "uint6", "uint7", "int5", "uint9", "uint12", "uint16", "int16",
    "float8_e4m3fn", "float8_e4m3fn_sdnq", "float6_e3m2fn", "float7_e3m4fnu", "float16", "bfloat16",
)


def store(w, **settings):
    deq, data = sdnq_quantize_layer_weight(w.float().clone(), layer_class_name="Linear", torch_dtype=torch.float32, **settings)
    kept = {k: v for k, v in data.items() if v is not None}
    values = deq(**{k: v.clone() for k, v in kept.items()}, skip_compile=True, dtype=torch.float32)
    return kept, f"dq={digest(values)}"


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden"
    torch.set_num_threads(1)
    inputs = load_file(folder / "inputs.safetensors")
    head = f"# torch {torch.__version__}, sdnq {sdnq.common.sdnq_version}, cpu capability {torch.backends.cpu.get_cpu_capability()}"

    lines = [head, "# input dtype group(requested) weight scale dq"]
    for name in [f"{c}.{t}" for c in ("normal", "wide", "edge", "odd", "prime", "one", "tiny", "column") for t in ("f32", "bf16")]:
        for dtype in [f"uint{n}" for n in range(1, 9)] + (["uint9", "uint12", "uint16"] if name in ("wide.f32", "edge.bf16", "normal.bf16") else []):
            for group in (0, 32, -1, -2):
                w = inputs[name]
                w = w[w.float().abs().amax(1) < 1e37]  # sums that overflow are not reproducible
                if dtype in ("uint9", "uint12", "uint16"):
                    if group == 32:
                        continue
                    w = w[:8]
                try:
                    kept, dq = store(w, weights_dtype=dtype, group_size=group, use_codebook=True)
                except RuntimeError:
                    continue  # blocks of a packed dtype do not divide the values
                lines.append("\t".join((name, dtype, str(group), describe(kept["weight"]), describe(kept["scale"]), dq)))
    (folder / "codebook.tsv").write_text("\n".join(lines) + "\n")
    print(len(lines), "lines", file=sys.stderr)

    lines = [head, "# input dtype(weight) group dtype(scale) codebook tensor=… dq"]
    for name in ("normal.f32", "wide.bf16", "edge.bf16"):
        for weight, group in (("int8", -1), ("uint4", 32), ("uint4", 64)):
            for scale in SCALES:
                for codebook in (False, True):
                    if codebook and not scale.startswith("uint"):
                        continue
                    try:
                        kept, dq = store(inputs[name], weights_dtype=weight, group_size=group, scale_dtype=scale, use_codebook_scale=codebook)
                    except RuntimeError:
                        continue
                    tensors = [f"{k}={describe(kept[k])}" for k in sorted(kept)]
                    lines.append("\t".join([name, weight, str(group), scale, str(int(codebook)), *tensors, dq]))
    (folder / "scales.tsv").write_text("\n".join(lines) + "\n")
    print(len(lines), "lines", file=sys.stderr)


if __name__ == "__main__":
    main()
