"""Weights out of layers of ComfyUI's own formats, and convert_to_quant's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from .errors import LayerError
from .numbers import exact_here, look_up, native_numbers, rotate_once, rounded
from .packing import unpack
from .scheme import ORIG_DTYPES, SCALE, WEIGHT, Shape, words

GROUP_SCALE, CHANNEL_SCALE, LEVELS = "weight_s_rel", "weight_s_channel", "weight_codebook"
ZEROS = "weight_zeros"
SCALE_2 = "weight_scale_2"
PROJ_DOWN, PROJ_UP, SMOOTH = "weight_proj_down", "weight_proj_up", "weight_smooth_factor"

_FLOAT8 = {
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e4m3fn_rowwise": torch.float8_e4m3fn,
    "float8_e4m3fn_blockwise": torch.float8_e4m3fn,
    "float8_e4m3fn_block3d": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}
_INT8 = ("int8_tensorwise", "int8_blockwise")
_MXFP8 = ("mxfp8", "hybrid_mxfp8")
FORMATS = (*_FLOAT8, *_INT8, *_MXFP8, "nvfp4", "convrot_w4a4", "asym_w4a8_int8", "awq_w4a16", "svdquant_w4a4")

#: Those in which ComfyUI reads the experts of a layer from one tensor.
_BANKS = ("int8_tensorwise", "float8_e4m3fn", "float8_e5m2", "mxfp8", "nvfp4", "convrot_w4a4")

#: Rows that are worked on at a time on a CPU have about so many values.
CHUNK = 1 << 17


@dataclass(frozen=True)
class Native:
    """How a matrix, or the experts of a layer, are stored in a format of ComfyUI's."""

    format: str
    shape: Shape
    stored: Shape  # with padding
    orig_dtype: torch.dtype
    group: int = 0  # values of a row that share a scale, where the format has groups
    rotation: int = 0  # values that are rotated together
    bits: int = 8
    full_precision_matrix_mult: bool = False
    layer: str = ""  # for errors
    experts: int = 0  # matrices in one tensor, which `shape` counts and `stored` does not; 0 for one matrix


def parse_native(
    o: Mapping[str, Any], tensors: Mapping[str, Tensor], layer: str = "", shape: Shape | None = None
) -> Native:
    """Reads a layer's JSON and checks its tensors.

    Args:
        o: the JSON.
        tensors: by what follows the layer's name and a dot.
        shape: of the weight, where it is known: nvfp4 and mxfp8 are stored padded.
    """
    name = o.get("format")
    if name not in FORMATS:
        known = ", ".join(("sdnq", *FORMATS))
        raise LayerError(layer, f"format: want one of {known}, got {json.dumps(name)}")
    weight = tensors.get(WEIGHT)
    if weight is None:
        raise LayerError(layer, tensor=WEIGHT, wanted="a tensor", got="nothing")
    if name in _BANKS and (weight.ndim == 3 or "num_experts" in o):
        return _parse_bank(o, tensors, layer, shape)
    if weight.ndim != 2 or min(weight.shape) < 1:
        raise LayerError(layer, tensor=WEIGHT, wanted="a matrix", got=words(weight.dtype, weight.shape))
    options = _Options(o, layer)
    rows, columns = weight.shape
    bits, group, rotation = 8, 0, 0
    if name in ("nvfp4", "convrot_w4a4", "awq_w4a16", "svdquant_w4a4"):
        bits, columns = 4, 2 * columns
    if name == "svdquant_w4a4":
        group = 64
    if name == "awq_w4a16":
        group = options.integer("group_size", 64)
    if name == "asym_w4a8_int8":
        bits, group, columns = _w4a8(options, tensors, columns)
    if name in ("convrot_w4a4", "asym_w4a8_int8") or options.get("convrot") is True:
        rotation = options.integer("convrot_groupsize", 256)
        if rotation < 4 or rotation & (rotation - 1) or columns % rotation:
            raise LayerError(layer, f"a rotation of {rotation} values does not fit {columns} columns")
    if group and columns % group:
        raise LayerError(layer, f"groups of {group} do not divide {columns} columns")
    orig = ORIG_DTYPES.get(str(options.get("orig_dtype", "")).removeprefix("torch."), torch.bfloat16)
    found = Native(
        format=name,
        shape=_unpadded(name, (rows, columns), shape, options.get("orig_shape")),
        stored=(rows, columns),
        orig_dtype=orig,
        group=group,
        rotation=rotation,
        bits=bits,
        full_precision_matrix_mult=options.get("full_precision_matrix_mult") is True,
        layer=layer,
    )
    _check(found, tensors)
    return found


