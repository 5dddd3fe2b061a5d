"""Models that sdnq itself wrote, moved by `tensorpress transcode`, restored by
ComfyUI and comfy-kitchen, and moved back for sdnq.

moved.py TENSORPRESS COMFY: as run.py; sdnq 0.2.8 and diffusers 0.42.1 as well.

What ComfyUI restores must equal what sdnq restores from its own file: to the
bit, within 1e-6 of the greatest value where a rotation is undone, and within
what `transcode` reported where scales are rounded.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import comfyui  # noqa: E402
import torch  # noqa: E402
from comfy_kitchen.tensor.awq_w4a16 import TensorCoreAWQW4A16Layout  # noqa: E402
from diffusers import ConfigMixin, ModelMixin  # noqa: E402
from diffusers.configuration_utils import register_to_config  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from sdnq import SDNQConfig, sdnq_post_load_quant  # noqa: E402
from sdnq.loader import load_sdnq_model, save_sdnq_model  # noqa: E402
from sdnq.utils import get_sdnq_params  # noqa: E402

binary, folder = sys.argv[1:3]
release = comfyui.start(folder)

ROTATED = dict(weights_dtype="int8", group_size=-1, use_hadamard=True)
CASES = {
    "int8 rows": dict(weights_dtype="int8", group_size=-1),
    "int8 tensor": dict(weights_dtype="int8", group_size=-2),
    "int8 for quantized matmul": dict(weights_dtype="int8", use_quantized_matmul=True),
    "int8 rotated by 16": dict(**ROTATED, hadamard_group_size=16),
    "int8 rotated by 64": dict(**ROTATED, hadamard_group_size=64),
    "int8 rotated by 256": dict(**ROTATED, hadamard_group_size=256),
    "int8 rotated by 1024": dict(**ROTATED, hadamard_group_size=1024),
    "int8 rotated for quantized matmul": dict(**ROTATED, hadamard_group_size=256, use_quantized_matmul=True),
    "uint4 groups of 64": dict(weights_dtype="uint4", group_size=64),
    "uint4 groups of 32": dict(weights_dtype="uint4", group_size=32),
    "uint4 groups of 128": dict(weights_dtype="uint4", group_size=128),
    "float8_e4m3fn tensor": dict(weights_dtype="float8_e4m3fn", group_size=-2),
    "float8_e5m2 tensor": dict(weights_dtype="float8_e5m2", group_size=-2),
    "int8 rows with scales in uint8": dict(modules_quant_config={"*": dict(weights_dtype="int8", group_size=-1, scale_dtype="uint8")}),
}
# These do not move, and are quantized again.
AGAIN = {
    "int8 groups": dict(weights_dtype="int8", group_size=64),
    "uint4 with a low-rank part": dict(weights_dtype="uint4", use_svd=True, svd_rank=16),
    "int5 rotated": dict(weights_dtype="int5", use_hadamard=True, hadamard_group_size=128),
    "uint3 codebook": dict(weights_dtype="uint3", use_codebook=True),
    "float6_e3m2fn groups": dict(weights_dtype="float6_e3m2fn", group_size=64),
}


class Model(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, width: int = 1024):
        super().__init__()
        self.to_q = torch.nn.Linear(width, width)
        self.up = torch.nn.Linear(width, 3 * width, bias=False)
        self.norm = torch.nn.LayerNorm(width)


def restored(folder):
    """The weights as sdnq restores them, by layer."""
    model = load_sdnq_model(str(folder), model_cls=Model, dtype=torch.bfloat16)
    for name, module in model.named_modules():
        if hasattr(module, "sdnq_dequantizer"):
            deq = module.sdnq_dequantizer
            params = {k: v.clone() for k, v in get_sdnq_params(module).items() if v is not None}
            yield name, deq(**params, skip_quantized_matmul=deq.use_quantized_matmul, skip_compile=True, dtype=torch.float32)


def kitchen(path):
    """awq_w4a16, which ComfyUI knows later than 0.33.0, by comfy-kitchen."""
    state = load_file(path)
    for key in [key for key in state if key.endswith(".weight_zeros")]:
        name = key.removesuffix(".weight_zeros")
        codes, options = state[name + ".weight"], json.loads(bytes(state[name + ".comfy_quant"].tolist()))
        params = TensorCoreAWQW4A16Layout.Params(
            scale=state[name + ".weight_scale"].float(), zeros=state[key].float(), orig_dtype=torch.float32,
            orig_shape=(codes.shape[0], 2 * codes.shape[1]), group_size=options["group_size"],
        )
        yield name, TensorCoreAWQW4A16Layout.dequantize(codes, params)


def tensorpress(*args):
    out = subprocess.run([binary, *map(str, args), "-q", "--json"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out)


def figures(got, want):
    equal = sum(torch.equal(w, want[name]) for name, w in got.items())
    worst = max(((w - want[name]).abs().max() / want[name].abs().max()).item() for name, w in got.items())
    lost = {name: (((w - want[name]).double() ** 2).sum() / (want[name].double() ** 2).sum()).item() for name, w in got.items()}
    return equal, worst, lost


def check(case, settings, folder, again):
    torch.manual_seed(7)
    model = Model().to(torch.bfloat16)
    ours, moved, back = folder / "sdnq", folder / "moved.safetensors", folder / "back"
    save_sdnq_model(sdnq_post_load_quant(model, torch_dtype=torch.bfloat16, quantization_config=SDNQConfig(**settings)), str(ours))
    want = dict(restored(ours))
    how = ["--layout", "comfy", "--for", "comfyui"] + ["--requantize"] * again
    report = {layer["name"]: layer for layer in tensorpress("transcode", ours, moved, *how)["layers"]}
    awq = not again and settings.get("weights_dtype") == "uint4"
    got = dict(kitchen(moved) if awq else comfyui.loaded(moved, {name + ".weight": w for name, w in want.items()}))
    equal, worst, lost = figures(got, want)
    good = len(got) == len(want) == 2
    if awq or again:
        good = good and all(abs(lost[name] / report[name]["rel_mse"] - 1) < 1e-3 for name in got)
    elif settings.get("use_hadamard"):
        good = good and worst <= 1e-6
    else:
        good = good and equal == len(want)
    # A folder, as sdnq wrote it, comes back as one that sdnq loads.
    tensorpress("transcode", ours, folder / "comfy", *[arg for arg in how if arg not in ("--for", "comfyui")])
    tensorpress("transcode", folder / "comfy", back, "--layout", "sdnq")
    came, back_worst, _ = figures(dict(restored(back)), want)
    good = good and (came == len(want) or (awq or again) and back_worst < 5e-2)
    print(f"{'ok  ' if good else 'FAIL'} {case}: {equal} of {len(want)} equal to the bit, worst {worst:.1e}, lost {max(lost.values()):.1e}; back in sdnq: {came} equal")
    return good


print(f"ComfyUI {release}")
results = []
for case, settings in (CASES | AGAIN).items():
    with tempfile.TemporaryDirectory() as temporary:
        results.append(check(case, settings, pathlib.Path(temporary), case in AGAIN))
sys.exit(not all(results))
