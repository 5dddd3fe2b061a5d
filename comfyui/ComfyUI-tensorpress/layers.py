"""The layers of a state dict that ComfyUI has no format for. Nothing here needs ComfyUI."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from tensorpress.torch import Stored, decode, read_layer
from tensorpress.torch.native import FORMATS, PROJ_DOWN, PROJ_UP, SMOOTH, ZEROS
from tensorpress.torch.scheme import DESCRIPTION, SCALE, SDNQ_NAMES, WEIGHT
from torch import Tensor

State = MutableMapping[str, Any]
#: A layer's tensors but for its weight, by what follows its name and a dot.
COMPANIONS = (*(name for name in SDNQ_NAMES if name != WEIGHT), ZEROS, PROJ_DOWN, PROJ_UP, SMOOTH)


@dataclass(frozen=True)
class Layer:
    """A layer as it lies in the file."""

    scheme: Stored
    text: bytes  # its JSON, as it was
    tensors: dict[str, Tensor]

    def decode(self, dtype: torch.dtype | None = None) -> Tensor:
        return decode(self.scheme, self.tensors, dtype)


def text_of(description: Tensor) -> bytes:
    """The JSON in a tensor of bytes."""
    return description.cpu().contiguous().numpy().tobytes()


def format_of(text: bytes) -> str | None:
    """The format that a layer's JSON names, None where it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    form = found.get("format") if isinstance(found, dict) else None
    return form if isinstance(form, str) else None


def is_ours(text: bytes, theirs: Container[str] = FORMATS) -> bool:
    """Whether a layer is stored in format "sdnq", or in one of ComfyUI's that the ComfyUI at
    hand does not have.

    Args:
        theirs: the formats that it has.
    """
    form = format_of(text)
    return form == "sdnq" or (form in FORMATS and form not in theirs)


def check(state: State, theirs: Container[str] = FORMATS) -> None:
    """Refuses layers that nobody here would decode: their codes would be taken for weights.

    Raises:
        ValueError: naming the first of them, and what to do.
    """
    for key, t in state.items():
        if not isinstance(t, Tensor):
            continue
        name, _, own = key.rpartition(".")
        if own == DESCRIPTION:
            form = format_of(text_of(t)) if t.dtype is torch.uint8 else None
            if form is None:
                raise ValueError(f"{key}: want JSON in bytes that names a format; was the file changed?")
            if form not in ("sdnq", *FORMATS) and form not in theirs:
                raise ValueError(f"{name}: format {form}, which neither this tensorpress nor this ComfyUI knows")
        elif own == WEIGHT and t.dtype.itemsize <= 2 and f"{name}.{DESCRIPTION}" not in state:
            whole = not t.dtype.is_floating_point
            if f"{name}.scale" in state and (whole or t.dtype.itemsize == 1):
                raise ValueError(
                    f"{name}: as SDNQ stores it, which needs the model's config.json: `tensorpress transcode FOLDER "
                    "OUT.safetensors --layout comfy --names comfyui` makes one file of its folder that loads here"
                )
            if whole and f"{name}.{SCALE}" in state:
                raise ValueError(f"{name}: quantized, and no {DESCRIPTION} beside it says how")


def names(state: State, theirs: Container[str] = FORMATS) -> list[str]:
    """The layers that are ours, by name."""
    ending = "." + DESCRIPTION
    described = [key for key in state if key.endswith(ending)]
    return [key.removesuffix(ending) for key in described if is_ours(text_of(state[key]), theirs)]


def take(state: State, layer: str) -> Layer:
    """Takes a layer's tensors out of a state dict, but for its description.

    Raises:
        tensorpress.torch.LayerError: they are not what the description says.
    """
    own = (WEIGHT, *COMPANIONS)
    tensors = {name: state.pop(f"{layer}.{name}") for name in own if f"{layer}.{name}" in state}
    text = text_of(state[f"{layer}.{DESCRIPTION}"])
    # Errors name the layer, and what is kept of it should be equal for equal layers.
    return Layer(replace(read_layer(text, tensors, layer), layer=""), text, tensors)


def put(
    state: State,
    wrap: Callable[[Layer], Tensor],
    plain: Iterable[str] = (),
    described: Callable[[str], bool] = lambda name: True,
    theirs: Container[str] = FORMATS,
) -> int:
    """Gives every layer that is ours one tensor, its weight.

    Args:
        wrap: makes it, so that its shape and dtype are those of the weight.
        plain: beginnings of the names of layers whose weights are decoded instead.
        described: whether a layer of a name keeps its description.
        theirs: the formats that ComfyUI has.

    Returns:
        How many layers there are.
    """
    found = names(state, theirs)
    starts = tuple(plain)
    for name in found:
        layer = take(state, name)
        decoded = bool(starts) and name.startswith(starts)
        state[f"{name}.{WEIGHT}"] = layer.decode() if decoded else wrap(layer)
        if decoded or not described(name):
            del state[f"{name}.{DESCRIPTION}"]
    return len(found)


def renamed(state: State, convert: Callable[[dict[str, Tensor]], dict[str, Tensor] | None]) -> dict[str, str] | None:
    """Asks what becomes of names, with shapes alone.

    Args:
        convert: takes a state dict and returns one of other names, in which tensors may
            be joined or changed.

    Returns:
        For every name before whose tensor only moves, the name after. None if convert
        returned None.
    """
    shapes = {name: torch.empty(t.shape, dtype=t.dtype, device="meta") for name, t in state.items()}
    before = {id(t): name for name, t in shapes.items()}
    after = convert(dict(shapes))
    if after is None:
        return None
    return {before[id(t)]: name for name, t in after.items() if id(t) in before and t._version == 0}


def described_bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def stored(layer: Layer) -> Iterator[tuple[str, Tensor]]:
    """A layer's tensors, its description among them, as a file holds them."""
    yield from layer.tensors.items()
    yield DESCRIPTION, described_bytes(layer.text)
