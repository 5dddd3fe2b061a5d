"""Arithmetic that gives the same bits wherever it runs on a CPU: codes to numbers,
products and sums with a single rounding, chains of them, rotations."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .dtypes import Dtype, Kind


def numbers(codes: Tensor, dtype: Dtype, out: Tensor | None = None) -> Tensor:
    """Returns the values of codes, exact in float32.

    Args:
        codes: of any shape: whole words as they are stored, or what `unpack` gave.
        out: where they may be put, of the same shape.
    """
    if dtype.kind is Kind.NATIVE:
        return native_numbers(codes)
    if dtype.kind is Kind.PACKED:
        if exact_here(codes) and codes.numel() > 1 << dtype.bits:
            return look_up(_values(dtype), whole(codes))  # a fraction of the time
        return packed_numbers(codes, dtype)
    if codes.dtype is torch.uint16:
        codes = whole(codes)
    x = codes.to(torch.float32) if out is None else out.copy_(codes)
    return x if dtype.unsigned or not dtype.bitpacked else x.add_(dtype.least)


def native_numbers(codes: Tensor) -> Tensor:
    """Returns values of a type that torch has. It converts floats of 8 bits one by one on
    a CPU, which takes longer than to look them up."""
    one_byte = codes.dtype.itemsize == 1 and codes.dtype.is_floating_point
    if one_byte and exact_here(codes) and codes.numel() > 256:
        return look_up(_native_values(codes.dtype), codes.view(torch.uint8).to(torch.int32))
    return codes.to(torch.float32)


@functools.cache
def _native_values(dtype: torch.dtype) -> Tensor:
    """The values of all codes of 8 bits."""
    return torch.arange(256, dtype=torch.int32, device="cpu").to(torch.uint8).view(dtype).to(torch.float32)


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """Returns the values of a table of one dimension, in the shape of the index."""
    return table.index_select(0, index.reshape(-1)).view(index.shape)


@functools.cache
def _values(dtype: Dtype) -> Tensor:
    """The values of all codes."""
    return packed_numbers(torch.arange(1 << dtype.bits, dtype=torch.int32, device="cpu"), dtype)


def whole(codes: Tensor) -> Tensor:
    """Codes as int32. Words of 16 bits go by way of a type that torch has operations for."""
    if codes.dtype is torch.uint16:
        return codes.view(torch.int16).to(torch.int32) & 0xFFFF
    return codes.to(torch.int32)


def packed_numbers(codes: Tensor, dtype: Dtype) -> Tensor:
    """Returns the values of floats without infinities and NaN. No step makes a number
    below float32's least normal, which some settings flush to zero."""
    if codes.dtype is torch.uint16:
        codes = codes.view(torch.int16)
    x = codes.to(torch.int32)
    bias = (1 << (dtype.exponent - 1)) - 1
    magnitude = x & ((1 << (dtype.exponent + dtype.mantissa)) - 1)
    value = ((magnitude << (23 - dtype.mantissa)) + ((127 - bias) << 23)).view(torch.float32)
    # Without an exponent there is no leading one, and the exponent counts as 1.
    value = torch.where(magnitude < (1 << dtype.mantissa), (value - 2.0**-bias) * 2, value)
    if dtype.unsigned:
        return value
    sign = x & (1 << (dtype.bits - 1))
    return torch.where(sign != 0, 0 - value, value)  # there is no negative zero


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns float32 values rounded to a dtype, in float32."""
    return x if dtype is torch.float32 else x.to(dtype).to(torch.float32)


def fma(x: Tensor, y: Tensor, z: Tensor, out: Tensor | None = None) -> Tensor:
    """Returns x·y + z of float32 with a single rounding; y and z may be broadcast to x."""
    if torch.compiler.is_compiling():
        # Compilers of the CPU round the product, those of others do not.
        return fma_exactly(x, y, z) if x.device.type == "cpu" else torch.addcmul(z, x, y)
    if x.device.type != "cpu":
        return torch.addcmul(z, x, y) if out is None else torch.addcmul(z, x, y, out=out)
    out = torch.empty_like(x) if out is None else out
    if not addcmul_is_fused():
        return out.copy_(fma_exactly(x, y, z))
    # With a single operand that is broadcast, torch takes its fast loop.
    return out.copy_(z).addcmul_(x, y)


def fma_exactly(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Is fma by double precision, which holds the product. Its sum is rounded to odd
    there, so that rounding it again cannot go wrong."""
    p = x.to(torch.float64) * y.to(torch.float64)
    z = z.to(torch.float64)
    s = p + z
    b = s - p
    rest = (p - (s - b)) + (z - b)
    bits = s.view(torch.int64)
    step = torch.where((rest > 0) == (s > 0), 1, -1)
    wrong = (rest.abs() > 0) & (bits & 1 == 0)  # never of NaN
    return torch.where(wrong, bits + step, bits).view(torch.float64).to(torch.float32)


