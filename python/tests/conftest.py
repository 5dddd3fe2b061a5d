"""What the tests share. Those of the commands need no torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    import torch

GOLDENS = Path(__file__).resolve().parent / "goldens"

if importlib.util.find_spec("torch") is None:
    collect_ignore = ["test_decode.py", "test_hostile.py", "test_loading.py", "test_modules.py"]
else:
    import torch

    torch.set_num_threads(1)

Layers: TypeAlias = "dict[str, dict[str, torch.Tensor]]"


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
    from safetensors.torch import load_file

    return split(load_file(GOLDENS / "layers.safetensors"))


@pytest.fixture(scope="session")
def program() -> str:
    """The path of the program; what needs it is skipped where there is none."""
    import tensorpress

    try:
        return tensorpress.find()
    except tensorpress.ProgramNotFoundError:
        pytest.skip("there is no program")
