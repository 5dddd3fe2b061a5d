"""ComfyUI's own mixed-precision operations on the CPU, from a folder with its
`comfy` package."""
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file


def start(folder):
    """Imports them; returns the release."""
    sys.argv = sys.argv[:1]
    sys.path.insert(0, folder)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfyui_version

    return comfyui_version.__version__


def loaded(path, plain):
    """The layers' weights as ComfyUI restores them, by name; plain has their shapes."""
    import comfy.ops
    import comfy.utils

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
