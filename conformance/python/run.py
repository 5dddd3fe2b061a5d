#!/usr/bin/env python3
"""Compares decoded layers with those of sdnq and of the program. README.md beside this script says how."""
import collections
import json
import logging
import pathlib
import sys
import tempfile
import warnings

import common

common.start()

import torch
from safetensors.torch import load_file, save_file

import tensorpress
from tensorpress.torch import decode, parse
from tensorpress.torch.config import DEFAULTS, scheme_for
from tensorpress.torch.dtypes import DTYPES
from tensorpress.torch.scheme import SDNQ_NAMES

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
# With a codebook: of more bits than these its levels are many times the weight.
UNSIGNED = [f"uint{n}" for n in range(1, 13)]
KINDS = {
    "linear": ("Linear", (48, 96)),
    "embedding": ("Embedding", (40, 96)),
    "conv1d": ("Conv1d", (48, 32, 3)),
    "conv2d": ("Conv2d", (32, 32, 2, 2)),
    "conv3d": ("Conv3d", (16, 32, 2, 1, 2)),
    "conv_transpose1d": ("ConvTranspose1d", (32, 32, 4)),
    "conv_transpose2d": ("ConvTranspose2d", (32, 32, 2, 2)),
    "conv_transpose3d": ("ConvTranspose3d", (32, 16, 2, 2, 1)),
}
# label: settings of sdnq, the weight's dtype; a codebook is for unsigned integers alone
OPTIONS = {
    "automatic": ({}, BF16),
    "groups of 16": ({"group_size": 16}, BF16),
    "groups of 32, F32": ({"group_size": 32}, F32),
    "rows": ({"group_size": -1}, F16),
    "tensor": ({"group_size": -2}, BF16),
    "low rank": ({"group_size": 16, "use_svd": True, "svd_rank": 5}, BF16),
    "low rank, F32": ({"group_size": 16, "use_svd": True, "svd_rank": 5}, F32),
    "low rank, F16": ({"use_svd": True, "svd_rank": 3}, F16),
    "rotation": ({"group_size": 16, "use_hadamard": True}, BF16),
    "rotation of 16": ({"use_hadamard": True, "hadamard_group_size": 16}, F32),
    "rotation and low rank": ({"group_size": 16, "use_hadamard": True, "use_svd": True, "svd_rank": 4}, BF16),
    "matmul": ({"use_quantized_matmul": True}, BF16),
    "matmul, rows": ({"use_quantized_matmul": True, "group_size": -1}, BF16),
    "matmul in float16": ({"use_quantized_matmul": True, "quantized_matmul_dtype": "float16"}, BF16),
    "matmul, low rank": ({"use_quantized_matmul": True, "group_size": -1, "use_svd": True, "svd_rank": 4}, BF16),
    "low scales": ({"dequantize_fp32": False, "group_size": 16}, BF16),
    "low scales, F16": ({"dequantize_fp32": False}, F16),
    "scales in uint8": ({"scale_dtype": "uint8", "group_size": 16}, BF16),
    "scales in int5": ({"scale_dtype": "int5", "zero_point_dtype": "float6_e3m2fn", "group_size": 8}, BF16),
    "scales in uint16": ({"scale_dtype": "uint16", "zero_point_dtype": "float8_e4m3fn", "group_size": 16}, BF16),
    "scales by codebook": ({"scale_dtype": "uint4", "use_codebook_scale": True, "group_size": 16}, BF16),
    "codebook": ({"use_codebook": True, "codebook_steps": 2, "group_size": 16}, BF16),
    "codebook, rows": ({"use_codebook": True, "codebook_steps": 2, "group_size": -1}, BF16),
    "codebook, tensor": ({"use_codebook": True, "codebook_steps": 2, "group_size": -2}, BF16),
    "codebook, rotation": ({"use_codebook": True, "codebook_steps": 2, "use_hadamard": True, "group_size": 32}, BF16),
}
FLAGS = {
    "group_size": "group-size", "svd_rank": "svd-rank", "use_hadamard": "hadamard", "hadamard_group_size": "hadamard-group-size",
    "quantized_matmul_dtype": "quantized-matmul-dtype", "dequantize_fp32": "dequantize-fp32", "scale_dtype": "scale-dtype",
    "zero_point_dtype": "zero-point-dtype", "use_codebook_scale": "codebook-scale", "use_codebook": "codebook", "codebook_steps": "codebook-steps",
}


