"""Codes as a weight: a tensor of the weight's shape that holds what is stored of it.

It is a QuantizedTensor of ComfyUI's, as those of its own formats are, with a layout of
ours: what moves, copies, pins or streams such weights does so with codes and scales.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from comfy.quant_ops import QuantizedLayout, QuantizedTensor
from comfy_kitchen.tensor import BaseLayoutParams, register_layout_class
from tensorpress.torch import Stored, decode
from tensorpress.torch.scheme import SCALE, WEIGHT
from torch import Tensor

from .layers import COMPANIONS, Layer

LAYOUT = "TensorpressLayout"


@dataclass(frozen=True)
class Params(BaseLayoutParams):
    """All of a layer but its codes. scale is its weight_scale, others have their own names."""

    scheme: Stored
    text: bytes
    weight_zp: Tensor | None = None
    svd_up: Tensor | None = None
    svd_down: Tensor | None = None
    weight_scale_2: Tensor | None = None
    weight_scale_zp: Tensor | None = None
    weight_zp_scale: Tensor | None = None
    weight_zp_2: Tensor | None = None
    weight_zeros: Tensor | None = None
    weight_proj_down: Tensor | None = None
    weight_proj_up: Tensor | None = None
    weight_smooth_factor: Tensor | None = None

    def _tensor_fields(self) -> list[str]:
        return [name for name in map(_field, COMPANIONS) if getattr(self, name) is not None]

    def tensors(self, codes: Tensor) -> dict[str, Tensor]:
        """The layer's tensors by what follows its name and a dot."""
        found = {WEIGHT: codes}
        for name in COMPANIONS:
            t = getattr(self, _field(name))
            if t is not None:
                found[name] = t
        return found


def _field(name: str) -> str:
    return "scale" if name == SCALE else name


class Layout(QuantizedLayout):
    """What QuantizedTensor asks of a format."""

    Params = Params

    @classmethod
    def quantize(cls, tensor: Tensor, **kwargs: Any) -> Any:
        raise NotImplementedError("weights in this format are quantized by tensorpress, not while a model runs")

    @classmethod
    def dequantize(cls, qdata: Tensor, params: Params) -> Tensor:
        return decode(params.scheme, params.tensors(qdata), params.orig_dtype)

    @classmethod
    def get_plain_tensors(cls, qtensor: QuantizedTensor) -> tuple[Tensor, ...]:
        return tuple(qtensor._params.tensors(qtensor._qdata).values())

    @classmethod
    def state_dict_tensors(cls, qdata: Tensor, params: Params) -> dict[str, Tensor]:
        # Their names follow that of the weight here; svd_up and svd_down begin otherwise,
        # and are left to the module.
        return {name.removeprefix(WEIGHT): t for name, t in params.tensors(qdata).items() if name.startswith(WEIGHT)}

    @classmethod
    def supports_fast_matmul(cls) -> bool:
        return False


register_layout_class(LAYOUT, Layout)


class Codes(QuantizedTensor):
    """The weight of a layer that ComfyUI has no format for."""

    def _copy_with(self, qdata: Any = None, params: Any = None, clone_params: bool = True) -> Codes:
        if params is None:
            params = self._params.clone() if clone_params else self._params
        return Codes(self._qdata if qdata is None else qdata, LAYOUT, params)

    @staticmethod
    def __tensor_unflatten__(inner_tensors: Any, ctx: Any, outer_size: Any, outer_stride: Any) -> Codes:
        values = dict(ctx["non_tensor_fields"])
        values |= {field: inner_tensors[attribute] for field, attribute in ctx["tensor_fields"].items()}
        return Codes(inner_tensors["_qdata"], LAYOUT, ctx["params_class"](**values))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        found = self.clone()
        if isinstance(self, torch.nn.Parameter):
            found = torch.nn.Parameter(found, requires_grad=False)
        memo[id(self)] = found
        return found

    def _stable_hash_for_caching(self) -> str:
        """What a compiler's cache knows such a weight by."""
        found = [repr((t.dtype, tuple(t.shape), t.stride(), str(t.device))) for t in tensors_of(self).values()]
        text = "\n".join([LAYOUT, repr(self._params.scheme), repr(self.dtype), *found])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default and not isinstance(args[0], QuantizedTensor):
            # A parameter of a module that is none of the operations: it gets the weight.
            return func(args[0], args[1].dequantize(), *args[2:], **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


def wrap(layer: Layer) -> Codes:
    """Makes a layer's tensors one, of the shape and dtype that its weight had."""
    others = {_field(name): t for name, t in layer.tensors.items() if name != WEIGHT}
    s = layer.scheme
    params = Params(orig_dtype=s.orig_dtype, orig_shape=s.shape, scheme=s, text=layer.text, **others)
    return Codes(layer.tensors[WEIGHT], LAYOUT, params)


def is_codes(value: object) -> bool:
    """Whether a tensor is such a weight. What ComfyUI makes of a buffer in a GPU's memory is
    one too, of the class that ours derives from."""
    return isinstance(value, QuantizedTensor) and value._layout_cls == LAYOUT


def tensors_of(weight: QuantizedTensor) -> dict[str, Tensor]:
    """The stored tensors of such a weight."""
    found: dict[str, Tensor] = weight._params.tensors(weight._qdata)
    return found


def in_dtype(weight: QuantizedTensor, dtype: torch.dtype, device: torch.device | None = None) -> QuantizedTensor:
    """The same codes, which decode to a dtype, on a device."""
    qdata, params = weight._qdata, weight._params
    if device is not None and device != qdata.device:
        qdata, params = qdata.to(device), params.to_device(device)
    return Codes(qdata, LAYOUT, dataclasses.replace(params, orig_dtype=dtype))
