"""What is wrong with a layer."""

from __future__ import annotations

from ..errors import SourceError


class LayerError(SourceError, ValueError):
    """A layer that cannot be read.

    Attributes:
        layer: its name, without ".weight".
        tensor: the name of the tensor that is wrong, "" where it is none.
        wanted, got: what it should be and what it is, "" where the text says it all.
    """

    def __init__(self, layer: str, text: str = "", *, tensor: str = "", wanted: str = "", got: str = "") -> None:
        self.layer, self.tensor, self.wanted, self.got = layer, tensor, wanted, got
        where = f"{layer}.{tensor}" if layer and tensor else layer or tensor
        parts = [text] if text else []
        if wanted:
            parts.append(f"want {wanted}, got {got}")
        super().__init__(": ".join([p for p in (where, ", ".join(parts)) if p]))
