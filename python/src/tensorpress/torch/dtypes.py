"""The types in which SDNQ stores a weight, derived from rules, and their aliases."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch


class Kind(Enum):
    """How a code becomes a number."""

    INTEGER = "integer"  # two's complement when signed
    NATIVE = "native"  # torch has the type
    PACKED = "packed"  # sign, exponent and mantissa without infinities or NaN


@dataclass(frozen=True)
class Dtype:
    """How one value of a weight is stored."""

    name: str
    kind: Kind
    bits: int
    exponent: int  # bits, 0 for integers
    mantissa: int
    unsigned: bool
    storage: torch.dtype  # of the stored tensor's elements
    maximum: float

    @property
    def bitpacked(self) -> bool:
        """Whether codes share words, so that the stored tensor is flat."""
        return self.kind is not Kind.NATIVE and self.bits not in (8, 16)

    @property
    def packed_storage(self) -> bool:
        """Whether SDNQ counts it as packed: its own floats of 8 and 16 bits too."""
        return self.bitpacked or self.kind is Kind.PACKED

    @property
    def integer(self) -> bool:
        return self.kind is Kind.INTEGER

    @property
    def divisor(self) -> float:
        """What SDNQ maps a group's range to: uint9 to uint15 have one too many."""
        if self.integer and self.unsigned and 8 < self.bits < 16:
            return self.maximum + 1
        return self.maximum

    @property
    def levels(self) -> int:
        """How many a codebook has."""
        return int(self.divisor) + 1

    @property
    def least(self) -> int:
        """The value of code 0 of an integer that shares words."""
        return 0 if self.unsigned else -(1 << (self.bits - 1))


# Natives that every torch has, and those that came later.
_NATIVE = {
    "float8_e4m3fn": (8, 4, 3, 448.0),
    "float8_e5m2": (8, 5, 2, 57344.0),
    "float8_e4m3fnuz": (8, 4, 3, 240.0),
    "float8_e5m2fnuz": (8, 5, 2, 57344.0),
    "float16": (16, 5, 10, 65504.0),
    "bfloat16": (16, 8, 7, 3.38953e38),
}


def _int_storage(bits: int, unsigned: bool) -> torch.dtype:
    if bits == 1:
        return torch.int64  # eight values in a word, as SDNQ writes them
    if bits < 8:
        return torch.uint8
    if bits == 8:
        return torch.uint8 if unsigned else torch.int8
    return torch.uint16 if bits == 16 and unsigned else torch.int16


def _integer(bits: int, unsigned: bool) -> Dtype:
    maximum = (1 << (bits if unsigned else bits - 1)) - 1
    mantissa = bits if unsigned else bits - 1
    name = f"uint{bits}" if unsigned else f"int{bits}"
    return Dtype(name, Kind.INTEGER, bits, 0, mantissa, unsigned, _int_storage(bits, unsigned), maximum)


def _packed(bits: int, exponent: int, unsigned: bool) -> Dtype:
    mantissa = bits - exponent - (0 if unsigned else 1)
    name = f"float{bits}_e{exponent}m{mantissa}{'fnu' if unsigned else 'fn'}"
    if name == "float8_e4m3fn":
        name += "_sdnq"  # the plain name is the native type
    storage = torch.uint16 if bits == 16 else _int_storage(bits, True)
    maximum = 2.0 ** (1 << (exponent - 1)) * (2 - 2.0**-mantissa)
    return Dtype(name, Kind.PACKED, bits, exponent, mantissa, unsigned, storage, maximum)


def _table() -> dict[str, Dtype]:
    rows = []
    for bits in range(1, 17):
        if bits > 1:
            rows.append(_integer(bits, False))
        rows.append(_integer(bits, True))
        rows += [_packed(bits, e, False) for e in range(1, min(5, bits - 1) + 1)]
        rows += [_packed(bits, e, True) for e in range(1, min(5, bits) + 1)]
    for name, (bits, exponent, mantissa, maximum) in _NATIVE.items():
        storage = getattr(torch, name)
        rows.append(Dtype(name, Kind.NATIVE, bits, exponent, mantissa, False, storage, maximum))
    return {row.name: row for row in rows}


def _aliases() -> dict[str, str]:
    names = {
        "bf16": "bfloat16",
        "fp16": "float16",
        "fp8": "float8_e4m3fn",
        "fp1": "float1_e1m0fnu",
        "ufp1": "float1_e1m0fnu",
        "int1": "uint1",
        "bool": "uint1",
    }
    exponents = {2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 3, 8: 4, 9: 4}
    for bits in range(2, 17):
        e = exponents.get(bits, 5)
        names[f"ufp{bits}"] = f"float{bits}_e{e}m{bits - e}fnu"
        if bits not in (8, 16):
            names[f"fp{bits}"] = f"float{bits}_e{e}m{bits - 1 - e}fn"
    return names


#: All storable types by name.
DTYPES: dict[str, Dtype] = _table()
#: SDNQ's short names.
ALIASES: dict[str, str] = _aliases()


def lookup(name: object) -> Dtype | None:
    """Returns the type of a name or alias, None for an unknown one."""
    if not isinstance(name, str):
        return None
    return DTYPES.get(ALIASES.get(name, name))
