#!/usr/bin/env python3
"""Sentence embeddings of a real model after quantization.

    python conformance/sdnq/minilm.py MODEL [--out docs/minilm.md]

MODEL is the folder of sentence-transformers' all-MiniLM-L6-v2. README.md beside this
script says more.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

from run import ROOT, SDNQConfig  # first: it starts the Python that has what follows

import torch
from transformers import AutoModel, AutoTokenizer

SENTENCES = """A man is eating a piece of bread.
The girl is carrying a baby through the market.
Two dogs chase a ball across the wet grass.
How do I reset the password of my account?
I cannot log in because I forgot my password.
The central bank raised interest rates by a quarter of a point.
Stocks fell sharply after the announcement.
The recipe needs two eggs, flour and a pinch of salt.
Water boils at a lower temperature in the mountains.
The telescope photographed a galaxy ten billion light years away.
Photosynthesis turns light into chemical energy.
She plays the cello in the city's orchestra.
The train to Hamburg is delayed by forty minutes.
Der Zug nach Hamburg hat vierzig Minuten Verspätung.
def add(a, b): return a + b
The court dismissed the appeal for lack of evidence.
He broke his leg while skiing last winter.
The vaccine was tested on thirty thousand volunteers over two years, and its makers say that it protects nine in ten of them.
Yes.
It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.""".split("\n")

# what -> flags of tensorpress, settings of SDNQConfig
SETTINGS = {
    "int8": ("--dtype int8", {}),
    "uint8": ("--dtype uint8", {}),
    "float8_e4m3fn": ("--dtype float8_e4m3fn", {}),
    "float6_e3m2fn": ("--dtype float6_e3m2fn", {}),
    "int5": ("--dtype int5", {}),
    "uint4": ("--dtype uint4", {}),
    "uint4, codebook": ("--dtype uint4 --codebook", dict(use_codebook=True)),
    "uint4, hadamard": ("--dtype uint4 --hadamard", dict(use_hadamard=True)),
    "uint4, svd-rank 32": ("--dtype uint4 --svd-rank 32", dict(use_svd=True, svd_rank=32)),
    "uint2": ("--dtype uint2", {}),
    "uint4, embedding": ("--dtype uint4 --embedding", dict(quant_embedding=True)),
}

# what -> flags of tensorpress; each is made plainly and with --search
SEARCHED = {
    "uint4, groups of 64": "--dtype uint4 --group-size 64",
    "uint4, groups of 32": "--dtype uint4 --group-size 32",
    "uint4, groups of 32, scales in uint8": "--dtype uint4 --group-size 32 --scale-dtype uint8",
    "the same, hadamard": "--dtype uint4 --group-size 32 --scale-dtype uint8 --hadamard",
    "int4, groups of 32": "--dtype int4 --group-size 32",
    "uint4, groups of 64, svd-rank 32": "--dtype uint4 --group-size 64 --svd-rank 32",
    "the same, svd-refit 3": "--dtype uint4 --group-size 64 --svd-rank 32 --svd-refit 3",
    "nvfp4": "--layout comfy --dtype nvfp4",
    "asym_w4a8_int8 and nvfp4": "--layout comfy --for comfyui --bits 4",
    "awq_w4a16": "--layout comfy --dtype awq_w4a16",
    "uint3, groups of 32, scales in uint8": "--dtype uint3 --group-size 32 --scale-dtype uint8",
    "uint2, groups of 32, scales in uint8": "--dtype uint2 --group-size 32 --scale-dtype uint8",
}


def embed(folder, tokens, **kw):
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True, **kw)
    bad = {k: v for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")}
    if not kw:  # from a file of either writer
        bad = {k: {n for n in v if not str(n).startswith("pooler") and n != "embeddings.position_ids"} for k, v in bad.items()}
        assert not any(bad.values()), (folder, bad)
    with torch.no_grad():
        hidden = model.eval()(**tokens).last_hidden_state.float()
    mask = tokens["attention_mask"][..., None].float()
    return model, torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def searched(binary, model, tmp, tokens, plain):
    """Rows of what --search makes of each way, and of the way without it."""
    rows = []
    for label, flags in SEARCHED.items():
        row = []
        for more in ([], ["--search"]):
            out = tmp / "searched"
            subprocess.run([binary, "quantize", model, out, "--force", "-q", *flags.split(), *more], check=True, stdout=subprocess.DEVNULL)
            said = subprocess.run([binary, "verify", out, "--source", model, "-q", "--json"], check=True, capture_output=True, text=True)
            said = json.loads(said.stdout)["total"]["rel_mse"]
            if "comfy" in flags:  # which transformers does not load
                restored = tmp / "restored"
                subprocess.run([binary, "dequantize", out, restored, "--force", "-q", "--dtype", "f32"], check=True, stdout=subprocess.DEVNULL)
                _, got = embed(restored, tokens)
            else:
                loaded, got = embed(out, tokens)
            row.append(f"{said:.5f} | {1 - (got * plain).sum(1).mean():.5f}")
        rows.append(f"| {label} | {size(out) / 1e6:.2f} MB | {' | '.join(row)} |")
        print(rows[-1], flush=True)
    return rows


def size(folder):
    return sum(f.stat().st_size for f in folder.glob("*.safetensors"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, help="write the page here")
    parser.add_argument("--binary", help="a tensorpress that is already built")
    args = parser.parse_args()
    tokens = AutoTokenizer.from_pretrained(args.model)(SENTENCES, padding=True, return_tensors="pt")
    _, plain = embed(args.model, tokens)
    pairs = torch.triu_indices(len(SENTENCES), len(SENTENCES), 1)
    similar = (plain @ plain.T)[pairs[0], pairs[1]]
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        binary = args.binary
        if not binary:
            binary = tmp / "tensorpress"
            subprocess.run(["go", "build", "-o", binary, "./cmd/tensorpress"], cwd=ROOT, check=True)
        for label, (flags, settings) in SETTINGS.items():
            ours, ref = tmp / "ours", tmp / "ref"
            subprocess.run([binary, "quantize", args.model, ours, "--force", "-q", *flags.split()], check=True, stdout=subprocess.DEVNULL)
            model, got = embed(ours, tokens)
            layers = sum(hasattr(m, "sdnq_dequantizer") for m in model.modules())
            made, _ = embed(args.model, tokens, quantization_config=SDNQConfig(weights_dtype=label.split(",")[0], **settings))
            made.save_pretrained(ref)
            _, theirs = embed(ref, tokens)
            cosine, sdnq_cosine = (got * plain).sum(1), (theirs * plain).sum(1)
            drift = ((got @ got.T)[pairs[0], pairs[1]] - similar).abs().max()
            same = "equal" if torch.equal(got, theirs) else f"{sdnq_cosine.mean():.6f}, {sdnq_cosine.min():.6f}"
            rows.append(f"| {label} | {layers} | {size(ours) / 1e6:.2f} MB | {cosine.mean():.6f} | {cosine.min():.6f} | {drift:.4f} | {same} |")
            print(rows[-1], flush=True)
            for folder in (ref,):
                for f in folder.iterdir():
                    f.unlink()
        better = searched(binary, args.model, tmp, tokens, plain)
    page = f"""# Sentence embeddings of all-MiniLM-L6-v2

The model (Apache-2.0, {size(args.model) / 1e6:.2f} MB in F32) was quantized by `tensorpress quantize MODEL OUT` with the flags named, and loaded by transformers with sdnq. {len(SENTENCES)} sentences, mean-pooled and normalized;
cosine similarity to the embedding of the original, and the greatest change of the similarity of any two of the sentences. Last column: the same model quantized by sdnq itself, saved and loaded again; `equal` means every bit of
every embedding, otherwise the mean and the least cosine (rotations of 256 values round as the machine's matrix product sums; low-rank factors are not the reference's). `conformance/sdnq/minilm.py` makes this page.

| dtype | layers | file | mean cosine | least cosine | change between sentences | sdnq's own |
|---|---|---|---|---|---|---|
""" + "\n".join(rows) + """

## With `--search`

The same sentences, with files that are loaded by the unchanged loaders: the error of the weights, which `verify --source` says, and what the embeddings lack of a cosine of 1 on average. What ComfyUI alone loads was restored by `tensorpress dequantize` first.

| way | file | error of the weights | 1 - cosine | error, searched | 1 - cosine, searched |
|---|---|---|---|---|---|
""" + "\n".join(better) + "\n"
    if args.out:
        args.out.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
