"""Modules that hold a layer's codes and decode them whenever they run.

Each is a subclass of torch's own, with its buffers named as in the file: a state dict
that is saved holds the codes, and describes itself. `weight` is the decoded weight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decode import COMPANIONS, Stored, decode, decode_rows, read_layer
from .errors import LayerError
from .native import int8_native
from .numbers import hadamard_matrix
from .scheme import DESCRIPTION, DOWN, UP, WEIGHT, Scheme, described
from .sdnq import int8_rows

PRE_QUANT_SCALE = "pre_quant_scale"


class Quantized(nn.Module):
    """What all of them have in common.

    Attributes:
        stored: how the layer is stored.
        dtype: of what it computes, where its input does not say; `.to(dtype)` changes it
            and leaves codes and scales alone.
        int8_matmul: whether int8 rows are multiplied in int8 where the device can. None
            does so unless the layer says `full_precision_matrix_mult`, and on a CPU only
            where it has instructions for it: without, it takes longer than to decode.
    """

    stored: Stored
    dtype: torch.dtype
    int8_matmul: bool | None
    _held: tuple[str, ...]

    def hold(
        self,
        stored: Stored,
        tensors: Mapping[str, Tensor],
        dtype: torch.dtype | None = None,
        int8_matmul: bool | None = None,
    ) -> None:
        """Takes a layer's tensors in the place of the weight."""
        self._parameters.pop("weight", None)
        for name in self.__dict__.get("_held", ()):
            self._buffers.pop(name, None)
        self.stored = stored
        self.dtype = stored.orig_dtype if dtype is None else dtype
        self.int8_matmul = int8_matmul
        held = {name: t for name, t in tensors.items() if name != "bias"}
        if DESCRIPTION not in held and isinstance(stored, Scheme):
            held[DESCRIPTION] = described(stored.json(), held[WEIGHT].device)
        self._held = tuple(held)
        self._buffers.update(held)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The layer's tensors by what follows its name and a dot."""
        return {name: cast(Tensor, self._buffers[name]) for name in self._held}

    def decode(self, dtype: torch.dtype | None = None) -> Tensor:
        """Returns the weight."""
        return decode(self.stored, self.tensors, self.dtype if dtype is None else dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # Codes and scales go where the module goes, and are never cast.
        held = {name: self._buffers.pop(name) for name in self._held}
        try:
            result = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        finally:  # what does not fit on a device stays where it was
            self._buffers.update(held)
        for name, t in held.items():
            assert t is not None
            moved = fn(t)
            self._buffers[name] = moved if moved.dtype == t.dtype else t.to(moved.device)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device="cpu")).dtype
        return result

    def __setattr__(self, name: str, value: Any) -> None:
        if name == WEIGHT and "_held" in self.__dict__:
            raise AttributeError(f"{type(self).__name__}.weight is decoded from codes: it cannot be set, nor tied")
        super().__setattr__(name, value)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # torch would cast what comes to the dtypes of what is here, be it other codes.
        try:
            found = self._of_state_dict(state_dict, prefix)
        except LayerError as e:
            error_msgs.append(str(e))
            return
        held = {name: self._buffers.pop(name) for name in self._held}
        args = (state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        super()._load_from_state_dict(*args)
        self._buffers.update(held)
        if found is None:
            missing_keys += [prefix + name for name in held] if strict else []
            return
        stored, tensors = found
        unexpected_keys[:] = [key for key in unexpected_keys if key.removeprefix(prefix) not in tensors]
        if not local_metadata.get("assign_to_params_buffers", False):
            tensors = {name: t.clone() for name, t in tensors.items()}
        self.hold(stored, tensors, self.dtype, self.int8_matmul)

    def _of_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str) -> tuple[Stored, dict[str, Tensor]] | None:
        """Reads this layer in a state dict, None where it is not there."""
        weight = state_dict.get(prefix + WEIGHT)
        if weight is None:
            return None
        layer, description = prefix.removesuffix("."), state_dict.get(prefix + DESCRIPTION)
        if description is None:
            raise LayerError(layer, "nothing describes it, and the module holds codes", tensor=WEIGHT)
        device = self.tensors[WEIGHT].device
        own = {name.removeprefix(prefix): t for name, t in state_dict.items() if name.startswith(prefix)}
        own = {name: t.to(device) for name, t in own.items() if name in COMPANIONS}
        stored = read_layer(description, own, layer, self.stored.shape)
        if stored.shape != self.stored.shape:
            wanted, got = (str(list(s.shape)) for s in (self.stored, stored))
            raise LayerError(layer, tensor=WEIGHT, wanted=wanted, got=got)
        return stored, own

    def _input_dtype(self, x: Tensor) -> torch.dtype:
        if torch.is_autocast_enabled(x.device.type):
            return torch.get_autocast_dtype(x.device.type)
        return x.dtype

    def extra_repr(self) -> str:
        s = self.stored
        name = s.dtype.name if isinstance(s, Scheme) else s.format
        return f"{', '.join(map(str, s.shape))}, {name}"


