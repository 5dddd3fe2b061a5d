#!/usr/bin/env python3
"""Runs the Python of docs/apps/*.md, and its commands before it, on small models.

    PYTHON=… python conformance/pages/run.py TENSORPRESS [PAGE…]

The models have random weights, the classes that the pages name and the names that they
use; README.md beside this script says more. `cpu` takes the place of `cuda`, and two
steps that of twenty. Nothing else of a page is changed.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "conformance" / "families"), str(ROOT / "conformance" / "sdnq")]
PAGES = ("diffusers.md", "transformers.md")
# page: (what is done without sdnq, the line that the page says one sees)
WITHOUT = {
    "diffusers.md": (
        'import sys; sys.modules["sdnq"] = None; import importlib.util as u; find = u.find_spec\n'
        'u.find_spec = lambda name, *a: None if name == "sdnq" else find(name, *a)\n'
        "from diffusers import FluxTransformer2DModel\n"
        'FluxTransformer2DModel.from_pretrained("models/flux-transformer-8bit")',
        "Loading or creating an SDNQ quantized model requires the sdnq library",
    ),
    "transformers.md": (
        'from transformers import AutoModelForCausalLM\nAutoModelForCausalLM.from_pretrained("models/Llama-3.1-8B-4bit")',
        "Unknown quantization type, got sdnq",
    ),
}


def blocks(page, kind):
    text = (ROOT / "docs" / "apps" / page).read_text()
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.M | re.S)


def python(folder, code):
    code = code.replace('"cuda"', '"cpu"').replace("num_inference_steps=20", "num_inference_steps=2, height=32, width=32")
    env = dict(os.environ, SDNQ_USE_TORCH_COMPILE="0", HF_HUB_OFFLINE="1", PYTHONDONTWRITEBYTECODE="1")
    return subprocess.run([os.environ.get("PYTHON", sys.executable), "-c", code], cwd=folder, env=env, capture_output=True, text=True)


def words():
    """A tokenizer of a few letters."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = {c: i for i, c in enumerate(["<pad>", "<s>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"])}
    made = Tokenizer(models.BPE(vocab=letters, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    special = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=16, **special)


def saved(case, folder, **settings):
    """A model of conformance/families with random weights, in its folder."""
    import models as families
    import torch
    from make_families import build

    for table in (families.TRANSFORMERS, families.DIFFUSERS):
        if case in table:
            table[case] = (table[case][0], {**table[case][1], **settings})
    _, model = build(case)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=g)
            p.copy_(r * p[0].numel() ** -0.5 if p.ndim > 1 else 1 + 0.1 * r if name.endswith("weight") else 0.1 * r)
    model = model.to(torch.bfloat16)
    model.save_pretrained(folder)
    return model


def flux(folder):
    """FLUX.1-dev with all its parts. Sides are large enough for SDNQ's least sizes."""
    import diffusers

    wide = dict(num_attention_heads=4, attention_head_dim=64, axes_dims_rope=(16, 24, 24))
    parts = {
        "transformer": saved("flux", folder / "transformer", **wide, in_channels=16, joint_attention_dim=256, pooled_projection_dim=256),
        "text_encoder": saved("clip-text", folder / "text_encoder", hidden_size=256, intermediate_size=256),
        "text_encoder_2": saved("t5-encoder", folder / "text_encoder_2", d_model=256, d_ff=256, d_kv=64),
        "vae": saved("autoencoder-kl", folder / "vae", latent_channels=4, scaling_factor=0.3611, shift_factor=0.1159),
    }
    diffusers.FluxPipeline(scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), tokenizer=words(), tokenizer_2=words(), **parts).save_pretrained(folder)


def llama(folder):
    saved("llama", folder, hidden_size=256, intermediate_size=512, head_dim=64)
    words().save_pretrained(folder)


def check(page, program, folder):
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            done = subprocess.run([program, *line.split()[1:]], cwd=folder, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{page}: {line}: {done.stderr}")
    failed = 0
    for code in blocks(page, "python"):
        done = python(folder, code)
        print("FAIL" if done.returncode else "ok  ", page, code.splitlines()[0], *([done.stderr[-1500:]] if done.returncode else []), done.stdout.strip()[:80])
        failed += done.returncode != 0
    code, line = WITHOUT[page]
    done = python(folder, code)
    met = line in done.stderr and f"`{line}`" in (ROOT / "docs" / "apps" / page).read_text()
    print("ok  " if met else "FAIL", page, line, *([] if met else [done.stderr[-1500:]]))
    return failed + (not met)


def main():
    program, *pages = sys.argv[1:]
    failed = 0
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(tmp)
        flux(folder / "models" / "FLUX.1-dev")
        llama(folder / "models" / "Llama-3.1-8B")
        for page in pages or PAGES:
            failed += check(page, os.path.abspath(program), folder)
    sys.exit(failed > 0)


if __name__ == "__main__":
    os.environ.update(SDNQ_USE_TORCH_COMPILE="0", HF_HUB_OFFLINE="1")
    main()
