"""Loads what the comfy layout holds with ComfyUI's own mixed-precision operations.

run.py TENSORPRESS COMFY: the binary, and a folder with ComfyUI's `comfy` package
(its Python files and comfyui_version.py are enough; see README.md).

Every format is made of testdata/minilm.safetensors, loaded into ComfyUI's own
Linear on the CPU, dequantized there, and compared with what `tensorpress
dequantize` restores: equal to the bit, and within 1e-6 of the greatest value
where a rotation's sums have no fixed order.
"""
import pathlib
import subprocess
import sys
import tempfile

import comfyui
import torch
from safetensors.torch import load_file

binary, folder = sys.argv[1:3]
release = comfyui.start(folder)

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "testdata" / "minilm.safetensors"
ROTATED = ["--convrot-group-size", "64"]
CASES = (
    ("int8_tensorwise", [], True),
    ("int8_tensorwise", ["--scale", "tensor"], True),
    ("int8_tensorwise", ["--convrot", *ROTATED], False),
    ("float8_e4m3fn", [], True),
    ("float8_e5m2", [], True),
    ("nvfp4", [], True),
    ("mxfp8", [], True),
    ("convrot_w4a4", ROTATED, False),
    ("asym_w4a8_int8", ROTATED, False),
    ("asym_w4a8_int8", ["--bits", "6", *ROTATED], False),
    ("int8_tensorwise", ["--convrot", *ROTATED, "--search"], False),
    ("nvfp4", ["--search"], True),
    ("convrot_w4a4", [*ROTATED, "--search"], False),
    ("asym_w4a8_int8", [*ROTATED, "--search"], False),
    ("asym_w4a8_int8", ["--bits", "6", *ROTATED, "--search"], False),
)


def tensorpress(*args):
    subprocess.run([binary, *map(str, args), "-q"], check=True, stdout=subprocess.DEVNULL)


failed = False
print(f"ComfyUI {release}")
for dtype, options, exact in CASES:
    with tempfile.TemporaryDirectory() as folder:
        out, plain = pathlib.Path(folder, "out.safetensors"), pathlib.Path(folder, "plain.safetensors")
        tensorpress("quantize", SOURCE, out, "--dtype", dtype, "--for", "comfyui", *options)
        tensorpress("dequantize", out, plain, "--dtype", "f32")
        ours, worst, equal, layers = load_file(plain), 0.0, 0, 0
        for name, weight in comfyui.loaded(out, ours):
            want = ours[name + ".weight"]
            weight = weight[: want.shape[0], : want.shape[1]]
            layers, equal = layers + 1, equal + torch.equal(weight, want)
            worst = max(worst, ((weight - want).abs().max() / want.abs().max()).item())
        good = layers > 0 and (equal == layers if exact else worst <= 1e-6)
        failed = failed or not good
        print(f"{'ok  ' if good else 'FAIL'} {dtype} {' '.join(options)}: {layers} layers, {equal} equal to the bit, worst {worst:.1e}")
sys.exit(failed)
