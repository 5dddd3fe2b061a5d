#!/usr/bin/env python3
"""Golden hashes of sdnq's options: layer kinds, quantized matmul storage,
Hadamard rotation, codebooks, double quantization, SVD.

    python conformance/golden/make_sdnq_options.py [FOLDER]

writes FOLDER/options.safetensors, FOLDER/options.tsv.gz and
FOLDER/options_svd.safetensors (default FOLDER: testdata/golden of this
repository). It only calls sdnq; the formats of the files are described in
README.md beside this script.
"""
import collections
import gzip
import io
import json
import os
import pathlib
import sys
import warnings

os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from safetensors.torch import save_file

import sdnq.common
import sdnq.quantizer
from sdnq.quantizer import sdnq_quantize_layer_weight

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import make_sdnq
from make_sdnq import DTYPES

warnings.filterwarnings("ignore")

ROLES = ("weight", "scale", "zero_point", "scale_2", "scale_zero_point", "zero_point_scale", "zero_point_2", "svd_up", "svd_down")

# class, shape, dtypes of the stored inputs
INPUTS = (
    ("Linear", (48, 96), "bf16"),
    ("Linear", (64, 128), "f32 bf16"),
    ("Linear", (32, 48), "bf16 f16"),
    ("Embedding", (40, 96), "f32 bf16"),
    ("Conv1d", (32, 48, 3), "f32 bf16"),
    ("Conv2d", (16, 32, 3, 3), "bf16"),
    ("Conv2d", (32, 32, 1, 1), "f32 bf16 f16"),
    ("Conv2d", (32, 32, 2, 1), "bf16"),
    ("Conv2d", (12, 20, 3, 3), "f32"),
    ("Conv3d", (16, 32, 2, 2, 2), "f32"),
    ("Conv3d", (32, 32, 1, 2, 1), "bf16"),
    ("ConvTranspose1d", (32, 48, 4), "bf16"),
    ("ConvTranspose1d", (32, 32, 4), "f32"),
    ("ConvTranspose2d", (32, 32, 2, 2), "f32 bf16"),
    ("ConvTranspose2d", (32, 16, 3, 3), "bf16"),
    ("ConvTranspose3d", (16, 16, 2, 2, 2), "f32 bf16"),
)

KIND_DTYPES = (
    "uint1 uint2 uint3 uint4 int4 int5 uint6 int7 int8 uint8 int9 uint12 int16 uint16 float8_e4m3fn float8_e5m2 float16 bfloat16 "
    "float4_e2m1fn float6_e3m2fn float7_e3m3fn float8_e4m3fn_sdnq float9_e4m4fn float8_e4m4fnu float12_e5m6fn").split()


# --- inputs -----------------------------------------------------------------

