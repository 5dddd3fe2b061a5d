"""How a layer is stored: all that follows from its JSON, its shape above all.

The JSON is that of docs/sdnq-layer.md. Tensors are named as there, by what follows
the layer's name and a dot.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .dtypes import DTYPES, Dtype, lookup
from .errors import LayerError
from .packing import words_of

#: The format's version that this package reads.
FORMAT_VERSION = 1

WEIGHT, SCALE, ZERO = "weight", "weight_scale", "weight_zp"
UP, DOWN = "svd_up", "svd_down"
SCALE_2, SCALE_ZERO = "weight_scale_2", "weight_scale_zp"
ZERO_SCALE, ZERO_2 = "weight_zp_scale", "weight_zp_2"
DESCRIPTION = "comfy_quant"

#: The tensors that a layer may have, and what SDNQ's own files call them.
SDNQ_NAMES = {
    WEIGHT: "weight",
    SCALE: "scale",
    ZERO: "zero_point",
    UP: "svd_up",
    DOWN: "svd_down",
    SCALE_2: "scale_2",
    SCALE_ZERO: "scale_zero_point",
    ZERO_SCALE: "zero_point_scale",
    ZERO_2: "zero_point_2",
}

ORIG_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
CONVS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
KINDS = ("linear", "embedding", *CONVS)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Scheme:
    """How a weight is stored in format "sdnq".

    Rows are the first axis of the weight, `rest` is the values of a row.
    """

    dtype: Dtype
    kind: str  # one of KINDS
    shape: Shape  # of the weight
    group_size: int  # values per scale, -1 for one scale a row, -2 for one in all
    orig_dtype: torch.dtype
    hadamard: int = 0  # values that are rotated together, 0 for none
    rank: int = 0  # of the low-rank part, 0 for none
    codebook: bool = False
    matmul: bool = False  # as it was asked for; see multiplies
    matmul_dtype: Dtype | None = None
    scale_store: Dtype | None = None  # of scales that are quantized themselves
    zero_store: Dtype | None = None
    codebook_scale: bool = False
    scale_dtype: torch.dtype = torch.float32
    factor_dtype: torch.dtype = torch.float32
    #: Not to be multiplied in the codes' own integers, as ComfyUI's key of that name says.
    full_precision_matrix_mult: bool = False
    layer: str = ""  # for errors

    # What follows from these.

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def rest(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def kernel(self) -> Shape:
        return self.shape[2:]

    @property
    def is_conv(self) -> bool:
        return self.kind.startswith("conv") and not self.is_transposed_conv

    @property
    def is_transposed_conv(self) -> bool:
        return self.kind.startswith("conv_transpose")

    @property
    def channels(self) -> int:
        """Those along which scales are shared."""
        return self.shape[0] if self.is_transposed_conv else self.shape[1]

    @property
    def multiplies(self) -> bool:
        """Whether SDNQ multiplies the weight as it is stored."""
        if not self.matmul or self.kind == "embedding" or self.is_transposed_conv:
            return False
        out, into = self.shape[:2]
        return out >= 32 and into >= 32 and out % 16 == 0 and into % 16 == 0

    @property
    def requantizes(self) -> bool:
        """Whether SDNQ would have to quantize the weight anew for products."""
        w, q = self.dtype, self.matmul_dtype or default_matmul_dtype(self.dtype)
        if self.codebook or self.scale_store or self.zero_store or w.bits > q.bits:
            return True
        if w.integer != q.integer or (w.unsigned and not q.integer):
            return True
        return w.kind.value == "packed" and not q.integer and (w.bits >= q.bits or w.maximum > q.maximum)

    @property
    def as_it_is(self) -> bool:
        """Whether the stored codes are what is multiplied."""
        return self.multiplies and not self.requantizes and not self.dtype.packed_storage

    @property
    def flat(self) -> bool:
        """Whether a convolution is stored as a matrix."""
        return self.is_conv and self.as_it_is

    @property
    def transposed(self) -> bool:
        """Whether codes and scales are stored by columns."""
        return self.as_it_is and self.group_size < 0

    @property
    def has_zero(self) -> bool:
        return self.dtype.unsigned and not self.codebook

    @property
    def levels(self) -> int:
        """Of a codebook, 1 without."""
        return self.dtype.levels if self.codebook else 1

    @property
    def values_shape(self) -> Shape:
        """The shape of the codes before they share words."""
        return self._with_groups(self.group_size)

    @property
    def scale_shape(self) -> Shape:
        n = self.levels
        if self.group_size > 0:
            return self._with_groups(n)
        if self.group_size == -2:
            return (n,) if self.codebook else (1,) * len(self.values_shape)
        if self.transposed:
            return (n, self.rows)
        if self.flat:
            return (self.rows, n)
        if self.is_transposed_conv:
            return (n, *self.shape[1:])
        return (self.rows, n, *self.kernel)

    @property
    def reduced_axis(self) -> int:
        """The axis of the values along which they share scales."""
        if self.is_transposed_conv:
            return 1 if self.group_size > 0 else 0
        if self.is_conv and not self.flat:
            return 2 if self.group_size > 0 else 1
        return len(self.values_shape) - 1

    def _with_groups(self, last: int) -> Shape:
        kernel = () if self.flat else self.kernel
        if self.transposed:
            return (self.rest, self.rows)
        if self.flat and self.group_size <= 0:
            return (self.rows, self.rest)
        if self.group_size <= 0:
            return self.shape
        if self.is_transposed_conv:
            return (self.rows, last, self.shape[1] // self.group_size, *kernel)
        return (self.rows, self.channels // self.group_size, last, *kernel)

    def tensors(self) -> dict[str, tuple[torch.dtype, Shape]]:
        """Returns the dtype and shape of every stored tensor."""
        values = self.values_shape
        if self.dtype.bitpacked:
            values = words_of(self.dtype.bits, math.prod(values))
        found = {WEIGHT: (self.dtype.storage, values)}
        found |= self._stored(self.scale_store, SCALE, SCALE_2, SCALE_ZERO)
        if self.has_zero:
            found |= self._stored(self.zero_store, ZERO, ZERO_SCALE, ZERO_2)
        if self.rank:
            up, down = (self.rows, self.rank), (self.rank, self.rest)
            if self.multiplies:
                up, down = up[::-1], down[::-1]
            found[UP], found[DOWN] = (self.factor_dtype, up), (self.factor_dtype, down)
        return found

    def _stored(self, t: Dtype | None, codes: str, scale: str, zero: str) -> dict[str, tuple[torch.dtype, Shape]]:
        if t is None:
            return {codes: (self.scale_dtype, self.scale_shape)}
        shape = self.scale_shape
        if t.bitpacked:
            shape = words_of(t.bits, math.prod(shape))
        count = t.levels if self.codebook_scale else 1
        found = {codes: (t.storage, shape), scale: (torch.float32, (count,))}
        if t.unsigned and not self.codebook_scale:
            found[zero] = (torch.float32, (1,))
        return found

    def json(self) -> dict[str, Any]:
        """Returns the layer's JSON."""
        o: dict[str, Any] = {
            "format": "sdnq",
            "format_version": FORMAT_VERSION,
            "weights_dtype": self.dtype.name,
            "group_size": self.group_size,
            "orig_shape": list(self.shape),
            "orig_dtype": str(self.orig_dtype),
        }
        if self.kind != "linear":
            o["kind"] = self.kind
        if self.hadamard:
            o |= {"use_hadamard": True, "hadamard_group_size": self.hadamard}
        if self.rank:
            o |= {"use_svd": True, "svd_rank": self.rank}
        if self.codebook:
            o["use_codebook"] = True
        if self.transposed or self.flat or (self.multiplies and self.rank):
            o["use_quantized_matmul"] = True
            o["quantized_matmul_dtype"] = (self.matmul_dtype or default_matmul_dtype(self.dtype)).name
        if self.scale_store:
            o["scale_dtype"] = self.scale_store.name
        if self.zero_store:
            o["zero_point_dtype"] = self.zero_store.name
        if self.codebook_scale:
            o["use_codebook_scale"] = True
        if self.scale_dtype is not torch.float32:
            o["dequantize_fp32"] = False
        if self.full_precision_matrix_mult:
            o["full_precision_matrix_mult"] = True
        return o

    def check(self) -> None:
        """Refuses what does not fit together."""
        self._check_shape()
        if self.codebook and not (self.dtype.integer and self.dtype.unsigned):
            raise self.error(f"{self.dtype.name} has no codebook: only unsigned integers have")
        for name, t in (("scale_dtype", self.scale_store), ("zero_point_dtype", self.zero_store)):
            if t and self.codebook_scale and not (t.integer and t.unsigned):
                raise self.error(f"{name}: {t.name} has no codebook: only unsigned integers have")
        if self.hadamard and self.hadamard != hadamard_size(self.rest if self.flat else self.shape[1], self.hadamard):
            raise self.error(f"a rotation of {self.hadamard} values does not fit shape {list(self.shape)}")
        if self.rank and not 0 < self.rank <= min(self.rows, self.rest):
            raise self.error(f"svd_rank: want 1 to {min(self.rows, self.rest)}, got {self.rank}")
        counts = [(self.dtype, math.prod(self.shape), WEIGHT)]
        counts += [(t, math.prod(self.scale_shape), SCALE) for t in (self.scale_store, self.zero_store) if t]
        for t, count, tensor in counts:
            if t.bitpacked and math.prod(words_of(t.bits, count)) * word_bits(t.bits) != count * t.bits:
                raise self.error(f"{t.name} packs values into whole words, and {count} do not fill them", tensor)

    def _check_shape(self) -> None:
        dims = 2 if self.kind in ("linear", "embedding") else 2 + int(self.kind[-2])
        if len(self.shape) != dims or min(self.shape) < 1:
            raise self.error(f"orig_shape: want {dims} dimensions of a {self.kind}, got {list(self.shape)}")
        size = self.group_size
        if size < -2 or size == 0 or (size > 0 and (size >= self.channels or self.channels % size)):
            raise self.error(f"group size {size} does not fit shape {list(self.shape)}")
        if size > 0 and self.is_transposed_conv and self.shape[0] != self.shape[1]:
            raise self.error(f"group size {size}: a transposed convolution of shape {list(self.shape)} has no groups")
        if size > 0 and self.flat and math.prod(self.kernel) > 1:
            raise self.error(f"group size {size}: a convolution that is stored as a matrix has no groups")

    def check_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuses tensors of other dtypes or shapes than the scheme says."""
        wanted = self.tensors()
        for name, (dtype, shape) in wanted.items():
            t = tensors.get(name)
            if t is None:
                raise LayerError(self.layer, tensor=name, wanted=words(dtype, shape), got="nothing")
            if t.dtype != dtype or tuple(t.shape) != shape:
                raise LayerError(self.layer, tensor=name, wanted=words(dtype, shape), got=words(t.dtype, t.shape))
        for name in SDNQ_NAMES:
            if name in tensors and name not in wanted:
                got = words(tensors[name].dtype, tensors[name].shape)
                raise LayerError(self.layer, tensor=name, wanted="nothing", got=got)

    def error(self, text: str, tensor: str = "") -> LayerError:
        return LayerError(self.layer, text, tensor=tensor)


def words(dtype: torch.dtype, shape: Sequence[int]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"


def word_bits(bits: int) -> int:
    """How many of a stored word's bits are used."""
    return 8 if bits < 8 else 16


