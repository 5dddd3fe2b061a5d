"""Modules that hold codes: ComfyUI's own for mixed precision, with one more format."""

from __future__ import annotations

import functools
from typing import Any

import comfy.float
import comfy.ops
import torch
import torch.nn.functional as F
from comfy.quant_ops import QuantizedTensor
from tensorpress.torch import Scheme, decode, decode_rows, multiply_int8, prefers_int8
from tensorpress.torch.scheme import DESCRIPTION
from torch import Tensor

from .codes import in_dtype, is_codes, tensors_of
from .layers import COMPANIONS, described_bytes


class Held(torch.nn.Module):
    """What modules have in common. A module whose weight is none of ours is as ComfyUI has it.

    Patches stay beside the codes and are applied whenever the weight is decoded:

    Attributes:
        codes_patch: a function of the weight, set by a patcher that loads a model whole.
        codes_hook: another, after it, of hooks.
    """

    codes_patch: Any = None
    codes_hook: Any = None
    _streamed_patch: Any = None

    @property
    def holds_codes(self) -> bool:
        return is_codes(self._parameters.get("weight"))

    # Where weights are streamed, ComfyUI patches what has arrived and quantizes it again,
    # in its place. Codes have to stay as they are: it is told that there is no patch.

    @property
    def weight_lowvram_function(self) -> Any:
        return None if self.holds_codes else self._streamed_patch

    @weight_lowvram_function.setter
    def weight_lowvram_function(self, function: Any) -> None:
        self._streamed_patch = function

    def patches(self) -> list[Any]:
        """What is still to be applied to a weight that ComfyUI's cast hands back."""
        if not self.holds_codes:
            return []
        patch = self.codes_patch or self._streamed_patch
        if any(getattr(f, "is_lowvram_patch", False) for f in self.weight_function):
            patch = None  # it was, by the cast
        return [f for f in (patch, self.codes_hook) if f is not None]

    def usable(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The weight of what ComfyUI's cast hands back: decoded, patched."""
        patches = self.patches()
        if is_codes(weight):
            precise = torch.float32 if patches else dtype
            weight = decode(weight._params.scheme, tensors_of(weight), precise)
        if patches:
            weight = weight.to(torch.float32)
            for patch in patches:
                weight = patch(weight)
        return weight.to(dtype)

    def weight_shape(self) -> tuple[int, ...]:
        return tuple(self.weight.shape)

    def weight_place(self) -> tuple[torch.dtype, torch.device]:
        """The dtype that weights decode to, and where they are to lie."""
        return self.weight.dtype, self.weight.device

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
        rest = (local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        weight = state_dict.get(f"{prefix}weight")
        # ComfyUI's Linear takes a plain weight of any shape; codes of its own formats have another.
        plain = isinstance(self, Linear) and weight is not None and f"{prefix}{DESCRIPTION}" not in state_dict
        wanted = self.weight_shape() if plain or is_codes(weight) else None
        if wanted is not None and tuple(weight.shape) != wanted:
            error_msgs.append(f"{prefix}weight: the model wants {list(wanted)}, the file has {list(weight.shape)}")
            return
        if not is_codes(weight):
            super()._load_from_state_dict(state_dict, prefix, *rest)
            return
        dtype, device = self.weight_place()
        own = (f"{prefix}weight", f"{prefix}{DESCRIPTION}")
        others = {key: value for key, value in state_dict.items() if key not in own}
        self._parameters.pop("weight", None)
        torch.nn.Module._load_from_state_dict(self, others, prefix, *rest)
        held = in_dtype(weight, dtype, None if device.type == "meta" else device)
        self.weight = torch.nn.Parameter(held, requires_grad=False)

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", **kwargs: Any) -> Any:
        if not self.holds_codes:
            return super().state_dict(*args, destination=destination, prefix=prefix, **kwargs)
        found = {} if destination is None else destination
        found.update((prefix + name, t) for name, t in tensors_of(self.weight).items())
        found[prefix + DESCRIPTION] = described_bytes(self.weight._params.text)
        if getattr(self, "bias", None) is not None:
            found[prefix + "bias"] = self.bias
        return found

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        if not self.holds_codes:
            return super()._apply(fn, recurse)
        weight = self._parameters["weight"]
        self._parameters["weight"] = None  # in its place among the others
        try:
            super()._apply(fn, recurse)
        finally:
            self._parameters["weight"] = weight
        self._parameters["weight"] = torch.nn.Parameter(fn(weight), requires_grad=False)
        return self


class Patched(Held):
    """Those that ComfyUI gives no way of their own to take a patched weight."""

    def convert_weight(self, weight: Tensor, inplace: bool = False, **kwargs: Any) -> Tensor:
        return weight.dequantize() if isinstance(weight, QuantizedTensor) else weight

    def set_weight(
        self,
        weight: Tensor,
        inplace_update: bool = False,
        seed: int | None = None,
        return_weight: bool = False,
        **kwargs: Any,
    ) -> Tensor | None:
        weight = comfy.float.stochastic_rounding(weight, self.weight.dtype, seed=seed or 0)
        if return_weight:
            return weight
        if inplace_update and not isinstance(self.weight, QuantizedTensor):
            self.weight.data.copy_(weight)
        else:
            self.weight = torch.nn.Parameter(weight, requires_grad=False)
        return None


#: Which int8 rows are multiplied in int8, their inputs rounded for it: those of layers that
#: are stored for it, as SDNQ's use_quantized_matmul says; all; none.
INT8_MATMUL = ("auto", "all", "none")


class Linear(Held):
    """A linear layer.

    Attributes:
        int8_matmul: one of INT8_MATMUL. Of any, a layer that says
            `full_precision_matrix_mult` is decoded first, and so is every one on a device
            that cannot multiply in int8, or a CPU that is no faster for it.
    """

    int8_matmul = INT8_MATMUL[0]

    def multiplies_int8(self, weight: Tensor, input: Tensor) -> bool:
        """Whether what ComfyUI's cast hands back is multiplied as it is."""
        if self.int8_matmul == "none" or self._full_precision_mm or input.requires_grad:
            return False
        if not is_codes(weight) or self.patches():
            return False
        scheme = weight._params.scheme
        if self.int8_matmul == "auto" and not (isinstance(scheme, Scheme) and scheme.as_it_is):
            return False
        return prefers_int8(scheme, input.device)

    def weight_shape(self) -> tuple[int, ...]:
        return (self.out_features, self.in_features)

    def weight_place(self) -> tuple[torch.dtype, torch.device]:
        device = self.factory_kwargs["device"]
        dtype = self.factory_kwargs["dtype"]
        return dtype or torch.float32, torch.device("cpu" if device is None else device)

    def _forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.multiplies_int8(weight, input):
            return multiply_int8(input, weight._params.scheme, tensors_of(weight), bias).to(input.dtype)
        return F.linear(input, self.usable(weight, input.dtype), bias)


class Conv(Patched):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None, *args: Any, **kwargs: Any) -> Tensor:
        return super()._conv_forward(input, self.usable(weight, input.dtype), bias, *args, **kwargs)


class ConvTranspose(Patched):
    def forward_comfy_cast_weights(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not self.holds_codes:
            return super().forward_comfy_cast_weights(input, output_size)
        n = len(self.kernel_size)
        run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
        padding = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, n, self.dilation
        )
        weight, bias, lent = comfy.ops.cast_bias_weight(self, input, offloadable=True)
        try:
            usable = self.usable(weight, input.dtype)
            return run(input, usable, bias, self.stride, self.padding, padding, self.groups, self.dilation)
        finally:
            comfy.ops.uncast_bias_weight(self, weight, bias, lent)


class Embedding(Patched):
    def forward_comfy_cast_weights(self, input: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        if not self.holds_codes:
            return super().forward_comfy_cast_weights(input, out_dtype=out_dtype)
        dtype = self.weight.dtype
        if out_dtype is not None and dtype not in (torch.float16, torch.bfloat16):
            dtype = out_dtype
        weight, _, lent = comfy.ops.cast_bias_weight(self, device=input.device, dtype=dtype, offloadable=True)
        try:
            if is_codes(weight) and not self.patches() and self.max_norm is None:
                found = decode_rows(weight._params.scheme, tensors_of(weight), input, dtype)
            else:
                found = F.embedding(input, self.usable(weight, dtype), self.padding_idx, self.max_norm, self.norm_type)
        finally:
            comfy.ops.uncast_bias_weight(self, weight, None, lent)
        return found if out_dtype is None else found.to(out_dtype)


def _stored(name: str) -> property:
    """A tensor of a quantized layer as an attribute: ComfyUI takes every name of a state dict
    for one where it merges models and puts hooks on."""

    def get(self: Held) -> Tensor:
        if isinstance(self._parameters.get("weight"), QuantizedTensor):
            found = self.state_dict().get(name)
            if found is not None:
                return found
        raise AttributeError(f"{type(self).__name__} has no {name}")

    return property(get)


#: Those of ComfyUI's own formats.
NATIVE = ("weight_scale", "weight_scale_2", "weight_s_rel", "weight_s_channel", "weight_codebook")
for _name in {*COMPANIONS, *NATIVE, DESCRIPTION}:
    setattr(Held, _name, _stored(_name))


def by_module(base: type) -> type:
    """A Linear whose dtype is what it was made with, as text encoders want theirs."""

    class ByModule(base):
        def __init__(
            self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
        ) -> None:
            super().__init__(in_features, out_features, bias=bias, device=device, dtype=dtype)
            if dtype is not None:
                self.factory_kwargs["dtype"] = dtype
                if self.bias is not None:
                    self.bias.data = self.bias.data.to(dtype)

        def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
            name = f"{prefix}weight"
            missing = name not in state_dict
            if missing:  # as text_projection is from many files; ComfyUI's class would be left with None
                state_dict[name] = torch.zeros(self.weight_shape(), dtype=self.factory_kwargs["dtype"])
            super()._load_from_state_dict(state_dict, prefix, *rest)
            if missing:
                rest[2].append(name)  # of missing_keys

    return ByModule


def operations(base: Any, own_dtypes: bool = False, int8_matmul: str = INT8_MATMUL[0]) -> type:
    """Returns a class of operations that load codes beside all that others load.

    Args:
        base: ComfyUI's operations for mixed precision.
        own_dtypes: whether a Linear goes by the dtype that it is made with, and not by
            that of the operations.
        int8_matmul: see `Linear`.
    """
    linear = type("Linear", (Linear, base.Linear), {"int8_matmul": int8_matmul})
    members: dict[str, Any] = {"Linear": by_module(linear) if own_dtypes else linear}
    for name, ours in (
        ("Embedding", Embedding),
        ("Conv1d", Conv),
        ("Conv2d", Conv),
        ("Conv3d", Conv),
        ("ConvTranspose1d", ConvTranspose),
        ("ConvTranspose2d", ConvTranspose),
    ):
        if hasattr(base, name):
            members[name] = type(name, (ours, getattr(base, name)), {})
    return type("TensorpressOperations", (base,), members)


@functools.cache
def mixed(dtype: torch.dtype) -> Any:
    """ComfyUI's operations for text encoders."""
    return comfy.ops.mixed_precision_ops({}, dtype, full_precision_mm=True)
