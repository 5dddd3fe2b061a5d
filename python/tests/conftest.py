"""What the tests share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

GOLDENS = Path(__file__).resolve().parent / "goldens"
torch.set_num_threads(1)

Layers = dict[str, dict[str, torch.Tensor]]


def digest(x: torch.Tensor) -> str:
    return hashlib.sha256(x.contiguous().numpy().astype("<f4").tobytes()).hexdigest()


def split(tensors: dict[str, torch.Tensor]) -> Layers:
    """Tensors by their layer, of those that describe themselves."""
    names = {name.removesuffix(".comfy_quant") for name in tensors if name.endswith(".comfy_quant")}
    layers: Layers = {name: {} for name in names}
    for name, t in tensors.items():
        layer, _, own = name.rpartition(".")
        if layer in layers:
            layers[layer][own] = t
    return layers


@pytest.fixture(scope="session")
def goldens() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((GOLDENS / "goldens.json").read_text())
    return found


@pytest.fixture(scope="session")
def layers() -> Layers:
    return split(load_file(GOLDENS / "layers.safetensors"))