def default_matmul_dtype(t: Dtype) -> Dtype:
    """The dtype in which SDNQ multiplies weights of a type unless it is told another."""
    if t.name == "uint8":
        return t
    if t.integer:
        return DTYPES["int8"]
    return DTYPES["float8_e4m3fn"] if t.bits < 16 else DTYPES["float16"]


def hadamard_size(columns: int, want: int) -> int:
    """Returns how many values of rows of so many columns are rotated together where
    `want` are asked for: a power of 2 that divides the columns, 0 below 4."""
    if columns < 1 or want < 1:
        return 0
    n = 1
    while n < min(columns, want):
        n *= 2
    n = math.gcd(n, columns)
    return n if n >= 4 else 0


def read_description(value: Tensor | bytes | str | Mapping[str, Any], layer: str = "") -> dict[str, Any]:
    """Returns a layer's JSON from its tensor `comfy_quant`, or as it is."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Tensor):
        if value.dtype != torch.uint8 or value.ndim != 1:
            got = words(value.dtype, value.shape)
            raise LayerError(layer, tensor=DESCRIPTION, wanted="uint8 of one dimension", got=got)
        value = bytes(value.tolist())
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as e:
        raise LayerError(layer, f"is no JSON: {e}", tensor=DESCRIPTION) from None
    if not isinstance(found, dict):
        raise LayerError(layer, tensor=DESCRIPTION, wanted="a JSON object", got=json.dumps(found))
    return found


def described(description: Mapping[str, Any], device: torch.device) -> Tensor:
    """Returns a layer's tensor `comfy_quant`."""
    return torch.tensor(list(json.dumps(description).encode()), dtype=torch.uint8, device=device)


