#!/usr/bin/env python3
"""Golden hashes of sdnq's weight quantization, for every dtype.

    python conformance/golden/make_sdnq.py [FOLDER]

writes FOLDER/inputs.safetensors and FOLDER/sdnq.tsv.gz (default FOLDER:
testdata/golden of this repository). It only calls sdnq; the formats of both
files are described in README.md beside this script.
"""
import gzip
import hashlib
import io
import os
import pathlib
import sys

os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from safetensors.torch import save_file

import sdnq.common
from sdnq.quantizer import sdnq_quantize_layer_weight

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
NAMES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.uint16: "U16",
    torch.int32: "I32", torch.uint32: "U32", torch.int64: "I64", torch.float32: "F32", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ", torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}
SKIPPED = {"int32", "uint32", "float32", "float8_e8m0fnu"}
GROUPS = (0, 32, 64, 128, -1, -2)


# --- inputs -----------------------------------------------------------------

def plain_nan(t):
    """Every NaN becomes the positive quiet one without payload, in place."""
    view, bits = {torch.float32: (torch.int32, 0x7FC00000), torch.bfloat16: (torch.int16, 0x7FC0), torch.float16: (torch.int16, 0x7E00)}[t.dtype]
    nan = t.isnan()
    t.view(view)[nan] = bits


def cast(x, dtype):
    """float64 numpy to a torch dtype: through float32, finite values stay finite."""
    t = torch.from_numpy(np.clip(x, -3.4028234663852886e38, 3.4028234663852886e38).astype(np.float32))
    if dtype == torch.float32:
        return t
    top = torch.finfo(dtype).max
    return t.clamp(-top, top).to(dtype)


