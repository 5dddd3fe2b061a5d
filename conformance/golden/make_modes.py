#!/usr/bin/env python3
"""What convert_to_quant's modes make of small files that are quantized already.

    python conformance/golden/make_modes.py [FOLDER]

writes FOLDER/*.safetensors and FOLDER/modes.tsv (default FOLDER:
testdata/golden/modes of this repository). It only calls convert_to_quant's own
command line; README.md beside this script describes the files.
"""
import contextlib
import hashlib
import io
import json
import pathlib
import sys
import tempfile
from importlib.metadata import version

import torch
from safetensors.torch import save_file

from convert_to_quant.convert_to_quant import main as ctq

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2

# input and options; FOLDER stands for that of the inputs.
LINES = """
scaled --convert-fp8-scaled
scaled --convert-fp8-scaled --input_scale
scaled --convert-fp8-scaled --full-precision-mm
scaled --convert_fp8_scaled --hp-filter zzz
scaled --convert-fp8-scaled --hp-filter ^b
unmarked --convert-fp8-scaled
int8 --convert-int8-scaled
int8 --convert-int8-scaled --save-quant-metadata
int8 --convert-int8-scaled --block_size 64 --input_scale
scaled --legacy_input_add
named --legacy-input-add
unmarked --legacy_input_add
scaled --cleanup-fp8-scaled
scaled --cleanup-fp8-scaled --input_scale
named --cleanup_fp8_scaled --scaled-fp8-marker 0
unmarked --cleanup-fp8-scaled --input_scale
blocks --make-hybrid-mxfp8
headed --make-hybrid-mxfp8
blocks --make-hybrid-mxfp8 --tensor-scales FOLDER/scales.safetensors
described --edit-quant --remove-keys orig_dtype
described --edit-quant --remove-keys orig_dtype,per_row --quant-filter ^c
described --edit-quant --add-keys 'k':'v','f':1.50,'n':3,'b':True,'e':1e5
described --edit-quant --add-keys 'full_precision_matrix_mult':true --quant-filter attn
both --edit-quant --add-keys 'full_precision_matrix_mult':true
both --edit-quant --remove-keys orig_dtype --save-quant-metadata
described --edit-quant --save-quant-metadata
both --edit-quant --add-keys 'x':0.00001,'big':1.0e17 --quant-filter ^(a|d)
both --edit-quant --remove-keys convrot,format
described --edit-quant
""".split("\n")[1:-1]


def text(o):
    return torch.tensor(list(json.dumps(o).encode()), dtype=torch.uint8)


