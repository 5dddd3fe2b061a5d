#!/usr/bin/env python3
"""Whole pipelines, shards, --like and --dynamic, with the loaders that read them.

    python conformance/sdnq/whole.py [--binary FILE]

README.md beside this script says more.
"""
import argparse
import copy
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from run import DTYPE, LOW, ROOT, SDNQConfig, build, forward, load, quantized, randomize, raw, same, save, short, tensors_of  # first: it starts the Python that has what follows

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

FLAGS, MINIMUMS = LOW
NO_WORDS = dict(tokenizer=None, tokenizer_2=None)
PARTS = {"transformer": "flux", "text_encoder": "clip-text", "text_encoder_2": "t5-encoder", "vae": "autoencoder-kl"}
QUANTIZED = ["transformer", "text_encoder", "text_encoder_2"]
MIXED = dict(weights_dtype="uint4", group_size=32, modules_dtype_dict={"int8": ["*.to_q*", "*.q*"]}, modules_quant_config={"*.to_k*": {"weights_dtype": "uint6", "group_size": 16}})
# label -> case, flags, settings
DYNAMIC = {
    "uint4": ("flux", "--dtype uint4", dict(weights_dtype="uint4")),
    "uint4, 1e-3": ("flux", "--dtype uint4 --dynamic-loss-threshold 0.001", dict(weights_dtype="uint4", dynamic_loss_threshold=0.001)),
    "int5, hadamard": ("bert", "--dtype int5 --hadamard", dict(weights_dtype="int5", use_hadamard=True)),
    "uint4, matmul": ("bert", "--dtype uint4 --quantized-matmul", dict(weights_dtype="uint4", use_quantized_matmul=True)),
    "uint2, conv": ("sd15-unet", "--dtype uint2 --conv", dict(weights_dtype="uint2", quant_conv=True)),
    "float6_e3m2fn": ("qwen3", "--dtype float6_e3m2fn", dict(weights_dtype="float6_e3m2fn")),
}


class Whole:
    def __init__(self, binary, tmp):
        self.binary, self.tmp, self.failed = binary, tmp, 0

    def tensorpress(self, *args):
        done = subprocess.run([self.binary, *map(str, args), "-q"], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"tensorpress {args[0]}: status {done.returncode}: {' '.join(done.stderr.split())[:300]} {done.stdout[:300]}")

    def folder(self, name):
        shutil.rmtree(self.tmp / name, ignore_errors=True)
        return self.tmp / name

    def say(self, what, problems):
        self.failed += bool(problems)
        print("FAIL" if problems else "ok  ", what, *(f"\n    ! {p}" for p in problems), flush=True)

    def plain(self, case, folder):
        cls, model = build(case)
        randomize(model)
        model.to(DTYPE).save_pretrained(folder)
        return cls

    def reference(self, cls, plain, folder, settings):
        """sdnq's own file; returns the model as loaded from it."""
        save(load(cls, plain, quantization_config=SDNQConfig(**copy.deepcopy(settings), **MINIMUMS)), folder)
        return load(cls, folder)


def differing(ours, ref):
    a, b = tensors_of(ours), tensors_of(ref)
    return [k for k in sorted(a.keys() | b.keys()) if k not in a or k not in b or a[k].shape != b[k].shape or raw(a[k].float() if a[k].is_floating_point() else a[k]) != raw(b[k].float() if b[k].is_floating_point() else b[k])]


def bad_keys(info):
    return [f"{k}: {sorted(map(str, v))[:3]}" for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")]


def pipeline(w):
    """A FluxPipeline: quantized whole, loaded whole, every component as sdnq makes it; and back."""
    plain, ours, back = w.folder("pipe"), w.folder("out"), w.folder("back")
    classes = {name: w.plain(case, plain / name) for name, case in PARTS.items()}
    parts = {name: load(cls, plain / name) for name, cls in classes.items()}
    FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), **NO_WORDS, **parts).save_pretrained(plain)
    w.tensorpress("quantize", plain, ours, "--dtype", "uint4", *FLAGS)
    w.tensorpress("verify", ours, "--source", plain, "--for", "diffusers")
    problems = []
    pipe = FluxPipeline.from_pretrained(ours, torch_dtype=DTYPE, **NO_WORDS)
    for name, case in PARTS.items():
        model = getattr(pipe, name)
        if name not in QUANTIZED:
            problems += [f"{name}: quantized"] if quantized(model) else []
            problems += [f"{name}: {k} differs" for k in differing(ours / name, plain / name)]
            continue
        ref = w.folder("ref")
        made = w.reference(classes[name], plain / name, ref, dict(weights_dtype="uint4"))
        problems += [f"{name}: {k} differs from sdnq's" for k in differing(ours / name, ref)[:3]]
        if not quantized(model) or quantized(model) != quantized(made):
            problems.append(f"{name}: {len(quantized(model))} layers, sdnq has {len(quantized(made))}")
        if not same(forward(case, model), forward(case, made)):
            problems.append(f"{name}: outputs differ from those of sdnq's own file")
    w.say(f"pipeline: {sum(len(quantized(getattr(pipe, n))) for n in QUANTIZED)} layers of {len(QUANTIZED)} components", problems)

    w.tensorpress("dequantize", ours, back)
    pipe = FluxPipeline.from_pretrained(back, torch_dtype=DTYPE, **NO_WORDS)
    problems = [f"{n}: quantized" for n in PARTS if quantized(getattr(pipe, n))]
    problems += [f"{n}: tensors are not those of the source" for n in PARTS if tensors_of(back / n).keys() != tensors_of(plain / n).keys()]
    w.say("pipeline, back to plain", problems)