def edge_rows(dtype):
    """Rows of 256 values; most are built of runs of 32, so that groups of 32, 64 and 128 see one thing each."""
    rng = np.random.default_rng(77)
    top = {"f32": 3.0e38, "bf16": 3.0e38, "f16": 65504.0}[dtype]
    sub = {"f32": 2.0 ** -149, "bf16": 2.0 ** -133, "f16": 2.0 ** -24}[dtype]  # smallest subnormal
    normal = {"f32": 2.0 ** -126, "bf16": 2.0 ** -126, "f16": 2.0 ** -14}[dtype]
    n = 256
    rows = []

    def add(row):
        row = np.asarray(row, dtype=np.float64)
        assert row.shape == (n,), row.shape
        rows.append(row)

    def runs(*parts):
        add(np.concatenate([np.resize(np.asarray(p, dtype=np.float64), 32) for p in parts]))

    z, m = 0.0, -0.0
    some = lambda: rng.normal(0, 0.02, 32)
    # zeros
    add(np.zeros(n))
    add(np.full(n, m))
    add(np.resize([z, m], n))
    add(np.resize([m, z], n))
    add(np.concatenate([[m], np.zeros(n - 1)]))
    add(np.concatenate([[z], np.full(n - 1, m)]))
    # constants
    add(np.full(n, 0.5))
    add(np.full(n, -0.3))
    add(np.full(n, normal))
    # runs of 32: zeros of both signs between ordinary values
    runs([z], [m], some(), [z, m], [m, z], some(), [0.25], [-0.25])
    # minimum 0: the first zero is -0, then +0, and the other way round; one plain
    p = lambda: np.abs(rng.normal(0, 0.02, 30)) + 0.001
    a = lambda first, second: np.concatenate([[first], p()[:15], [second], p()[:15]])
    runs(a(m, z), a(z, m), a(m, m), a(z, z), -a(m, z), -a(z, m), -a(m, m), -a(z, z))
    runs(-a(z, m), a(m, z), a(z, m), -a(m, z), some(), [m, 0.1], [z, 0.1], [0.1, m, z])
    add(np.concatenate([[0.1, m, z], np.abs(rng.normal(0, 1, n - 3))]))
    add(np.concatenate([[0.1, z, m], np.abs(rng.normal(0, 1, n - 3))]))
    add(np.concatenate([[-0.1, m, z], -np.abs(rng.normal(0, 1, n - 3))]))
    add(np.concatenate([[-0.1, z, m], -np.abs(rng.normal(0, 1, n - 3))]))
    # subnormals and scales that underflow
    add(sub * rng.integers(-8, 9, n))
    add(sub * rng.integers(0, 3, n))
    add(sub * rng.integers(-4000, 4001, n))
    runs([sub], [-sub], [sub, -sub], [sub, 0, 0], [7 * sub, 0], [sub * 100, -sub * 127], [normal, -normal], [normal, sub])
    runs([z, 7 * sub], [m, sub], some(), [sub * 255, z], [sub * 15, -sub], [normal * 1.5], [2 * sub], [3 * sub, -m])
    # huge: the range of the whole tensor still fits binary32 (see the case huge)
    add(np.where(rng.random(n) < 0.5, top, top * rng.random(n)))
    runs([top], [top, 0], [top, m], [top * 0.1, -top * 0.1], some(), [-top * 0.1], [top, 1.0], [-top * 0.1, sub])
    # one value that is not zero
    one = np.zeros(n); one[37] = 0.7; add(one)
    one = np.full(n, m); one[255] = -0.7; add(one)
    runs([1.0] + [z] * 31, [z] * 31 + [-1.0], [m] * 31 + [1.0], [z] * 16 + [3.0] + [m] * 15,
         [-2.0] + [m] * 31, [1e-3] + [z] * 31, [z] * 32, some())
    # ties: integer grids whose scale is a power of two, with every half step
    half = lambda lo, hi: np.arange(lo, hi + 0.25, 0.5)
    for top_code in (127, 255, 63, 31):
        h = rng.permutation(half(-top_code, top_code))[: n - 2] / 1.0
        h = np.resize(h, n); h[0] = top_code; h[100] = -top_code
        add(h / 64)
    add(np.resize(np.concatenate([[0, 255], rng.permutation(half(0, 255))[:254]]), n) / 256)
    # the same in runs: 7, 15, 3, 1, 31 steps
    runs(half(-7, 7), half(0, 15), half(-3, 3), half(0, 3), half(0, 1), half(-1, 1), half(-15, 0), half(0, 31)[-32:])
    runs([0, 7.5, 3.5, 7], half(0, 7), [-15, 0, -7.5, -0.5, -1.5], half(-31, 0)[:32], half(-8, 7), half(-2, 1), [0, 1, .5, .25, .75], [0, 15, 7.5, 0.5])
    # powers of two
    add(2.0 ** rng.integers(-12, 13, n) * rng.choice([-1, 1], n))
    runs(2.0 ** -np.arange(32), 2.0 ** np.arange(-16, 16), -2.0 ** np.arange(-8, 8), [1, 2, 4, 8], [.5, .25], [1, -1], [2, 1, .5], [4, -2])
    # float formats: the maximum of the format (so the scale is 1), then the surroundings of its rounding points
    for fmax, ulp in ((6, 0.5), (7, 0.25), (28, 0.25), (3, 1.0), (3.5, 0.5), (3.75, 0.25), (2, 1.0), (1.5, 0.25), (448, 0.125), (57344, 64.0)):
        g = rng.integers(-int(fmax / ulp * 16), int(fmax / ulp * 16) + 1, n) * (ulp / 16)
        g[0], g[31] = fmax, -fmax
        for k in range(32, n, 32):
            g[k] = fmax if k & 32 else -fmax
        add(g)
    # just below two steps of floats with one exponent bit, as signed and as unsigned (minimum 0)
    def below(mant):
        fmax = 4 - 2.0 ** (1 - mant)
        w = 2 - np.array([24, 23, 22, 17, 16, 15, 12, 9, 8, 7.5, 7, 6.5, 6, 4, 1, 0, -1, -8, -9]) / 16 * 2.0 ** -mant
        return np.concatenate([[fmax, z], w])
    runs(*[below(k) for k in (0, 1, 2, 3, 4, 5, 6, 7)])
    runs(*[below(k) * [1 if i == 0 else -1 for i in range(21)] for k in (0, 1, 2, 3, 4, 5, 6, 7)])
    # one outlier among small values
    o = rng.normal(0, 1e-4, n); o[200] = 37.0; add(o)
    o = rng.normal(1e-3, 1e-5, n); o[3] = -64.0; add(o)
    return np.stack(rows)


def make_inputs():
    rng = np.random.default_rng(20)
    out = {}

    def put(case, x):
        for tag, dt in DTYPES.items():
            out[f"{case}.{tag}"] = cast(x, dt).contiguous()

    spread = lambda r: np.exp(rng.normal(0, 0.7, (r, 1)))
    put("normal", rng.normal(0, 0.02, (48, 384)) * spread(48))
    put("wide", rng.normal(0, 0.02, (8, 1536)) * spread(8))
    put("odd", rng.normal(0, 0.05, (33, 200)) * spread(33))
    put("odder", rng.normal(0, 0.05, (17, 105)) * spread(17))
    put("prime", rng.normal(0, 0.05, (16, 97)) * spread(16))
    put("one", rng.normal(0, 0.1, (1, 64)))
    put("column", rng.normal(0, 0.1, (64, 1)))
    put("tiny", rng.normal(0, 0.3, (4, 8)))
    for tag, dt in DTYPES.items():
        out[f"edge.{tag}"] = cast(edge_rows(tag), dt).contiguous()
    # ranges (maximum minus minimum) that overflow binary32; in f16 just its limits
    h = rng.uniform(-1, 1, (8, 128)) * 3.3e38
    h[0, 0], h[0, 1], h[3] = 3.4e38, -3.4e38, rng.normal(0, 1, 128)
    h[4] = np.abs(h[4]); h[5, :64] = 0
    put("huge", h)
    # NaN and infinities among ordinary rows and groups
    nan, inf = np.nan, np.inf
    x = rng.normal(0, 0.05, (12, 128))
    x[1, 5] = nan
    x[2, 70] = inf
    x[3, 0] = -inf
    x[4, 3], x[4, 90] = inf, -inf
    x[5, 127], x[5, 1], x[5, 2] = nan, inf, -inf
    x[7] = nan
    x[8] = inf
    x[9] = -inf
    x[10, ::2] = 0.0
    x[10, 64] = inf
    t = torch.from_numpy(x.astype(np.float32))
    for tag, dt in DTYPES.items():
        v = t.to(dt).contiguous()
        plain_nan(v)  # a cast's NaN differs between CPU capabilities
        out[f"nonfinite.{tag}"] = v
    return out


