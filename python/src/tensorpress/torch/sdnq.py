"""Weights out of layers of format "sdnq", as pure functions over tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from .dtypes import Dtype
from .numbers import exact_here, fma, look_up, numbers, product, rotate, rounded, whole
from .packing import BLOCKS, unpack
from .scheme import DOWN, SCALE, SCALE_2, SCALE_ZERO, UP, WEIGHT, ZERO, ZERO_2, ZERO_SCALE, Scheme

#: Values that are worked on at a time: what passes between steps stays in the caches of
#: a CPU, and is small beside the weight elsewhere. Chains take a call for every step,
#: which has to be worth it.
CPU_CHUNK = 1 << 18
CHAIN_CHUNK = 1 << 19
DEVICE_CHUNK = 1 << 24

_Take = Callable[[Tensor], Tensor]


@torch.no_grad()
def decode_sdnq(
    scheme: Scheme,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    *,
    arithmetic: torch.dtype = torch.float32,
) -> Tensor:
    """Restores a weight.

    Args:
        scheme: from `parse`.
        tensors: by what follows the layer's name and a dot, as the scheme says.
        dtype: of the result, None for what the weight had.
        arithmetic: the dtype in which values are rotated back. SDNQ takes that of the
            result, and so does `tensorpress dequantize --dtype`; float32 is as exact as
            it gets.

    Returns:
        The weight, of the scheme's shape. On a CPU, and not compiled, float32 has the
        bits of `tensorpress dequantize --dtype f32`; other dtypes are that, rounded.
    """
    dtype = scheme.orig_dtype if dtype is None else dtype
    layer = _Layer(scheme, tensors, arithmetic)
    if torch.compiler.is_compiling():
        return layer.rows(0, scheme.rows).to(dtype).reshape(scheme.shape)
    out = torch.empty((scheme.rows, scheme.rest), dtype=dtype, device=tensors[WEIGHT].device)
    for start, end in layer.chunks():
        part = out[start:end]
        found = layer.rows(start, end, part if dtype is torch.float32 else None)
        if found.data_ptr() != part.data_ptr():
            part.copy_(found)
    return out.view(scheme.shape)


@torch.no_grad()
def decode_sdnq_rows(
    scheme: Scheme, tensors: Mapping[str, Tensor], rows: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Restores some rows of a matrix, those of an embedding for one.

    Args:
        rows: integers of any shape.

    Returns:
        The rows, [*rows.shape, columns].
    """
    dtype = scheme.orig_dtype if dtype is None else dtype
    index = rows.reshape(-1)
    layer = _Layer(scheme, tensors, torch.float32)
    if not layer.has_whole_rows():
        return decode_sdnq(scheme, tensors, dtype).index_select(0, index).reshape(*rows.shape, *scheme.shape[1:])
    return layer.chosen(index).to(dtype).reshape(*rows.shape, *scheme.shape[1:])