@functools.cache
def addcmul_is_fused() -> bool:
    """Whether torch.addcmul rounds once on this CPU, as builds for AVX2 and AVX-512 do:
    in its vector loops, and in those for what is left and for broadcast operands."""
    v = _float([0x41600000, 0x40A00000, 0x41200000]).repeat(64)  # 14, 5, 10
    s = _float([0x3D8057B2, 0x3D964C06, 0x3D8F3F9E]).repeat(64)
    z = _float([0xBF3E8EF9, 0xBED400EC, 0xBE458E44]).repeat(64)
    want = _float([0x3E0829FA, 0xBD410F24, 0x3F01ABF4]).repeat(64)
    if not torch.equal(torch.addcmul(z, v, s), want):
        return False
    for i in range(3):  # as groups are: a scale and a zero point for a run of values
        for n in (1, 7, 64, 131):
            found = z[i].repeat(2, n).addcmul_(v[i].repeat(2, n), s[i].reshape(1, 1))
            rows = z[i].repeat(2, n).addcmul_(v[i].repeat(2, 1), s[i].repeat(n))
            if not bool((found == want[i]).all() and (rows == want[i]).all()):
                return False
    return True


def _float(bits: list[int]) -> Tensor:
    return torch.tensor(bits, dtype=torch.int64, device="cpu").to(torch.int32).view(torch.float32)


def exact_here(x: Tensor) -> bool:
    """Whether sums follow the order that defines them. It takes a step for every term,
    which other devices and compilers would pay for dearly: they add up in their own."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def product(up: Tensor, down: Tensor) -> Tensor:
    """Returns up·down, [rows, rank] and [rank, columns] of float32: in ascending order
    of the rank, every product and every sum rounded, where it is exact."""
    if not exact_here(up):
        return up @ down
    total = up.new_zeros(up.shape[0], down.shape[1])
    term = torch.empty_like(total)
    for k in range(up.shape[1]):
        torch.mul(up[:, k : k + 1], down[k], out=term)
        total.add_(term)
    return total


def hadamard(n: int, device: torch.device | None = None) -> Tensor:
    """Returns the signs, 1 and -1, of the symmetric Hadamard matrix of size n, a power
    of 2. For powers of 4 they are negative where an odd number of the base-4 digits of
    i xor j are 3, else where i and j have an odd number of one bits in common."""
    i = torch.arange(n, device=device, dtype=torch.int32)
    x = i[:, None] ^ i[None, :] if n & 0x55555555 else i[:, None] & i[None, :]
    if n & 0x55555555:
        x = x & (x >> 1) & 0x55555555
    for by in (16, 8, 4, 2, 1):
        x = x ^ (x >> by)
    return (1 - 2 * (x & 1)).to(torch.float32)


def hadamard_matrix(n: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns that matrix over √n, whose entries are rounded to a dtype, as float32."""
    return hadamard(n, device) * _entry(n, dtype)


def rotate(x: Tensor, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Multiplies groups of n consecutive values by the Hadamard matrix over √n.

    Args:
        x: float32 [..., k·n], values of `dtype`.
        dtype: that of the matrix's entries and of the result.

    Returns:
        float32 of that shape. Where it is exact, every value is a chain: from 0 on, in
        ascending order, one rounding a step.
    """
    matrix = hadamard_matrix(n, x.device, dtype)
    groups = x.reshape(-1, n)
    if not exact_here(x):
        return rounded((groups @ matrix).reshape(x.shape), dtype)
    total = torch.zeros_like(groups)
    if addcmul_is_fused():
        for k in range(n):
            total.addcmul_(groups[:, k : k + 1], matrix[k])
    else:
        for k in range(n):
            total = fma_exactly(groups[:, k : k + 1], matrix[k], total)
    return rounded(total.add_(0.0).reshape(x.shape), dtype)  # a negative zero becomes a positive one


def rotate_once(x: Tensor, n: int) -> Tensor:
    """Is rotate with sums in double precision, in any order, rounded at the end; where it
    is not exact, in single precision."""
    if not exact_here(x):
        return rotate(x, n)
    y = x.reshape(-1, n).to(torch.float64)
    at = 1
    while at < n:
        if n & 0x55555555:  # a power of 4: all but the opposite one of four are added
            four = y.reshape(-1, 4, at)
            y = four.sum(1, keepdim=True) - 2 * four.flip(1)
            at *= 4
        else:
            a, b = y.reshape(-1, 2, at).unbind(1)
            y = torch.stack((a + b, a - b), 1)
            at *= 2
    return (y.reshape(x.shape) * _entry(n, torch.float32)).to(torch.float32).add_(0.0)


def _entry(n: int, dtype: torch.dtype) -> float:
    """1/√n in a dtype, for n a power of 2."""
    root = math.isqrt(n)
    if root * root == n:
        return 1 / root
    return _ENTRIES[dtype] / math.isqrt(n // 2) * 2


#: 1/√8 in each dtype, of which the others are by powers of 2.
_ENTRIES = {torch.float32: float.fromhex("0x1.6a09e6p-2"), torch.bfloat16: 0.353515625, torch.float16: 0.353515625}
