#!/usr/bin/env python3
"""Times decoding, and forward passes, beside sdnq's own dequantizer and plain bf16. README.md beside this script says how."""
import argparse
import time

import common

common.start()

import logging

import torch
from torch import nn

logging.disable(logging.WARNING)
from sdnq.quantizer import sdnq_quantize_layer_weight

from tensorpress.torch import decode, swap
from tensorpress.torch.config import DEFAULTS, scheme_for
from tensorpress.torch.scheme import SDNQ_NAMES

CASES = {
    "uint4, groups of 64": {"weights_dtype": "uint4", "group_size": 64},
    "int8 rows": {"weights_dtype": "int8", "group_size": -1},
    "uint5, groups of 128": {"weights_dtype": "uint5", "group_size": 128},
    "float6_e3m2fn": {"weights_dtype": "float6_e3m2fn", "group_size": 64},
    "float8_e4m3fn": {"weights_dtype": "float8_e4m3fn", "group_size": 64},
    "uint4, codebook": {"weights_dtype": "uint4", "group_size": 64, "use_codebook": True, "codebook_steps": 1},
    "uint4, rank 32": {"weights_dtype": "uint4", "group_size": 64, "use_svd": True, "svd_steps": 1},
    "uint4, rotation of 256": {"weights_dtype": "uint4", "group_size": 64, "use_hadamard": True},
}


def clock(device):
    if device != "cpu":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()  # other programs' work does not count


def measure(call, device, rounds):
    call()
    times = []
    for _ in range(rounds):
        start = clock(device)
        call()
        times.append(clock(device) - start)
    return min(times) * 1e3


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--size", type=int, default=3072, help="rows and columns")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--tokens", type=int, default=256, help="rows of the input of a forward pass")
    p.add_argument("--device", default="cpu")
    a = p.parse_args()
    n, device = a.size, a.device
    torch.manual_seed(1)
    w = torch.randn(n, n) * 0.05
    x = torch.randn(a.tokens, n, dtype=torch.bfloat16, device=device)
    low = w.to(device, torch.bfloat16)
    plain = measure(lambda: nn.functional.linear(x, low), device, a.rounds)
    print(f"{n} × {n}, milliseconds, on one thread; plain bf16 forward of {a.tokens} rows: {plain:.1f}\n")
    print("| layer | f32: sdnq | ours | bf16: sdnq | ours | forward: sdnq | ours |\n|---|---|---|---|---|---|---|")
    for label, options in CASES.items():
        d, stored = sdnq_quantize_layer_weight(w, layer_class_name="Linear", torch_dtype=torch.bfloat16, **options)
        stored = {k: t.to(device) for k, t in stored.items() if t is not None}
        tensors = {ours: stored[theirs] for ours, theirs in SDNQ_NAMES.items() if theirs in stored}
        scheme = scheme_for(DEFAULTS | options, tensors, (n, n), "linear", torch.bfloat16)
        with torch.device("meta"):
            module = swap(nn.Linear(n, n, bias=False), scheme, tensors, int8_matmul=False)
        row = []
        for dtype in (torch.float32, torch.bfloat16):
            row.append(measure(lambda: d(**stored, skip_compile=True, dtype=dtype), device, a.rounds))
            row.append(measure(lambda: decode(scheme, tensors, dtype), device, a.rounds))
        row.append(measure(lambda: nn.functional.linear(x, d(**stored, skip_compile=True)), device, a.rounds))
        row.append(measure(lambda: module(x), device, a.rounds))
        print(f"| {label} | {' | '.join(f'{t:.1f}' for t in row)} |", flush=True)
        if label == "int8 rows":
            module.int8_matmul = True
            row = measure(lambda: module(x), device, a.rounds)
            print(f"| {label}, multiplied in int8 | | | | | | {row:.1f} |", flush=True)


main()