def weight(shape, dtype):
    w = torch.randn(shape, generator=torch.Generator().manual_seed(7)) * 0.05
    w.view(-1)[3] = 1.0
    return w.to(dtype)


def dtypes_of(options):
    return UNSIGNED if options.get("use_codebook") else list(DTYPES)


def bits(x):
    return x.contiguous().view({4: torch.int32, 2: torch.int16}[x.itemsize])


def sdnq_case(kind, options, dtype, counts):
    """Every dtype of one kind and one set of options, as sdnq stores it."""
    from sdnq.quantizer import sdnq_quantize_layer_weight

    cls, shape = KINDS[kind]
    w = weight(shape, dtype)
    options = dict(options)
    if kind.startswith("conv") and "use_quantized_matmul" in options:
        options["use_quantized_matmul_conv"] = True
    given = {k: v for k, v in options.items() if k != "use_quantized_matmul_conv"}
    for name in dtypes_of(options):
        try:
            d, stored = sdnq_quantize_layer_weight(w.float(), layer_class_name=cls, weights_dtype=name, torch_dtype=dtype, **given)
            stored = {n: t for n, t in stored.items() if t is not None}
            want = d(**stored, skip_quantized_matmul=d.use_quantized_matmul, skip_compile=True, dtype=F32)
        except Exception:
            counts["sdnq fails"] += 1
            continue
        tensors = {ours: stored[theirs].contiguous() for ours, theirs in SDNQ_NAMES.items() if theirs in stored}
        settings = DEFAULTS | options | {"weights_dtype": name}
        scheme = scheme_for(settings, tensors, shape, kind, dtype, f"{kind}.{name}")
        scheme = parse(scheme.json(), tensors, scheme.layer)  # what the file would say
        found = decode(scheme, tensors, F32)
        if torch.equal(bits(found), bits(want)):
            counts["equal"] += 1
        elif scheme.hadamard or scheme.rank:
            counts["near"] += 1
            counts["worst"] = max(counts["worst"], float((found - want).abs().max() / want.abs().max()))
        elif torch.equal(found, want):
            counts["equal but for signs of zeros"] += 1
        else:
            counts["DIFFERENT"] += 1
            print("different:", kind, name, options, float((found - want).abs().max()))


def settings_text(options, kind):
    parts = []
    for key, value in options.items():
        if key == "use_quantized_matmul":
            parts.append("quantized-matmul-conv" if kind.startswith("conv") else "quantized-matmul")
        elif key in FLAGS:
            parts.append(f"{FLAGS[key]}={str(value).lower()}")
    if kind != "linear":
        parts.append("kind=" + kind.replace("_", "-"))
    return ",".join(["", *parts])


def program_case(kind, options, dtype, counts):
    """The same as the program stores it."""
    _, shape = KINDS[kind]
    names = dtypes_of(options)
    if "scale_dtype" in options:
        shape = (64, 512, *shape[2:])  # whose scales fill words
    with tempfile.TemporaryDirectory() as folder:
        source, made, plain = (pathlib.Path(folder) / f"{n}.safetensors" for n in ("source", "made", "plain"))
        save_file({f"w.{n}.weight": weight(shape, dtype) for n in names}, source)
        sets = [rf"^w\.{n}\.weight$=sdnq:{n}{settings_text(options, kind)}" for n in names]
        try:
            tensorpress.quantize(source, made, layout="comfy", preset="none", set=sets, conv=True, embedding=True, quiet=True, threads=1)
        except tensorpress.UsageError as e:
            counts["refused"] += len(names)
            print("refused:", kind, options, e)
            return
        tensors = load_file(made)
        for out, flag in ((F32, "f32"), (BF16, "bf16")):
            tensorpress.dequantize(made, plain, dtype=flag, force=True, quiet=True, threads=1)
            restored = load_file(plain)
            for n in names:
                own = {k.rpartition(".")[2]: t for k, t in tensors.items() if k.startswith(f"w.{n}.")}
                scheme = parse(own["comfy_quant"], own, n)
                text = bytes(own["comfy_quant"].tolist()).decode()
                same = json.dumps(scheme.json()) == text
                want = restored[f"w.{n}.weight"]
                found = decode(scheme, own, out, arithmetic=out)
                if same and found.shape == want.shape and torch.equal(bits(found), bits(want)):
                    counts["equal"] += 1
                    if out is F32:
                        assert torch.equal(decode(scheme, own, BF16), want.to(BF16))
                else:
                    counts["DIFFERENT"] += 1
                    print("different:", kind, n, flag, options)


