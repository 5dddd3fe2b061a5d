"""A file into a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._program import StrPath
from ..errors import SourceError
from .config import matches, scheme_for, settings_for
from .decode import COMPANIONS, Stored, decode, read_layer
from .errors import LayerError
from .files import Files
from .modules import Quantized, kind_of, swap
from .scheme import DESCRIPTION, ORIG_DTYPES, SCALE, SDNQ_NAMES, WEIGHT, Shape, described

#: What a weight may be that is not quantized.
NUMBERS = (*ORIG_DTYPES.values(), torch.float64)


class LoadError(SourceError):
    """A file that does not fit a model; `loaded` says how."""

    def __init__(self, message: str, loaded: Loaded) -> None:
        super().__init__(message)
        self.loaded = loaded


@dataclass
class Loaded:
    """What `load` did. Names are the model's."""

    layers: list[str] = field(default_factory=list)  # modules that hold codes
    decoded: list[str] = field(default_factory=list)  # weights that no module can hold as codes
    missing: list[str] = field(default_factory=list)  # that the model has and the file has not
    unexpected: list[str] = field(default_factory=list)  # that the file has and the model has not
    empty: list[str] = field(default_factory=list)  # on device meta, and in no state dict: tables of positions, say


def load(
    model: nn.Module,
    path: StrPath,
    device: str | torch.device | None = None,
    *,
    dtype: torch.dtype | None = None,
    prefix: str = "",
    strict: bool = True,
    int8_matmul: bool | None = None,
) -> Loaded:
    """Puts a file into a model.

    Modules whose weights the file holds quantized hold the codes from then on, and
    decode them when they run; all else is put in the place of the model's tensors. At no
    time is there more than the codes, and one weight that has to be decoded. A model
    that is made under `torch.device("meta")` takes no memory before.

    Args:
        model: names and shapes are those of the file.
        path: a .safetensors file, a weight index, or a folder that holds one of these,
            with layers that describe themselves, or in SDNQ's layout with its config.
        device: where tensors go, None for the CPU.
        dtype: of kept float tensors and decoded weights, None to leave them as they are.
        prefix: what names have in the file and not in the model.
        strict: whether missing, unexpected and empty tensors are an error. Those of
            another shape are one without it, too.
        int8_matmul: see `Quantized`.

    Returns:
        What was done, and what is missing, unexpected or empty.

    Raises:
        LayerError: a layer that cannot be read.
        LoadError: the file does not fit.
    """
    files = Files(path, str(device or "cpu"))
    return _Loading(model, files, device, dtype, prefix, int8_matmul).run(strict)


