#!/usr/bin/env python3
"""Command lines of convert_to_quant and the hashes of the files it writes.

    python conformance/golden/make_ctq_lines.py [FOLDER]

writes FOLDER/sources.tsv (tensors by their dtype, shape and seed, from which
the test makes the same files), FOLDER/*.layers.json and FOLDER/lines.tsv
(default FOLDER: testdata/golden/ctq/lines of this repository). The program
itself runs in this process, one fork for each line, on the CPU.
"""
import contextlib
import gc
import hashlib
import io
import json
import os
import pathlib
import random
import shlex
import sys
import tempfile

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "I64": torch.int64}
MIX = [
    # dtype, shape, fill, names
    ("BF16", (256, 384), "noise", "blocks.0.attn.to_q.weight blocks.1.attn.to_q.weight"),
    ("F16", (128, 256), "noise", "blocks.0.attn.to_k.weight"),
    ("F32", (128, 128), "noise", "blocks.0.mlp.fc1.weight txt_in.weight"),
    ("BF16", (64, 128), "noise", "blocks.0.mlp.fc2.weight final_layer.linear.weight"),
    ("F32", (33, 65), "noise", "blocks.1.odd.weight"),
    ("F16", (20, 40), "noise", "blocks.1.thin.weight img_in.weight"),
    ("F32", (1, 64), "noise", "blocks.1.row.weight"),
    ("BF16", (40, 1), "noise", "blocks.1.column.weight"),
    ("F32", (128, 64), "zeros", "blocks.1.sparse.weight"),
    ("BF16", (16, 16), "noise", "small.weight"),
    ("F32", (40,), "noise", "blocks.0.norm.weight"),
    ("F16", (3, 4, 3, 3), "noise", "conv.weight"),
    ("F32", (6, 10), "noise", "pos_embed"),
    ("I64", (), "noise", "step"),
]
EVEN = [
    ("BF16", (256, 256), "noise", "a.0.attn.weight a.0.proj.weight b.10.weight"),
    ("F32", (128, 256), "noise", "a.1.attn.weight a.1.mlp.weight"),
    ("F16", (128, 128), "noise", "c.weight x.scale_of.weight"),
    ("BF16", (128, 256), "zeros", "d.weight"),
    ("BF16", (64,), "noise", "norm.weight"),
]
BIASES = [
    ("BF16", (128, 128), "noise", "a.weight"), ("BF16", (128,), "noise", "a.bias"),
    ("F32", (48, 128), "noise", "b.norm.weight"), ("F16", (48,), "noise", "b.norm.bias"),
    ("F16", (64, 64), "coarse", "c.weight"), ("F32", (64,), "noise", "c.bias alone.bias norm.bias"),
    ("F32", (64,), "noise", "norm.weight"),
]
EMPTY = [("F32", (0, 16), "noise", "nothing.weight"), ("BF16", (16, 0), "noise", "nobody.weight"), ("BF16", (16, 48), "noise", "some.weight")]
ROTATE = [
    ("BF16", (12, 256), "coarse", "a.weight"), ("F32", (12, 320), "coarse", "b.weight"), ("BF16", (12, 40), "coarse", "c.weight"),
    ("F16", (8, 512), "coarse", "d.weight"), ("F32", (6, 1024), "coarse", "e.weight"), ("BF16", (4, 64), "coarse", "f.weight"),
    ("F32", (4, 16), "coarse", "g.weight"), ("BF16", (4, 768), "coarse", "h.weight"), ("BF16", (16, 1024), "zero", "z.weight"),
    ("BF16", (1, 256), "coarse", "one.weight"),
]
ZEROS = [
    ("BF16", (128, 128), "zero", "a.weight"), ("F32", (20, 40), "zero", "b.weight"), ("F16", (64, 64), "noise", "c.weight"),
    ("F32", (1, 16), "zero", "d.weight"),
]
# names with the words of every preset, and of T5 and language models
WORDS = [
    "audio_tower.0", "per_layer_input_gate", "vision.2", "multi_modal_projector", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.up_proj",
    "model.layers.10.self_attn.q_proj", "model.language_model.layers.3.q", "model.language_model.layers.12.q", "visual.blocks.0", "mtp.fc", "in_proj_a",
    "lm_head", "model.embed_tokens", "shared", "decoder.block.0.q", "encoder.block.0.layer.0.SelfAttention.k", "encoder.block.0.layer.0.layer_norm", "net.blocks.0.q",
    "net.blocks.1.adaln_modulation.1", "net.blocks.1.q", "llm_adapter.0", "x_embedder.proj", "t_embedder.mlp.0", "time_text_embed.0", "img_in", "norm_out.linear",
    "norm_out.linear_1", "proj_out", "blocks.3.img_mod.1", "blocks.3.txt_mod.1", "transformer_blocks.0.img_mod.1", "transformer_blocks.1.ff", "transformer_blocks.46.ff",
    "transformer_blocks.20.ff", "txt_in", "stream_modulation.lin", "guidance_in.in", "time_in.in", "final_layer.linear", "distilled_guidance_layer.0", "nerf_blocks.0",
    "nerf_image_embedder.0", "double_blocks.0.img_attn.proj", "img_in_patch", "nerf_final_layer_conv", "first", "last.linear", "tmlp.0", "tmlp.1", "tproj.1",
    "txtfusion.projector", "txtfusion.other", "txtmlp.1", "last.modulation", "embed_image_indicator", "t_embedding", "llm_cond_proj", "adaln_proj", "input_proj",
    "text_embedding.0", "time_embedding.0", "time_projection.1", "head.head", "face_adapter.q", "audio_injector.q", "img_attn_k_norm", "vision_in.proj.0", "vision_in.proj.1",
    "cond_type_embedding", "audio_patch_proj", "condition_proj", "token_refiner.0", "video_patch_proj", "norm_added_k", "txt_norm", "cap_embedder.0", "cap_embedder.1",
    "attention_norm1", "adaLN_modulation.1", "context_refiner.0", "noise_refiner.0", "image_index_embedding", "ref_image_patch_embedder", "time_caption_embed",
    "scale_shift_table", "audio_adaln_single.lin", "patchify_proj", "av_ca_a2v_gate_adaln_single.l", "vae.decoder.0", "vocoder.0", "to_gate_logits", "rebias", "denorm", "plain",
]
WORDY = [(("F32", "BF16", "F16")[i % 3], (16, 32), "noise", name + ".weight") for i, name in enumerate(WORDS)] + [
    ("F32", (8,), "noise", "decoder.other encoder.final_layer_norm.weight lm_head.scale"), ("F32", (16, 32), "noise", "model.table")]
