"""Patchers that leave codes as they are: a patched weight is decoded, patched and used."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import comfy.lora
import comfy.patcher_extension
import torch
from comfy.model_patcher import LazyCastingParam, LowVramPatch, ModelPatcher

from .operations import Held

_KEY = "tensorpress"


class HookPatch:
    """What hooks add to a weight."""

    def __init__(self, key: str, patches: list[Any], original_weights: Any) -> None:
        self.key, self.patches, self.original_weights = key, patches, original_weights

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = comfy.lora.calculate_weight(
            self.patches, weight, self.key, intermediate_dtype=weight.dtype, original_weights=self.original_weights
        )
        return found


class PatchesCodes(ModelPatcher):
    """What differs from ComfyUI's own patchers: only layers whose weights are codes."""

    def holders(self) -> Iterator[Held]:
        return (m for m in self.model.modules() if isinstance(m, Held))

    def holder(self, key: str) -> Held | None:
        """The module whose codes are the weight of a name."""
        name, _, own = key.rpartition(".")
        if own != "weight" or not name:
            return None
        module = functools.reduce(lambda m, part: getattr(m, part, None), name.split("."), self.model)
        return module if isinstance(module, Held) and module.holds_codes else None

    def patch_weight_to_device(
        self,
        key: str,
        device_to: Any = None,
        inplace_update: bool = False,
        return_weight: bool = False,
        force_cast: bool = False,
    ) -> Any:
        module = None if return_weight or force_cast or key not in self.patches else self.holder(key)
        if module is None:
            return super().patch_weight_to_device(key, device_to, inplace_update, return_weight, force_cast)
        module.codes_patch = LowVramPatch(key, self.patches)
        return None

    def unpatch_model(self, device_to: Any = None, unpatch_weights: bool = True) -> Any:
        if unpatch_weights:
            for module in self.holders():
                module.codes_patch = None
        return super().unpatch_model(device_to, unpatch_weights)

    def patch_hook_weight_to_device(
        self, hooks: Any, combined_patches: Any, key: str, original_weights: Any, memory_counter: Any
    ) -> Any:
        module = self.holder(key) if key in combined_patches else None
        if module is None:
            return super().patch_hook_weight_to_device(hooks, combined_patches, key, original_weights, memory_counter)
        module.codes_hook = HookPatch(key, combined_patches[key], original_weights)
        return None

    def unpatch_hooks(self, whitelist_keys_set: set[str] | None = None) -> None:
        for module in self.holders():
            hook = module.codes_hook
            if hook is not None and (not whitelist_keys_set or hook.key in whitelist_keys_set):
                module.codes_hook = None
        super().unpatch_hooks(whitelist_keys_set)

    def model_state_dict_for_saving(self, model: Any = None, prefix: str = "") -> Any:
        """A layer that is patched is saved as the weight that it has then; others hold codes."""
        found = super().model_state_dict_for_saving(model, prefix)
        for key in self.patches:
            module = self.holder(key)
            if module is None or not key.startswith(prefix):
                continue
            name = key[len(prefix) :]
            for own in module.state_dict(prefix=name.removesuffix("weight")):
                if not own.endswith(".bias"):
                    found.pop(own, None)
            shape = torch.empty(module.weight.shape, dtype=module.weight.dtype)
            found[name] = LazyCastingParam(self, key, shape)
        return found


@functools.cache
def _class_for(cls: type) -> type:
    return type(cls.__name__, (PatchesCodes, cls), {"__module__": cls.__module__})


def adopt(patcher: Any) -> Any:
    """Makes a patcher, and whatever is cloned of it, one that leaves codes as they are."""
    if not isinstance(patcher, PatchesCodes):
        patcher.__class__ = _class_for(type(patcher))
    kind = comfy.patcher_extension.CallbacksMP.ON_CLONE
    if not patcher.get_callbacks(kind, _KEY):
        patcher.add_callback_with_key(kind, _KEY, _cloned)
    return patcher


def _cloned(patcher: Any, clone: Any) -> None:
    adopt(clone)
