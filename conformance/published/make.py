#!/usr/bin/env python3
"""Small models as other programs publish them quantized, and the hashes of the values
that these programs restore.

    PYTHON=… python3 conformance/published/make.py [--out FOLDER]

writes FOLDER/NAME/{model.safetensors,config.json} and FOLDER/published.tsv (default
FOLDER: testdata/golden/published of this repository). Fields: model, tensor, hash of the
values in binary32. $PYTHON is a Python with what requirements.txt pins; without it the
script makes a virtual environment in conformance/published/.venv (or $VENV) first.

Codes are random words: whatever they hold is a weight. What restores them is the code of
the program that owns the format, on the CPU.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
INSIDE = "TENSORPRESS_PUBLISHED"


def python():
    """A Python that has the programs."""
    if given := os.environ.get("PYTHON"):
        return given
    venv = pathlib.Path(os.environ.get("VENV", HERE / ".venv"))
    if not (venv / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [str(venv / "bin/python"), "-m", "pip", "install"]
        subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)
        # of these only what takes weights apart is used, which needs nothing compiled
        alone = [*pip, "--no-deps", "--no-build-isolation", "-r", str(HERE / "requirements-alone.txt")]
        subprocess.run(alone, check=True, env={**os.environ, "BUILD_CUDA_EXT": "0"})
    return str(venv / "bin/python")


if INSIDE not in os.environ:
    os.environ[INSIDE] = "1"
    os.execv(python(), [python(), *sys.argv])

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

F32, F16, BF16, I32 = torch.float32, torch.float16, torch.bfloat16, torch.int32
rng = np.random.default_rng(11)


def words(*shape):
    return torch.from_numpy(rng.integers(-(2**31), 2**31, shape, dtype=np.int64).astype(np.int32))


def scales(*shape, dtype=F16):
    return torch.from_numpy(rng.uniform(0.001, 0.02, shape).astype(np.float32)).to(dtype)


def plain(*shape, dtype=F16):
    return torch.from_numpy(rng.normal(0, 1, shape).astype(np.float32)).to(dtype)


def ceil(n, by):
    return -(-n // by)


class Model:
    """Tensors, a config, and the values of layers as their program has them."""

    def __init__(self, config):
        self.config, self.tensors, self.values = config, {}, {}
        self.tensors["norm.weight"] = plain(32)

    def add(self, name, **tensors):
        for end, t in tensors.items():
            self.tensors[f"{name}.{end}"] = t.contiguous()


def gptq_layer(model, name, columns, rows, bits, group, dtype=F16, order=False, sym=False, less=True):
    groups = 1 if group == -1 else ceil(columns, group)
    size = columns if group == -1 else group
    packed = ceil(columns * bits, 32) if bits != 3 else ceil(columns, 32) * 3
    zeros = words(groups, ceil(rows * bits, 32))
    if sym:
        one = (1 << (bits - 1)) - less
        text = sum(one << (bits * i) for i in range(32))
        row = np.frombuffer(int(text).to_bytes(bits * 4, "little"), dtype=np.int32)
        zeros = torch.from_numpy(np.tile(row, (groups, ceil(rows * bits, 32) // len(row) + 1))[:, : ceil(rows * bits, 32)].copy())
    index = torch.arange(columns, dtype=I32) // size
    if order:
        index = index[torch.from_numpy(rng.permutation(columns))]
    model.add(name, qweight=words(packed, rows), qzeros=zeros, scales=scales(groups, rows, dtype=dtype), g_idx=index)
    model.tensors[f"{name}.bias"] = plain(rows)


def gptq_values(model, path):
    from gptqmodel.utils.model_dequant import convert_gptq_file

    restored = convert_gptq_file(path, F32, model.config["quantization_config"], "cpu")
    model.values = {k: v for k, v in restored.items() if k.endswith(".weight") and k not in model.tensors}


def part_of(package, file):
    """A module of a package that cannot be imported as a whole."""
    folder = importlib.util.find_spec(package).submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location(file.replace("/", "_"), f"{folder}/{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def awq_values(model, _):
    dequantize = part_of("awq", "utils/packing_utils").dequantize_gemm
    t = model.tensors
    for name in [k[: -len(".qweight")] for k in t if k.endswith(".qweight")]:
        group = t[f"{name}.qweight"].shape[0] // t[f"{name}.scales"].shape[0]
        w = dequantize(t[f"{name}.qweight"], t[f"{name}.qzeros"], t[f"{name}.scales"].to(F32), 4, group)
        model.values[f"{name}.weight"] = w.t()


def quantization(**config):
    return {"model_type": "llama", "torch_dtype": "float16", "quantization_config": config}


def gptq_models():
    for bits in (2, 3, 4, 8):
        model = Model(quantization(quant_method="gptq", bits=bits, group_size=32, desc_act=False, sym=False))
        gptq_layer(model, "a", 96, 64, bits, 32)
        gptq_layer(model, "b", 128, 32, bits, 32, dtype=BF16)
        gptq_layer(model, "c", 64, 96, bits, 32, dtype=F32)
        yield f"gptq_{bits}", model, gptq_values
    model = Model(quantization(quant_method="gptq", bits=4, group_size=32, desc_act=True, sym=False, checkpoint_format="gptq_v2"))
    gptq_layer(model, "a", 96, 64, 4, 32, order=True)
    gptq_layer(model, "b", 64, 40, 4, 32)
    yield "gptq_order", model, gptq_values
    model = Model(quantization(quant_method="gptq", bits=4, group_size=-1, desc_act=False, sym=True))
    gptq_layer(model, "a", 96, 64, 4, -1, sym=True)
    yield "gptq_whole", model, gptq_values


def awq_models():
    model = Model(quantization(quant_method="awq", bits=4, group_size=32, version="gemm", zero_point=True))
    for name, columns, rows, dtype in (("a", 96, 64, F16), ("b", 64, 40, BF16), ("c", 128, 32, F32)):
        model.add(name, qweight=words(columns, rows // 8), qzeros=words(columns // 32, rows // 8), scales=scales(columns // 32, rows, dtype=dtype))
    yield "awq", model, awq_values


def models():
    yield from gptq_models()
    yield from awq_models()


def digest(values):
    values = values.detach().to(F32).contiguous()
    shape = ",".join(str(n) for n in values.shape)
    return f"F32:{shape}:{hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=HERE.parents[1] / "testdata/golden/published", type=pathlib.Path)
    out = parser.parse_args().out
    lines = []
    for name, model, values in models():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "model.safetensors"
        save_file(model.tensors, path, metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(model.config, indent=1) + "\n")
        values(model, path)
        lines += [f"{name}\t{tensor}\t{digest(v)}\n" for tensor, v in sorted(model.values.items())]
    (out / "published.tsv").write_text("# model, tensor, hash of the values in binary32\n" + "".join(lines))


main()
