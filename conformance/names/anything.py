"""Settings at random: under other names every value is what it was.

    anything.py TENSORPRESS [CASES] [SEED]

A small Flux of diffusers' names is quantized, moved to ComfyUI's names and back. Its
restored values, joined here by torch, must be those that the moved file restores to,
to the last bit; with a low-rank part, of which joined ones add up in another order,
within float32's rounding. What is refused must be restored all the same, and be taken
with --requantize.
"""
import collections
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

BINARY = sys.argv[1]
CASES = int(sys.argv[2]) if len(sys.argv) > 2 else 200
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 0
WIDTH = 128
JOINED = {
    "double_blocks.0.img_attn.qkv": [f"transformer_blocks.0.attn.to_{x}" for x in "qkv"],
    "double_blocks.0.txt_attn.qkv": [f"transformer_blocks.0.attn.add_{x}_proj" for x in "qkv"],
    "single_blocks.0.linear1": [*(f"single_transformer_blocks.0.attn.to_{x}" for x in "qkv"), "single_transformer_blocks.0.proj_mlp"],
    "double_blocks.0.img_attn.proj": ["transformer_blocks.0.attn.to_out.0"],
    "img_in": ["x_embedder"],
    "vector_in.in_layer": ["time_text_embed.text_embedder.linear_1"],
}
SWAPPED = {"final_layer.adaLN_modulation.1": "norm_out.linear"}


def source(alike):
    g = torch.Generator().manual_seed(7)
    state = {}
    for names in [*JOINED.values(), *([name] for name in SWAPPED.values())]:
        for i, name in enumerate(names):
            rows = WIDTH * (4 if name.endswith("proj_mlp") else 2 if name.startswith("norm_out") else 1)
            w = torch.randn(rows, 64 if name == "x_embedder" else WIDTH, generator=g) * (1 if alike else i + 1)
            if alike:
                w = w.clamp(-2, 2)
                w[0, 0], w[0, 1] = 3, -3
            state[name + ".weight"] = w.to(torch.bfloat16)
            state[name + ".bias"] = torch.randn(rows, generator=g).to(torch.bfloat16)
    return state


def joined(state):
    """ComfyUI's tensors of diffusers'."""
    out = {}
    for end in (".weight", ".bias"):
        for name, parts in JOINED.items():
            out[name + end] = torch.cat([state[part + end] for part in parts])
        for name, part in SWAPPED.items():
            out[name + end] = torch.cat(state[part + end].chunk(2)[::-1])
    return out


def tensorpress(*args):
    force = [] if args[0] == "verify" else ["--force"]
    run = subprocess.run([BINARY, *map(str, args), "-q", *force], capture_output=True, text=True)
    return run.returncode, run.stderr.strip()


def must(*args):
    status, said = tensorpress(*args)
    if status:
        raise AssertionError(f"{' '.join(map(str, args))}: status {status}: {said[:300]}")


def settings(r, dtypes):
    """Flags of quantize at random."""
    given = ["--dtype", "sdnq:" + r.choice(dtypes), "--group-size", r.choice([0, -1, -2, 16, 32, 64])]
    for chance, flags in (
        (0.3, ["--svd-rank", r.choice([1, 5]), "--svd-steps", 1]), (0.3, ["--hadamard", "--hadamard-group-size", r.choice([16, 64, 128])]), (0.25, ["--codebook", "--codebook-steps", 2]),
        (0.25, ["--scale-dtype", r.choice(["uint8", "int8", "uint4", "float8_e4m3fn", "float6_e3m2fn"])]), (0.2, ["--zero-point-dtype", r.choice(["none", "uint8", "int8"])]),
        (0.1, ["--codebook-scale"]), (0.3, ["--quantized-matmul"]), (0.1, ["--quantized-matmul-dtype", r.choice(["int8", "uint8", "float8_e4m3fn", "float16"])]),
        (0.2, ["--dequantize-fp32=false"]),
    ):
        if r.random() < chance:
            given += flags
    return given