def _parse_bank(o: Mapping[str, Any], tensors: Mapping[str, Tensor], layer: str, shape: Shape | None) -> Native:
    """Reads the experts of a layer: each is a matrix, and the tensors of all are stacked."""
    weight = tensors[WEIGHT]
    if weight.ndim != 3 or min(weight.shape) < 1:
        raise LayerError(layer, tensor=WEIGHT, wanted="matrices in one tensor", got=words(weight.dtype, weight.shape))
    experts, said = weight.shape[0], o.get("num_experts", weight.shape[0])
    if said != experts or isinstance(said, bool):
        raise LayerError(layer, f"num_experts: {json.dumps(said)}, and its weight has {experts}")
    if o["format"] == "int8_tensorwise" and _Options(o, layer).get("convrot") is True:
        raise LayerError(layer, "convrot: ComfyUI does not rotate experts back")
    for key, t in tensors.items():
        if key in (SCALE, SCALE_2) and t.ndim and t.shape[0] != experts:
            raise LayerError(
                layer, tensor=key, wanted=f"a scale for each of {experts} experts", got=words(t.dtype, t.shape)
            )
    known = shape if shape is not None and len(shape) == 3 else None
    listed = o.get("orig_shape")
    one = {k: v for k, v in o.items() if k not in ("num_experts", "orig_shape")}
    if isinstance(listed, list) and len(listed) == 3:
        one["orig_shape"] = listed[1:]
    found = parse_native(one, _expert(tensors, 0), layer, known[1:] if known else None)
    return replace(found, shape=(experts, *found.shape), experts=experts)


def _expert(tensors: Mapping[str, Tensor], i: int) -> dict[str, Tensor]:
    """The tensors of one expert; a scalar is of all."""
    mine = ((key, tensors[key]) for key in (WEIGHT, SCALE, SCALE_2) if key in tensors)
    return {key: t[i] if t.ndim else t for key, t in mine}


class _Options:
    """Looks where ComfyUI looks: at the top, then in "params"."""

    def __init__(self, o: Mapping[str, Any], layer: str) -> None:
        self.o, self.layer = o, layer

    def get(self, key: str, otherwise: Any = None) -> Any:
        params = self.o.get("params")
        if key not in self.o and isinstance(params, dict):
            return params.get(key, otherwise)
        return self.o.get(key, otherwise)

    def integer(self, key: str, otherwise: int) -> int:
        value = self.get(key, otherwise)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise LayerError(self.layer, f"{key}: want a whole number from 1 on, got {json.dumps(value)}")
        return value


def _w4a8(options: _Options, tensors: Mapping[str, Tensor], stored: int) -> tuple[int, int, int]:
    """Bits, group and columns: six bits show in the width of the rows."""
    group, scale = options.integer("group_size", 16), tensors.get(GROUP_SCALE)
    if scale is not None and scale.ndim == 2 and scale.shape[1] * group * 6 == stored * 8:
        return 6, group, scale.shape[1] * group
    return 4, group, 2 * stored