def int8_rows(scheme: Scheme, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns what is multiplied in int8: the codes, [columns, rows], and the scales,
    [rows] or [1], of a matrix whose rows, or all of it, share one."""
    codes = tensors[WEIGHT]
    codes = codes if scheme.transposed else codes.reshape(scheme.rows, scheme.rest).t()
    return codes, _side(scheme, tensors, SCALE).reshape(-1)


def stored_numbers(words: Tensor, dtype: Dtype) -> Tensor:
    """Returns the values of stored words, flat where they share them."""
    return numbers(unpack(words, dtype.bits) if dtype.bitpacked else words, dtype)


class _Layer:
    """A layer whose scales are at hand."""

    def __init__(self, scheme: Scheme, tensors: Mapping[str, Tensor], arithmetic: torch.dtype) -> None:
        self.scheme, self.tensors, self.arithmetic = scheme, tensors, arithmetic
        self.scale = _side(scheme, tensors, SCALE)
        self.zero = _side(scheme, tensors, ZERO) if scheme.has_zero else None
        self.up: Tensor | None = tensors[UP] if scheme.rank else None
        self.down: Tensor | None = tensors[DOWN] if scheme.rank else None
        if self.up is not None and self.down is not None:
            if scheme.multiplies:
                self.up, self.down = self.up.t(), self.down.t()
            self.down = self.down.to(torch.float32)
        if scheme.transposed:
            self.scale = self.scale.t()
            self.zero = None if self.zero is None else self.zero.t()

    @property
    def unit(self) -> int:
        """How many rows fill whole words."""
        if not self.scheme.dtype.bitpacked:
            return 1
        n = BLOCKS[self.scheme.dtype.bits].values
        return n // math.gcd(n, self.scheme.rest)

    def has_whole_rows(self) -> bool:
        return self.unit == 1 and len(self.scheme.shape) == 2

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Yields the first and the end of some rows at a time."""
        s = self.scheme
        size = DEVICE_CHUNK
        if exact_here(self.scale):
            size = CHAIN_CHUNK if s.rank or s.hadamard else CPU_CHUNK
        step = max(size // (s.rest * self.unit), 1) * self.unit
        for start in range(0, s.rows, step):
            yield start, min(start + step, s.rows)

    def rows(self, start: int, end: int, out: Tensor | None = None) -> Tensor:
        """Restores rows [start, end), [rows, rest], in `out` if that is worth it."""
        return self._restore(self._codes(start, end), lambda t: t[start:end], out)

    def chosen(self, index: Tensor) -> Tensor:
        """Restores the rows of those numbers."""
        s = self.scheme
        words = self.tensors[WEIGHT]
        if s.transposed:
            codes = words.t().index_select(0, index)
        elif s.dtype.bitpacked:
            words = words.reshape(s.rows, -1).index_select(0, index)
            codes = unpack(words, s.dtype.bits).reshape(index.numel(), *s.values_shape[1:])
        else:
            codes = _take(words, index)
        return self._restore(codes, lambda t: t.index_select(0, index), None)

    def _codes(self, start: int, end: int) -> Tensor:
        s = self.scheme
        words = self.tensors[WEIGHT]
        if s.transposed:
            return words[:, start:end].t()
        if not s.dtype.bitpacked:
            return words[start:end]
        if end - start < s.rows:
            n = BLOCKS[s.dtype.bits].values
            words = words[start * s.rest // n : end * s.rest // n]
        return unpack(words, s.dtype.bits).view(end - start, *s.values_shape[1:])

    def _restore(self, codes: Tensor, take: _Take, out: Tensor | None) -> Tensor:
        s = self.scheme
        count = codes.shape[0]
        x = self._look_up(codes, take) if s.codebook else self._scaled(codes, take, out)
        x = rounded(x, s.scale_dtype).reshape(count, s.rest)
        if self.up is not None and self.down is not None:
            x = self._add_low_rank(x, take(self.up).to(torch.float32), self.down)
        if s.hadamard:
            x = rotate(rounded(x, self.arithmetic), s.hadamard, self.arithmetic)
        return x

    def _scaled(self, codes: Tensor, take: _Take, out: Tensor | None) -> Tensor:
        s = self.scheme
        scale = self._of(self.scale, take).to(torch.float32)
        if s.scale_dtype is not torch.float32 or s.rank or s.hadamard:
            out = None
        out = None if out is None else out.view(codes.shape)
        if self.zero is None:
            x = numbers(codes, s.dtype, out) if s.scale_dtype is torch.float32 else self._low_numbers(codes)
            return x * scale if out is None else torch.mul(x, scale, out=out)
        x = numbers(codes, s.dtype) if s.scale_dtype is torch.float32 else self._low_numbers(codes)
        return fma(x, scale, self._of(self.zero, take).to(torch.float32), out)

    def _low_numbers(self, codes: Tensor) -> Tensor:
        """The values in the dtype of the scales, in which SDNQ also adds the least of a
        signed type."""
        s = self.scheme
        if s.dtype.integer and s.dtype.bitpacked:
            x = rounded(codes.to(torch.float32), s.scale_dtype)
            return rounded(x + s.dtype.least, s.scale_dtype)
        return rounded(numbers(codes, s.dtype), s.scale_dtype)

    def _look_up(self, codes: Tensor, take: _Take) -> Tensor:
        s = self.scheme
        index = whole(codes)
        if s.group_size == -2:
            return look_up(self.scale, index).to(torch.float32)
        levels = self.scale if s.reduced_axis == 0 else take(self.scale)
        return levels.gather(s.reduced_axis, index.to(torch.int64)).to(torch.float32)

    def _of(self, side: Tensor, take: _Take) -> Tensor:
        """The scales of some rows, where every row has its own."""
        return side if side.shape[0] == 1 else take(side)

    def _add_low_rank(self, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        """SDNQ rounds a matrix to the factors' dtype before and after, and of a
        convolution the product alone."""
        s = self.scheme
        conv = len(s.shape) > 2 and not s.flat
        found = product(up, down)
        if conv:
            return x + rounded(found, s.factor_dtype)
        return rounded(rounded(x, s.factor_dtype) + found, s.factor_dtype)


def _side(scheme: Scheme, tensors: Mapping[str, Tensor], role: str) -> Tensor:
    """Restores scales, or zero points, where they are quantized themselves."""
    t, scale_2, zero_2 = scheme.scale_store, SCALE_2, SCALE_ZERO
    if role == ZERO:
        t, scale_2, zero_2 = scheme.zero_store, ZERO_SCALE, ZERO_2
    if t is None:
        return tensors[role]
    words = tensors[role]
    if scheme.codebook_scale:
        codes = unpack(words, t.bits) if t.bitpacked else words
        return look_up(tensors[scale_2], whole(codes)).reshape(scheme.scale_shape)
    x = stored_numbers(words, t)
    x = fma(x, tensors[scale_2], tensors[zero_2]) if t.unsigned else x * tensors[scale_2]
    return x.reshape(scheme.scale_shape)


def _take(words: Tensor, index: Tensor) -> Tensor:
    """Takes rows of a dtype for which torch may lack that. A number below 0 is an error."""
    if words.dtype.itemsize == 1 and words.dtype not in (torch.uint8, torch.int8):
        return words.view(torch.uint8).index_select(0, index).view(words.dtype)
    if words.dtype is torch.uint16:
        return words.view(torch.int16).index_select(0, index).view(torch.uint16)
    return words.index_select(0, index)
