#!/usr/bin/env python3
"""Writes testdata/importance: the same moments in each of the files that are read.

    python conformance/importance/make_files.py MODEL

MODEL is the folder of sentence-transformers' all-MiniLM-L6-v2. Moments of the layers of
testdata/minilm.safetensors are taken by tools/moments.py on calibration.txt; the
importance matrices are written by the package gguf, as llama-imatrix does, and by the
layout of the older files. Counts are powers of two, so that all mean the same numbers.
"""

import pathlib
import struct
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
TO = ROOT / "testdata/importance"
COUNT = 1024


def main():
    TO.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "moments.safetensors"
        subprocess.run(
            [sys.executable, ROOT / "tools/moments.py", sys.argv[1], HERE / "calibration.txt", path], check=True
        )
        moments = {name: x for name, x in load_file(path).items() if name.startswith("encoder.layer.0.")}
    with safe_open(ROOT / "testdata/minilm.safetensors", "numpy") as f:  # whose last layer is cut to some columns
        for name in moments:
            columns = f.get_slice(name.removesuffix(".input_moment") + ".weight").get_shape()[1]
            moments[name] = moments[name][:columns].copy()
    save_file(moments, TO / "moments.safetensors", metadata={"samples": "16"})

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, 1)
    matrix = {}
    for name, x in sorted(moments.items()):
        matrix[names.get_name(name.removesuffix(".input_moment")) + ".weight"] = x

    writer = gguf.GGUFWriter(TO / "imatrix.gguf", "", use_temp_file=False)
    writer.kv_data[0].clear()  # an importance matrix names no architecture
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["calibration.txt"])
    writer.add_uint32("imatrix.chunk_count", 2)
    writer.add_uint32("imatrix.chunk_size", COUNT // 2)
    for name, x in matrix.items():
        writer.add_tensor(name + ".in_sum2", (x * COUNT).astype(np.float32)[None])
        writer.add_tensor(name + ".counts", np.array([[COUNT]], np.float32))
        writer.add_tensor(name + ".in_sum", np.zeros((1, x.size), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    with open(TO / "imatrix.dat", "wb") as f:
        f.write(struct.pack("<i", len(matrix)))
        for name, x in matrix.items():
            f.write(struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 2, x.size))
            f.write((x * 2).astype(np.float32).tobytes())
        f.write(struct.pack("<ii", 2, len("calibration.txt")) + b"calibration.txt")


if __name__ == "__main__":
    main()
