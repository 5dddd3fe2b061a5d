#!/usr/bin/env python3
"""Measures what load and a forward pass take at most. README.md beside this script says how."""
import argparse
import os
import pathlib
import tempfile

import common

common.start()

import torch
from safetensors.torch import save_file
from torch import nn

import tensorpress
from tensorpress.torch import load


def peak():
    """Memory of the process at most since it was asked last, in MiB: of its own, and of files' pages."""
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def reset():
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return peak()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--layers", type=int, default=12)
    p.add_argument("--size", type=int, default=2048)
    p.add_argument("--dtype", default="uint4")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, made = os.path.join(folder, "source.safetensors"), os.path.join(folder, "made.safetensors")
        save_file({f"{i}.weight": (torch.randn(a.size, a.size) * 0.02).bfloat16() for i in range(a.layers)}, source)
        tensorpress.quantize(source, made, layout="comfy", preset="none", dtype=f"sdnq:{a.dtype}", group_size=64, quiet=True)
        file, layer = os.path.getsize(made) / 2**20, a.size**2 * 2 / 2**20
        with torch.device("meta"):
            model = nn.Sequential(*(nn.Linear(a.size, a.size, bias=False) for _ in range(a.layers)))
        nn.functional.linear(torch.zeros(8, a.size).bfloat16(), torch.zeros(a.size, a.size).bfloat16())  # what torch itself takes
        before = reset()
        load(model, made)
        for t in model.state_dict().values():
            t.sum()  # as if it had been read: pages of files count when they are touched
        loaded = peak() - before
        model(torch.zeros(8, a.size, dtype=torch.bfloat16))
        ran = peak() - before
    print(f"{a.layers} layers of {a.size} × {a.size} in {a.dtype}: a file of {file:.1f} MiB, a layer in bf16 {layer:.1f} MiB")
    print(f"load: {loaded:.1f} MiB at most; with a forward pass: {ran:.1f} MiB")


main()
