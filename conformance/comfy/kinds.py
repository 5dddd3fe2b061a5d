"""Writes what ComfyUI takes models for whose names are those of diffusers' and
transformers' classes.

kinds.py COMFY: reads testdata/golden/families/*.tsv, writes
testdata/golden/comfyui/kinds.tsv, a row a case: reads (it finds quantized
layers), renamed (it joins the tensors and loses their scales), plain (it knows
the kind and reads no quantized layers in it) or unknown.
"""
import logging
import pathlib
import sys

sys.path.insert(0, sys.argv[1])

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.model_detection
import comfy.sd
import torch

import traced

logging.disable(logging.CRITICAL)
ROOT = pathlib.Path(__file__).resolve().parents[2] / "testdata" / "golden"
# Those for which load_text_encoder_state_dicts asks neither t5xxl_detect nor llama_detect.
PLAIN = {"CLIP_G", "CLIP_H", "CLIP_L", "JINA_CLIP_2", "T5_XL", "T5_BASE", "BYT5_SMALL_GLYPH", "T5_GEMMA"}


def tensors(path):
    out = {}
    for line in path.read_text().splitlines():
        fields = line.split("\t")
        if line.startswith("#") or fields[0] in ("config", "list"):
            continue
        shape = [int(n) for n in "".join(fields[1:2]).split("x") if n]
        out[fields[0]] = torch.zeros(shape)
        if fields[0].endswith(".weight"):
            out.setdefault(fields[0].removesuffix("weight") + "bias", torch.zeros(shape[:1]))
    return out


def verdict(sd):
    prefix = comfy.model_detection.unet_prefix_from_state_dict(sd)
    inner = {k.removeprefix(prefix): v for k, v in sd.items() if k.startswith(prefix)} or sd
    try:
        if comfy.model_detection.detect_unet_config(inner, "") is not None:
            return "reads"
    except (KeyError, AttributeError) as e:
        return f"fails on {e}"
    if {"conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "time_embedding.linear_1.weight"} <= inner.keys():
        return "renamed"  # unet_config_from_diffusers_unet knows real sizes alone
    try:
        if comfy.model_detection.convert_diffusers_mmdit(dict(inner), "") is not None:
            return "renamed"
    except (KeyError, RuntimeError, AttributeError):
        return "renamed"
    sd = dict(sd, **{"x.comfy_quant": torch.zeros(1)})
    model = comfy.sd.detect_te_model(sd)
    if model is None:
        return "unknown"
    if model.name in PLAIN:
        return "plain"
    found = {**comfy.sd.t5xxl_detect([sd]), **comfy.sd.llama_detect([{k.replace("model.language_model.", "model.") if model.name.startswith("QWEN3") else k: v for k, v in sd.items()}])}
    return "reads" if any("quantization" in k for k in found) else "plain"


rows = ["# ComfyUI 0.33.0"]
for path in sorted((ROOT / "families").glob("*.tsv")):
    rows.append(f"{path.stem}\t{verdict(tensors(path))}")
    print(rows[-1])
(ROOT / "comfyui" / "kinds.tsv").write_text("\n".join(rows) + "\n")