def _unpadded(name: str, stored: Shape, shape: Shape | None, said: object) -> Shape:
    """The true shape, if it is known and pads to the stored one."""
    align = {"nvfp4": 16, "mxfp8": 32, "hybrid_mxfp8": 32}.get(name)
    if align is None:
        return stored
    listed = isinstance(said, list) and all(isinstance(n, int) for n in said)
    known = shape or (tuple(cast("list[int]", said)) if listed else None)
    if (
        known is None
        or len(known) != 2
        or any(-(-n // align) * align != padded for n, padded in zip(known, stored, strict=False))
    ):
        return stored
    return known


def _check(n: Native, tensors: Mapping[str, Tensor]) -> None:
    rows, columns = n.stored
    f8, f32, u8 = torch.float8_e4m3fn, torch.float32, torch.uint8
    floats = tuple(ORIG_DTYPES.values())
    wanted: dict[str, tuple[tuple[torch.dtype, ...], tuple[Shape, ...]]] = {}
    scale = tensors[SCALE].shape if SCALE in tensors else ()
    if n.format in _FLOAT8:
        wanted[WEIGHT] = ((_FLOAT8[n.format],), (n.stored,))
    elif n.format in _MXFP8:
        wanted[WEIGHT] = ((f8,), (n.stored,))
    elif n.format in _INT8:
        wanted[WEIGHT] = ((torch.int8,), (n.stored,))
    elif n.format == "nvfp4":
        wanted[WEIGHT] = ((u8,), ((rows, columns // 2),))
    else:
        wanted[WEIGHT] = ((torch.int8, u8), ((rows, columns * n.bits // 8),))
    if n.format in (*_MXFP8, "nvfp4"):
        blocks = columns // (16 if n.format == "nvfp4" else 32)
        e8 = getattr(torch, "float8_e8m0fnu", u8)
        kinds = (f8, u8) if n.format == "nvfp4" else (u8, e8)
        wanted[SCALE] = (kinds, ((-(-rows // 128) * 128, -(-blocks // 4) * 4),))
        if n.format == "nvfp4":
            wanted[SCALE_2] = ((f32,), ((), (1,)))
    elif n.format == "awq_w4a16":
        wanted[SCALE] = wanted[ZEROS] = (floats, ((columns // n.group, rows),))
    elif n.format == "svdquant_w4a4":
        rank = tensors[PROJ_UP].shape[-1] if PROJ_UP in tensors and tensors[PROJ_UP].ndim else 0
        wanted[SCALE] = (floats, ((columns // n.group, rows),))
        wanted[PROJ_DOWN], wanted[PROJ_UP] = (floats, ((columns, rank),)), (floats, ((rows, rank),))
        wanted[SMOOTH] = (floats, ((columns,),))
    elif n.format == "asym_w4a8_int8":
        wanted[GROUP_SCALE] = ((f8, u8, f32), ((rows, columns // n.group),))
        wanted[CHANNEL_SCALE] = ((f32,), ((rows,),))
        if LEVELS in tensors:
            wanted[LEVELS] = ((f32,), ((16,),))
    else:
        shapes: tuple[Shape, ...] = ((), (1,), (1, 1), (rows, 1))
        if n.format in ("float8_e4m3fn_rowwise", "float8_e4m3fn_blockwise", "convrot_w4a4"):
            shapes += ((rows,),)
        if n.format in ("float8_e4m3fn_blockwise", "int8_blockwise"):
            shapes += _dividing(scale, rows, columns)
        if n.format == "float8_e4m3fn_block3d" and len(scale) == 3:
            shapes += tuple((rows, b, 1) for b in scale[1:2] if b > 0 and columns % b == 0)
        wanted[SCALE] = ((f32,), shapes)
    for name, (dtypes, shapes) in wanted.items():
        t = tensors.get(name)
        want = " or ".join(words(dtypes[0], s) for s in shapes)
        if t is None:
            raise LayerError(n.layer, tensor=name, wanted=want, got="nothing")
        if t.dtype not in dtypes or tuple(t.shape) not in shapes:
            raise LayerError(n.layer, tensor=name, wanted=want, got=words(t.dtype, t.shape))


def _dividing(scale: Shape | torch.Size, rows: int, columns: int) -> tuple[Shape, ...]:
    """The shape of a scale of square blocks, if it is one."""
    if len(scale) != 2 or min(scale) < 1 or rows % scale[0] or columns % scale[1]:
        return ()
    return ((scale[0], scale[1]),) if rows // scale[0] == columns // scale[1] else ()


@torch.no_grad()
def decode_native(
    n: Native, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None, arithmetic: torch.dtype = torch.float32
) -> Tensor:
    """Restores a weight, [rows, columns] without padding, or [experts, rows, columns]; see `decode`."""
    dtype = n.orig_dtype if dtype is None else dtype
    if n.experts:
        one = replace(n, shape=n.shape[1:], experts=0)
        return torch.stack([decode_native(one, _expert(tensors, i), dtype, arithmetic) for i in range(n.experts)])
    rows, columns = n.shape
    restore = _restorer(n, tensors, arithmetic)
    if not exact_here(tensors[WEIGHT]):
        return restore(slice(0, rows))[:, :columns].to(dtype)
    out = torch.empty(n.shape, dtype=dtype, device=tensors[WEIGHT].device)
    step = max(CHUNK // n.stored[1], 1)
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        out[part] = restore(part)[:, :columns]
    return out


def native_rows(n: Native, tensors: Mapping[str, Tensor], index: Tensor, dtype: torch.dtype) -> Tensor:
    """Restores rows of those numbers."""
    if n.experts:
        raise LayerError(n.layer, "the experts of a layer are no table of rows")
    with torch.no_grad():
        return _restorer(n, tensors, torch.float32)(index)[:, : n.shape[1]].to(dtype)


_Rows = slice | Tensor
_Restorer = Callable[[_Rows], Tensor]


def _restorer(n: Native, tensors: Mapping[str, Tensor], arithmetic: torch.dtype) -> _Restorer:
    """Returns what restores some rows, of the stored width, in float32."""
    weight = tensors[WEIGHT]
    if n.format in ("nvfp4", *_MXFP8):
        return _swizzled(n, tensors, arithmetic)
    if n.format == "awq_w4a16":
        scales, zeros = (tensors[name].t().to(torch.float32).unsqueeze(-1) for name in (SCALE, ZEROS))
        low = arithmetic if arithmetic == tensors[SCALE].dtype else torch.float32

        def awq(rows: _Rows) -> Tensor:
            x = _nibbles(_rows_of(weight, rows)).to(torch.float32).sub_(8)
            x = x.reshape(x.shape[0], -1, n.group)
            return rounded(rounded(x * _rows_of(scales, rows), low) + _rows_of(zeros, rows), low).flatten(1)

        return awq
    if n.format == "asym_w4a8_int8":
        return _w4a8_restorer(n, tensors, arithmetic)
    if n.format == "svdquant_w4a4":
        return _svdquant_restorer(n, tensors)
    scale = tensors[SCALE]
    if n.format in ("float8_e4m3fn", "float8_e5m2"):
        scale = rounded(scale, arithmetic)
    by_rows = _spread(scale, n.stored)

    def scaled(rows: _Rows) -> Tensor:
        codes = _rows_of(weight, rows)
        x = _signed(_nibbles(codes)) if n.bits == 4 else native_numbers(codes)
        s = by_rows if by_rows.shape[0] == 1 else _rows_of(by_rows, rows)
        x = (x.reshape(x.shape[0], s.shape[1], -1) * s).flatten(1)
        return rotate_once(x, n.rotation) if n.rotation else x

    return scaled


def _rows_of(t: Tensor, rows: _Rows) -> Tensor:
    """Takes rows. A number below 0 is an error."""
    if isinstance(rows, slice):
        return t[rows]
    if t.dtype.itemsize == 1:  # torch lacks that for floats of 8 bits
        return t.view(torch.uint8).index_select(0, rows).view(t.dtype)
    return t.index_select(0, rows)


def _spread(scale: Tensor, stored: Shape) -> Tensor:
    """Scales as [rows or 1, groups, 1]."""
    rows, _ = stored
    if scale.numel() == 1:
        return scale.reshape(1, 1, 1)
    if scale.ndim == 2 and scale.shape[0] != rows:  # of blocks
        scale = scale.repeat_interleave(rows // scale.shape[0], 0)
    return scale.reshape(rows, -1, 1)


def _nibbles(words_: Tensor) -> Tensor:
    """Codes of 4 bits, the first of a byte in its low half, [rows, columns]."""
    words_ = words_.contiguous().view(torch.uint8)
    return unpack(words_, 4).view(words_.shape[0], -1)


def _signed(codes: Tensor) -> Tensor:
    """Values of codes of 4 bits in two's complement."""
    return (codes ^ 8).to(torch.float32).sub_(8)


#: The values of float4's codes.
_FOURS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def unswizzle(scales: Tensor) -> Tensor:
    """Puts the scales of nvfp4 and mxfp8 by rows: they lie in tiles of 128 rows and four
    blocks, in which rows that are 32 apart lie together."""
    rows, blocks = scales.shape
    tiles = scales.reshape(rows // 128, blocks // 4, 32, 4, 4)
    return tiles.permute(0, 3, 2, 1, 4).reshape(rows, blocks)


def _swizzled(n: Native, tensors: Mapping[str, Tensor], arithmetic: torch.dtype) -> _Restorer:
    weight, side = tensors[WEIGHT], unswizzle(tensors[SCALE].view(torch.uint8))
    if n.format == "nvfp4":
        block = 16
        tensor = rounded(tensors[SCALE_2].reshape(()), arithmetic)
        scales = rounded(side.view(torch.float8_e4m3fn).to(torch.float32) * tensor, arithmetic)
        values = torch.tensor([*_FOURS, *(-v for v in _FOURS)], dtype=torch.float32, device=weight.device)
    else:
        block = 32
        scales = (side.to(torch.int32) << 23).view(torch.float32)
    scales = scales[: n.stored[0], : n.stored[1] // block].unsqueeze(-1)

    def restore(rows: _Rows) -> Tensor:
        codes = _rows_of(weight, rows)
        if n.format == "nvfp4":
            swapped = codes.to(torch.int16)  # the first value is in the high half
            codes = _nibbles(((swapped << 4 | swapped >> 4) & 255).to(torch.uint8))
            x = look_up(values, codes.to(torch.int32))
        else:
            x = native_numbers(codes)
        return (x.reshape(x.shape[0], -1, block) * _rows_of(scales, rows)).flatten(1)

    return restore


def _w4a8_restorer(n: Native, tensors: Mapping[str, Tensor], arithmetic: torch.dtype) -> _Restorer:
    weight, columns = tensors[WEIGHT], n.stored[1]
    side = tensors[GROUP_SCALE]
    if side.dtype is not torch.float32:
        side = side.view(torch.float8_e4m3fn).to(torch.float32)
    levels, channel = tensors.get(LEVELS), tensors[CHANNEL_SCALE].unsqueeze(-1)

    def restore(rows: _Rows) -> Tensor:
        words_ = _rows_of(weight, rows)
        codes = _nibbles(words_[:, : columns // 2])
        if n.bits == 6:
            high = words_[:, columns // 2 :].contiguous().view(torch.uint8)
            codes = codes | unpack(high, 2).view(codes.shape) << 4
        x = codes.to(torch.float32).sub_(1 << n.bits - 1) if levels is None else look_up(levels, codes.to(torch.int32))
        x = (x.reshape(x.shape[0], -1, n.group) * _rows_of(side, rows).unsqueeze(-1)).flatten(1)
        x = x.clamp(-127, 127).round() + 0.0
        return rotate_once(rounded(x * _rows_of(channel, rows), arithmetic), n.rotation)

    return restore


def _svdquant_restorer(n: Native, tensors: Mapping[str, Tensor]) -> _Restorer:
    """Values of codes, of inputs that are divided, and a low-rank part of those that are not."""
    scales = tensors[SCALE].t().to(torch.float32).unsqueeze(-1)
    down, up, smooth = (tensors[name].to(torch.float32) for name in (PROJ_DOWN, PROJ_UP, SMOOTH))

    def restore(rows: _Rows) -> Tensor:
        x = _signed(_nibbles(_rows_of(tensors[WEIGHT], rows)))
        x = (x.reshape(x.shape[0], -1, n.group) * _rows_of(scales, rows)).flatten(1) / smooth
        part, some = torch.zeros_like(x), _rows_of(up, rows)
        for r in range(down.shape[1]):  # one after the other, as the program adds them
            part += some[:, r : r + 1] * down[:, r]
        return x + part

    return restore


def int8_native(n: Native, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns codes, [columns, rows], and scales, [rows] or [1], of int8_tensorwise."""
    return tensors[WEIGHT].t(), tensors[SCALE].reshape(-1)
