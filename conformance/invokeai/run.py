"""Holds what `tensorpress verify --for invokeai` says against InvokeAI's own SDNQ reader.

run.py TENSORPRESS INVOKEAI: the binary, and a checkout of InvokeAI, of which
invokeai/backend/quantization/sdnq and invokeai/version are read (see README.md).

Small weights are stored in every dtype, and in many more ways in some, without
asking whether InvokeAI loads them. Its reader restores a layer or fails; verify
must have said which: "ok" where every value is what tensorpress dequantize
restores, a problem where any is not.
"""
import json
import logging
import pathlib
import subprocess
import sys
import tempfile
import types

binary, checkout = sys.argv[1:3]
sys.path.insert(0, checkout)
for name in ("invokeai.backend.util", "invokeai.backend.util.logging"):  # all that the reader wants of the rest
    sys.modules[name] = types.ModuleType(name)
sys.modules["invokeai.backend.util.logging"].InvokeAILogger = types.SimpleNamespace(get_logger=logging.getLogger)

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from invokeai.backend.quantization.sdnq.loaders import sdnq_sd_loader  # noqa: E402
from invokeai.version.invokeai_version import __version__  # noqa: E402

SHAPES = {"linear.a": (64, 256), "linear.narrow": (96, 64), "linear.wide": (32, 640)}
CONV = {"conv.a": (32, 64, 3, 3)}
MORE = ["--group-size -1", "--group-size -2", "--group-size 32", "--svd-rank 4", "--svd-rank 4 --group-size 64", "--hadamard", "--dequantize-fp32=false",
        "--quantized-matmul", "--scale-dtype uint8", "--conv", "--conv --group-size -1", "--conv --svd-rank 4", "--conv --quantized-matmul-conv"]
MIXED = ["int8", "uint8", "int5", "uint5", "uint4", "int4", "float8_e4m3fn", "uint8,group-size=-1", "int8,group-size=32", "uint4,group-size=32", "int5,group-size=-1", "int8,hadamard"]


def cases():
    rows = json.loads(subprocess.run([binary, "formats", "--json"], check=True, capture_output=True).stdout)
    for row in rows:
        if "sdnq" in row["layouts"]:
            yield f"--dtype {row['name']}"
    for dtype in ("uint4", "int5", "int8", "uint8", "float8_e4m3fn", "float8_e4m3fnuz"):
        for more in MORE:
            yield f"--dtype {dtype} {more}"
    for dtype in ("uint4", "int5"):
        yield f"--dtype {dtype} --codebook" if dtype == "uint4" else "--dtype uint8 --codebook"
        for mixed in MIXED:
            yield f"--dtype {dtype} --set linear.a={mixed}"
    for mixed in ("uint4", "int5", "uint5", "uint8"):
        yield f"--dtype int8 --set linear.a={mixed}"


def run(*args):
    return subprocess.run([binary, *map(str, args), "-q"], capture_output=True, text=True)


def restored(path, want, layers):
    """Whether InvokeAI restores every layer, and else why not."""
    try:
        state = sdnq_sd_loader(path, compute_dtype=torch.float32)
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    left = [name for name in state if name not in want]
    if left:
        return f"unexpected {left[:2]}"
    for name in layers:
        try:
            got = state[name + ".weight"]
            got = got.get_dequantized_tensor() if hasattr(got, "get_dequantized_tensor") else got
        except Exception as e:
            return f"{name}: {type(e).__name__}: {e}"
        plain = want[name + ".weight"]
        if got.shape != plain.shape:
            return f"{name}: shape {list(got.shape)}"
        off = (got.double() - plain.double()).norm() / plain.double().norm()
        if not off < 0.01:  # low-rank parts and 16-bit scales are rounded in another order
            return f"{name}: other values, {off:.2g} away"
    return None


def main():
    print(f"InvokeAI {__version__}")
    failed, counts, skipped = 0, {True: 0, False: 0}, 0
    g = torch.Generator().manual_seed(1)
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        for with_file in (True, False):
            for flags in cases():
                shapes = SHAPES | (CONV if "--conv" in flags else {})
                (tmp / "in").mkdir(exist_ok=True)
                save_file({f"{n}.weight": torch.randn(s, generator=g).bfloat16() for n, s in shapes.items()}, tmp / "in" / "model.safetensors")
                (tmp / "in" / "config.json").write_text("{}")
                made = run("quantize", tmp / "in", tmp / "out", "--force", "--min-numel", 1, "--min-channels", 1, *flags.split())
                if made.returncode:
                    skipped += 1
                    continue
                config = json.loads((tmp / "out" / "config.json").read_text())["quantization_config"]
                if with_file:
                    (tmp / "out" / "quantization_config.json").write_text(json.dumps(config))
                if run("dequantize", tmp / "out", tmp / "plain", "--dtype", "f32", "--force").returncode:
                    raise SystemExit(f"{flags}: dequantize fails")
                want = load_file(next((tmp / "plain").glob("*.safetensors")))
                layers = [n for n in shapes if f"{n}.scale" in load_file(tmp / "out" / "model.safetensors")]
                verdict = run("verify", tmp / "out", "--for", "invokeai")
                why = restored(tmp / "out", want, layers)
                says = verdict.returncode == 0
                counts[says] += 1
                if says != (why is None):
                    failed += 1
                    print(f"FAIL {flags} (file {with_file}): verify says {verdict.stdout.strip() or verdict.stderr.strip()}; InvokeAI: {why or 'restores it'}")
    print(f"{counts[True]} loaded, {counts[False]} not, as verify says; {skipped} that no program stores; {failed} differ")
    sys.exit(failed > 0 or not counts[True] or not counts[False])


main()
