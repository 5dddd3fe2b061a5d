"""Holds ComfyUI's detection of models to the same answer before and after a
model is quantized, and writes what the detection reads.

detection.py COMFY golden: writes testdata/golden/comfyui/models.tsv.
detection.py COMFY check TENSORPRESS [CASE…]: quantizes every case in every
native format, under its own names and after model.diffusion_model., with the
family's preset, with generic and with none, each with --for comfyui and
without, and compares what detect_unet_config finds; README.md has what came
out. Without --for, none packs what detection reads, so it is left out.

COMFY is a folder with ComfyUI's `comfy` package (see README.md).
"""
import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, sys.argv[1])

import comfy.cli_args

comfy.cli_args.args.cpu = True
import logging

import torch
from safetensors.torch import save_file

import traced

logging.disable(logging.CRITICAL)
ROOT = pathlib.Path(__file__).resolve().parents[2]
FORMATS = ("nvfp4", "mxfp8", "int8_tensorwise", "int8_tensorwise --convrot", "float8_e4m3fn", "float8_e5m2", "convrot_w4a4", "asym_w4a8_int8")
CHOICES = [(preset, app) for preset in ("auto", "generic", "none") for app in ("--for comfyui", "") if app or preset != "none"]
PREFIXES = ("model.diffusion_model.", "model.model.", "net.", "model.")


def golden():
    rows = ["# ComfyUI 0.33.0: for every case the tensors, their shapes, the kind of module that reads a weight (l: linear, e: embedding, -: another) and the sides that detection reads"]
    for case in traced.CASES:
        try:
            tensors = traced.tensors(case)
        except Exception as e:
            print(case, "FAILED", type(e).__name__, str(e)[:200])
            continue
        config, read = traced.trace({k: shape for k, (shape, _) in tensors.items()})
        if config is None:
            print(case, "is not detected")
            continue
        rows.append(f"case\t{case}")
        for name, (shape, kind) in sorted(tensors.items()):
            sides = "".join(c for c in read.get(name, "") if c != "n")
            rows.append("\t".join([name, "x".join(map(str, shape)), kind if name.endswith(".weight") else "-", sides]).rstrip("\t"))
    out = ROOT / "testdata" / "golden" / "comfyui"
    out.mkdir(parents=True, exist_ok=True)
    (out / "models.tsv").write_text("\n".join(rows) + "\n")


def header(path):
    with open(path, "rb") as f:
        head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    return {k: tuple(v["shape"]) for k, v in head.items() if k != "__metadata__"}


def grown(shape):
    """Sizes at which presets quantize."""
    return tuple(4 * n if n <= 512 and len(shape) <= 2 else n for n in shape)


def banded(shape):
    """Sides of 32 to 512 times four."""
    return tuple(4 * n if 32 <= n <= 512 and len(shape) <= 2 else n for n in shape)


def answer(shapes):
    return traced.trace(shapes)[0]


def prefixed(tensors):
    """The same after the prefix that most files have."""
    own = next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), "")
    return {PREFIXES[0] + k.removeprefix(own): v for k, v in tensors.items()}


def variants(case):
    tensors = traced.tensors(case)
    yield tensors, grown
    yield prefixed(tensors), banded


def differences(binary, tensors, size, folder):
    """For every choice that differs what does, and how many layers each has."""
    source, out = os.path.join(folder, "in.safetensors"), os.path.join(folder, "out.safetensors")
    save_file({k: torch.randn(size(shape)).to(torch.bfloat16) for k, (shape, _) in tensors.items()}, source)
    before = answer(header(source))
    if before is None:
        return [], []  # sizes that ComfyUI does not know
    wrong, counts = [], []
    for dtype, (preset, app) in itertools.product(FORMATS, CHOICES):
        run = subprocess.run([binary, "quantize", source, out, "--force", "-q", "--json", "--layout", "comfy", "--dtype", *dtype.split(), "--preset", preset, *app.split()], capture_output=True, text=True)
        counts.append(0)
        choice = (dtype, preset, app)
        if run.returncode:
            wrong.append((*choice, run.stderr.strip()))
            continue
        layers = [layer["name"] for layer in json.loads(run.stdout)["layers"] if layer["action"] == "quantize"]
        counts[-1] = len(layers)
        after = answer(header(out))
        if after != before:
            wrong.append((*choice, {k: (v, (after or {}).get(k)) for k, v in before.items() if (after or {}).get(k) != v}))
        unread = [n for n in layers if tensors[n + ".weight"][1] == "-" or tensors[n + ".weight"][1] == "e" and dtype.split()[0] not in ("int8_tensorwise", "float8_e4m3fn", "float8_e5m2")]
        if unread:
            wrong.append((*choice, "no linear layer: " + ", ".join(unread[:3])))
    return wrong, counts


def check(binary, cases):
    failed = total = 0
    for case in cases or traced.CASES:
        try:
            wrong, counts = [], []
            for tensors, size in variants(case):
                with tempfile.TemporaryDirectory() as folder:
                    w, n = differences(binary, tensors, size, folder)
                wrong, counts = wrong + w, counts + n
        except Exception as e:
            wrong.append((type(e).__name__, str(e)[:200]))
        failed += bool(wrong)
        total += len(counts)
        print("FAIL" if wrong else "ok  ", case, f"{len(counts)} outputs with {min(counts, default=0)} to {max(counts, default=0)} layers quantized", *wrong[:4], sep="  ", flush=True)
    print(f"{total} outputs, {failed} cases differ")
    sys.exit(bool(failed))


if sys.argv[2] == "golden":
    golden()
else:
    check(sys.argv[3], sys.argv[4:])
