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
    # BF16 holds whatever damaged scales make of a weight
    return {"model_type": "llama", "torch_dtype": "bfloat16", "quantization_config": config}


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


def compressed_values(model, _):
    """With scales in binary32, so that nothing is rounded to those of the file."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    from compressed_tensors.compressors.mx_utils import decompress_mx_scale
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    config = model.config["quantization_config"]
    for group in config["config_groups"].values():
        scheme = QuantizationScheme(targets=group["targets"], weights=QuantizationArgs(**group["weights"]))
        for name in group["targets"]:
            own = {k[len(name) + 1 :]: t for k, t in model.tensors.items() if k.startswith(name + ".")}
            if config["format"] in ("pack-quantized", "int-quantized"):
                own["weight_scale"] = own["weight_scale"].to(F32)
                compressor = BaseCompressor.get_value_from_registry(config["format"])
                values = compressor.decompress(own, scheme)["weight"]
            else:
                codes = own["weight_packed"]
                codes = unpack_fp4_from_uint8(codes, codes.shape[0], codes.shape[1] * 2, dtype=F32)
                scale = own["weight_scale"]
                scale = decompress_mx_scale(scale) if scale.dtype == torch.uint8 else scale
                values = dequantize(codes, scale.to(F32), args=scheme.weights, global_scale=own.get("weight_global_scale"), dtype=F32)
            model.values[f"{name}.weight"] = values


def compressed(kind, **groups):
    return Model(quantization(
        quant_method="compressed-tensors", format=kind, quantization_status="compressed", ignore=["lm_head"],
        config_groups={f"group_{i}": {"targets": [name], "weights": weights} for i, (name, weights) in enumerate(groups.items())},
    ))


def ints(bits, strategy, group=None, symmetric=True):
    return {"num_bits": bits, "type": "int", "strategy": strategy, "group_size": group, "symmetric": symmetric}


def compressed_models():
    layers = {
        "a": (64, 96, ints(4, "group", 32)), "b": (40, 64, ints(4, "group", 32, False)), "c": (24, 100, ints(4, "channel")),
        "d": (32, 64, ints(8, "group", 32)), "e": (24, 96, ints(3, "group", 32, False)), "f": (24, 64, ints(2, "channel", None, False)),
        "g": (16, 64, ints(8, "channel", None, False)), "h": (16, 64, ints(4, "tensor")),
    }
    model = compressed("pack-quantized", **{name: weights for name, (_, _, weights) in layers.items()})
    for i, (name, (rows, columns, w)) in enumerate(layers.items()):
        groups = columns // w["group_size"] if w["group_size"] else 1
        shape = (1,) if w["strategy"] == "tensor" else (rows, groups)
        model.add(name, weight_packed=words(rows, ceil(columns * w["num_bits"], 32)), weight_shape=torch.tensor([rows, columns]),
                  weight_scale=scales(*shape, dtype=(BF16, F16, F32)[i % 3]))
        if not w["symmetric"]:
            model.add(name, weight_zero_point=words(ceil(rows * w["num_bits"], 32), groups))
    yield "pack_quantized", model, compressed_values
    layers = {"a": (24, 64, ints(8, "channel", None, False)), "b": (24, 64, ints(8, "group", 32)), "c": (24, 64, ints(8, "group", 16, False)), "d": (8, 32, ints(8, "tensor", None, False))}
    model = compressed("int-quantized", **{name: weights for name, (_, _, weights) in layers.items()})
    for i, (name, (rows, columns, w)) in enumerate(layers.items()):
        groups = columns // w["group_size"] if w["group_size"] else 1
        shape = (1,) if w["strategy"] == "tensor" else (rows, groups)
        model.add(name, weight=words(rows, columns // 4).view(torch.int8), weight_scale=scales(*shape, dtype=(BF16, F32)[i % 2]))
        if not w["symmetric"]:
            model.add(name, weight_zero_point=words(*shape).to(torch.int8))
    yield "int_quantized", model, compressed_values
    fours = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True}
    model = compressed("nvfp4-pack-quantized", a=fours, b=fours)
    for name, rows, columns in (("a", 64, 96), ("b", 17, 32)):
        model.add(name, weight_packed=words(rows, columns // 8).view(torch.uint8), weight_global_scale=torch.tensor([2701.5]), input_global_scale=torch.tensor([100.0]),
                  weight_scale=torch.from_numpy(rng.uniform(1, 448, (rows, columns // 16)).astype(np.float32)).to(torch.float8_e4m3fn))
    yield "nvfp4_packed", model, compressed_values
    fours = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "symmetric": True}
    model = compressed("mxfp4-pack-quantized", a=fours)
    model.add("a", weight_packed=words(24, 12).view(torch.uint8), weight_scale=powers(24, 3))
    yield "mxfp4_packed", model, compressed_values


def powers(*shape):
    return torch.from_numpy(rng.integers(100, 130, shape).astype(np.uint8))


def experts_values(model, _):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    for name in [k[: -len("_blocks")] for k in model.tensors if k.endswith("_blocks")]:
        model.values[name] = convert_moe_packed_tensors(model.tensors[name + "_blocks"], model.tensors[name + "_scales"], dtype=F32)


def mxfp4_models():
    model = Model({**quantization(quant_method="mxfp4", modules_to_not_convert=["lm_head"]), "architectures": ["GptOssForCausalLM"]})
    for name, rows, blocks in (("gate_up_proj", 96, 3), ("down_proj", 64, 2)):
        name = "model.layers.0.mlp.experts." + name
        model.tensors[name + "_blocks"] = words(3, rows, blocks, 4).view(torch.uint8)
        model.tensors[name + "_scales"] = powers(3, rows, blocks)
        model.tensors[name + "_bias"] = plain(3, rows, dtype=BF16)
    yield "mxfp4_experts", model, experts_values
    model = Model({**quantization(quant_method="fp8", weight_block_size=[128, 128], scale_fmt="ue8m0"), "expert_dtype": "fp4"})
    for name, rows, columns in (("layers.0.ffn.experts.0.w1", 48, 96), ("layers.0.ffn.experts.0.w2", 32, 64)):
        model.add(name, weight=words(rows, columns // 8).view(torch.int8), scale=powers(rows, columns // 32).view(torch.float8_e8m0fnu))
    name = "layers.0.attn.wq_a"
    codes = torch.from_numpy(rng.normal(0, 30, (128, 256)).astype(np.float32)).to(torch.float8_e4m3fn)
    model.add(name, weight=codes, scale=powers(1, 2).view(torch.float8_e8m0fnu))
    yield "mxfp4_rows", model, fp8_values


def fp8_values(model, _):
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    for name in [k[: -len(".scale")] for k in model.tensors if k.endswith(".scale")]:
        t = model.tensors
        model.values[f"{name}.weight"] = Fp8Dequantize(None)._dequantize_one(t[f"{name}.weight"], t[f"{name}.scale"], F32)


def modelopt_values(model, _):
    from modelopt.torch.quantization.qtensor import NVFP4QTensor

    for name in [k[: -len(".weight_scale_2")] for k in model.tensors if k.endswith(".weight_scale_2")]:
        codes, t = model.tensors[f"{name}.weight"], model.tensors
        packed = NVFP4QTensor(torch.Size((codes.shape[0], codes.shape[1] * 2)), F32, codes)
        model.values[f"{name}.weight"] = packed.dequantize(
            dtype=F32, scale=t[f"{name}.weight_scale"], double_scale=t[f"{name}.weight_scale_2"], block_sizes={-1: 16})


def modelopt_models():
    model = Model(quantization(quant_method="modelopt", quant_algo="NVFP4", ignore=["lm_head"], producer={"name": "modelopt"}))
    for name, rows, columns in (("a", 128, 64), ("b", 17, 32)):
        model.add(name, weight=words(rows, columns // 8).view(torch.uint8), weight_scale_2=torch.tensor(0.00037), input_scale=torch.tensor(0.01),
                  weight_scale=torch.from_numpy(rng.uniform(1, 448, (rows, columns // 16)).astype(np.float32)).to(torch.float8_e4m3fn))
    yield "modelopt_nvfp4", model, modelopt_values


def bitsandbytes_values(model, _):
    import bitsandbytes.functional as functional

    for key in [k for k in model.tensors if k.endswith(".SCB")]:
        name = key[: -len(".SCB")]
        model.values[f"{name}.weight"] = functional.int8_vectorwise_dequant(model.tensors[f"{name}.weight"], model.tensors[key])
    for key in [k for k in model.tensors if "quant_state" in k]:
        name = key[: key.index(".weight.quant_state")]
        parts = {k[len(name) + 1 :]: t for k, t in model.tensors.items() if k.startswith(f"{name}.weight.")}
        state = functional.QuantState.from_dict(parts, torch.device("cpu"))
        state.dtype = F32
        model.values[f"{name}.weight"] = functional.dequantize_4bit(model.tensors[f"{name}.weight"], state)


def bitsandbytes_models():
    import bitsandbytes.functional as functional

    model = Model(quantization(quant_method="bitsandbytes", load_in_8bit=True))
    model.add("a", weight=words(24, 16).view(torch.int8), SCB=scales(24, dtype=F32), weight_format=torch.tensor(0, dtype=torch.uint8))
    yield "bitsandbytes_int8", model, bitsandbytes_values
    model = Model(quantization(quant_method="bitsandbytes", load_in_4bit=True))
    layers = (("a", (64, 96), "nf4", True, 64), ("b", (24, 40), "fp4", True, 64), ("c", (24, 40), "nf4", False, 64), ("d", (3, 33), "fp4", False, 128), ("e", (256, 128), "nf4", True, 64))
    for name, shape, kind, nested, block in layers:
        codes, state = functional.quantize_4bit(plain(*shape, dtype=BF16), blocksize=block, quant_type=kind, compress_statistics=nested)
        model.add(name, weight=codes, **{f"weight.{end}": t for end, t in state.as_dict(packed=True).items()})
    yield "bitsandbytes_4bit", model, bitsandbytes_values


def models():
    yield from gptq_models()
    yield from awq_models()
    yield from compressed_models()
    yield from mxfp4_models()
    yield from modelopt_models()
    yield from bitsandbytes_models()


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
