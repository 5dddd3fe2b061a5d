"""Holds what internal/names does with rows of layers in ComfyUI's own formats against
ComfyUI, or, for a format that it came to know later, against the program itself.

    natives.py COMFYUI TENSORPRESS
"""
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FOLDER, TENSORPRESS = sys.argv[1:3]
sys.path[:0] = [str(HERE), str(HERE.parent / "comfy")]

import torch
from safetensors.torch import load_file, save_file

import comfyui
from gathered import BY_ROWS, DOWN, UP, WHOLE, gather

comfyui.start(FOLDER)
torch.set_num_threads(1)

COLUMNS, ROWS = 256, {"q": 128, "k": 128, "v": 256}
# Options, and how many rows of weight and scale move together: tiles and padding.
FORMATS = {
    "int8_tensorwise": (1, 1), "int8_tensorwise --scale tensor": (1, 1), "int8_tensorwise --convrot": (1, 1), "float8_e4m3fn": (1, 1), "float8_e5m2": (1, 1),
    "mxfp8": (32, 128), "nvfp4": (16, 128), "convrot_w4a4": (1, 1), "asym_w4a8_int8": (1, 1), "asym_w4a8_int8 --bits 6": (1, 1), "awq_w4a16": (1, 1),
    "svdquant_w4a4 --svd-rank 8": (1, 1), "svdquant_w4a4 --svd-rank 8 --search --svd-refit 2": (1, 1),
}


def lies(role, t, format, units):
    """How a tensor lies along the rows."""
    if role == "weight":
        return BY_ROWS, 0, 0, units[0], ""
    if t.numel() == 1:
        return WHOLE, 0, 0, 0, "-1,1" if format == "int8_tensorwise" else ""
    if role in ("weight_codebook", "weight_smooth_factor"):
        return WHOLE, 0, 0, 0, ""
    if role in ("weight_proj_up", "weight_proj_down"):
        return UP if role.endswith("up") else DOWN, 0, 1, 0, ""
    if format in ("awq_w4a16", "svdquant_w4a4"):
        return BY_ROWS, 1, 0, 0, ""
    return BY_ROWS, 0, 0, units[1], ""


def values(path, shapes):
    if any(b"awq" in t.numpy().tobytes() or b"svdquant" in t.numpy().tobytes() for name, t in load_file(path).items() if name.endswith("comfy_quant")):
        out = path.with_suffix(".plain.safetensors")
        subprocess.run([TENSORPRESS, "dequantize", path, out, "--force", "-q", "--dtype", "f32"], check=True, capture_output=True)
        return {name.removesuffix(".weight"): t for name, t in load_file(out).items()}
    return dict(comfyui.loaded(path, shapes))


def main():
    folder = pathlib.Path(tempfile.mkdtemp())
    failed = 0
    for alike in (False, True):
        torch.manual_seed(0)
        plain = {f"{name}.weight": (torch.randn(rows, COLUMNS) * (1 + i * (not alike))).clamp(-9, 9).bfloat16() for i, (name, rows) in enumerate(ROWS.items())}
        if alike:  # the greatest value makes the scale
            for t in plain.values():
                t[0, 0] = 10
        save_file(plain, folder / "plain.safetensors")
        for options, units in FORMATS.items():
            stored = folder / "stored.safetensors"
            subprocess.run([TENSORPRESS, "quantize", folder / "plain.safetensors", stored, "--force", "-q", "--layout", "comfy", "--preset", "none",
                            "--dtype", *options.split()], check=True, capture_output=True)
            format, state, restored = options.split()[0], load_file(stored), values(stored, plain)
            of = {name: {key.removeprefix(name + "."): t for key, t in state.items() if key.startswith(name + ".")} for name in ROWS}
            about = {name: tensors.pop("comfy_quant") for name, tensors in of.items()}
            layers = {name: (ROWS[name], format, {role: (t, *lies(role, t, format, units)) for role, t in tensors.items()}) for name, tensors in of.items()}
            parts = [("v", 128, 256), ("q", 0, 128), ("k", 0, 128), ("v", 0, 128)]
            want = torch.cat([restored[name][a:b] for name, a, b in parts])
            same = [role for role in of["q"] if all(role in t and torch.equal(t[role].float(), of["q"][role].float()) for t in of.values())]
            joined = gather(layers, parts, same)
            label = f"{options}, scales {'alike' if alike else 'apart'}"
            if isinstance(joined, str):
                ok = not alike and format in ("float8_e4m3fn", "float8_e5m2", "nvfp4")
                print(f"{label}: {'' if ok else 'FAILED '}refused: {joined}")
                failed += not ok
                continue
            metadata = json.loads(about["q"].numpy().tobytes())
            if "weight_scale" in joined and format == "int8_tensorwise" and joined["weight_scale"].numel() > 1:
                metadata["per_row"] = True
            joined["comfy_quant"] = torch.tensor(list(json.dumps(metadata).encode()), dtype=torch.uint8)
            path = folder / "joined.safetensors"
            save_file({f"all.{role}": t.clone() for role, t in joined.items()}, path)
            got = values(path, {"all.weight": torch.empty(want.shape, device="meta")})["all"]
            apart = float((got - want).abs().max() / want.abs().max())
            ok = apart == 0 or apart < 1e-6 and any(word in options for word in ("convrot", "w4a8", "svdquant"))
            failed += not ok
            print(f"{label}: {'' if ok else 'FAILED '}{'equal' if apart == 0 else f'apart by {apart:.1e} of the greatest value'}")
    sys.exit(failed > 0)


main()
