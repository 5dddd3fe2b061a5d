#!/usr/bin/env python3
"""Whole files by convert_to_quant --simple, for byte comparison.

    python conformance/golden/make_ctq.py [FOLDER]

writes FOLDER/*.src.safetensors, some outputs and FOLDER/ctq.tsv (default
FOLDER: testdata/golden/ctq of this repository). It only runs the command `ctq`
of the Python environment that runs this script.
"""
import concurrent.futures
import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import save_file

BF, HALF, F32 = torch.bfloat16, torch.float16, torch.float32

# (name of a kept output or "", input, options after `-i IN -o OUT --device cpu`)
SIMPLE = "--simple"
META = "--save-quant-metadata"
RUNS = [
    ("", "none", f"{SIMPLE}"),
    ("", "none", f"{SIMPLE} {META}"),
    ("", "none", f"{SIMPLE} --scaling_mode row"),
    ("", "none", f"{SIMPLE} --scaling_mode row {META}"),
    ("", "none", f"{SIMPLE} --scaling_mode block --block_size 32"),
    ("", "none", f"{SIMPLE} --full_precision_matrix_mult"),
    ("", "none", f"{SIMPLE} --full_precision_matrix_mult {META}"),
    ("", "none", f"{SIMPLE} --input_scale"),
    ("", "none", f"{SIMPLE} --low-memory"),
    ("", "none", f"{SIMPLE} --heur"),
    ("", "none", f"{SIMPLE} --output-dtype float16"),
    ("", "none", f"{SIMPLE} --exclude-layers edge"),
    ("", "none", f"{SIMPLE} --exclude-layers edge --preserve-layers edge_f32"),
    ("", "none", f"{SIMPLE} --int8"),
    ("", "none", f"{SIMPLE} --int8 --scaling_mode tensor"),
    ("", "none", f"{SIMPLE} --int8 --scaling_mode tensor {META}"),
    ("", "none", f"{SIMPLE} --int8 --scaling_mode row"),
    ("", "none", f"{SIMPLE} --int8 --scaling_mode row {META}"),
    ("", "none", f"{SIMPLE} --int8 --scaling_mode row --exclude-layers edge"),
    ("", "none", f"{SIMPLE} --custom-layers .* --custom-type mxfp8 --custom-simple"),
    ("", "none", f"{SIMPLE} --custom-layers .* --custom-type nvfp4 --custom-simple"),
    ("", "small", f"{SIMPLE} --custom-layers .* --custom-type mxfp8 --custom-simple {META}"),
    ("", "small", f"{SIMPLE} --custom-layers .* --custom-type nvfp4 --custom-simple {META}"),
    ("", "zero", f"{SIMPLE} --scaling_mode block --block_size 32 {META}"),
    ("", "zero", f"{SIMPLE} --int8 --scaling_mode row --convrot {META}"),
    ("", "none", f"{SIMPLE} --scaling_mode block --block_size 32 --full_precision_matrix_mult {META}"),
    ("", "none", f"{SIMPLE} --mxfp8"),
    ("", "none", f"{SIMPLE} --nvfp4"),
    # one entry in the source's header
    ("one.fp8", "one", f"{SIMPLE}"),
    ("one.fp8_row", "one", f"{SIMPLE} --scaling_mode row"),
    ("one.fp8_block32", "one", f"{SIMPLE} --scaling_mode block --block_size 32"),
    ("one.int8", "one", f"{SIMPLE} --int8 --scaling_mode tensor"),
    ("one.int8_row", "one", f"{SIMPLE} --int8 --scaling_mode row"),
    ("one.int8_block32", "one", f"{SIMPLE} --int8 --scaling_mode block --block_size 32"),
    ("one.int8_row_convrot64", "one", f"{SIMPLE} --int8 --scaling_mode row --convrot --convrot-group-size 64"),
    ("one.mxfp8", "one", f"{SIMPLE} --custom-layers .* --custom-type mxfp8 --custom-simple"),
    ("one.nvfp4", "one", f"{SIMPLE} --custom-layers .* --custom-type nvfp4 --custom-simple"),
    # no entry in the source, the quantization's in the result
    ("small.fp8_meta", "small", f"{SIMPLE} {META}"),
    ("small.int8_meta", "small", f"{SIMPLE} --int8 --scaling_mode tensor {META}"),
    ("small.int8_row_meta", "small", f"{SIMPLE} --int8 --scaling_mode row {META}"),
    # special weights, one file each
    *[("", f, f"{SIMPLE}{o}") for f in ("zero", "zero_tiny", "row1", "col1", "dim3", "scalar", "empty")
      for o in ("", " --scaling_mode row", " --int8 --scaling_mode tensor", " --int8 --scaling_mode row")],
    # zeros in blocks, and rotations
    ("", "zero", f"{SIMPLE} --scaling_mode block --block_size 32"),
    ("", "zero", f"{SIMPLE} --int8 --scaling_mode block --block_size 32"),
    ("", "zero", f"{SIMPLE} --int8 --scaling_mode row --convrot"),
    ("", "zero", f"{SIMPLE} --custom-layers .* --custom-type mxfp8 --custom-simple"),
    ("rotate.int8_row_convrot", "rotate", f"{SIMPLE} --int8 --scaling_mode row --convrot"),
    ("", "rotate", f"{SIMPLE} --int8 --scaling_mode row --convrot --convrot-group-size 16"),
    ("rotate.int8_row_convrot_fpmm", "rotate", f"{SIMPLE} --int8 --scaling_mode row --convrot --full_precision_matrix_mult"),
]


