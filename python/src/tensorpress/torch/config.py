"""Layers of SDNQ's own layout, which a config beside the tensors describes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .dtypes import Dtype, lookup
from .errors import LayerError
from .scheme import SCALE, UP, Scheme, Shape, hadamard_size

DEFAULTS: dict[str, Any] = {
    "weights_dtype": "int8",
    "group_size": 0,
    "hadamard_group_size": 256,
    "svd_rank": 32,
    "dequantize_fp32": True,
}


def matches(name: str, entries: object) -> bool:
    """Whether a weight's full name is in one of SDNQ's lists. An entry that begins with
    a dot is the beginning of a name; another is a name, one of its parts, or, with a
    star, a pattern of its beginning."""
    if isinstance(entries, str):
        entries = [entries]
    for e in entries if isinstance(entries, (list, tuple)) else ():
        if not isinstance(e, str):
            continue
        if e.startswith("."):
            if name.startswith(e[1:]):
                return True
        elif name == e or e in name.split("."):
            return True
        elif "*" in e:
            pattern = e.replace(".*", "\\.*").replace("*", ".*")
            try:
                if re.match(pattern, name):
                    return True
            except re.error:
                continue
    return False


def settings_for(config: Mapping[str, Any], weight: str) -> dict[str, Any]:
    """Returns what a config says of a weight of that full name."""
    found = DEFAULTS | {k: v for k, v in config.items() if v is not None}
    modules = config.get("modules_quant_config")
    for pattern, own in modules.items() if isinstance(modules, dict) else ():
        if matches(weight, [pattern]) and isinstance(own, dict):
            found |= own
            break
    dtypes = config.get("modules_dtype_dict")
    for key, entries in dtypes.items() if isinstance(dtypes, dict) else ():
        if matches(weight, entries):
            chosen = _dtype_of(str(key).lower(), str(found["weights_dtype"]))
            if chosen:
                found["weights_dtype"] = chosen
                break
    if matches(weight, config.get("modules_to_not_use_matmul")):
        found["use_quantized_matmul"] = found["use_quantized_matmul_conv"] = False
    return found


def _dtype_of(key: str, now: str) -> str | None:
    """The dtype that a key gives a weight: a name, or bits that it has at least. None for
    one that has them."""
    text = key
    if not (key.startswith("minimum") or key.endswith(("bit", "bits"))):
        return key
    text = text.removeprefix("minimum").removeprefix("-").removeprefix("_")
    text = text.removesuffix("bits").removesuffix("bit").removesuffix("-").removesuffix("_")
    unsigned = text.startswith("uint")
    digits = text.removeprefix("uint").removeprefix("int")
    current = lookup(now)
    if not digits.isdigit() or current is None:
        return key
    bits = int(digits)
    if current.bits >= bits:
        return None
    return f"uint{bits}" if unsigned or bits <= 4 else f"int{bits}"


def scheme_for(
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    shape: Shape,
    kind: str,
    orig_dtype: torch.dtype,
    layer: str = "",
) -> Scheme:
    """Returns how a layer of known shape and kind is stored.

    Args:
        settings: from `settings_for`.
        tensors: under the names of the other layout: `weight_scale`, `weight_zp`…
    """
    conv = kind.startswith("conv")
    dtype = _lookup(settings, "weights_dtype", layer)
    if dtype is None:
        raise LayerError(layer, "weights_dtype: want a dtype, got none")
    scale = _lookup(settings, "scale_dtype", layer)
    zero = _lookup(settings, "zero_point_dtype", layer)
    if zero is None and settings.get("zero_point_dtype") is None:
        zero = scale
    svd = UP in tensors
    rest = math.prod(shape[1:])
    scales = tensors[SCALE].dtype if SCALE in tensors else torch.float32
    low = not settings["dequantize_fp32"] and scales in (torch.bfloat16, torch.float16) and not (scale or zero)
    scheme = Scheme(
        dtype=dtype,
        kind=kind,
        shape=shape,
        group_size=-1,
        orig_dtype=orig_dtype,
        rank=min(_integer(settings, "svd_rank", layer), shape[0], rest) if svd else 0,
        codebook=bool(settings.get("use_codebook")),
        matmul=bool(settings.get("use_quantized_matmul_conv" if conv else "use_quantized_matmul")),
        matmul_dtype=_lookup(settings, "quantized_matmul_dtype", layer),
        scale_store=scale,
        zero_store=zero,
        codebook_scale=bool(settings.get("use_codebook_scale")),
        scale_dtype=scales if low and dtype.divisor <= 16384 else torch.float32,
        factor_dtype=tensors[UP].dtype if svd else torch.float32,
        layer=layer,
    )
    rotation = _integer(settings, "hadamard_group_size", layer)
    first: LayerError | None = None
    for candidate in _candidates(scheme, _integer(settings, "group_size", layer)):
        if settings.get("use_hadamard"):
            columns = candidate.rest if candidate.flat else shape[1]
            candidate = replace(candidate, hadamard=hadamard_size(columns, rotation))
        try:
            candidate.check()
            candidate.check_tensors(tensors)
        except LayerError as e:
            first = first or e
            continue
        return candidate
    assert first is not None
    raise first


def _lookup(settings: Mapping[str, Any], key: str, layer: str) -> Dtype | None:
    name = settings.get(key)
    if name is None or name == "none":
        return None
    found = lookup(name)
    if found is None:
        raise LayerError(layer, f"{key}: unknown dtype {name!r}")
    return found


def _integer(settings: Mapping[str, Any], key: str, layer: str) -> int:
    value = settings[key]
    if not isinstance(value, int):
        raise LayerError(layer, f"{key}: want a whole number, got {value!r}")
    return value


def _candidates(s: Scheme, size: int) -> Iterator[Scheme]:
    """What the settings give, and then what a writer may have done in their place."""
    yield replace(s, group_size=effective_group(s, size))
    for group in (-1, -2):
        yield replace(s, group_size=group)
    if s.matmul:
        plain = replace(s, matmul=False)
        for group in (effective_group(plain, size), -1, -2):
            yield replace(plain, group_size=group)


def effective_group(s: Scheme, size: int) -> int:
    """Returns the group size that SDNQ uses where one, or 0 for its choice, is asked for."""
    if size == 0:
        exponent = 1 + s.dtype.bits + (s.kind == "linear") + (s.rank > 0) + 3 * s.codebook
        size = 1 << exponent
        if s.multiplies and not s.requantizes and s.dtype.bits >= 6:
            size = -1
    if size < 0:
        return size
    channels = s.channels
    if size >= channels:
        return -1
    if channels % size == 0:
        return size
    for groups in range(channels // size - 1, 1, -1):
        if channels % groups == 0:
            return channels // groups
    return -1
