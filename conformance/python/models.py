#!/usr/bin/env python3
"""Whole models of transformers, as sdnq and as the program save them, through load. README.md beside this script says how."""
import pathlib
import sys
import tempfile

import common

common.start()

import logging

import torch
import transformers
from sdnq import SDNQConfig
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, T5Config, T5EncoderModel

import tensorpress
from tensorpress.torch import load

logging.disable(logging.WARNING)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256}
MODELS = {
    "llama": lambda: AutoModelForCausalLM.from_config(LlamaConfig(**SIZES)),
    "llama, tied": lambda: AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "gemma3": lambda: AutoModelForCausalLM.from_config(Gemma3TextConfig(**SIZES, num_key_value_heads=2, head_dim=16)),
    "t5": lambda: T5EncoderModel(T5Config(d_model=64, d_ff=128, num_layers=2, num_heads=4, d_kv=16, vocab_size=256, feed_forward_proj="gated-gelu")),
}
LEAST = {"minimum_allowed_numel": 1, "minimum_allowed_channel_size": 1}
SDNQ = {
    "uint4, low rank, embeddings": {"weights_dtype": "uint4", "use_svd": True, "svd_rank": 4, "quant_embedding": True},
    "int8, rotation, matmul": {"weights_dtype": "int8", "use_quantized_matmul": True, "use_hadamard": True},
    "dynamic": {"weights_dtype": "int4", "use_dynamic_quantization": True, "dynamic_loss_threshold": 1e-4},
    "scales in BF16": {"weights_dtype": "uint4", "dequantize_fp32": False},
    "by module": {
        "weights_dtype": "float6_e3m2fn", "modules_dtype_dict": {"int8": ["q_proj"], "minimum_7bit": ["*.mlp*"]},
        "modules_quant_config": {"*.v_proj*": {"group_size": -1, "weights_dtype": "uint4", "use_codebook": True},
                                 "*.o_proj*": {"weights_dtype": "uint4", "scale_dtype": "uint8", "group_size": 16}},
    },
}
PROGRAM = {
    "sdnq layout": {"layout": "sdnq", "dtype": "uint4", "group_size": 16, "embedding": True, "min_numel": 1, "min_channels": 1, "hadamard": True},
    "comfy layout": {"layout": "comfy", "dtype": "sdnq:int8", "group_size": -1, "embedding": True, "preset": "none"},
    "mixed with native": {"layout": "comfy", "dtype": "sdnq:uint4", "preset": "none", "set": [r"q_proj|\.wi_0\.=float8_e4m3fn", r"k_proj|\.wi_1\.=int8_tensorwise", r"norm|embed|shared=keep"]},
}
IDS = torch.arange(24).reshape(2, 12)


def new(name):
    torch.manual_seed(3)
    return MODELS[name]().eval()


def out(model):
    with torch.no_grad():
        return model(input_ids=IDS)[0]


def of_sdnq(folder):
    """What sdnq saves, beside its own modules."""
    failed = False
    for label, options in SDNQ.items():
        new("llama").to(torch.bfloat16).save_pretrained(folder / "source")
        theirs = AutoModelForCausalLM.from_pretrained(folder / "source", dtype=torch.bfloat16, quantization_config=SDNQConfig(**LEAST, **options))
        theirs.save_pretrained(folder / "made")
        ours = new("llama")
        loaded = load(ours, folder / "made", int8_matmul=False)
        equal = 0
        for name in loaded.layers:
            m = theirs.get_submodule(name)
            tensors = {k: getattr(m, k).data for k in ("weight", "scale", "zero_point", "svd_up", "svd_down", "scale_2", "scale_zero_point", "zero_point_scale", "zero_point_2") if getattr(m, k, None) is not None}
            d = m.sdnq_dequantizer
            want = d(**tensors, skip_quantized_matmul=d.use_quantized_matmul, skip_compile=True, dtype=torch.float32)
            equal += torch.equal(ours.get_submodule(name).decode(torch.float32), want)
        far = float((out(ours) - out(theirs)).norm() / out(theirs).norm())
        failed |= equal != len(loaded.layers)
        print(f"| llama | sdnq: {label} | {len(loaded.layers)} | {equal} | {far:.2g} |", flush=True)
    return failed


def of_program(folder):
    """What the program writes, beside what it makes plain again, in float32."""
    failed = False
    for name in MODELS:
        new(name).to(torch.bfloat16).save_pretrained(folder / "source")
        for label, flags in PROGRAM.items():
            tensorpress.quantize(folder / "source", folder / "made", force=True, quiet=True, **flags)
            tensorpress.dequantize(folder / "made", folder / "plain", force=True, quiet=True, dtype="f32")
            ours, plain = new(name), new(name)
            loaded = load(ours, folder / "made", dtype=torch.float32, int8_matmul=False)
            load(plain, folder / "plain", dtype=torch.float32)
            equal = torch.equal(out(ours), out(plain))
            failed |= not equal
            print(f"| {name} | {label} | {len(loaded.layers)} | | {'equal' if equal else 'DIFFERENT'} |", flush=True)
    return failed


def main():
    print("| model | made by | layers | weights equal | outputs |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        failed = of_sdnq(pathlib.Path(folder) / "a")
        failed = of_program(pathlib.Path(folder) / "b") or failed
    sys.exit(failed)


main()
