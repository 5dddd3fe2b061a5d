"""The tensors of a file, of shards or of a folder, read one at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .._program import StrPath
from ..errors import SourceError
from .scheme import ORIG_DTYPES

_SHORT = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
INDEX = ".safetensors.index.json"
#: Where SDNQ's config may be: an entry of a header, or of config.json.
CONFIG_KEY = "quantization_config"
#: Where a header may describe layers.
HEADER_KEY = "_quantization_metadata"


class Files:
    """Open files. Tensors of the CPU share the memory of the files' pages."""

    def __init__(self, path: StrPath, device: str = "cpu") -> None:
        self.path = Path(path)
        self.folder = self.path if self.path.is_dir() else self.path.parent
        self._files: list[Any] = [_open(p, device) for p in self._names()]
        self._where: dict[str, Any] = {}
        self.metadata: dict[str, str] = {}
        for f in self._files:
            self.metadata |= f.metadata() or {}
            for name in f.keys():  # noqa: SIM118 - it is no dict
                if name in self._where:
                    raise SourceError(f"{self.path}: tensor {name} is in two files")
                self._where[name] = f

    def _names(self) -> list[Path]:
        path = self.path
        if not path.exists():
            raise SourceError(f"{path}: no such file or folder")
        if path.is_dir():
            found = sorted(path.glob("*" + INDEX)) or sorted(path.glob("*.safetensors"))
            if len(found) != 1:
                names = ", ".join(p.name for p in found) or "none"
                raise SourceError(f"{path}: want one .safetensors file or one index, got {names}: name the file")
            path = found[0]
        if not path.name.endswith(INDEX):
            return [path]
        weights = self._json(path).get("weight_map")
        if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
            raise SourceError(f"{path}: want a weight_map of names of files, got {json.dumps(weights)[:40]}")
        return [path.parent / name for name in sorted(set(weights.values()))]

    def _json(self, path: Path) -> dict[str, Any]:
        return _object(path.read_bytes(), str(path))

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def get(self, name: str) -> Tensor:
        """Returns a tensor."""
        try:
            found: Tensor = self._where[name].get_tensor(name)
        except (SafetensorError, AttributeError) as e:  # a dtype that this torch has not
            raise SourceError(f"{self.path}: tensor {name}: {e}") from None
        return found

    def sdnq_config(self) -> dict[str, Any] | None:
        """Returns SDNQ's config of the model, None if it has none: that of the header goes
        before the file beside it, and that before the model's own config."""
        if CONFIG_KEY in self.metadata:
            found = self._header(CONFIG_KEY)
            if _is_sdnq(found):
                return found
        beside = self.folder / (CONFIG_KEY + ".json")
        if beside.is_file():
            found = self._json(beside)
            if _is_sdnq(found):
                return found
        config = self.folder / "config.json"
        if config.is_file():
            own = self._json(config).get(CONFIG_KEY)
            if isinstance(own, dict) and own.get("quant_method") == "sdnq":
                return own
        return None

    def model_dtype(self, companions: tuple[str, ...]) -> torch.dtype:
        """Returns the dtype that the config names for the model, else that of most
        values that are no companions of quantized weights, else float32."""
        path = self.folder / "config.json"
        config = self._json(path) if path.is_file() else {}
        for key in ("dtype", "torch_dtype"):
            named = ORIG_DTYPES.get(str(config.get(key)).removeprefix("torch."))
            if named is not None:
                return named
        counts: dict[torch.dtype, int] = {}
        for name, f in self._where.items():
            layer, _, own = name.rpartition(".")
            part = f.get_slice(name)
            dtype = _SHORT.get(part.get_dtype())
            if dtype is not None and not (own in companions and f"{layer}.scale" in self._where):
                counts[dtype] = counts.get(dtype, 0) + math.prod(part.get_shape())
        return max(counts, key=lambda d: counts[d], default=torch.float32)

    def header_layers(self) -> dict[str, dict[str, Any]]:
        """Returns the layers that the header describes in ComfyUI's way."""
        if HEADER_KEY not in self.metadata:
            return {}
        found = self._header(HEADER_KEY).get("layers")
        if not isinstance(found, dict):
            raise SourceError(f"{self.path}: {HEADER_KEY} in the header: want layers, got {json.dumps(found)[:40]}")
        return {name: o for name, o in found.items() if isinstance(o, dict)}

    def _header(self, key: str) -> dict[str, Any]:
        return _object(self.metadata[key].encode(), f"{self.path}: {key} in the header")


def _open(path: Path, device: str) -> Any:
    try:
        return safe_open(str(path), framework="pt", device=device)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as e:
        raise SourceError(f"{path}: is no whole safetensors file: {e}") from None


def _object(text: bytes, where: str) -> dict[str, Any]:
    """Reads a JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise SourceError(f"{where}: is no JSON: {e}") from None
    if not isinstance(found, dict):
        raise SourceError(f"{where}: want a JSON object, got {json.dumps(found)[:40]}")
    return found


def _is_sdnq(config: dict[str, Any]) -> bool:
    return bool(config.get("quant_method", "sdnq") == "sdnq")