class _Loading:
    def __init__(
        self,
        model: nn.Module,
        files: Files,
        device: str | torch.device | None,
        dtype: torch.dtype | None,
        prefix: str,
        int8_matmul: bool | None,
    ) -> None:
        self.model, self.files, self.prefix = model, files, prefix
        self.device, self.dtype, self.int8_matmul = device, dtype, int8_matmul
        self.found = Loaded()
        self.mismatched: list[str] = []
        self._kept_dtype: torch.dtype | None = None
        self.left = [name for name in files if name.startswith(prefix)]
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.owners = self._owners()

    def _owners(self) -> dict[int, list[tuple[nn.Module, str, str]]]:
        """Who has a tensor: tied ones have several."""
        owners: dict[int, list[tuple[nn.Module, str, str]]] = {}
        for path, module in self.modules.items():
            own: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
            for name, t in own.items():
                if t is not None:
                    full = _name(path, name)
                    owners.setdefault(id(t), []).append((module, name, full))
        return owners

    def run(self, strict: bool) -> Loaded:
        wanted = self._wanted()
        done: set[str] = set()
        for stem, description in self._described().items():
            done |= self._load_layer(stem, description)
        for name in self.left:
            done |= self._load_plain(name)
        self.found.layers = list(dict.fromkeys(self.found.layers))  # tied ones come twice
        # What a module held that was loaded before is not missing.
        done |= {_name(layer, name) for layer in self.found.layers for name in COMPANIONS}
        self.found.missing = [name for name in wanted if name not in done]
        self._move_rest()
        self._refuse(strict)
        return self.found

    def _wanted(self) -> list[str]:
        """The model's tensors that a state dict has."""
        names = []
        for path, module in self.modules.items():
            lost = module._non_persistent_buffers_set
            own: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
            names += [_name(path, n) for n, t in own.items() if t is not None and n not in lost]
        return list(dict.fromkeys(names))

    def _described(self) -> dict[str, Mapping[str, Any] | Tensor]:
        """Layers, by what their tensors' names begin with: what the header says goes before
        what they say of themselves. Without either there is SDNQ's config."""
        found: dict[str, Mapping[str, Any] | Tensor] = {}
        for name in self.left:
            stem, own = _split(name)
            if own == DESCRIPTION:
                found[stem] = self.files.get(name)
        for layer, o in self.files.header_layers().items():
            weight = f"{layer}.{WEIGHT}"
            if weight in self.files and weight.startswith(self.prefix):
                found[f"{layer}."] = o
        config = None if found else self.files.sdnq_config()
        if config is not None:
            for name in self.left:
                stem, own = _split(name)
                weight = stem + WEIGHT
                if own != SDNQ_NAMES[SCALE] or weight not in self.files:
                    continue
                if not matches(weight, config.get("modules_to_not_convert")):
                    found[stem] = {"sdnq": settings_for(config, weight)}
        return found

    def _load_layer(self, stem: str, description: Mapping[str, Any] | Tensor) -> set[str]:
        full = (stem + WEIGHT).removeprefix(self.prefix)
        layer = full.removesuffix(WEIGHT).removesuffix(".")
        module = self.modules.get(layer)
        old = None if module is None else module._parameters.get(WEIGHT)
        if module is not None and old is None and not isinstance(module, Quantized):
            old = module._buffers.get(WEIGHT)
        if module is None or (old is None and not isinstance(module, Quantized)):
            self.found.unexpected.append(full)
            self._take(stem, COMPANIONS)
            self._take(stem, tuple(SDNQ_NAMES.values()))
            return set()
        # One that holds codes is tied to one that came before, or was loaded before.
        shape = tuple(old.shape) if old is not None else cast(Quantized, module).stored.shape
        tensors, stored = self._read(stem, layer, description, shape, module)
        if stored.shape != shape:
            raise LayerError(layer, tensor=WEIGHT, wanted=str(list(shape)), got=str(list(stored.shape)))
        places = [(module, WEIGHT, full)] if old is None else self.owners.pop(id(old))
        for owner, attribute, place in places:
            own = isinstance(owner, Quantized) or attribute in owner._parameters
            if attribute == WEIGHT and own and kind_of(owner) is not None:
                swap(owner, stored, tensors, self.dtype, self.int8_matmul)
                self.found.layers.append(place.removesuffix(WEIGHT).removesuffix("."))
            elif old is not None:
                value = decode(stored, tensors, self.dtype)
                if attribute in owner._parameters:
                    owner._parameters[attribute] = nn.Parameter(value, requires_grad=False)
                else:
                    owner._buffers[attribute] = value
                self.found.decoded.append(place)
        return {place for _, _, place in places}

    def _read(
        self,
        stem: str,
        layer: str,
        description: Mapping[str, Any] | Tensor,
        shape: Shape,
        module: nn.Module,
    ) -> tuple[dict[str, Tensor], Stored]:
        if isinstance(description, Mapping) and "sdnq" in description:
            taken = self._take(stem, tuple(SDNQ_NAMES.values()))
            tensors = {ours: taken[theirs] for ours, theirs in SDNQ_NAMES.items() if theirs in taken}
            kind = kind_of(module) or "linear"
            return tensors, scheme_for(description["sdnq"], tensors, shape, kind, self._model_dtype(), layer)
        tensors = self._take(stem, COMPANIONS)
        stored = read_layer(description, tensors, layer, shape)
        if isinstance(description, Mapping):  # what is saved again says what the header said
            tensors[DESCRIPTION] = described(description, tensors[WEIGHT].device)
        return tensors, stored

    def _model_dtype(self) -> torch.dtype:
        """What the weights had before, as SDNQ's layout does not say it: what the caller
        wants, else what the model's config says, else what most kept tensors have."""
        if self.dtype is not None:
            return self.dtype
        if self._kept_dtype is None:
            self._kept_dtype = self.files.model_dtype(tuple(SDNQ_NAMES.values()))
        return self._kept_dtype

    def _take(self, stem: str, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Takes a layer's tensors, but for what the module has under such a name."""
        found = {}
        for companion in names:
            name = stem + companion
            if name in self.files and name in self._left_set:
                found[companion] = self.files.get(name)
                self._left_set.discard(name)
        return found

    @property
    def left(self) -> list[str]:
        return [name for name in self._order if name in self._left_set]

    @left.setter
    def left(self, names: list[str]) -> None:
        self._order, self._left_set = names, set(names)

    def _load_plain(self, name: str) -> set[str]:
        full = name.removeprefix(self.prefix)
        path, _, attribute = full.rpartition(".")
        module = self.modules.get(path)
        group = None if module is None else module._parameters if attribute in module._parameters else module._buffers
        old = None if group is None else group.get(attribute)
        if module is None or old is None:
            self.found.unexpected.append(full)
            return set()
        if isinstance(module, Quantized) and attribute in module.tensors:
            if attribute == WEIGHT:
                self.mismatched.append(f"{full}: nothing describes it, and the module holds codes")
            else:
                self.found.unexpected.append(full)
            return {full}
        t = self.files.get(name)
        if t.shape != old.shape:
            self.mismatched.append(f"{full}: want {list(old.shape)}, got {list(t.shape)}")
            return {full}
        if old.dtype in NUMBERS and t.dtype not in NUMBERS:
            got = str(t.dtype).removeprefix("torch.")
            self.mismatched.append(f"{full}: want numbers, got {got} codes, which nothing describes")
            return {full}
        if self.dtype is not None and t.dtype in ORIG_DTYPES.values():
            t = t.to(self.dtype)
        # The old tensor may be gone afterwards, and another have its id.
        places = self.owners.pop(id(old), [(module, attribute, full)])
        value: Tensor = t
        if isinstance(old, nn.Parameter):
            value = nn.Parameter(t, requires_grad=old.requires_grad and t.is_floating_point())
        self.owners[id(value)] = places
        for owner, own, _ in places:
            if own in owner._parameters:
                owner._parameters[own] = value  # type: ignore[assignment]
            else:
                owner._buffers[own] = value
        return {place for _, _, place in places}

    def _move_rest(self) -> None:
        """What no file has, such as tables of positions, goes where the rest is."""
        for path, module in self.modules.items():
            for name, t in module._buffers.items():
                if t is None:
                    continue
                if t.device.type != "meta":
                    module._buffers[name] = t if self.device is None else t.to(self.device)
                elif name in module._non_persistent_buffers_set:
                    self.found.empty.append(_name(path, name))

    def _refuse(self, strict: bool) -> None:
        f, wrong = self.found, []
        if strict:
            kinds = (("missing", f.missing), ("unexpected", f.unexpected), ("no values on device meta for", f.empty))
            wrong = [_named(text, names) for text, names in kinds if names]
        if self.mismatched:
            wrong.append("; ".join(self.mismatched[:5]))
        if wrong:
            raise LoadError(f"{self.files.path} does not fit the model: {'; '.join(wrong)}", f)


def _name(path: str, own: str) -> str:
    return f"{path}.{own}" if path else own


def _split(name: str) -> tuple[str, str]:
    """What a tensor's name begins with, and its own after the last dot."""
    layer, dot, own = name.rpartition(".")
    return layer + dot, own


def _named(text: str, names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{text} {', '.join(names[:5])}{more}"