SOURCES = {
    "mix": (MIX, None), "even": (EVEN, None), "pt": (EVEN[1:], {"format": "pt"}), "bias": (BIASES, None),
    "rotate": (ROTATE, None), "zeros": (ZEROS, None), "words": (WORDY, None), "empty": (EMPTY, None),
}
CONFIGS = {
    "formats": {"_default": {"format": "float8_e4m3fn"}, "_note": 1, r"attn": {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}, r"mlp\.fc1": {"format": "int8_tensorwise"},
                r"mlp\.fc2": {"format": "int8_tensorwise", "scaling_mode": "row"}, r"sparse": {"format": "int8_blockwise", "scaling_mode": "block", "block_size": 32}, "thin|odd": {"skip": True}},
    "labels": {"to_q": {"format": "float8_e4m3fn_blockwise", "block_size": 64, "scaling_mode": "block"}, "to_k": {"format": "float8_e4m3fn_rowwise", "scaling_mode": "row"},
               "fc1": {"format": "float8_e4m3fn_blockwise"}, "fc2": {"format": "float8_e4m3fn_rowwise"}, "sparse": {"format": "mxfp8"}, "small": {"format": "nvfp4", "block_size": 16},
               "odd": {"format": "float8_e4m3fn_block3d"}, "row": {"format": "hybrid_mxfp8"}, "column": {"format": "float8_e4m3fn_blockwise", "scaling_mode": "block", "block_size": 8},
               "final": {"format": "int8_tensorwise", "scaling_mode": "tensor"}, "img_in": {"format": "int8_blockwise", "scaling_mode": "row"}},
    "order": {"a": {"format": "float8_e4m3fn"}, r"a\.\d+\.attn": {"format": "int8_tensorwise"}, r"a\.0\.attn": {"skip": True}, r"\d\.attn\w*": {"format": "float8_e4m3fn", "scaling_mode": "row"},
              r"(a|b)\.1": {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}, r"^c$": {"skip": True}, r"x\.scale_of": {"format": "int8_tensorwise", "scaling_mode": "tensor"}},
    "full": {"a": {"skip": True}, r"a\.\d+\.attn": {"format": "int8_tensorwise"}, r".*\.weight": {"skip": True}, "[cd]": {"format": "float8_e4m3fn", "scaling_mode": "row", "full_precision_matrix_mult": False}},
    "none": {"_default": {}, "fc1": {"format": "float8_e4m3fn", "unknown": 1, "block_size": None}, "attn": {"format": "float8_e4m3fn", "skip": False}},
    "simple": {"attn": {"format": "float8_e4m3fn", "simple": True}, "": {"skip": True}},
}
PRESETS = ("gemma4 qwen_vlm qwen35 t5xxl mistral visual generic_text anima lens flux2 distillation_large distillation_small nerf_large nerf_small radiance krea2 ideogram4 wan hunyuan "
           "minimaxh3 qwen zimage zimage_refiner boogu ltxv2").split()


