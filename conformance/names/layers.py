"""Holds what internal/names does with rows of quantized layers against sdnq.

    layers.py

Three matrices are quantized by sdnq, their layers gathered into one, as the package
says which bytes go where, and restored by sdnq as the layer that they are then: every
value must be that of the layer that it comes from. Then the way back.
"""
import os

os.environ |= {"SDNQ_USE_TORCH_COMPILE": "0", "HF_HUB_OFFLINE": "1"}

import torch
from sdnq.quantizer import sdnq_quantize_layer_weight

from gathered import BY_ROWS, DOWN, UP, WHOLE, data, gather

torch.set_num_threads(1)

COLUMNS = 128
ROWS = {"q": 64, "k": 48, "v": 48}
SETTINGS = {
    "uint4": dict(weights_dtype="uint4", group_size=32),
    "uint4, one scale a row": dict(weights_dtype="uint4", group_size=-1),
    "uint3": dict(weights_dtype="uint3", group_size=32),
    "int5": dict(weights_dtype="int5", group_size=64),
    "int6, rotated": dict(weights_dtype="int6", group_size=32, use_hadamard=True),
    "uint1": dict(weights_dtype="uint1", group_size=8),
    "int8": dict(weights_dtype="int8", group_size=-1),
    "int8, one scale": dict(weights_dtype="int8", group_size=-2),
    "uint8, one scale": dict(weights_dtype="uint8", group_size=-2),
    "uint4, one codebook": dict(weights_dtype="uint4", group_size=-2, use_codebook=True),
    "uint4, codebooks": dict(weights_dtype="uint4", group_size=32, use_codebook=True),
    "int8 for products": dict(weights_dtype="int8", group_size=-1, use_quantized_matmul=True),
    "int8 for products, one scale": dict(weights_dtype="int8", group_size=-2, use_quantized_matmul=True),
    "float8": dict(weights_dtype="float8_e4m3fn", group_size=-1),
    "float6": dict(weights_dtype="float6_e3m2fn", group_size=32),
    "int12": dict(weights_dtype="int12", group_size=32),
    "scales in BF16": dict(weights_dtype="int8", group_size=32, dequantize_fp32=False),
    "low rank": dict(weights_dtype="uint4", group_size=32, use_svd=True, svd_rank=6),
    "low rank for products": dict(weights_dtype="int8", group_size=-1, use_svd=True, svd_rank=6, use_quantized_matmul=True),
    "low rank, rotated": dict(weights_dtype="uint4", group_size=32, use_svd=True, svd_rank=6, use_hadamard=True),
    "scales in uint8": dict(weights_dtype="uint4", group_size=32, scale_dtype="uint8"),
    "levels of scales": dict(weights_dtype="uint4", group_size=32, scale_dtype="uint8", use_codebook_scale=True),
}
FIRSTS = ("scale_2", "scale_zero_point", "zero_point_scale", "zero_point_2")  # one for all scales


def quantized(weight, settings):
    given = dict(dequantize_fp32=True) | settings
    return sdnq_quantize_layer_weight(weight.clone(), layer_class_name="Linear", torch_dtype=torch.bfloat16, **given)


def restored(dequantizer, tensors):
    return dequantizer(**tensors, skip_quantized_matmul=dequantizer.use_quantized_matmul, skip_compile=True, dtype=torch.float32)


def stored(role, t, settings, of):
    """How a tensor of a layer lies along its rows."""
    axis = ranks = unit = 0
    along, per_row = BY_ROWS, ""
    turned = of.use_quantized_matmul
    if role == "svd_up":
        along, axis, ranks = UP, int(turned), 1 - int(turned)
    elif role == "svd_down":
        along, ranks = DOWN, int(turned)
    elif role in FIRSTS:
        along = WHOLE
    elif role == "weight":
        axis = int(turned and not of.re_quantize_for_matmul and not of.is_packed)
    elif settings["group_size"] == -2:
        along = WHOLE
        one = [1] * t.ndim
        if settings.get("use_codebook"):
            one = [-1, t.numel()]
        else:
            one[int(turned and not of.re_quantize_for_matmul and not of.is_packed)] = -1
        per_row = ",".join(map(str, one))
    else:
        axis = int(turned and not of.re_quantize_for_matmul and not of.is_packed)
    return along, axis, ranks, unit, per_row


def described(layer, settings):
    of, tensors, rows = layer
    tensors = {role: t for role, t in tensors.items() if t is not None}
    return rows, settings["weights_dtype"], {role: (t, *stored(role, t, settings, of)) for role, t in tensors.items()}


def gathered(layers, parts, settings, same=()):
    return gather({name: described(layer, settings) for name, layer in layers.items()}, parts, same)


def same_bytes(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and data(a) == data(b)


def main():
    failed = 0
    for label, settings in SETTINGS.items():
        torch.manual_seed(0)
        weights = {name: torch.randn(rows, COLUMNS) * (i + 1) for i, (name, rows) in enumerate(ROWS.items())}
        layers, values = {}, []
        for name, w in weights.items():
            of, tensors = quantized(w, settings)
            layers[name] = (of, tensors, ROWS[name])
            values.append(restored(of, tensors))
        want = torch.cat(values)
        joined = gathered(layers, [(name, 0, rows) for name, rows in ROWS.items()], settings)
        if isinstance(joined, str):
            ok = label in ("scales in uint8", "levels of scales")
            print(f"{label}: {'' if ok else 'FAILED '}refused: {joined}")
            failed += not ok
            continue
        # A layer of the joined shape says how to read it.
        whole = dict(settings)
        if whole["group_size"] == -2:
            whole["group_size"] = -1
        if "svd_rank" in whole:
            whole["svd_rank"] *= len(ROWS)
        of, model = quantized(torch.cat(list(weights.values())), whole)
        wrong = [f"{r}: {list(joined[r].shape)} {joined[r].dtype}, want {list(t.shape)} {t.dtype}" for r, t in model.items()
                 if t is not None and (joined[r].shape != t.shape or joined[r].dtype != t.dtype)]
        if wrong:
            failed += 1
            print(f"{label}: FAILED {wrong}")
            continue
        got = restored(of, {role: joined.get(role) for role in model})
        apart = (got - want).abs().max() / want.abs().max()
        exact = "svd_rank" not in settings
        ok = bool(apart == 0) if exact else bool(apart < 2e-6)
        # And back: each row is where it was, and joined once more the bytes are the same.
        start, back, all_rows = 0, {}, {"all": (of, {role: joined.get(role) for role in model}, sum(ROWS.values()))}
        for name, rows in ROWS.items():
            piece = gathered(all_rows, [("all", start, start + rows)], whole)
            back[name] = (of, piece, rows)
            start += rows
        if exact and settings["group_size"] != -2:
            ok &= all(same_bytes(back[name][1][role], t) for name in ROWS for role, t in layers[name][1].items() if t is not None)
        again = gathered(back, [(name, 0, rows) for name, rows in ROWS.items()], whole, same=["svd_down"])
        ok &= all(same_bytes(again[role], joined[role]) for role in joined)
        failed += not ok
        print(f"{label}: {'' if ok else 'FAILED '}{'equal' if apart == 0 else f'apart by {float(apart):.1e} of the greatest value'}, and back")
    raise SystemExit(failed > 0)


main()
