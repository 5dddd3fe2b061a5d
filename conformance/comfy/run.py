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

binary, comfy_folder = sys.argv[1:3]
sys.argv = sys.argv[:1]
sys.path.insert(0, comfy_folder)
import comfy.cli_args  # noqa: E402

comfy.cli_args.args.cpu = True
import comfy.ops  # noqa: E402
import comfy.utils  # noqa: E402
import comfyui_version  # noqa: E402
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

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
)


def tensorpress(*args):
    subprocess.run([binary, *map(str, args), "-q"], check=True, stdout=subprocess.DEVNULL)


def loaded(path, plain):
    """The layers' weights as ComfyUI restores them, by name."""
    state = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    state, metadata = comfy.utils.convert_old_quants(state, model_prefix="", metadata=metadata)
    ops = comfy.ops.mixed_precision_ops({}, compute_dtype=torch.float32)
    for key in [key for key in state if key.endswith(".comfy_quant")]:
        name = key.removesuffix(".comfy_quant")
        parts = {"l." + k.removeprefix(name + "."): v for k, v in state.items() if k.startswith(name + ".") and not k.endswith(".bias")}
        rows, columns = plain[name + ".weight"].shape
        linear = ops.Linear(columns, rows, bias=False, dtype=torch.float32)
        missing, unexpected = [], []
        linear._load_from_state_dict(parts, "l.", {}, True, missing, unexpected, [])
        if missing or unexpected:
            raise SystemExit(f"{name}: missing {missing}, unexpected {unexpected}")
        yield name, linear.weight.dequantize().float()


failed = False
print(f"ComfyUI {comfyui_version.__version__}")
for dtype, options, exact in CASES:
    with tempfile.TemporaryDirectory() as folder:
        out, plain = pathlib.Path(folder, "out.safetensors"), pathlib.Path(folder, "plain.safetensors")
        tensorpress("quantize", SOURCE, out, "--dtype", dtype, "--for", "comfyui", *options)
        tensorpress("dequantize", out, plain, "--dtype", "f32")
        ours, worst, equal, layers = load_file(plain), 0.0, 0, 0
        for name, weight in loaded(out, ours):
            want = ours[name + ".weight"]
            weight = weight[: want.shape[0], : want.shape[1]]
            layers, equal = layers + 1, equal + torch.equal(weight, want)
            worst = max(worst, ((weight - want).abs().max() / want.abs().max()).item())
        good = layers > 0 and (equal == layers if exact else worst <= 1e-6)
        failed = failed or not good
        print(f"{'ok  ' if good else 'FAIL'} {dtype} {' '.join(options)}: {layers} layers, {equal} equal to the bit, worst {worst:.1e}")
sys.exit(failed)