def parse(
    description: Tensor | bytes | str | Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None, layer: str = ""
) -> Scheme:
    """Reads a layer's JSON.

    Args:
        description: the layer's tensor `comfy_quant`, or the JSON in it.
        tensors: the layer's tensors by what follows its name and a dot, which are
            checked; without them, scales and factors are taken to be float32.
        layer: its name, for errors.
    """
    o = read_description(description, layer)
    reader = _Reader(o, layer)
    if o.get("format") != "sdnq":
        raise LayerError(layer, wanted='format "sdnq"', got=json.dumps(o.get("format")))
    version = reader.integer("format_version")
    if version > FORMAT_VERSION:
        raise LayerError(layer, f"format sdnq, version {version}: this package reads version {FORMAT_VERSION}")
    tensors = tensors or {}
    dtype = reader.dtype("weights_dtype")
    if dtype is None:
        raise LayerError(layer, "weights_dtype: want a dtype, got nothing")
    shape = reader.shape("orig_shape")
    kind = reader.text("kind", "linear")
    if kind not in KINDS:
        raise LayerError(layer, f"kind: want {', '.join(KINDS)}, got {kind}")
    orig_dtype = ORIG_DTYPES.get(reader.text("orig_dtype", "torch.float32").removeprefix("torch."))
    if orig_dtype is None:
        raise reader.fail("orig_dtype", "torch.bfloat16, torch.float16 or torch.float32")
    scheme = Scheme(
        dtype=dtype,
        kind=kind,
        shape=shape,
        group_size=reader.integer("group_size"),
        orig_dtype=orig_dtype,
        hadamard=reader.integer("hadamard_group_size", 256) if reader.switch("use_hadamard") else 0,
        rank=reader.integer("svd_rank", 32) if reader.switch("use_svd") else 0,
        codebook=reader.switch("use_codebook"),
        matmul=reader.switch("use_quantized_matmul"),
        matmul_dtype=reader.dtype("quantized_matmul_dtype"),
        scale_store=reader.dtype("scale_dtype"),
        zero_store=reader.dtype("zero_point_dtype"),
        codebook_scale=reader.switch("use_codebook_scale"),
        scale_dtype=_scale_dtype(reader, dtype, tensors, orig_dtype),
        factor_dtype=_float_dtype(tensors.get(UP)) or torch.float32,
        full_precision_matrix_mult=reader.switch("full_precision_matrix_mult"),
        layer=layer,
    )
    scheme.check()
    if tensors:
        scheme.check_tensors(tensors)
    return scheme


