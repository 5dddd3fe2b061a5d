#!/usr/bin/env python3
"""Loads what tensorpress writes with the loaders that read it, and compares it with sdnq's own files.

    python conformance/sdnq/run.py [--out FILE] [--settings LABEL,…] [CASE…]

README.md beside this script says what it does and what its table means. Without
$PYTHON it makes a virtual environment of its own from requirements.txt.
"""
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def environment():
    """Runs this script again with the Python that has the references."""
    if os.environ.get("SDNQ_CONFORMANCE"):
        return
    python = os.environ.get("PYTHON")
    if not python:
        venv = pathlib.Path(os.environ.get("VENV", HERE / ".venv"))
        python = str(venv / "bin" / "python")
        if not os.path.exists(python):
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
    env = dict(os.environ, SDNQ_CONFORMANCE="1", SDNQ_USE_TORCH_COMPILE="0", HF_HUB_OFFLINE="1", PYTHONDONTWRITEBYTECODE="1")
    sys.exit(subprocess.run([python, *sys.argv], env=env).returncode)


environment()  # before torch is needed; also for a script that imports this one

import argparse
import copy
import json
import logging
import shutil
import tempfile
import time

import torch
import transformers
from safetensors.torch import load_file

import sdnq
from sdnq import SDNQConfig
from sdnq.loader import load_sdnq_model

sys.path.insert(0, str(ROOT / "conformance" / "families"))
from make_families import build, publish, tensors_of  # noqa: E402

from inputs import INPUTS, Inputs  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
logging.getLogger("diffusers").setLevel(logging.ERROR)
torch.set_num_threads(int(os.environ.get("THREADS", "2")))

