#!/usr/bin/env python3
"""Which tensors convert_to_quant's presets keep and drop, in single files with
the names that ComfyUI reads.

    python conformance/families/make_single.py COMFYUI [FOLDER [CASE…]]

COMFYUI is a folder that holds the package comfy of ComfyUI 0.33.0: its model
classes, as small as they go, give names and shapes; nothing else of it is
used. Every case is converted by the command ctq --simple with its preset's
flag and without; FOLDER/CASE.tsv says what became of each tensor (default
FOLDER: testdata/golden/families/single of this repository).
"""
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

from comfy_models import DIFFUSION, shapes
from models import TRANSFORMERS

# case of models.py -> preset
TEXTS = {"t5": "t5xxl", "qwen3-vl": "qwen_vlm", "mistral": "mistral", "qwen3": "qwen_vlm"}


def diffusion(case):
    return {k: torch.empty([min(n, 96) for n in shape]) for k, shape in shapes(case).items()}, DIFFUSION[case][-1]


def text(case):
    name, settings = TRANSFORMERS[case]
    cls = getattr(transformers, name)
    if case == "qwen3":
        settings = dict(settings, num_hidden_layers=12, hidden_size=32)  # layer 1 is no beginning of layer 11
    with tempfile.TemporaryDirectory() as tmp:
        cls(cls.config_class(**settings)).save_pretrained(tmp)
        with safe_open(tmp + "/model.safetensors", "pt") as f:
            return {k: torch.empty(f.get_slice(k).get_shape()) for k in f.keys()}, TEXTS[case]


def convert(tensors, flag):
    """What ctq makes of each tensor: q(uantized), k(ept), x (absent)."""
    with tempfile.TemporaryDirectory() as tmp:
        save_file(tensors, tmp + "/in.safetensors", metadata={"format": "pt"})
        command = [str(pathlib.Path(sys.executable).with_name("ctq")), "-i", tmp + "/in.safetensors", "-o", tmp + "/out.safetensors", "--device", "cpu", "--simple"]
        subprocess.run(command + ["--" + flag] * bool(flag), check=True, capture_output=True)
        with safe_open(tmp + "/out.safetensors", "pt") as f:
            out = set(f.keys())
    return {k: "q" if k.removesuffix(".weight") + ".comfy_quant" in out else "k" if k in out else "x" for k in tensors}


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "testdata" / "golden" / "families" / "single"
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for case in sys.argv[3:] or [*DIFFUSION, *TEXTS]:
        try:
            tensors, flag = diffusion(case) if case in DIFFUSION else text(case)
            g = torch.Generator().manual_seed(1)
            tensors = {k: torch.randn(v.shape, generator=g) for k, v in tensors.items()}
            plain = convert(tensors, "")
            preset = convert(tensors, flag) if flag else plain
        except Exception as e:
            failed.append(case)
            print(case, "FAILED", type(e).__name__, str(e)[-300:], (getattr(e, "stderr", b"") or b"")[-300:], flush=True)
            continue
        rows = [f"# convert_to_quant 1.3.4, without a preset and with --{flag}" if flag else "# convert_to_quant 1.3.4, without a preset", "preset\t" + flag]
        rows += ["\t".join([k, "x".join(map(str, v.shape)), plain[k] + preset[k]]) for k, v in sorted(tensors.items())
                 if not (k.endswith(".bias") and k.removesuffix("bias") + "weight" in tensors and plain[k] == preset[k] == "k")]
        (out / f"{case}.tsv").write_text("\n".join(rows) + "\n")
        print(case, len(tensors), sum(v == "q" for v in plain.values()), sum(v == "q" for v in preset.values()), flush=True)
    sys.exit(", ".join(failed) or 0)


if __name__ == "__main__":
    main()