def apart(got, want):
    """The tensors that differ, and by how much of their largest value."""
    if got.keys() != want.keys():
        return sorted(got.keys() ^ want.keys()), float("inf")
    names = [n for n in want if got[n].shape != want[n].shape or not torch.equal(got[n].float(), want[n].float())]
    return names, max([((got[n].float() - want[n].float()).abs().max() / want[n].float().abs().max().clamp(min=1e-30)).item() for n in names if got[n].shape == want[n].shape] or [0.0])


def check(given, layout, start, folder):
    """What became of one choice of settings."""
    at = {name: folder / f"{name}.safetensors" for name in ("quantized", "plain", "renamed", "comfy", "restored", "back", "again")}
    for path in folder.glob("*"):
        path.unlink()
    status, _ = tensorpress("quantize", start, at["quantized"], "--layout", layout, "--preset", "none", "--min-numel", 0, *given)
    if status == 2:
        return "no such settings"
    if status:
        raise AssertionError(f"quantize: status {status}")
    status, said = tensorpress("dequantize", at["quantized"], at["plain"], "--dtype", "f32")
    if status == 3 and "holds no quantized layer" in said:
        return "no such settings"
    if status:
        raise AssertionError(f"dequantize: status {status}: {said}")
    plain = load_file(at["plain"])
    want = joined(plain)
    must("dequantize", at["quantized"], at["renamed"], "--names", "comfyui", "--dtype", "f32")
    names, _ = apart(load_file(at["renamed"]), want)
    if names:
        raise AssertionError(f"dequantize --names comfyui: {names} differ")
    way = ["transcode", at["quantized"], at["comfy"], "--layout", "comfy", "--names", "comfyui", "--rename"]
    status, said = tensorpress(*way)
    if status:
        if status != 2 or "--requantize" not in said:
            raise AssertionError(f"transcode: status {status}: {said}")
        must(*way, "--requantize")
        must("dequantize", at["comfy"], at["restored"], "--dtype", "f32")
        if load_file(at["restored"]).keys() != want.keys():
            raise AssertionError("other tensors with --requantize")
        return "refused: " + ("differs" if "differs between" in said else said[:200])
    must("dequantize", at["comfy"], at["restored"], "--dtype", "f32")
    ranked = "--svd-rank" in given
    names, by = apart(load_file(at["restored"]), want)
    if names and not (ranked and by < 2e-6):
        raise AssertionError(f"{names} differ by {by:.1e}")
    must("transcode", at["comfy"], at["back"], "--layout", "sdnq", "--names", "diffusers")
    must("dequantize", at["back"], at["again"], "--dtype", "f32")
    names, by = apart(load_file(at["again"]), plain)
    if names and not (ranked and by < 2e-6):
        raise AssertionError(f"back, {names} differ by {by:.1e}")
    must("verify", at["comfy"], "--source", at["quantized"], "--max-rel-mse", 1e-9)
    return "moved"


def main():
    formats = json.loads(subprocess.run([BINARY, "formats", "--json"], capture_output=True, text=True, check=True).stdout)
    rows = formats if isinstance(formats, list) else next(v for v in formats.values() if isinstance(v, list))
    dtypes = [row["name"] for row in rows if "sdnq" in row["layouts"]]
    r, counts, failed = random.Random(SEED), collections.Counter(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        start = folder / "start" / "in.safetensors"
        start.parent.mkdir()
        for i in range(CASES):
            if i and i % 50 == 0:
                print(f"{i} of {CASES}", flush=True)
            alike, layout = r.random() < 0.3, r.choice(["sdnq", "comfy"])
            save_file(source(alike), start)
            given = settings(r, dtypes)
            work = folder / "work"
            work.mkdir(exist_ok=True)
            try:
                counts[check(given, layout, start, work)] += 1
            except AssertionError as e:
                failed += 1
                print("FAIL", layout, "alike" if alike else "", *given, "--", e, flush=True)
    for what, n in counts.most_common():
        print(f"{n:5} {what}")
    print(f"{len(dtypes)} dtypes; {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