DTYPE = torch.bfloat16
LOW = ["--min-numel", "1", "--min-channels", "1"], dict(minimum_allowed_numel=1, minimum_allowed_channel_size=1)
# label -> flags of tensorpress, settings of SDNQConfig
SETTINGS = {
    "int8": ("--dtype int8", dict(weights_dtype="int8")),
    "uint4": ("--dtype uint4", dict(weights_dtype="uint4")),
    "float8_e4m3fn": ("--dtype float8_e4m3fn", dict(weights_dtype="float8_e4m3fn")),
    "int5+hadamard": ("--dtype int5 --hadamard", dict(weights_dtype="int5", use_hadamard=True)),
    "uint4+codebook": ("--dtype uint4 --codebook", dict(weights_dtype="uint4", use_codebook=True)),
    "int8+matmul": ("--dtype int8 --quantized-matmul", dict(weights_dtype="int8", use_quantized_matmul=True)),
    "uint4+scale-uint8": ("--dtype uint4 --scale-dtype uint8", dict(weights_dtype="uint4", modules_quant_config={"*": {"scale_dtype": "uint8"}})),
    "uint4+svd8": ("--dtype uint4 --svd-rank 8", dict(weights_dtype="uint4", use_svd=True, svd_rank=8)),
    "int8+embedding": ("--dtype int8 --embedding", dict(weights_dtype="int8", quant_embedding=True)),
    "uint4+hadamard+embedding": ("--dtype uint4 --hadamard --embedding", dict(weights_dtype="uint4", use_hadamard=True, quant_embedding=True)),
    "int8+conv": ("--dtype int8 --conv", dict(weights_dtype="int8", quant_conv=True)),
    "uint4+conv": ("--dtype uint4 --conv", dict(weights_dtype="uint4", quant_conv=True)),
    "int8+conv+matmul": ("--dtype int8 --conv --quantized-matmul --quantized-matmul-conv",
                         dict(weights_dtype="int8", quant_conv=True, use_quantized_matmul=True, use_quantized_matmul_conv=True)),
    "int8, default minimums": ("--dtype int8", dict(weights_dtype="int8")),
    "int8, higher minimums": ("--dtype int8 --conv --embedding --min-numel 3073 --min-channels 33",
                              dict(weights_dtype="int8", quant_conv=True, quant_embedding=True, minimum_allowed_numel=3073, minimum_allowed_channel_size=33)),
    "uint4+group32": ("--dtype uint4 --group-size 32", dict(weights_dtype="uint4", group_size=32)),
    "int8+row": ("--dtype int8 --group-size -1", dict(weights_dtype="int8", group_size=-1)),
    "int8+tensor": ("--dtype int8 --group-size -2", dict(weights_dtype="int8", group_size=-2)),
    "uint8": ("--dtype uint8", dict(weights_dtype="uint8")),
    "float6_e3m2fn": ("--dtype float6_e3m2fn", dict(weights_dtype="float6_e3m2fn")),
    "float16": ("--dtype float16", dict(weights_dtype="float16")),
    "uint1": ("--dtype uint1", dict(weights_dtype="uint1")),
    "int8, scales in BF16": ("--dtype int8 --dequantize-fp32=false", dict(weights_dtype="int8", dequantize_fp32=False)),
    "uint4+codebook-scale": ("--dtype uint4 --codebook-scale --scale-dtype uint8", dict(weights_dtype="uint4", modules_quant_config={"*": {"use_codebook_scale": True, "scale_dtype": "uint8"}})),
    "uint4+scale-float8": ("--dtype uint4 --scale-dtype float8_e4m3fn --zero-point-dtype uint8",
                           dict(weights_dtype="uint4", modules_quant_config={"*": {"scale_dtype": "float8_e4m3fn", "zero_point_dtype": "uint8"}})),
    "uint8+matmul": ("--dtype uint8 --quantized-matmul", dict(weights_dtype="uint8", use_quantized_matmul=True)),
    "uint4+matmul": ("--dtype uint4 --quantized-matmul", dict(weights_dtype="uint4", use_quantized_matmul=True)),
    "float8+matmul": ("--dtype float8_e4m3fn --quantized-matmul", dict(weights_dtype="float8_e4m3fn", use_quantized_matmul=True)),
    "int8+matmul-float16": ("--dtype int8 --quantized-matmul --quantized-matmul-dtype float16", dict(weights_dtype="int8", use_quantized_matmul=True, quantized_matmul_dtype="float16")),
    "uint4+codebook+matmul": ("--dtype uint4 --codebook --quantized-matmul", dict(weights_dtype="uint4", use_codebook=True, use_quantized_matmul=True)),
    "int8+svd8+matmul": ("--dtype int8 --svd-rank 8 --quantized-matmul", dict(weights_dtype="int8", use_svd=True, svd_rank=8, use_quantized_matmul=True)),
    "uint4+svd8+hadamard+codebook": ("--dtype uint4 --svd-rank 8 --hadamard --codebook", dict(weights_dtype="uint4", use_svd=True, svd_rank=8, use_hadamard=True, use_codebook=True)),
    "int8+conv+hadamard": ("--dtype int8 --conv --hadamard", dict(weights_dtype="int8", quant_conv=True, use_hadamard=True)),
    "uint4+conv+codebook": ("--dtype uint4 --conv --codebook", dict(weights_dtype="uint4", quant_conv=True, use_codebook=True)),
    "uint4+conv+scale-uint8": ("--dtype uint4 --conv --scale-dtype uint8", dict(weights_dtype="uint4", quant_conv=True, modules_quant_config={"*": {"scale_dtype": "uint8"}})),
    "int8+conv+svd8": ("--dtype int8 --conv --svd-rank 8", dict(weights_dtype="int8", quant_conv=True, use_svd=True, svd_rank=8)),
    "int8+conv+group16": ("--dtype int8 --conv --group-size 16", dict(weights_dtype="int8", quant_conv=True, group_size=16)),
    "uint8+conv+matmul": ("--dtype uint8 --conv --quantized-matmul-conv", dict(weights_dtype="uint8", quant_conv=True, use_quantized_matmul_conv=True)),
    "float8+conv+tensor": ("--dtype float8_e4m3fn --conv --group-size -2", dict(weights_dtype="float8_e4m3fn", quant_conv=True, group_size=-2)),
}
PLAIN = ["int8", "uint4", "float8_e4m3fn", "int5+hadamard", "uint4+codebook", "int8+matmul", "uint4+scale-uint8", "uint4+svd8"]
EMBEDDING = ["int8+embedding", "uint4+hadamard+embedding"]
CONV = ["int8+conv", "uint4+conv", "int8+conv+matmul"]
MORE = ["int8, higher minimums", "uint4+group32", "int8+row", "int8+tensor", "uint8", "float6_e3m2fn", "float16", "uint1", "int8, scales in BF16", "uint4+codebook-scale", "uint4+scale-float8",
        "uint8+matmul", "uint4+matmul", "float8+matmul", "int8+matmul-float16", "uint4+codebook+matmul", "int8+svd8+matmul", "uint4+svd8+hadamard+codebook"]