def _weight(self: Quantized) -> Tensor:
    """The decoded weight."""
    return self.decode()


class Decoded(Quantized):
    """For classes with a forward pass of their own, which asks for the weight."""

    weight = property(_weight)


class Linear(Quantized, nn.Linear):
    """A linear layer: x [..., in] to [..., out]."""

    weight = property(_weight)

    def forward(self, input: Tensor) -> Tensor:
        dtype = self._input_dtype(input)
        scale = self._buffers.get(PRE_QUANT_SCALE)
        if scale is not None:
            input = input * scale.to(input.dtype)
        bias = None if self.bias is None else self.bias.to(dtype)
        differentiable = torch.is_grad_enabled() and input.requires_grad  # which codes are not
        if self.multiplies_int8(input.device) and not differentiable:
            return multiply_int8(input, self.stored, self.tensors, bias).to(dtype)
        return F.linear(input.to(dtype), self.decode(dtype), bias)

    def multiplies_int8(self, device: torch.device) -> bool:
        """Whether it multiplies codes, and does not decode first."""
        return prefers_int8(self.stored, device, self.int8_matmul)


class Embedding(Quantized, nn.Embedding):
    """An embedding: whole numbers [...] to [..., width]. It decodes the rows that are
    asked for."""

    weight = property(_weight)

    def forward(self, input: Tensor) -> Tensor:
        if self.max_norm is not None:
            return F.embedding(input, self.decode(), self.padding_idx, self.max_norm, self.norm_type)
        return decode_rows(self.stored, self.tensors, input, self.dtype)


class _Conv(Quantized):
    weight = property(_weight)

    def forward(self, input: Tensor) -> Tensor:
        dtype = self._input_dtype(input)
        bias = cast("Tensor | None", self.bias)
        bias = None if bias is None else bias.to(dtype)
        convolve = cast(Callable[..., Tensor], self._conv_forward)
        return convolve(input.to(dtype), self.decode(dtype), bias)


class Conv1d(_Conv, nn.Conv1d):
    """A convolution."""


class Conv2d(_Conv, nn.Conv2d):
    """A convolution."""


class Conv3d(_Conv, nn.Conv3d):
    """A convolution."""


class _ConvTranspose(Quantized):
    weight = property(_weight)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        conv = cast(nn.ConvTranspose1d, self)
        dtype = self._input_dtype(input)
        n = len(conv.kernel_size)
        run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
        padding = conv._output_padding(
            input,
            output_size,
            cast("list[int]", conv.stride),
            cast("list[int]", conv.padding),
            cast("list[int]", conv.kernel_size),
            n,
            cast("list[int]", conv.dilation),
        )
        pad = cast("tuple[int, ...]", conv.padding)
        bias = None if conv.bias is None else conv.bias.to(dtype)
        return run(input.to(dtype), self.decode(dtype), bias, conv.stride, pad, padding, conv.groups, conv.dilation)


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """A transposed convolution."""


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """A transposed convolution."""


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """A transposed convolution."""


#: torch's class, ours, and what the JSON calls the kind.
_CLASSES: tuple[tuple[type[nn.Module], type[Quantized], str], ...] = (
    (nn.Linear, Linear, "linear"),
    (nn.Embedding, Embedding, "embedding"),
    (nn.Conv1d, Conv1d, "conv1d"),
    (nn.Conv2d, Conv2d, "conv2d"),
    (nn.Conv3d, Conv3d, "conv3d"),
    (nn.ConvTranspose1d, ConvTranspose1d, "conv_transpose1d"),
    (nn.ConvTranspose2d, ConvTranspose2d, "conv_transpose2d"),
    (nn.ConvTranspose3d, ConvTranspose3d, "conv_transpose3d"),
)


def kind_of(module: nn.Module) -> str | None:
    """Returns what the JSON calls a module's kind, None for one that is not swapped."""
    return next((kind for base, _, kind in _CLASSES if isinstance(module, base)), None)


