#!/usr/bin/env python3
"""What --search and --importance do to the sentence embeddings of all-MiniLM-L6-v2.

    python conformance/importance/minilm.py MODEL [--binary tensorpress] [--flags FLAGS] …

MODEL is the folder of sentence-transformers' all-MiniLM-L6-v2. Moments are taken by
tools/moments.py on the 16 sentences of calibration.txt; what is measured is the mean of
1 - cosine between the embeddings of the 50 sentences of test.txt by the plain weights
and by those that tensorpress restores from what it wrote. FLAGS, in quotes, are a row of
the table; without any, rows are those of docs/importance.md.
"""

import argparse
import pathlib
import shlex
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModel, AutoTokenizer

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
ROWS = [
    "--dtype uint4 --group-size 64",
    "--dtype uint3 --group-size 32",
    "--dtype uint4 --group-size 32 --scale-dtype uint8",
    "--dtype uint4 --group-size 64 --hadamard",
    "--dtype uint4 --group-size 64 --svd-rank 32",
    "--layout comfy --dtype nvfp4",
    "--layout comfy --dtype awq_w4a16",
]


def embed(folder, tokens):
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None].float()
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--flags", action="append", help="a row, in quotes; repeatable")
    parser.add_argument("--binary", help="a tensorpress that is already built")
    args = parser.parse_args()
    tokens = AutoTokenizer.from_pretrained(args.model)(
        (HERE / "test.txt").read_text(encoding="utf-8").splitlines(), padding=True, return_tensors="pt"
    )
    plain = embed(args.model, tokens)
    with tempfile.TemporaryDirectory() as folder:
        tmp = pathlib.Path(folder)
        binary = args.binary
        if binary is None:
            binary = str(tmp / "tensorpress")
            subprocess.run(["go", "build", "-o", binary, "./cmd/tensorpress"], cwd=ROOT, check=True)
        moments = tmp / "moments.safetensors"
        subprocess.run(
            [sys.executable, ROOT / "tools/moments.py", args.model, HERE / "calibration.txt", moments], check=True
        )

        def loss(flags):
            subprocess.run(
                [binary, "quantize", args.model, tmp / "small", "--force", "-q", *flags],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            subprocess.run(
                [binary, "dequantize", tmp / "small", tmp / "back", "--force", "-q"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            return (1 - (plain * embed(tmp / "back", tokens)).sum(1)).mean().item()

        print("| flags | plain | --search | --search --importance |")
        print("|---|---|---|---|")
        for row in args.flags or ROWS:
            flags = shlex.split(row)
            ways = ([], ["--search"], ["--search", "--importance", moments])
            print(f"| {row} | " + " | ".join(f"{loss(flags + way):.4f}" for way in ways) + " |", flush=True)


if __name__ == "__main__":
    main()