MORE_CONV = ["int8, higher minimums", "int8+conv+hadamard", "uint4+conv+codebook", "uint4+conv+scale-uint8", "int8+conv+svd8", "int8+conv+group16", "uint8+conv+matmul", "float8+conv+tensor"]
CASES = {
    "bert": PLAIN + EMBEDDING + MORE, "llama": PLAIN + EMBEDDING, "qwen3": PLAIN + EMBEDDING, "t5-encoder": PLAIN + EMBEDDING, "clip-text": PLAIN + EMBEDDING,
    "qwen3-moe": PLAIN, "flux": PLAIN + ["int8, default minimums"], "flux2": PLAIN, "qwen-image": PLAIN, "z-image": PLAIN, "chroma": PLAIN, "wan": PLAIN + CONV, "ltx2": PLAIN,
    "lumina2": PLAIN, "sd3": PLAIN + CONV, "pixart": PLAIN, "sdxl-unet": PLAIN + CONV, "sd15-unet": ["int8", *CONV, *MORE_CONV],
    "dac": CONV + MORE_CONV, "autoencoder-oobleck": ["int8+conv"], "autoencoder-kl": ["int8", *CONV, *MORE_CONV], "mixtral": ["int8", "uint4"], "gemma3": ["int8", "uint4", *EMBEDDING],
}