# --- quantizing -------------------------------------------------------------

def raw(t):
    t = t.detach().contiguous()
    if t.is_floating_point() and t.element_size() > 1 and bool(t.isnan().any()):
        # sign and payload of a NaN are not part of the comparison
        t = t.clone()
        plain_nan(t)
    return t.view(torch.uint8).numpy().tobytes() if t.numel() else b""


def digest(t):
    return hashlib.sha256(raw(t)).hexdigest()[:16]


def describe(t):
    if t is None:
        return "-"
    return f"{NAMES[t.dtype]}:{'x'.join(map(str, t.shape))}:{digest(t)}"


def row(name, weight, dtype, group, fp32):
    head = f"{name}\t{dtype}\t{group}\t{fp32}\t"
    try:
        deq, data = sdnq_quantize_layer_weight(
            weight.float().clone(), layer_class_name="Linear", torch_dtype=weight.dtype,
            weights_dtype=dtype, group_size=group, dequantize_fp32=bool(fp32))
    except Exception as e:
        return head + "raise=" + type(e).__name__
    kept = {k: v for k, v in data.items() if v is not None}
    assert set(kept) <= {"weight", "scale", "zero_point"}, kept.keys()
    text = "\t".join(f"{k}={describe(data[k])}" for k in ("weight", "scale", "zero_point"))
    try:
        values = deq(**{k: v.clone() for k, v in kept.items()}, skip_compile=True, dtype=torch.float32)
        assert values.dtype == torch.float32 and values.shape == weight.shape, (values.dtype, values.shape)
        dq = digest(values)
    except Exception as e:
        dq = "raise:" + type(e).__name__
    return f"{head}{text}\tdq={dq}"


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    inputs = make_inputs()
    for name, t in inputs.items():
        assert name.startswith("nonfinite") or bool(torch.isfinite(t.float()).all()), name
    save_file(inputs, folder / "inputs.safetensors")
    (folder / "inputs.safetensors").chmod(0o644)

    # canonical names only: an alias is a name whose entry is another name's
    seen, dtypes = {}, []
    alias = {"fp", "ufp"}
    for name, entry in sdnq.common.dtype_dict.items():
        if name in SKIPPED or name in ("int1", "bool") or name.rstrip("0123456789") in alias | {"bf"}:
            continue
        dtypes.append(name)
    assert len(dtypes) == 172, len(dtypes)

    lines = [
        f"# torch {torch.__version__}, sdnq {sdnq.common.sdnq_version}, numpy {np.__version__}, cpu capability {torch.backends.cpu.get_cpu_capability()}",
        "# input dtype group dequantize_fp32 weight scale zero_point dq",
        "# tensors: DTYPE:shape:first 16 hex digits of the SHA-256 of the little-endian bytes, every NaN as 7fc00000 (7fc0, 7e00); dq: the values as binary32, in the input's shape",
    ]
    for name, weight in inputs.items():
        case = name.split(".")[0]
        groups = (0, -1) if case == "nonfinite" else GROUPS
        for dtype in dtypes:
            for group in groups:
                lines.append(row(name, weight, dtype, group, 1))
        print(name, len(lines), file=sys.stderr, flush=True)
    for case in ("normal", "odd", "edge"):
        for tag in ("bf16", "f16"):
            name = f"{case}.{tag}"
            for dtype in dtypes:
                for group in (0, -1):
                    lines.append(row(name, inputs[name], dtype, group, 0))
        print(case, len(lines), file=sys.stderr, flush=True)

    buf = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buf, compresslevel=9, mtime=0) as z:
        z.write(("\n".join(lines) + "\n").encode())
    (folder / "sdnq.tsv.gz").write_bytes(buf.getvalue())
    print(len(lines), "lines,", len(buf.getvalue()), "bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