def noise(rng, rows, cols):
    return rng.normal(0, 0.03, (rows, cols)) * np.exp(rng.normal(0, 0.8, (rows, 1)))


def edge(rng):
    x = noise(rng, 24, 96)
    x[0] = 0
    x[1] = -0.0
    x[2, ::2], x[2, 1::2] = 0.0, -0.0
    x[3] = rng.integers(-9, 10, 96) * 2.0 ** -149  # subnormal (zero in the 16-bit dtypes)
    x[4] = rng.integers(-9, 10, 96) * 2.0 ** -130
    x[5] = rng.integers(-9, 10, 96) * 2.0 ** -24
    x[6] = rng.normal(0, 1e-13, 96)  # below the floor of 1e-12
    x[7, 11] = 9.5  # an outlier
    x[8] = np.arange(96) / 2 - 24  # ties
    x[8, 0] = 127
    x[9] = 2.0 ** rng.integers(-20, 3, 96)
    x[10, :32] = 0
    x[11, 32:64] = -0.0
    x[12] = 0
    x[12, 95] = -1e-3
    x[13] = 0.25
    x[14] = rng.integers(-448 * 4, 448 * 4 + 1, 96) / 4
    x[15] = -x[14]
    x[16:] *= 2.0 ** rng.integers(-30, 1, (8, 1))
    return x


def t(x, dtype):
    v = torch.from_numpy(np.asarray(x, dtype=np.float32))
    return v.to(dtype).contiguous()