def make_weight(kind, shape, rng):
    x = rng.normal(0, 0.05, shape) * np.exp(rng.normal(0, 0.7, (shape[0],) + (1,) * (len(shape) - 1)))
    flat = x.reshape(shape[0], -1)
    flat[1] = 0.0
    flat[2] = 0.25
    flat[3] = -0.0
    flat[4] = np.resize([-0.0, 0.0, 0.0], flat.shape[1])
    # the first zero of some groups is -0, of others +0
    for row, sign in ((5, 1), (6, -1)):
        flat[row] = sign * np.abs(flat[row])
        flat[row, 3::7] = -0.0
        flat[row, 5::11] = 0.0
    flat[7, : flat.shape[1] // 2] = 0.0
    flat[8, 9] = 3.0
    flat[9] = np.round(flat[9] * 64) / 64
    flat[10] = -0.125
    if kind.startswith("ConvTranspose"):  # their groups lie across the first axis
        x[:, 1] = 0.0
        x[:, 2] = -0.5
        x[:, 3] = np.abs(x[:, 3])
        x[0, 3] = -0.0
    return x


def make_inputs():
    rng = np.random.default_rng(31)
    out = {}
    for kind, shape, tags in INPUTS:
        x = torch.from_numpy(make_weight(kind, shape, rng).astype(np.float32))
        for tag in tags.split():
            out[f"{kind}.{'x'.join(map(str, shape))}.{tag}"] = x.to(DTYPES[tag]).contiguous()
    return out


# --- rows -------------------------------------------------------------------

def plain(t):
    """A copy with the usual strides, also of axes of length one."""
    return t.detach().clone(memory_format=torch.contiguous_format)


def digest(t):
    return make_sdnq.digest(plain(t))


def describe(t):
    return make_sdnq.describe(plain(t))


class Recorder:
    """Stands in for sdnq's SVD step and keeps what went in and came out."""

    def __init__(self):
        self.call, self.seen = sdnq.quantizer.apply_svdquant, None
        sdnq.quantizer.apply_svdquant = self

    def __call__(self, weight, **keys):
        residual, up, down = self.call(weight, **keys)
        self.seen = (weight.clone(), residual.clone(), up.clone(), down.clone())
        return residual, up, down


def message(e):
    text = " ".join(str(e).split())
    return f"{type(e).__name__}: {text[:56]}"


def deviations(weight, residual, up, down):
    """How many elements of the residual differ from weight minus the factors'
    product, the product rounded once to their dtype from a sum in float64,
    and from one of binary32 fused multiply-adds in the order of the rank."""
    w = weight.flatten(1).numpy()
    r = residual.flatten(1).numpy()
    rounded = lambda p: p.to(up.dtype).float().numpy()
    exact = torch.from_numpy((up.double().numpy() @ down.double().numpy()))
    u, d = up.float().numpy().astype(np.longdouble), down.float().numpy().astype(np.longdouble)
    acc = np.zeros(w.shape, np.float32)
    for k in range(u.shape[1]):
        acc = (acc + u[:, k : k + 1] * d[k : k + 1]).astype(np.float32)
    # rounding float64 to bfloat16 by way of binary32 can round twice: do it on integers
    once = round_once(exact, up.dtype)
    count = lambda p: int(((w - p).view(np.int32) != r.view(np.int32)).sum())
    return count(once), count(rounded(torch.from_numpy(acc)))


def round_once(x, dtype):
    if dtype == torch.float32:
        return x.float().numpy()
    mantissa, least = {torch.bfloat16: (8, -133), torch.float16: (11, -24)}[dtype]
    m, e = np.frexp(x.numpy())
    unit = np.maximum(e - mantissa, least)
    return np.ldexp(np.rint(np.ldexp(x.numpy(), -unit)), unit).astype(np.float32)


class Table:
    def __init__(self, inputs):
        self.inputs, self.lines, self.factors, self.known = inputs, [], {}, {}
        self.svd = Recorder()
        self.raised, self.dq_raised, self.sizes = collections.Counter(), collections.Counter(), []

    def add(self, name, **settings):
        kind, weight = name.split(".")[0], self.inputs[name]
        defaults = {"weights_dtype": "int8"}
        settings = {k: v for k, v in settings.items() if v is not None and defaults.get(k) != v}
        fields = [name, kind, json.dumps(settings, sort_keys=True, separators=(",", ":"))]
        self.svd.seen = None
        torch.manual_seed(1)
        try:
            deq, data = sdnq_quantize_layer_weight(weight.float().clone(), layer_class_name=kind, torch_dtype=weight.dtype, **settings)
        except Exception as e:
            fields.append("raise=" + message(e))
            self.raised[fields[-1]] += 1
            self.lines.append("\t".join(fields))
            return
        kept = {k: v for k, v in data.items() if v is not None}
        assert set(kept) <= set(ROLES), kept.keys()
        fields += [f"{k}={describe(kept[k])}" for k in ROLES if k in kept]
        try:
            values = deq(**{k: v.clone() for k, v in kept.items()}, skip_compile=True, dtype=torch.float32,
                         skip_quantized_matmul=deq.use_quantized_matmul)
            assert values.dtype == torch.float32 and values.shape == weight.shape, (values.dtype, values.shape)
            fields.append("dq=" + digest(values))
        except Exception as e:
            fields.append("dq=raise " + message(e))
            self.dq_raised[fields[-1]] += 1
        if "svd_up" in kept:
            fields += self.residual(kept)
        self.lines.append("\t".join(fields))

    def residual(self, kept):
        weight, residual, up, down = self.svd.seen
        key = (digest(kept["svd_up"]), digest(kept["svd_down"]), tuple(kept["svd_up"].shape))
        if key not in self.known:
            self.known[key] = row = len(self.lines)
            for role in ("svd_up", "svd_down"):
                self.factors[f"{row}.{role}"] = plain(kept[role])
        once, chain = deviations(weight, residual, up, down)
        return [f"svd={self.known[key]}", f"residual={describe(residual)}", f"once={once}", f"chain={chain}"]

    def part(self, make):
        begin = len(self.lines)
        make(self)
        self.sizes.append((make.__name__, len(self.lines) - begin))
        print(*self.sizes[-1], file=sys.stderr, flush=True)

    def names(self, *prefixes):
        return [n for n in self.inputs if n.startswith(prefixes)]


# --- parts ------------------------------------------------------------------

def kinds(t):
    for name in t.inputs:
        for dtype in KIND_DTYPES:
            for group in (None, 16, 64, -1, -2):
                t.add(name, weights_dtype=dtype, group_size=group)


def matmul(t):
    names = ["Linear.64x128.f32", "Linear.64x128.bf16", "Linear.32x48.bf16", "Linear.32x48.f16", "Linear.48x96.bf16"]
    names += t.names("Conv") + t.names("Embedding.40x96.bf16")
    for name in names:
        tag = name.split(".")[-1]
        plain = name.startswith(("ConvTranspose", "Embedding"))  # the flag has no effect there
        for dtype in ("uint4", "int8", "float8_e4m3fn") if plain else KIND_DTYPES:
            for group in (None, 16, -1, -2):
                for fp32 in (None,) if tag == "f32" else (None, False):
                    t.add(name, weights_dtype=dtype, group_size=group, use_quantized_matmul=True, dequantize_fp32=fp32)


def matmul_dtypes(t):
    for name in ("Linear.64x128.bf16", "Linear.32x48.f16", "Linear.64x128.f32", "Conv2d.32x32x1x1.f16", "Conv2d.32x32x2x1.bf16", "Conv1d.32x48x3.bf16", "Conv1d.32x48x3.f32",
                 "Conv3d.32x32x1x2x1.bf16", "Conv2d.16x32x3x3.bf16"):
        for dtype in ("uint2", "uint4", "int5", "uint6", "int8", "uint8", "int16", "float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float6_e3m2fn", "float4_e2m1fn", "float8_e4m3fnu", "float9_e4m4fn"):
            if dtype not in sdnq.common.dtype_dict:
                continue
            for group in (None, -1):
                for mm in ("int8", "uint8", "float8_e4m3fn", "float16"):
                    for fp32 in (None,) if name.endswith("f32") else (None, False):
                        t.add(name, weights_dtype=dtype, group_size=group, use_quantized_matmul=True, quantized_matmul_dtype=mm, dequantize_fp32=fp32)
    for mm in ("fp8", "fp16"):
        for dtype in ("int8", "float8_e4m3fn", "float16"):
            t.add("Linear.64x128.bf16", weights_dtype=dtype, use_quantized_matmul=True, quantized_matmul_dtype=mm)


def hadamard(t):
    for name in t.inputs:
        for dtype in ("uint1", "uint4", "int5", "int8", "uint8", "float8_e4m3fn", "float6_e3m2fn", "uint12"):
            for group in (None, -1, -2, 32):
                for size in (None, 8) if dtype in ("uint1", "int5", "float6_e3m2fn", "uint12") else (None, 128, 64, 32, 16, 8):
                    t.add(name, weights_dtype=dtype, group_size=group, use_hadamard=True, hadamard_group_size=size)
    for name in ("Linear.64x128.f32", "Conv2d.32x32x2x1.bf16"):
        for size in (1, 2, 3, 4, 5, 100, 512):
            t.add(name, weights_dtype="int8", use_hadamard=True, hadamard_group_size=size)


def codebook(t):
    names = t.names("Linear.64x128", "Linear.48x96", "Conv2d.32x32x1x1.f32", "Conv2d.12x20x3x3", "Conv2d.16x32x3x3", "Conv2d.32x32x2x1", "ConvTranspose2d", "Embedding",
                    "Conv1d.32x48x3.bf16", "Conv3d.16x32x2x2x2", "ConvTranspose1d.32x48x4", "ConvTranspose3d.16x16x2x2x2.f32")
    for name in names:
        for dtype in ("uint1", "uint2", "uint3", "uint4", "uint5", "uint6", "uint7", "uint8"):
            for group in (None, 32, 16, -1, -2):
                for rotate in (None, True) if dtype in ("uint2", "uint4", "uint8") and group != 16 else (None,):
                    t.add(name, weights_dtype=dtype, group_size=group, use_codebook=True, use_hadamard=rotate)
    for name in ("Linear.64x128.f32", "Conv2d.16x32x3x3.bf16", "ConvTranspose2d.32x32x2x2.f32"):
        for dtype in ("uint2", "uint4"):
            for steps in (0, 1, 3):
                t.add(name, weights_dtype=dtype, use_codebook=True, codebook_steps=steps)
        for dtype in ("uint9", "uint12", "int8", "int4", "float8_e4m3fn", "float4_e2m2fnu"):
            t.add(name, weights_dtype=dtype, group_size=-1, use_codebook=True)


SCALES = ("uint8", "int8", "uint4", "uint6", "float8_e4m3fn", "float6_e3m2fn", "uint16", "int12", "none")


def double(t):
    def each(name, dtypes, groups, points=(None, "uint8", "none", "float8_e4m3fn"), scales=SCALES + (None,), **keys):
        for dtype in dtypes:
            unsigned = sdnq.common.dtype_dict[dtype]["is_unsigned"]
            for group in groups:
                for scale in scales:
                    for point in points if unsigned else points[:2]:
                        if scale or point:
                            t.add(name, weights_dtype=dtype, group_size=group, scale_dtype=scale, zero_point_dtype=point, **keys)

    four = ("uint4", "int8", "uint6", "float8_e4m3fn")
    each("Linear.64x128.f32", four, (None, 16, -1, -2))
    each("Linear.64x128.bf16", four, (None, 16))
    each("Linear.48x96.bf16", four, (16, -1))
    each("Linear.32x48.f16", ("uint4", "int8"), (None,))
    each("Conv2d.12x20x3x3.f32", ("uint4", "int8"), (None, -1))
    each("Conv2d.16x32x3x3.bf16", four, (None, 16))
    each("ConvTranspose2d.32x32x2x2.f32", ("uint4", "int8"), (16, -1), points=(None, "uint8"))
    each("Embedding.40x96.bf16", ("uint4", "int8"), (None,), points=(None, "uint8"))
    for name in ("Linear.64x128.f32", "Conv2d.16x32x3x3.bf16"):
        each(name, ("uint4", "uint6"), (16, -1), use_codebook=True, points=(None, "uint8"))
        each(name, four, (16, -1), scales=("uint8", "uint4", "uint2", "uint1", "int8", "none"), points=(None, "uint8", "uint3"), use_codebook_scale=True)
        each(name, ("uint4",), (16, -2), scales=("uint8", "uint4", "none"), points=(None,), use_codebook_scale=True, use_codebook=True)
    for name in ("Linear.64x128.f32", "Linear.32x48.bf16", "Conv2d.32x32x2x1.bf16"):
        each(name, ("uint4", "int8", "uint8", "float8_e4m3fn"), (None, -1), points=(None, "uint8", "none"), use_quantized_matmul=True)


def combined(t):
    names = ("Linear.64x128.bf16", "Linear.32x48.f16", "Linear.48x96.bf16", "Conv2d.32x32x1x1.f16", "Conv2d.32x32x2x1.bf16", "Conv1d.32x48x3.bf16", "ConvTranspose2d.32x32x2x2.bf16", "Embedding.40x96.bf16")
    bools = (None, True)
    for name in names:
        for dtype in ("uint4", "uint8", "int8", "int5", "float8_e4m3fn", "float6_e3m2fn"):
            for group in (None, 16, -1, -2):
                for scale in (None, "none", "uint8", "float8_e4m3fn"):
                    for rotate in bools:
                        for book in bools if dtype in ("uint4", "uint8") else (None,):
                            for mm in bools:
                                for fp32 in (None, False):
                                    if group not in (None, 16) and (scale == "float8_e4m3fn" or mm and scale):
                                        continue
                                    if (rotate, book, mm, fp32, scale).count(None) > 2 or (dtype in ("int5", "float6_e3m2fn") and scale == "float8_e4m3fn"):
                                        continue
                                    t.add(name, weights_dtype=dtype, group_size=group, scale_dtype=scale, use_hadamard=rotate, use_codebook=book,
                                          use_quantized_matmul=mm, dequantize_fp32=fp32)
    # the model's dtype as the scale's, for every dtype
    for name in ("Linear.64x128.bf16", "Linear.32x48.f16", "Conv2d.16x32x3x3.bf16", "ConvTranspose1d.32x48x4.bf16", "Embedding.40x96.bf16"):
        for dtype in KIND_DTYPES:
            for group in (None, -1, -2):
                t.add(name, weights_dtype=dtype, group_size=group, dequantize_fp32=False)
                t.add(name, weights_dtype=dtype, group_size=group, dequantize_fp32=False, use_hadamard=True)
                if dtype in ("uint1", "uint2", "uint3", "uint4", "uint6", "uint8"):
                    t.add(name, weights_dtype=dtype, group_size=group, dequantize_fp32=False, use_codebook=True)
                t.add(name, weights_dtype=dtype, group_size=group, dequantize_fp32=False, zero_point_dtype="none")


def svd(t):
    names = ("Linear.48x96.bf16", "Linear.32x48.bf16", "Linear.32x48.f16", "Linear.64x128.f32", "Conv2d.32x32x2x1.bf16", "Conv2d.32x32x1x1.f32", "Conv2d.12x20x3x3.f32", "Conv2d.16x32x3x3.bf16",
             "Embedding.40x96.bf16", "ConvTranspose2d.32x32x2x2.bf16", "ConvTranspose2d.32x32x2x2.f32", "ConvTranspose2d.32x16x3x3.bf16", "Embedding.40x96.f32")
    for name in names:
        plain = name.startswith(("ConvTranspose", "Embedding"))
        for mm in (None,) if plain else (None, True):
            for rotate in (None, True):
                for dtype in ("int8", "uint4", "float8_e4m3fn", "int5"):
                    for group in (None, 16, -1, -2):
                        for book in (None, True) if dtype == "uint4" else (None,):
                            for fp32 in (None,) if name.endswith("f32") else (None, False):
                                t.add(name, weights_dtype=dtype, group_size=group, use_svd=True, svd_rank=4, use_hadamard=rotate, use_quantized_matmul=mm,
                                      use_codebook=book, dequantize_fp32=fp32)
                t.add(name, weights_dtype="uint4", use_svd=True, svd_rank=4, use_hadamard=rotate, use_quantized_matmul=mm, scale_dtype="uint8")
    # the rank is limited by the shape; no rank at all
    t.add("Linear.32x48.bf16", use_svd=True)
    t.add("Linear.32x48.bf16", use_svd=True, svd_rank=100)
    t.add("Linear.32x48.bf16", use_svd=True, svd_rank=1, svd_steps=0)
    t.add("Linear.32x48.bf16", use_svd=True, svd_rank=0)
    t.add("Linear.32x48.bf16", use_svd=True, svd_rank=-1)


PARTS = (kinds, matmul, matmul_dtypes, hadamard, codebook, double, combined, svd)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    inputs = make_inputs()
    save_file(inputs, folder / "options.safetensors")
    table = Table(inputs)
    for make in PARTS:
        table.part(make)
    head = [
        f"# torch {torch.__version__}, sdnq {sdnq.common.sdnq_version}, numpy {np.__version__}, cpu capability {torch.backends.cpu.get_cpu_capability()}",
        "# input class settings tensors dq; rows with SVD: svd residual once chain",
        "# rows: " + ", ".join(f"{name} {n}" for name, n in table.sizes),
    ]
    buf = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buf, compresslevel=9, mtime=0) as z:
        z.write(("\n".join(head + table.lines) + "\n").encode())
    (folder / "options.tsv.gz").write_bytes(buf.getvalue())
    written = ["options.safetensors", "options.tsv.gz"]
    if table.factors:
        save_file(table.factors, folder / "options_svd.safetensors")
        written.append("options_svd.safetensors")
    for name in written:
        (folder / name).chmod(0o644)
        print(name, (folder / name).stat().st_size, "bytes", file=sys.stderr)
    for counter in (table.raised, table.dq_raised):
        for text, n in counter.most_common():
            print(n, text, file=sys.stderr)


if __name__ == "__main__":
    main()
