"""What may stand in a file, and how it is restored, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .native import (
    CHANNEL_SCALE,
    GROUP_SCALE,
    LEVELS,
    PROJ_DOWN,
    PROJ_UP,
    SMOOTH,
    ZEROS,
    Native,
    decode_native,
    native_rows,
    parse_native,
)
from .scheme import DESCRIPTION, SDNQ_NAMES, Scheme, Shape, parse, read_description
from .sdnq import decode_sdnq, decode_sdnq_rows

#: How a layer is stored.
Stored = Scheme | Native

#: What may follow a layer's name and a dot, but for the bias.
COMPANIONS = (
    *SDNQ_NAMES,
    GROUP_SCALE,
    CHANNEL_SCALE,
    LEVELS,
    ZEROS,
    PROJ_DOWN,
    PROJ_UP,
    SMOOTH,
    "weight_scalar",
    "input_scale",
    "pre_quant_scale",
    DESCRIPTION,
)


def read_layer(
    description: Tensor | bytes | str | Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    layer: str = "",
    shape: Shape | None = None,
) -> Stored:
    """Reads how a layer is stored, and checks its tensors.

    Args:
        description: the layer's tensor `comfy_quant`, or the JSON in it.
        tensors: the layer's, by what follows its name and a dot: `weight`, `weight_scale`…
        layer: its name, for errors.
        shape: of the weight, where it is known: formats that pad do not say it.

    Raises:
        LayerError: naming layer and tensor, and what was wanted.
    """
    o = read_description(description, layer)
    if o.get("format") == "sdnq":
        return parse(o, tensors, layer)
    return parse_native(o, tensors, layer, shape)


def decode(
    stored: Stored,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    *,
    arithmetic: torch.dtype = torch.float32,
) -> Tensor:
    """Restores a weight.

    Args:
        stored: from `read_layer` or `parse`.
        tensors: by what follows the layer's name and a dot.
        dtype: of the result, None for what the weight had.
        arithmetic: the dtype in which the format's own loader computes where that makes
            a difference: it rotates in it. The loaders take that of the result, and so
            does `tensorpress dequantize --dtype`; float32 is as exact as it gets.

    Returns:
        The weight, of `stored.shape`. On a CPU, and not compiled, float32 has the bits
        of `tensorpress dequantize --dtype f32`; other dtypes are that, rounded.
    """
    if isinstance(stored, Scheme):
        return decode_sdnq(stored, tensors, dtype, arithmetic=arithmetic)
    return decode_native(stored, tensors, dtype, arithmetic)


def decode_rows(
    stored: Stored, tensors: Mapping[str, Tensor], rows: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Restores some rows of a matrix, those of an embedding for one.

    Args:
        rows: whole numbers, of any shape.

    Returns:
        The rows, [*rows.shape, columns].
    """
    if isinstance(stored, Scheme):
        return decode_sdnq_rows(stored, tensors, rows, dtype)
    if not rows.numel():
        return torch.empty(*rows.shape, stored.shape[1], dtype=dtype or stored.orig_dtype, device=rows.device)
    found = native_rows(stored, tensors, rows.reshape(-1), dtype or stored.orig_dtype)
    return found.reshape(*rows.shape, stored.shape[1])