def sources():
    rng = np.random.default_rng(41)
    e = edge(rng)
    none = {
        "blocks.0.attn.to_q.weight": t(noise(rng, 256, 384), BF),
        "blocks.0.attn.to_k.weight": t(noise(rng, 20, 40), HALF),
        "blocks.0.attn.to_v.weight": t(noise(rng, 33, 65), F32),
        "blocks.0.row.weight": t(noise(rng, 1, 64), BF),
        "blocks.0.column.weight": t(noise(rng, 40, 1), F32),
        "blocks.0.edge_f32.weight": t(e, F32),
        "blocks.0.edge_bf16.weight": t(e, BF),
        "blocks.0.edge_f16.weight": t(e, HALF),
        "blocks.0.even.weight": t(noise(rng, 64, 96), F32),
        # what is copied: 1-D, 3-D and 4-D weights, other names, other dtypes
        "blocks.0.norm.weight": t(rng.normal(1, 0.1, 40), F32),
        "blocks.0.norm.bias": t(rng.normal(0, 0.1, 40), F32),
        "conv.weight": t(rng.normal(0, 0.1, (3, 4, 3, 3)), HALF),
        "conv.bias": t(rng.normal(0, 0.1, 3), HALF),
        "conv1.weight": t(rng.normal(0, 0.1, (3, 4, 5)), F32),
        "pos_embed": t(rng.normal(0, 0.1, (6, 10)), F32),
        "step": torch.tensor(7, dtype=torch.int64),
        "embed.weight_like": t(rng.normal(0, 0.1, (4, 4)), F32),
    }
    one = {
        "a.weight": t(noise(rng, 64, 64), BF),
        "b.weight": t(noise(rng, 32, 128), F32),
        "c.weight": t(noise(rng, 32, 64), HALF),
        "norm.weight": t(rng.normal(1, 0.1, 16), BF),
    }
    small = {
        "a.weight": t(noise(rng, 20, 40), BF),
        "model.b\"\\\u00e9.weight": t(noise(rng, 16, 32), F32),
        "norm.weight": t(rng.normal(1, 0.1, 16), BF),
    }
    out = {"none": (none, None), "one": (one, {"format": "pt"}), "small": (small, None)}
    plain = t(noise(rng, 8, 32), BF)
    for name, w in {
        "zero": t(np.zeros((256, 128)), BF),
        "zero_tiny": t(np.zeros((8, 32)), F32),
        "row1": t(noise(rng, 1, 256), F32),
        "col1": t(noise(rng, 256, 1), BF),
        "dim3": t(rng.normal(0, 0.1, (4, 8, 16)), BF),
        "scalar": t(noise(rng, 1, 1), F32),
        "empty": t(np.zeros((0, 16)), F32),
    }.items():
        out[name] = ({"it.weight": w, "plain.weight": plain}, None)
    out["rotate"] = ({
        "a.weight": t(noise(rng, 12, 256), BF),
        "b.weight": t(noise(rng, 12, 320), BF),
        "c.weight": t(noise(rng, 12, 40), BF),
        "d.weight": t(noise(rng, 12, 512), HALF),
    }, None)
    return out


def run(ctq, src, out, options):
    cmd = [str(ctq), "-i", str(src), "-o", str(out), "--device", "cpu", *options.split()]
    p = subprocess.run(cmd, capture_output=True, text=True, env=None)
    return p.returncode, p.stdout + p.stderr


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden" / "ctq"
    folder.mkdir(parents=True, exist_ok=True)
    ctq = pathlib.Path(sys.executable).parent / "ctq"
    for name, (tensors, metadata) in sources().items():
        path = folder / f"{name}.src.safetensors"
        save_file(tensors, path, metadata=metadata)
        path.chmod(0o644)

    def job(i):
        keep, source, options = RUNS[i]
        out = tmp / f"{i}.safetensors"
        code, text = run(ctq, folder / f"{source}.src.safetensors", out, options)
        if not out.exists():
            errors = re.findall(r"^(\w*(?:Error|Exception)[^\n]*)", text, re.M)
            return f"{source}\t{options}\tstatus={code}\t-\t{errors[-1] if errors else ''}"
        data = out.read_bytes()
        kept = "-"
        if keep:
            kept = keep + ".safetensors"
            (folder / kept).write_bytes(data)
        return f"{source}\t{options}\t{hashlib.sha256(data).hexdigest()}\t{kept}\t{len(data)}"

    with tempfile.TemporaryDirectory() as d:
        tmp = pathlib.Path(d)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            rows = list(pool.map(job, range(len(RUNS))))
    head = [
        f"# convert_to_quant {version('convert-to-quant')}, comfy-kitchen {version('comfy-kitchen')}, torch {torch.__version__}, safetensors {version('safetensors')}, cpu capability {torch.backends.cpu.get_cpu_capability()}",
        "# ctq -i INPUT.src.safetensors -o OUTPUT --device cpu OPTIONS",
        "# input options sha256-of-the-file|status=N kept-output size|error",
    ]
    (folder / "ctq.tsv").write_text("\n".join(head + rows) + "\n")


def version(name):
    from importlib.metadata import version as v
    return v(name)


if __name__ == "__main__":
    main()
