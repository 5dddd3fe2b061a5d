#!/usr/bin/env python3
"""Compares internal/importance/llamacpp.go with the names that llama.cpp's converter gives.

    python conformance/importance/names.py

Needs the package gguf. Every row has to be what some architecture of llama.cpp's calls
the layer; numbers are tried for # and left out for @, whose experts lie in one tensor.
"""

import pathlib
import re
import sys

import gguf

TABLE = pathlib.Path(__file__).parents[2] / "internal/importance/llamacpp.go"
BEGINNINGS = ["", "model.", "transformer.", "gpt_neox.", "distilbert.", "bert."]


def main():
    maps = [gguf.get_tensor_name_map(arch, 4) for arch in gguf.MODEL_ARCH]
    wrong = rows = 0
    for model, theirs in re.findall(r'"(\S+) = (\S+)",', TABLE.read_text(encoding="utf-8")):
        rows += 1
        name, want = model.replace("#", "2").replace(".@.", "."), theirs.replace("#", "2")
        if not any(m.get_name(before + name) == want for m in maps for before in BEGINNINGS):
            wrong += 1
            print(f"{model} = {theirs}: llama.cpp has no such name")
    print(f"{rows} rows, {wrong} that llama.cpp does not have")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