def randomize(model):
    """Weights of the size of trained ones, so that outputs stay finite and depend on every layer."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=g)
            p.copy_(r * p[0].numel() ** -0.5 if p.ndim > 1 else 1 + 0.1 * r if name.endswith("weight") else 0.1 * r)


def is_transformers(cls):
    return issubclass(cls, transformers.PreTrainedModel)


def load(cls, folder, **kw):
    return cls.from_pretrained(folder, **{"dtype" if is_transformers(cls) else "torch_dtype": DTYPE}, **kw)


def save(model, folder):
    model.save_pretrained(folder)


def tensors_in(x):
    if torch.is_tensor(x):
        return [x]
    if isinstance(x, dict):
        x = [v for k, v in x.items() if k != "past_key_values"]
    return [t for v in x for t in tensors_in(v)] if isinstance(x, (list, tuple)) else []


def forward(case, model):
    torch.manual_seed(3)
    with torch.no_grad():
        out = model.eval()(**INPUTS[case](Inputs()))
    out = [t.float() for t in tensors_in(out) if t.is_floating_point()]
    assert out and sum(t.numel() for t in out), "no output"
    return out


def finite(out):
    return all(bool(torch.isfinite(t).all()) for t in out)


def same(a, b):
    return len(a) == len(b) and all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b))


def distance(a, b):
    num = sum(float(((x - y).double() ** 2).sum()) for x, y in zip(a, b))
    den = sum(float((y.double() ** 2).sum()) for y in b)
    return (num / den) ** 0.5 if den else 0.0


def raw(t):
    return t.contiguous().view(torch.uint8).numpy().tobytes()


def quantized(model):
    return {n for n, m in model.named_modules() if hasattr(m, "sdnq_dequantizer")}


def rounded(x, y):
    """Whether two tensors differ as much as another order of the sums of a rotation explains."""
    if x.dtype == torch.float32:
        return torch.allclose(x, y, rtol=1e-5, atol=1e-8)
    x, y = (t.contiguous().view(torch.uint8) for t in (x, y))
    return int((x != y).sum()) <= 1 + x.numel() // 500


def compare_files(ours, ref, lossy, rotated):
    """-> what differs, and a note on what may."""
    a, b = tensors_of(ours), tensors_of(ref)
    out, widened, rounding = [], 0, 0
    if a.keys() != b.keys():
        out.append(f"names: {sorted(a.keys() - b.keys())[:3]} only ours, {sorted(b.keys() - a.keys())[:3]} only sdnq's")
    stems = {k.rsplit(".", 1)[0] for k in b if k.rsplit(".", 1)[-1] in ("scale", "svd_up")}
    for k in sorted(a.keys() & b.keys()):
        x, y = a[k], b[k]
        is_quantized = k.rsplit(".", 1)[0] in stems and not k.endswith(".bias")
        if x.shape == y.shape and x.dtype == y.dtype and (raw(x) == raw(y) or is_quantized and lossy):
            continue
        if not is_quantized and x.shape == y.shape and torch.equal(x.float(), y.float()):
            widened += 1  # the host of sdnq loaded it as F32
            continue
        if is_quantized and rotated and x.shape == y.shape and x.dtype == y.dtype and rounded(x, y):
            rounding += 1
            continue
        out.append(f"{k}: {x.dtype}{list(x.shape)} / {y.dtype}{list(y.shape)}")
    return out, widened, rounding


def compare_configs(ours, ref):
    a, b = (json.loads((f / "config.json").read_text()) for f in (ours, ref))
    a, b = a["quantization_config"], b["quantization_config"]
    out = []
    for k in sorted(a.keys() | b.keys()):
        if k.startswith("tensorpress"):
            continue  # what other readers need, ignored by sdnq
        x, y = a.get(k, "none"), b.get(k, "none")
        if k.startswith("modules_to"):
            x, y = set(x), set(y)
            if x - y or y - x:
                out.append(f"{k}: +{len(x - y)} −{len(y - x)}")
        elif x != y:
            out.append(f"{k}: {x} / {y}")
    return out


def short(e):
    return f"{type(e).__name__}: {' '.join(str(e).split())[:160]}"


class Row(dict):
    """A line of the table; problems and notes follow it."""

    def __init__(self, case, cls, label):
        super().__init__(case=case, cls=cls, settings=label, layers="", loads="–", keys="–", forward="–", bytes="–", outputs="–", sdnext="–")
        self.problems, self.notes = [], []


def error(model, weights):
    """The relative distance of the weights of quantized layers, once decoded, from those of the plain model."""
    num = den = 0.0
    for name in quantized(model):
        layer = model.get_submodule(name).dequantize()
        want = weights[name + ".weight"].double()
        num += float(((layer.weight.detach().double() - want) ** 2).sum().detach())
        den += float((want ** 2).sum().detach())
    return (num / den) ** 0.5


def check(row, case, cls, plain, reference, weights, binary, tmp, label):
    flags, settings = SETTINGS[label]
    flags = flags.split()
    if "minimums" not in label:
        flags, settings = flags + LOW[0], {**settings, **LOW[1]}
    lossy, rotated = settings.get("use_svd", False), settings.get("use_hadamard", False)
    differ, widened, rounding = [], 0, 0
    ours, ref = tmp / "ours", tmp / "ref"
    for folder in (ours, ref):
        shutil.rmtree(folder, ignore_errors=True)

    # sdnq itself
    ref_out = ref_model = None
    try:
        made = load(cls, plain, quantization_config=SDNQConfig(**copy.deepcopy(settings)))
        save(made, ref)
        ref_model = load(cls, ref)
        ref_out = forward(case, ref_model)
    except Exception as e:
        row.notes.append(f"sdnq itself: {short(e)}")

    done = subprocess.run([binary, "quantize", plain, ours, "-q", *flags], capture_output=True, text=True)
    if done.returncode:
        row.problems.append(f"tensorpress: status {done.returncode}: {' '.join(done.stderr.split())[:300]}")
        return
    if (ref / "config.json").exists() and list(ref.glob("*.safetensors")):
        differ, widened, rounding = compare_files(ours, ref, lossy, rotated)
        row["bytes"] = ("close" if lossy else "equal") if not differ else f"{len(differ)} DIFFER"
        if rounding:
            row["bytes"] += f", {rounding} but for rounding"
        if widened:
            row["bytes"] += f", {widened} in F32 there"
        row.problems += differ[:3]
        row.notes += [f"config: {x}" for x in compare_configs(ours, ref)]

    try:
        model, info = load(cls, ours, output_loading_info=True)
        row["loads"] = "yes"
    except Exception as e:
        row["loads"] = "NO" if ref_model is not None else "no, nor sdnq's"
        (row.problems if ref_model is not None else row.notes).append(f"loading: {short(e)}")
        model = None
    if model is not None:
        row["layers"] = len(quantized(model))
        bad = {k: sorted(map(str, info.get(k) or ())) for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")}
        bad["on meta"] = [n for n, p in model.named_parameters() if p.is_meta]
        row["keys"] = "ok" if not any(bad.values()) else "BAD"
        row.problems += [f"{k}: {len(v)}, as {v[:3]}" for k, v in bad.items() if v]
        try:
            out = forward(case, model)
            row["forward"] = "finite" if finite(out) else "NOT FINITE"
            if not finite(out) and not finite(reference):
                row["forward"] = "as plain"
            far = distance(out, reference)
            row["far"] = far
        except Exception as e:
            out = None
            row["forward"] = "RAISES" if ref_out is not None else "raises, so does sdnq's"
            (row.problems if ref_out is not None else row.notes).append(f"forward: {short(e)}")
        if ref_model is not None:
            only, missing = quantized(model) - quantized(ref_model), quantized(ref_model) - quantized(model)
            if only or missing:
                row.problems.append(f"layers: only ours {sorted(only)[:4]}, only sdnq's {sorted(missing)[:4]}")
        if out is not None and ref_out is not None:
            if lossy:
                theirs = distance(ref_out, reference)
                row["outputs"] = f"{far:.3f}/{theirs:.3f}"
                mine, sdnqs = error(model, weights), error(ref_model, weights)
                row["outputs"] += f", weights {mine:.4f}/{sdnqs:.4f}"
                if mine > 1.02 * sdnqs or far > 2 * theirs:
                    row.problems.append(f"further from the plain model than sdnq: outputs {far:.4f}/{theirs:.4f}, weights {mine:.5f}/{sdnqs:.5f}")
            else:
                row["outputs"] = "equal" if same(out, ref_out) else f"{distance(out, ref_out):.2e}"
                if not same(out, ref_out) and not (rounding and distance(out, ref_out) < 0.01):
                    row.problems.append(f"outputs differ from those of sdnq's own file by {distance(out, ref_out):.3e}")
    # SD.Next's way
    theirs = None
    try:
        theirs = forward(case, load_sdnq_model(str(ref), dtype=DTYPE))
    except Exception as e:
        row.notes.append(f"load_sdnq_model of sdnq's own file: {short(e)}")
    try:
        out = forward(case, load_sdnq_model(str(ours), dtype=DTYPE))
        if not finite(out) and finite(reference):
            row["sdnext"] = "NOT FINITE"
            row.problems.append("load_sdnq_model: not finite")
        elif theirs is None:
            row["sdnext"] = "runs"
        elif lossy:
            row["sdnext"] = f"{distance(out, reference):.3f}/{distance(theirs, reference):.3f}"
        else:
            row["sdnext"] = "equal" if same(out, theirs) else f"{distance(out, theirs):.2e}"
            if not same(out, theirs) and not ((rounding or widened) and distance(out, theirs) < 0.02):
                row.problems.append(f"load_sdnq_model: outputs differ by {distance(out, theirs):.3e}")
    except Exception as e:
        row["sdnext"] = "FAILS" if theirs is not None else "no, nor sdnq's"
        (row.problems if theirs is not None else row.notes).append(f"load_sdnq_model: {short(e)}")


COLUMNS = {"cls": "class", "settings": "settings", "layers": "layers", "loads": "loads", "keys": "keys", "forward": "forward",
           "bytes": "bytes", "outputs": "outputs", "sdnext": "load_sdnq_model"}


def table(rows):
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(str(r[k]) for k in COLUMNS) + " |" for r in rows]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, help="also write the table and the problems to this file")
    parser.add_argument("--binary", help="a tensorpress that is already built")
    parser.add_argument("--settings", help="labels, separated by commas")
    parser.add_argument("cases", nargs="*", help=", ".join(CASES))
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        binary = args.binary
        if not binary:
            binary = tmp / "tensorpress"
            subprocess.run(["go", "build", "-o", binary, "./cmd/tensorpress"], cwd=ROOT, check=True)
        for case in args.cases or CASES:
            started = time.time()
            cls, model = build(case)
            randomize(model)
            plain = tmp / "plain"
            shutil.rmtree(plain, ignore_errors=True)
            model.to(DTYPE).save_pretrained(plain)
            publish(case, plain)
            try:
                loaded = load(cls, plain)
                weights = dict(loaded.named_parameters())
                reference = forward(case, loaded)
                problem = None if finite(reference) else "the plain model's outputs are not finite"
            except Exception as e:
                problem = f"the plain model: {short(e)}"
            if problem:
                row = Row(case, cls.__name__, "–")
                row.problems.append(problem)
                rows.append(row)
                print(case, problem, flush=True)
                continue
            labels = args.settings.split(",") if args.settings else CASES.get(case, PLAIN)
            for label in labels:
                row = Row(case, cls.__name__, label)
                rows.append(row)
                try:
                    check(row, case, cls, plain, reference, weights, binary, tmp, label)
                except Exception as e:
                    row.problems.append(f"the check itself: {short(e)}")
                print(case, *(str(row[k]) for k in list(COLUMNS)[1:]), *(f"\n    ! {p}" for p in row.problems), *(f"\n    ~ {p}" for p in row.notes), flush=True)
            print(f"{case}: {time.time() - started:.0f} s", flush=True)
    text = table(rows) + "\n"
    for name, kind in (("problems", "Problems"), ("notes", "Notes")):
        found = {}
        for r in rows:
            for p in getattr(r, name):
                found.setdefault((r["case"], p), []).append(r["settings"])
        if found:
            text += f"\n{kind}\n\n" + "".join(f"- {case}, {'; '.join(labels)}: {p}\n" for (case, p), labels in found.items())
    print(text)
    if args.out:
        args.out.write_text(text)
    sys.exit(any(r.problems for r in rows))


if __name__ == "__main__":
    main()