def compiled(kind, options, dtype, counts, names, backend):
    """Some dtypes without a graph break, beside what is not compiled."""
    from sdnq.quantizer import sdnq_quantize_layer_weight

    cls, shape = KINDS[kind]
    for name in names:
        try:
            _, stored = sdnq_quantize_layer_weight(weight(shape, F32), layer_class_name=cls, weights_dtype=name, torch_dtype=dtype, **options)
        except Exception:
            counts["sdnq fails"] += 1
            continue
        tensors = {ours: stored[theirs].contiguous() for ours, theirs in SDNQ_NAMES.items() if stored.get(theirs) is not None}
        settings = DEFAULTS | options | {"weights_dtype": name, "use_quantized_matmul_conv": "use_quantized_matmul" in options}
        scheme = scheme_for(settings, tensors, shape, kind, dtype, f"{kind}.{name}")
        torch._dynamo.reset()
        try:
            found = torch.compile(lambda t, s=scheme: decode(s, t, F32), fullgraph=True, backend=backend)(tensors)
        except torch._dynamo.exc.TorchDynamoException as e:
            counts["BROKEN"] += 1
            print("broken:", kind, name, options, str(e).splitlines()[0])
            continue
        want = decode(scheme, tensors, F32)
        if torch.equal(found, want):
            counts["equal"] += 1
        else:
            worst = float((found - want).abs().max() / want.abs().max())
            counts["near" if worst < 0.02 else "DIFFERENT"] += 1
            counts["worst"] = max(counts["worst"], worst)
            if worst >= 0.02:
                print("different:", kind, name, options, worst)


def compiled_case(kind, options, dtype, counts):
    """Every thirtieth dtype, by the default compiler."""
    compiled(kind, options, dtype, counts, dtypes_of(options)[3::29], "inductor")


def graph_case(kind, options, dtype, counts):
    """One dtype, another in each case, as one graph that nothing compiles further."""
    names = dtypes_of(options)
    case = list(OPTIONS.values()).index((options, dtype)) * len(KINDS) + list(KINDS).index(kind)
    compiled(kind, options, dtype, counts, [names[case % len(names)]], "eager")


def main():
    parts = {"sdnq": sdnq_case, "program": program_case, "compiled": compiled_case, "graph": graph_case}
    asked = [a for a in sys.argv[1:] if a in parts] or list(parts)
    labels = [a for a in sys.argv[1:] if a not in parts] or list(OPTIONS)
    failed = False
    for part in asked:
        kinds = ["linear", "conv2d"] if part == "compiled" else list(KINDS)
        print(f"\n## {part}\n\n| options | layers | result |\n|---|---|---|")
        for label in labels:
            options, dtype = OPTIONS[label]
            counts = collections.Counter()
            for kind in kinds:
                if kind == "embedding" and options.get("group_size") == -2:
                    continue  # sdnq looks its scale up by entry, and fails
                parts[part](kind, options, dtype, counts)
            worst = counts.pop("worst", 0)
            text = ", ".join(f"{n} {what}" for what, n in counts.items())
            print(f"| {label} | {sum(counts.values())} | {text}{f', at most {worst:.1g} off' if worst else ''} |", flush=True)
            failed = failed or counts["DIFFERENT"] + counts["BROKEN"] > 0
    sys.exit(failed)


main()