def _scale_dtype(reader: _Reader, dtype: Dtype, tensors: Mapping[str, Tensor], orig: torch.dtype) -> torch.dtype:
    """Scales are in the dtype of the model without dequantize_fp32, but of types whose
    values it could not hold well."""
    if reader.switch("dequantize_fp32", True) or dtype.divisor > 16384:
        return torch.float32
    stored = _float_dtype(tensors.get(SCALE))
    return stored if stored in (torch.bfloat16, torch.float16) else orig


def _float_dtype(t: Tensor | None) -> torch.dtype | None:
    if t is None or t.dtype not in ORIG_DTYPES.values():
        return None
    return t.dtype


class _Reader:
    """Takes values of the kinds that a JSON should have."""

    def __init__(self, o: Mapping[str, Any], layer: str) -> None:
        self.o, self.layer = o, layer

    def fail(self, key: str, wanted: str) -> LayerError:
        return LayerError(self.layer, f"{key}: want {wanted}, got {json.dumps(self.o.get(key))}")

    def integer(self, key: str, otherwise: int | None = None) -> int:
        value = self.o.get(key, otherwise)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fail(key, "a whole number")
        return value

    def switch(self, key: str, otherwise: bool = False) -> bool:
        value = self.o.get(key, otherwise)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def text(self, key: str, otherwise: str) -> str:
        value = self.o.get(key, otherwise)
        if not isinstance(value, str):
            raise self.fail(key, "a text")
        return value

    def shape(self, key: str) -> Shape:
        value = self.o.get(key)
        if not isinstance(value, list) or not all(isinstance(n, int) and not isinstance(n, bool) for n in value):
            raise self.fail(key, "a list of whole numbers")
        return tuple(value)

    def dtype(self, key: str) -> Dtype | None:
        value = self.o.get(key)
        if value is None or value == "none":
            return None
        found = lookup(value)
        if found is None:
            raise LayerError(self.layer, f"{key}: unknown dtype {json.dumps(value)}")
        return found