def shards(w):
    """The same outputs from shards as from one file, and from a source in shards."""
    plain, one, many, again = (w.folder(n) for n in ("plain", "one", "many", "again"))
    for case, stem in (("flux", "diffusion_pytorch_model"), ("llama", "model")):
        for folder in (plain, one, many, again):
            shutil.rmtree(folder, ignore_errors=True)
        cls = w.plain(case, plain)
        w.tensorpress("quantize", plain, one, "--dtype", "uint4", *FLAGS)
        w.tensorpress("quantize", plain, many, "--dtype", "uint4", "--shard-size", "20KB", *FLAGS)
        count = len(list(many.glob(f"{stem}-*.safetensors")))
        problems = [] if count > 2 else [f"{count} shards"]
        model, info = load(cls, many, output_loading_info=True)
        problems += bad_keys(info)
        if not same(forward(case, model), forward(case, load(cls, one))):
            problems.append("outputs differ from those of one file")
        cut = w.folder("cut")
        load(cls, plain).save_pretrained(cut, max_shard_size="20KB")
        w.tensorpress("quantize", cut, again, "--dtype", "uint4", *FLAGS)
        problems += [f"of a source in {len(list(cut.glob('*.safetensors')))} shards: {k} differs" for k in differing(again, one)[:3]]
        w.say(f"{cls.__name__} in {count} shards", problems)


def like(w):
    """Settings of a model that sdnq itself saved, taken over layer by layer."""
    for case in ("flux", "bert", "llama"):
        plain, ref, ours = w.folder("plain"), w.folder("ref"), w.folder("ours")
        cls = w.plain(case, plain)
        made = w.reference(cls, plain, ref, MIXED)
        w.tensorpress("quantize", plain, ours, "--like", ref)
        problems = [f"{k} differs from sdnq's" for k in differing(ours, ref)[:3]]
        model, info = load(cls, ours, output_loading_info=True)
        problems += bad_keys(info)
        if not same(forward(case, model), forward(case, made)):
            problems.append("outputs differ from those of sdnq's own file")
        dtypes = {m.sdnq_dequantizer.weights_dtype for m in model.modules() if hasattr(m, "sdnq_dequantizer")}
        w.say(f"{cls.__name__} --like sdnq's own: {', '.join(sorted(dtypes))}", problems)


def dynamic(w):
    """The dtypes that sdnq chooses, and its bytes."""
    for label, (case, flags, settings) in DYNAMIC.items():
        plain, ref, ours = w.folder("plain"), w.folder("ref"), w.folder("ours")
        cls = w.plain(case, plain)
        try:
            made = w.reference(cls, plain, ref, dict(settings, use_dynamic_quantization=True))
        except Exception as e:
            w.say(f"{cls.__name__} dynamic {label}: sdnq itself: {short(e)}", [])
            continue
        w.tensorpress("quantize", plain, ours, "--dynamic", *flags.split(), *FLAGS)
        problems = []
        model, info = load(cls, ours, output_loading_info=True)
        problems += bad_keys(info)
        chosen = [{n: m.sdnq_dequantizer.weights_dtype for n, m in x.named_modules() if hasattr(m, "sdnq_dequantizer")} for x in (model, made)]
        for n in sorted(chosen[0].keys() | chosen[1].keys()):
            if chosen[0].get(n) != chosen[1].get(n):
                problems.append(f"{n}: {chosen[0].get(n)}, sdnq takes {chosen[1].get(n)}")
        if not settings.get("use_hadamard"):  # which rounds as the machine's products sum
            problems += [f"{k} differs from sdnq's" for k in differing(ours, ref)[:3]]
            if not same(forward(case, model), forward(case, made)):
                problems.append("outputs differ from those of sdnq's own file")
        found = sorted(set(chosen[0].values()))
        w.say(f"{cls.__name__} --dynamic from {label}: {len(chosen[0])} layers in {', '.join(found)}", problems[:6])


STEPS = dict(pipeline=pipeline, shards=shards, like=like, dynamic=dynamic)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", help="a tensorpress that is already built")
    parser.add_argument("steps", nargs="*", help=", ".join(STEPS))
    args = parser.parse_args()
    diffusers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        binary = args.binary
        if not binary:
            binary = tmp / "tensorpress"
            subprocess.run(["go", "build", "-o", binary, "./cmd/tensorpress"], cwd=ROOT, check=True)
        w = Whole(binary, tmp)
        for name in args.steps or STEPS:
            step = STEPS[name]
            try:
                step(w)
            except Exception as e:
                w.say(f"{step.__name__}: {short(e)}", ["the check itself failed"])
        sys.exit(w.failed > 0)


main()