def hashed(seed, n):
    """splitmix64 of seed and position."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + (np.arange(n, dtype=np.uint64) + np.uint64(1)) * np.uint64(0xD1B54A32D192ED03)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def tensor(dtype, shape, fill, seed):
    n = int(np.prod(shape)) if shape else 1
    h = hashed(seed, n)
    if dtype == "I64":
        return torch.from_numpy((h >> np.uint64(1)).astype(np.int64).reshape(shape))
    columns = shape[-1] if len(shape) > 1 else 1
    row, column = np.arange(n) // max(columns, 1), np.arange(n) % max(columns, 1)
    if fill == "coarse":
        x = ((h >> np.uint64(56)).astype(np.int64) - 128) * 2.0 ** -7
    else:
        x = ((h >> np.uint64(40)).astype(np.int64) - 2 ** 23) * 2.0 ** -26 * 2.0 ** -((row * 7 + seed) % 5)
    if fill == "zero":
        x = x * 0
    if fill == "zeros":
        x = np.where((row % 9 == 3) | ((row < 32) & (column // 32 == 1)), 0, x)
    return torch.from_numpy(np.ascontiguousarray((x + 0.0).astype(np.float32).reshape(shape))).to(TORCH[dtype])


def sources(folder, tmp):
    rows, seed = [], 0
    for name, (tensors, metadata) in SOURCES.items():
        made = {}
        rows.append("\t".join(["file", name, json.dumps(metadata) if metadata else "-"]))
        for dtype, shape, fill, names in tensors:
            for one in names.split():
                seed += 1
                made[one] = tensor(dtype, shape, fill, seed)
                rows.append("\t".join([one, dtype, "x".join(map(str, shape)), fill, str(seed)]))
        save_file(made, tmp / f"{name}.safetensors", metadata=metadata)
    (folder / "sources.tsv").write_text("\n".join(["# file NAME METADATA, then its tensors: name dtype shape fill seed"] + rows) + "\n")


def lines():
    simple = "--simple"
    kinds = ["", "--scaling_mode row", "--scaling_mode block --block_size 32", "--scaling_mode block2d --block-size 16", "--scaling_mode block3d --block_size 64", "--scaling-mode block",
             "--int8", "--int8 --scaling_mode row"]
    for k in kinds:
        for more in ("", "--heur", "--input_scale --full_precision_matrix_mult", "--t5xxl", "--save-quant-metadata -fpmm", "--output-dtype float16 --exclude-layers attn|img"):
            yield "mix", f"{simple} {k} {more}"
        yield "pt", f"{simple} {k} -lm"
        yield "bias", f"{simple} {k} --manual_seed 7"
        yield "zeros", f"{simple} {k}"
        yield "empty", f"{simple} {k} --output-dtype float16"
    for k in ("--int8 --scaling_mode block --block_size 32", "--int8 --scaling_mode block", "--int8 --scaling_mode block2d --group_size 64", "--int8 --scaling_mode block3d --group-size 64"):
        for more in ("", "--heur", "--generic_text", "--input_scale", "--save_quant_metadata"):
            yield "even", f"{simple} {k} {more}"
    for k in ("--nvfp4", "--mxfp8"):
        for more in ("", "--heur", "--exclude-layers attn", "--input_scale -fpmm", "--output_dtype float16", "--save-quant-metadata", "--flux2", "--preserve-layers odd|thin --wan", "--t5xxl", "--low-memory",
                     "--layer-config @formats.layers.json", "--custom-layers attn", "--extract-lora --device cuda"):
            yield "mix", f"{simple} {k} {more}"
        for s in ("pt", "bias", "zeros", "words"):
            yield s, f"{simple} {k}"
        yield "words", f"{simple} {k} --qwen_vlm --krea2"
    yield "mix", "--simple --nvfp4 --mxfp8"
    yield "mix", "--simple --int8 --nvfp4"
    for p in PRESETS:
        yield "words", f"{simple} --{p}"
        yield "words", f"{simple} --int8 --scaling_mode row --{p} --output-dtype float16"
    yield "words", f"{simple} --wan --krea2 --t5xxl"
    yield "words", f"{simple} --krea2 --qwen35 --preserve-layers first|audio"
    yield "words", f"{simple} --generic_text --scaling_mode row"
    yield "words", f"{simple} --mistral --scaling_mode block --block_size 16"
    yield "words", f"{simple} --visual --scaling_mode block --block_size 128"
    for t in ("fp8", "int8", "mxfp8", "nvfp4"):
        for more in ("", "--custom-scaling-mode row --custom-fpmm", "--custom-scaling-mode tensor --custom-heur", "--custom-scaling-mode block --custom-block-size 16"):
            yield "even", f"{simple} --custom-layers ^a\\. --custom-type {t} --custom-simple {more}"
        yield "mix", f"{simple} --custom-layers attn|mlp --custom-type {t} --custom-simple --exclude-layers attn|small --fallback fp8 --fallback-simple"
        yield "mix", f"{simple} --custom-layers . --custom-type {t} --custom-simple --heur --custom-heur --generic_text"
        yield "words", f"{simple} --wan --fallback {t} --fallback-simple --output-dtype float16"
        yield "words", f"{simple} --custom-layers model --custom-type {t} --custom-simple --t5xxl --fallback {t} --fallback-simple --custom-scaling-mode row"
        yield "even", f"{simple} --exclude-layers attn --fallback {t} --fallback-simple --fallback-block-size 64 --scaling_mode row --save-quant-metadata"
        yield "even", f"{simple} --int8 --scaling_mode block --block_size 64 --exclude-layers attn --fallback {t} --fallback-simple -fpmm"
        yield "even", f"--custom-layers . --custom-type {t} --custom-simple"
        yield "zeros", f"{simple} --custom-layers . --custom-type {t} --custom-simple --custom-scaling-mode row"
        yield "bias", f"{simple} --custom-layers [ac]\\. --custom-type {t} --custom-simple --exclude-layers norm"
    for o in ("--convrot", "--convrot --convrot-group-size 16", "--convrot --convrot_group_size 64 -fpmm", "--dynamic-convrot", "--dynamic-convrot --convrot-group-size 16", "--dynamic_convrot --convrot_group_size 4",
              "--convrot --convrot-group-size 40", "--convrot --convrot-group-size 8", "--convrot --convrot-group-size 512", "--convrot --save-quant-metadata", "--convrot --generic_text"):
        yield "rotate", f"{simple} --int8 --scaling_mode row {o}"
    for o in ("", "--custom-convrot-group-size 16", "--custom-convrot-group-size 64 --custom-fpmm", "--custom-convrot-group-size 40", "--custom-convrot-group-size 8", "--custom-convrot-group-size 32"):
        yield "rotate", f"{simple} --custom-layers [a-e]\\. --custom-type int8 --custom-scaling-mode row --custom-simple --custom-convrot {o}"
    yield "rotate", f"{simple} --convrot"
    yield "rotate", f"{simple} --int8 --convrot"
    yield "rotate", f"{simple} --int8 --scaling_mode row --convrot --exclude-layers [ab]\\. --fallback int8 --fallback-simple"
    yield "rotate", f"{simple} --int8 --scaling_mode row --convrot --custom-layers [ab]\\. --custom-type int8 --custom-simple"
    yield "rotate", f"{simple} --int8 --scaling_mode row --convrot --convrot-group-size 64 --layer-config @rotate.layers.json"
    yield "rotate", f"{simple} --scaling_mode row --dynamic-convrot --convrot-group-size 16 --exclude-layers [ac] --fallback int8 --fallback-simple --custom-layers [dz] --custom-type int8 --custom-simple"
    for name in CONFIGS:
        for s in ("mix", "even"):
            for more in ("", "--fullmatch", "--scaling_mode row --input_scale", "--int8 --scaling_mode row -fpmm", "--exclude-layers . --save-quant-metadata", "--custom-layers . --custom-type fp8 --custom-simple --heur --generic_text"):
                yield s, f"{simple} --layer-config @{name}.layers.json {more}"
    yield "even", "--layer-config @simple.layers.json"
    for more in ("--calib_samples 9 --calib-cpu --optimizer adamw --num_iter 3 --lr 0.5 --lr_schedule adaptive --top_p 0.5 --min-k 4 --max_k=9 --full-matrix", "--early-stop-loss 1e-3 -eslr 1 -esstall 4 --use-speed --lr-gamma .5",
                 "--comfy_quant --no-normalize-scales --verbose DEBUG --verbose-pinned", "--dry-run analyze", "--dry-run", "--extract-lora --lora-rank 4 --lora-target attn", "--scale-optimization dualround --scale-refinement 3",
                 "--input-scales nothing.json", "--scaled-fp8-marker 2 --hp-filter attn --full-precision-mm", "--actcal-samples 3 --actcal-seed 1 --remove-keys a --quant-filter b", "--heu --manual-s 4 --calib-c", "--int --scaling-m row --preserve-l a --save-q"):
        yield "even", f"{simple} {more}"
    rng = random.Random(5)
    for _ in range(150):
        yield chance(rng)


def chance(rng):
    """A command line of options that were drawn."""
    words = ["--simple"]
    kind = rng.choice(["", "", "--int8", "--int8", "--nvfp4", "--mxfp8"])
    source = rng.choice(["mix", "even", "words", "bias", "pt", "zeros", "rotate"])
    words += kind.split()
    if kind in ("", "--int8"):
        words += rng.choice(["", "", "--scaling_mode row", "--scaling_mode row", "--scaling_mode block --block_size 16", "--scaling_mode block --block_size 64"]).split()
        if rng.random() < .4:
            words += ["--custom-layers", rng.choice(["a", "attn|mlp", r"\.1\.", "proj", "weight$"]), "--custom-type", rng.choice(["fp8", "int8", "mxfp8", "nvfp4"]), "--custom-simple"]
            words += rng.choice(["", "--custom-scaling-mode row", "--custom-scaling-mode tensor", "--custom-scaling-mode block --custom-block-size 16", "--custom-heur", "--custom-fpmm"]).split()
        if rng.random() < .4:
            words += ["--fallback", rng.choice(["fp8", "int8", "mxfp8", "nvfp4"]), "--fallback-simple"]
        if rng.random() < .2:
            words += ["--layer-config", f"@{rng.choice(list(CONFIGS))}.layers.json"]
    for one in ("--exclude-layers " + rng.choice(["attn", "0", "b|c", "in"]), "--" + rng.choice(PRESETS), "--" + rng.choice(PRESETS), "--heur", "--input_scale", "-fpmm", "--output-dtype float16", "--preserve-layers o",
                "--low-memory", *["--convrot --convrot-group-size 16", "--dynamic-convrot", "--convrot"] * (source == "rotate")):
        if rng.random() < .25:
            words += one.split()
    return source, shlex.join(words)


def run(path, out, line, folder):
    """What a child of this process makes of one line: a hash, or a failure."""
    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        with os.fdopen(read) as f:
            text = f.read()
        os.waitpid(child, 0)
        return text or "failed\tkilled"
    os.close(read)
    from convert_to_quant.cli.main import get_parser, run_conversion
    text = io.StringIO()
    result = "failed\tno output"
    try:
        words = [str(folder / w[1:]) if w.startswith("@") else w for w in shlex.split(line)]
        if "--device" not in words:
            words += ["--device", "cpu"]
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            run_conversion(get_parser().parse_args(["-i", str(path), "-o", str(out), *words]))
    except BaseException as e:  # argparse exits
        result = f"failed\t{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
    if out.exists():
        result = "\t".join(digest(path, out))
    elif "Traceback" in text.getvalue() or "ERROR" in text.getvalue():
        result = "failed\t" + text.getvalue().strip().splitlines()[-1]
    with os.fdopen(write, "w") as f:
        f.write(result)
    os._exit(0)


def digest(path, out):
    """The hash of a file, its biases as they were before noise was added."""
    with safe_open(out, "pt") as f:
        metadata = f.metadata()
    got, source = load_file(out), load_file(path)
    biases = [k for k in got if k.endswith(".bias") and k in source]
    if not biases:
        return hashlib.sha256(out.read_bytes()).hexdigest(), str(len(metadata or {}))
    for k in biases:
        got[k] = source[k]
    save_file(got, out, metadata=metadata)
    return hashlib.sha256(out.read_bytes()).hexdigest(), str(len(metadata or {}))


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden" / "ctq" / "lines"
    folder.mkdir(parents=True, exist_ok=True)
    CONFIGS["rotate"] = {"[a-c]": {"format": "int8_tensorwise"}, "d": {"format": "float8_e4m3fn", "scaling_mode": "row"}, "[fgh]": {"skip": True}}
    for name, config in CONFIGS.items():
        (folder / f"{name}.layers.json").write_text(json.dumps(config, indent=1) + "\n")
    import convert_to_quant.cli.main  # before forks
    gc.collect = lambda *_: 0  # the program calls it after every layer
    gc.freeze()
    with tempfile.TemporaryDirectory() as d:
        tmp = pathlib.Path(d)
        sources(folder, tmp)
        rows = {}
        for i, (source, line) in enumerate(lines()):
            line = " ".join(line.split()) if "'" not in line else line
            if (source, line) in rows:
                continue
            out = tmp / f"{i}.out.safetensors"
            rows[source, line] = run(tmp / f"{source}.safetensors", out, line, folder)
            out.unlink(missing_ok=True)
            print(i, source, line, rows[source, line][:60], flush=True)
    head = "# source, options after -i IN -o OUT --device cpu (@ stands for this folder), sha256 with the source's biases, entries of its metadata; or failed, why"
    (folder / "lines.tsv").write_text("\n".join([head] + ["\t".join([s, l, r]) for (s, l), r in rows.items()]) + "\n")


if __name__ == "__main__":
    main()
