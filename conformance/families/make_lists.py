#!/usr/bin/env python3
"""What SDNQ's lists keep, under the names of single files.

    python conformance/families/make_lists.py COMFYUI [FOLDER [CASE…]]

Names and shapes come from make_single.py's models. diffusers' own conversion
renames, splits and joins the tensors, each filled with a number of its own;
FOLDER/CASE.tsv (default FOLDER: testdata/golden/families/lists of this
repository) says which matrices end only in modules that the list of the class
keeps (k), in none of these (q), or in both (m).
"""
import os
import pathlib
import sys

os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"

import diffusers
import torch
from diffusers.loaders import single_file_utils as convert

from sdnq import SDNQConfig
from sdnq.utils import add_module_skip_keys, check_param_name_in

import comfy_models

REAL = dict(hidden_size=3072, num_heads=24, axes_dim=[16, 56, 56], mlp_ratio=4.0)  # sizes that conversions take for granted
BARE = ("lumina2", "hunyuan-video", "auraflow", "flux2")  # their conversions take none
# case -> (class, conversion, settings that differ)
CASES = {
    "flux": ("FluxTransformer2DModel", convert.convert_flux_transformer_checkpoint_to_diffusers, REAL),
    "flux2": ("Flux2Transformer2DModel", convert.convert_flux2_transformer_checkpoint_to_diffusers, {}),
    "chroma": ("ChromaTransformer2DModel", convert.convert_chroma_transformer_checkpoint_to_diffusers, REAL),
    "z-image": ("ZImageTransformer2DModel", convert.convert_z_image_transformer_checkpoint_to_diffusers, {}),
    "lumina2": ("Lumina2Transformer2DModel", convert.convert_lumina2_to_diffusers, dict(dim=2304, n_heads=24, n_kv_heads=8, axes_dims=[32, 32, 32])),
    "wan": ("WanTransformer3DModel", convert.convert_wan_transformer_to_diffusers, {}),
    "wan-i2v": ("WanTransformer3DModel", convert.convert_wan_transformer_to_diffusers, {}),
    "hunyuan-video": ("HunyuanVideoTransformer3DModel", convert.convert_hunyuan_video_transformer_to_diffusers, REAL),
    "ltx2": ("LTX2VideoTransformer3DModel", convert.convert_ltx2_transformer_to_diffusers, {}),
    "ltx": ("LTXVideoTransformer3DModel", convert.convert_ltx_transformer_checkpoint_to_diffusers, {}),
    "sd3": ("SD3Transformer2DModel", convert.convert_sd3_transformer_checkpoint_to_diffusers, {}),
    "auraflow": ("AuraFlowTransformer2DModel", convert.convert_auraflow_transformer_checkpoint_to_diffusers, {}),
    "krea2": ("Krea2Transformer2DModel", convert.convert_krea2_transformer_checkpoint_to_diffusers, {}),
}


def entries(name):
    cls = getattr(diffusers, name)
    _, config = add_module_skip_keys(object.__new__(cls), SDNQConfig())
    return config.modules_to_not_convert


def make(case, out):
    name, converter, settings = CASES[case]
    shapes, prefix = comfy_models.shapes(case, settings), comfy_models.DIFFUSION[case][3]
    numbers = {k: i + 1 for i, k in enumerate(sorted(shapes))}
    filled = {}
    for k, shape in shapes.items():
        to = k.removeprefix(prefix)
        if case in ("flux", "flux2", "chroma") and ("_norm." in k or ".norms." in k):
            to = to.removesuffix("weight") + "scale"  # as published
        if case not in BARE:
            to = "model.diffusion_model." + to
        filled[to] = torch.tensor(float(numbers[k])).expand(shape)
    got = {}
    for k, v in converter(filled).items():
        sample = v.reshape(-1)[:: max(1, v.numel() // 4096)]
        for number in sample.unique().tolist():
            got.setdefault(int(number), set()).add(k)
    skip, rows = entries(name), [f"# {name}"]
    for k, shape in sorted(shapes.items()):
        if len(shape) < 2 or not k.endswith(".weight") or not got.get(numbers[k]):
            continue
        kept = {check_param_name_in(to, skip) is not None for to in got[numbers[k]]}
        rows.append("\t".join([k, "x".join(map(str, shape)), "m" if len(kept) > 1 else "k" if kept == {True} else "q"]))
    (out / f"{case}.tsv").write_text("\n".join(rows) + "\n")
    print(case, len(rows) - 1, flush=True)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "testdata" / "golden" / "families" / "lists"
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for case in sys.argv[3:] or CASES:
        try:
            make(case, out)
        except Exception as e:
            failed.append(case)
            print(case, "FAILED", type(e).__name__, str(e)[:300], flush=True)
    sys.exit(", ".join(failed) or 0)


if __name__ == "__main__":
    main()