def swap(
    module: nn.Module,
    stored: Stored,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    int8_matmul: bool | None = None,
) -> Quantized:
    """Makes a module hold a layer in the place of its weight. It stays the same object,
    and an instance of its class: only `weight` and, unless the class has its own,
    `forward` become ours.

    Args:
        module: a Linear, Embedding, Conv or ConvTranspose of torch, or of a subclass.
        stored: from `read_layer`.
        tensors: by what follows the layer's name and a dot.
        dtype: of what it computes where its input does not say.
        int8_matmul: see `Quantized`.
    """
    module.__class__ = _class_for(type(module), stored.layer)
    quantized = cast(Quantized, module)
    quantized.hold(stored, tensors, dtype, int8_matmul)
    return quantized


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _class_for(cls: type[nn.Module], layer: str) -> type[nn.Module]:
    """Ours for a class; one is made for each of other people's."""
    if issubclass(cls, Quantized):
        return cls
    if cls not in _classes:
        _classes[cls] = _new_class(cls, layer)
    return _classes[cls]


def _new_class(cls: type[nn.Module], layer: str) -> type[nn.Module]:
    for base, ours, _ in _CLASSES:
        if cls is base:
            return ours
        if issubclass(cls, base):
            own = cls.forward is not base.forward
            return type(cls.__name__, (Decoded if own else ours, cls), {"__module__": cls.__module__})
    raise LayerError(layer, wanted="a Linear, an Embedding or a convolution", got=cls.__name__)


def has_int8_rows(s: Stored) -> bool:
    """Whether a layer's codes can be multiplied as they are."""
    if isinstance(s, Scheme):
        return s.dtype.name == "int8" and s.kind == "linear" and s.group_size < 0 and s.scale_dtype is torch.float32
    return s.format == "int8_tensorwise"


def prefers_int8(stored: Stored, device: torch.device, int8_matmul: bool | None = None) -> bool:
    """Whether a layer's codes are to be multiplied on a device, by `multiply_int8`, and
    not decoded first.

    Args:
        int8_matmul: see `Quantized`.
    """
    if int8_matmul is False or not has_int8_rows(stored):
        return False
    if int8_matmul is None and stored.full_precision_matrix_mult:
        return False
    rows, columns = stored.shape
    if device.type == "cpu":
        return bool(can_multiply_int8("cpu") if int8_matmul else multiplies_int8_fast())
    return rows % 8 == 0 and columns % 8 == 0 and bool(can_multiply_int8(str(device)))


# A compiler asks, and does not look into it.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator,unused-ignore]
def can_multiply_int8(device: str) -> bool:
    """Whether torch._int_mm works there."""
    return _try_int8(device)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator,unused-ignore]
def multiplies_int8_fast() -> bool:
    """Whether the CPU has instructions for products of int8."""
    names = ("_is_vnni_supported", "_is_avx512_vnni_supported", "_is_amx_tile_supported")
    found = any(getattr(torch.cpu, name, bool)() for name in names)
    return found and _try_int8("cpu")


@functools.cache
def _try_int8(device: str) -> bool:
    a = torch.arange(-512, 512, dtype=torch.int32, device="cpu").remainder(255).sub_(127).to(torch.int8).reshape(32, 32)
    try:
        found = torch._int_mm(a.to(device), a.to(device).t()).cpu()
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.equal(found, a.to(torch.int32) @ a.to(torch.int32).t())


def multiply_int8(x: Tensor, stored: Stored, tensors: Mapping[str, Tensor], bias: Tensor | None) -> Tensor:
    """Multiplies with int8 rows in int8: every row of the input gets a scale of its own.

    Args:
        x: [..., in], of any float dtype.
        bias: [out] or None.

    Returns:
        [..., out] in float32.
    """
    rows = x.reshape(-1, x.shape[-1]).to(torch.float32)
    if isinstance(stored, Scheme):
        codes, scale, rotation = *int8_rows(stored, tensors), stored.hadamard
    else:
        codes, scale, rotation = *int8_native(stored, tensors), stored.rotation
    if rotation:  # what is left of it cancels that of the weight
        rows = (rows.reshape(-1, rotation) @ hadamard_matrix(rotation, x.device)).reshape(rows.shape)
    step = rows.abs().amax(-1, keepdim=True) / 127
    step = torch.where(step == 0, 1, step)
    q = (rows / step).round().clamp(-127, 127).to(torch.int8)
    found = _int_mm(q, codes).to(torch.float32) * step * scale
    if isinstance(stored, Scheme) and stored.rank:
        up, down = tensors[UP].to(torch.float32), tensors[DOWN].to(torch.float32)
        if not stored.multiplies:
            up, down = up.t(), down.t()
        found = found + rows @ down @ up
    if bias is not None:
        found = found + bias
    return found.reshape(*x.shape[:-1], found.shape[-1])


def _int_mm(a: Tensor, b: Tensor) -> Tensor:
    """Is torch._int_mm, which wants more than 16 rows on some devices."""
    count = a.shape[0]
    if a.device.type == "cpu" or count > 16:
        return torch._int_mm(a, b)
    return torch._int_mm(F.pad(a, (0, 0, 0, 32 - count)), b)[:count]