def sources():
    g = torch.Generator().manual_seed(11)
    rand = lambda *s: torch.rand(*s, generator=g)  # noqa: E731
    codes = lambda r, c: (rand(r, c) * 400 - 200).to(E4M3)  # noqa: E731
    ints = lambda r, c: (rand(r, c) * 254 - 127).round().to(torch.int8)  # noqa: E731
    scaled = {
        "scaled_fp8": torch.zeros(2, dtype=E4M3),
        "a.weight": codes(8, 16), "a.scale_weight": rand(1), "a.scale_input": torch.tensor([0.5]), "a.bias": rand(8).bfloat16(),
        "b.weight": codes(32, 16), "b.scale_weight": rand(32),
        "blocks.weight": codes(32, 16), "blocks.scale_weight": rand(4, 2),
        "groups.weight": codes(32, 16), "groups.scale_weight": rand(32, 4, 1),
        "line.weight": codes(16, 16), "line.scale_weight": rand(4),
        "odd.weight": codes(16, 16), "odd.scale_weight": rand(7),
        "bare.weight": codes(8, 16),
        "e5m2.weight": rand(8, 16).to(E5M2), "e5m2.scale_weight": torch.tensor(0.5),
        "plain.weight": rand(8, 16).bfloat16(), "plain.scale_weight": torch.tensor(1.0), "plain.scale_input": torch.tensor(1.0),
        "orphan.scale_weight": torch.tensor([2.0]),
        "old.weight": codes(8, 16), "old.scale_weight": torch.tensor(2.0),
        "old.comfy_quant": text({"format": "float8_e4m3fn", "params": {"group_size": 64, "x": 1}, "y": 2}),
        "norm.weight": rand(16).bfloat16(), "wide.weight": rand(8, 16), "one.weight_scale": torch.tensor([3.0]),
    }
    int8 = {
        "scaled_int8": torch.zeros(1, dtype=torch.int8),
        "rows.weight": ints(32, 16), "rows.scale_weight": rand(32),
        "square.weight": ints(16, 16), "square.scale_weight": rand(16),
        "one.weight": ints(16, 16), "one.scale_weight": torch.tensor(0.01),
        "blocks.weight": ints(32, 16), "blocks.weight_scale": rand(4, 2),
        "new.weight": ints(16, 16), "new.weight_scale": rand(16, 1), "new.comfy_quant": text({"format": "int8_tensorwise", "per_row": True}),
        "columns.weight": ints(32, 16), "columns.scale_weight": rand(16, 1), "columns.scale_input": torch.tensor([0.5]),
        "plain.weight": rand(8, 16).bfloat16(), "plain.bias": rand(8),
    }
    described = {
        "a.weight": codes(8, 16), "a.weight_scale": torch.tensor(1.0), "a.comfy_quant": text({"format": "float8_e4m3fn", "orig_dtype": "torch.bfloat16"}),
        "b.attn.weight": codes(32, 16), "b.attn.weight_scale": torch.tensor(1.0),
        "b.attn.comfy_quant": text({"format": "float8_e4m3fn", "orig_dtype": "torch.bfloat16", "full_precision_matrix_mult": True}),
        "c.weight": ints(16, 16), "c.weight_scale": rand(16, 1),
        "c.comfy_quant": text({"format": "int8_tensorwise", "orig_dtype": "torch.bfloat16", "convrot": True, "convrot_groupsize": 16, "per_row": True}),
        "d.weight": ints(16, 16), "e.weight": codes(8, 16),
    }
    entry = {"a": {"format": "float8_e4m3fn"}, "c": {"format": "int8_tensorwise", "convrot": True}, "d": {"group_size": 32}, "e": {"x": 1}, "gone": {"format": "nvfp4"}}
    scale = lambda: (rand(128, 4) * 9 + 118).to(torch.uint8)  # noqa: E731
    blocks = {
        "a.weight": codes(32, 32), "a.weight_scale": scale(), "a.comfy_quant": text({"format": "mxfp8", "orig_dtype": "torch.bfloat16"}),
        "b.weight": codes(32, 32), "b.weight_scale": scale(), "b.comfy_quant": text({"format": "mxfp8", "x": 1}),
        "z.weight": codes(32, 32), "z.weight_scale": torch.zeros(128, 4, dtype=torch.uint8), "z.comfy_quant": text({"format": "mxfp8"}),
        "f.weight": codes(8, 16), "f.weight_scale": torch.tensor([1.0]), "f.comfy_quant": text({"format": "float8_e4m3fn"}),
    }
    header = lambda layers: {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}  # noqa: E731
    return {
        "scaled": (scaled, None), "named": (scaled, {"format": "pt"}), "int8": (int8, None),
        "unmarked": ({k: v for k, v in scaled.items() if k != "scaled_fp8"}, None),
        "described": (described, None), "both": (described, header(entry)),
        "blocks": (blocks, None), "headed": (blocks, header({"a": {"format": "mxfp8", "group_size": 32}, "f": {"format": "float8_e4m3fn"}})),
        "scales": ({"a.weight_scale": torch.tensor(0.25), "b.weight_scale": torch.tensor([0.5, 0.75])}, None),
    }


def run(source, out, options):
    """The status of one command; its words are swallowed."""
    sys.argv = ["ctq", "-i", str(source), "-o", str(out), *options]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            ctq()
        except SystemExit as e:
            return e.code or 0
        except Exception as e:  # noqa: BLE001
            return type(e).__name__
    return 0


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden" / "modes"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (tensors, metadata) in sources().items():
        save_file(tensors, folder / f"{name}.safetensors", metadata=metadata)
    rows = [
        f"# convert_to_quant {version('convert-to-quant')}, safetensors {version('safetensors')}, torch {torch.__version__}",
        "# input options sha256 of the output|status where there is none",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        for i, line in enumerate(LINES):
            source, *options = line.split(" ")
            out = pathlib.Path(temporary, f"{i}.safetensors")
            status = run(folder / f"{source}.safetensors", out, [o.replace("FOLDER", str(folder)) for o in options])
            result = hashlib.sha256(out.read_bytes()).hexdigest() if out.exists() else f"status={status}"
            rows.append("\t".join([source, " ".join(options), result]))
    (folder / "modes.tsv").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
