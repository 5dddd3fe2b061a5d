"""Holds what the program writes as svdquant_w4a4 against comfy-kitchen.

svdquant_written.py TENSORPRESS MODEL [WAY…]: MODEL is a folder of transformers' whose linear
layers have a multiple of 64 inputs, such as all-MiniLM-L6-v2. Every layer that is written,
plain, searched, refitted and smoothed, is restored by comfy-kitchen's own dequantization,
with its tensors in F32 and, some layers, as they are, and compared with `tensorpress dequantize`. Then
come the errors of the weights, and of what layers give of real inputs: restored, and
multiplied by comfy-kitchen, which rounds inputs to 4 bits. WAY is a part of the names of
what is written beside int4.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from comfy_kitchen.tensor import QuantizedTensor
from comfy_kitchen.tensor import TensorCoreSVDQuantW4A4Layout as Layout
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = ROOT / "conformance" / "importance"
SVDQUANT = "--layout comfy --dtype svdquant_w4a4"
#: What is written, and the greatest error of its weights beside that of int4's.
WAYS = {
    "int4 g64": ("--layout comfy --dtype sdnq:int4 --group-size 64", 1.001),
    "uint4 g64, rank 32": ("--layout comfy --dtype sdnq:uint4 --group-size 64 --svd-rank 32", 1),
    "convrot_w4a4": ("--layout comfy --dtype convrot_w4a4 --convrot-group-size 64", 2),
    "svdquant_w4a4": (SVDQUANT, 0.7),
    "the same, --search": (SVDQUANT + " --search", 0.5),
    "the same, --search --svd-refit 3": (SVDQUANT + " --search --svd-refit 3", 0.4),
    "the same, --importance": (SVDQUANT + " --importance {moments}", 1),
    "the same, --search --svd-refit 3 --importance": (SVDQUANT + " --search --svd-refit 3 --importance {moments}", 1),
}
PARTS = {"scale": "_scale", "proj_down": "_proj_down", "proj_up": "_proj_up", "smooth_factor": "_smooth_factor"}


def layer_of(file, name, dtype):
    """A written layer's codes and comfy-kitchen's parameters, of that dtype."""
    codes = file[name + ".weight"]
    own = {key: file[name + ".weight" + suffix].to(dtype) for key, suffix in PARTS.items()}
    return codes, Layout.Params(orig_dtype=dtype, orig_shape=(codes.shape[0], 2 * codes.shape[1]), **own)


def inputs_of(folder):
    """What each linear layer is given of the sentences in test.txt."""
    model, tokenizer = AutoModel.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)
    found = {}
    for name, one in model.named_modules():
        if isinstance(one, torch.nn.Linear):
            one.register_forward_pre_hook(lambda _, args, name=name: found.setdefault(name, []).append(args[0].reshape(-1, args[0].shape[-1])))
    with torch.no_grad():
        for line in (TEXTS / "test.txt").read_text(encoding="utf-8").splitlines():
            model(**tokenizer(line, return_tensors="pt"))
    return {name: torch.cat(parts)[:512] for name, parts in found.items()}


def mean(values):
    return sum(values) / len(values)


def error(got, want):
    return ((got.double() - want.double()).square().sum() / want.double().square().sum()).item()


binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])
source = folder / "model.safetensors"
plain, inputs = load_file(source), inputs_of(folder)
failed, bare = False, None
with tempfile.TemporaryDirectory() as name:
    tmp = pathlib.Path(name)
    out, back, moments = tmp / "a.safetensors", tmp / "b.safetensors", tmp / "moments.safetensors"
    quiet = dict(check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run([sys.executable, ROOT / "tools" / "moments.py", folder, TEXTS / "calibration.txt", moments], **quiet)
    for label, (flags, most) in WAYS.items():
        if bare and sys.argv[3:] and not any(way in label for way in sys.argv[3:]):
            continue
        subprocess.run([binary, "quantize", source, out, "-q", "--force", *flags.format(moments=moments).split()], **quiet)
        subprocess.run([binary, "dequantize", out, back, "-q", "--force", "--dtype", "f32"], **quiet)
        file, restored = load_file(out), load_file(back)
        layers = [n.removesuffix(".comfy_quant") for n in file if n.endswith(".comfy_quant")]
        layers = [n for n in layers if n in inputs]
        weights = mean([error(restored[n + ".weight"], plain[n + ".weight"]) for n in layers])
        bare = bare or weights
        wanted = {n: inputs[n] @ plain[n + ".weight"].T for n in layers}
        given = mean([error(inputs[n] @ restored[n + ".weight"].T, wanted[n]) for n in layers])
        good, line = weights <= most * bare, f"weights {weights:.5f}, outputs {given:.5f}"
        if "svdquant" in flags:
            exact = near = 0
            rounded = []
            for i, n in enumerate(layers):
                got = restored[n + ".weight"]
                assert json.loads(bytes(file[n + ".comfy_quant"].tolist()))["format"] == "svdquant_w4a4"
                for dtype in (torch.bfloat16, torch.float32)[i % 9 > 0:]:  # BF16 takes a CPU long
                    codes, params = layer_of(file, n, dtype)
                    off = ((Layout.dequantize(codes, params).float() - got).abs().max() / got.abs().max()).item()
                    exact, near = (max(exact, off), near) if dtype == torch.float32 else (exact, max(near, off))
                weight = QuantizedTensor(codes, "TensorCoreSVDQuantW4A4Layout", params)
                rounded.append(error(torch.nn.functional.linear(inputs[n], weight), wanted[n]))
            good = good and exact < 1e-6 and near < 1e-2
            line += f", with inputs in 4 bits {mean(rounded):.5f}; comfy-kitchen's values are within {exact:.0e} in F32, {near:.0e} in BF16"
        failed = failed or not good
        print(f"{'ok  ' if good else 'FAIL'} {label}: {len(layers)} layers, {line}", flush=True)
sys.exit(failed)
