"""The nodes."""

from __future__ import annotations

import os
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import nodes as stock
import tensorpress
import torch

from . import loading
from .flags import DTYPES, beside, collect
from .operations import INT8_MATMUL

CATEGORY = "tensorpress"
TEXT = "text_encoders"


def _files(kind: str) -> tuple[list[str]]:
    return (folder_paths.get_filename_list(kind),)


def _embeddings() -> list[str]:
    found: list[str] = folder_paths.get_folder_paths("embeddings")
    return found


#: Of the loaders of diffusion models.
OPTIONAL = {
    "int8_matmul": (
        list(INT8_MATMUL),
        {
            "advanced": True,
            "tooltip": "Which int8 rows are multiplied in int8, inputs rounded for it, where the device is faster so. "
            "auto: layers that the file stores for it (SDNQ's quantized matmul).",
        },
    )
}


class UNETLoader:
    DESCRIPTION = "Loads a diffusion model with layers of SDNQ, of ComfyUI's own formats and plain ones."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"unet_name": _files("diffusion_models")}, "optional": OPTIONAL}

    def load(self, unet_name: str, int8_matmul: str = INT8_MATMUL[0]) -> tuple[Any]:
        path = folder_paths.get_full_path_or_raise("diffusion_models", unet_name)
        return (loading.load_diffusion_model(path, int8_matmul=int8_matmul),)


class CheckpointLoader:
    DESCRIPTION = "Loads a checkpoint whose diffusion model and text encoders may have layers of SDNQ."
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": _files("checkpoints")}, "optional": OPTIONAL}

    def load(self, ckpt_name: str, int8_matmul: str = INT8_MATMUL[0]) -> tuple[Any, Any, Any]:
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        return loading.load_checkpoint(path, embedding_directory=_embeddings(), int8_matmul=int8_matmul)


class _CLIPLoader:
    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load"
    CATEGORY = CATEGORY
    names: tuple[str, ...] = ()
    like = ""  # ComfyUI's own node, whose types are offered
    otherwise = "stable_diffusion"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required: dict[str, Any] = {name: _files(TEXT) for name in cls.names}
        if cls.like:
            required["type"] = stock.NODE_CLASS_MAPPINGS[cls.like].INPUT_TYPES()["required"]["type"]
        return {"required": required, "optional": {"device": (["default", "cpu"], {"advanced": True})}}

    def load(self, type: str = "", device: str = "default", **names: str) -> tuple[Any]:
        kind = getattr(comfy.sd.CLIPType, (type or self.otherwise).upper(), comfy.sd.CLIPType.STABLE_DIFFUSION)
        options: dict[str, Any] = {}
        if device == "cpu":
            options["load_device"] = options["offload_device"] = torch.device("cpu")
        paths = [folder_paths.get_full_path_or_raise(TEXT, names[name]) for name in self.names]
        clip = loading.load_clip(paths, embedding_directory=_embeddings(), clip_type=kind, model_options=options)
        return (clip,)


class CLIPLoader(_CLIPLoader):
    DESCRIPTION = "Loads a text encoder with layers of SDNQ, of ComfyUI's own formats and plain ones."
    names = ("clip_name",)
    like = "CLIPLoader"


class DualCLIPLoader(_CLIPLoader):
    DESCRIPTION = "Loads two text encoders, of which each may have layers of SDNQ."
    names = ("clip_name1", "clip_name2")
    like = "DualCLIPLoader"


class TripleCLIPLoader(_CLIPLoader):
    DESCRIPTION = "Loads three text encoders, of which each may have layers of SDNQ."
    names = ("clip_name1", "clip_name2", "clip_name3")


class QuadrupleCLIPLoader(_CLIPLoader):
    DESCRIPTION = "Loads four text encoders, of which each may have layers of SDNQ."
    names = ("clip_name1", "clip_name2", "clip_name3", "clip_name4")


class Quantize:
    DESCRIPTION = "Quantizes a model file with tensorpress. The result lies beside it."
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("name",)
    FUNCTION = "quantize"
    CATEGORY = CATEGORY
    OUTPUT_NODE = True
    kinds = ("diffusion_models", "checkpoints", TEXT)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = [f"{kind}/{name}" for kind in cls.kinds for name in folder_paths.get_filename_list(kind)]
        files = [name for name in files if name.endswith((".safetensors", ".sft"))]
        return {
            "required": {
                "model": (files,),
                "name": ("STRING", {"default": "small", "tooltip": "Of the file that is written."}),
                "dtype": (list(DTYPES),),
                "group_size": ("INT", {"default": 0, "min": -2, "max": 65536, "tooltip": "0: tensorpress chooses."}),
                "svd_rank": ("INT", {"default": 0, "min": 0, "max": 1024, "tooltip": "SDNQ's low-rank part."}),
                "hadamard": ("BOOLEAN", {"default": False, "tooltip": "SDNQ: rotates weights first."}),
                "flags": ("STRING", {"default": "", "tooltip": "More flags of tensorpress quantize."}),
                "overwrite": ("BOOLEAN", {"default": False}),
            }
        }

    def quantize(
        self,
        model: str,
        name: str,
        dtype: str,
        group_size: int,
        svd_rank: int,
        hadamard: bool,
        flags: str,
        overwrite: bool,
    ) -> dict[str, Any]:
        kind, _, file = model.partition("/")
        source = folder_paths.get_full_path_or_raise(kind, file)
        dest = beside(source, name)
        bar = comfy.utils.ProgressBar(1)

        def progress(done: int, total: int) -> None:
            bar.update_absolute(done, max(total, 1))
            comfy.model_management.throw_exception_if_processing_interrupted()

        report = tensorpress.quantize(
            source, dest, progress=progress, **collect(dtype, group_size, svd_rank, hadamard, flags, overwrite)
        )
        written = os.path.join(os.path.dirname(file), os.path.basename(dest))
        return {"ui": {"text": [_summary(written, report)]}, "result": (written,)}


def _summary(name: str, report: dict[str, Any]) -> str:
    layers = report.get("layers") or []
    count = sum(layer.get("action") == "quantize" for layer in layers)
    return f"{name}: {count} of {len(layers)} layers quantized"


NODE_CLASS_MAPPINGS = {
    "TensorpressUNETLoader": UNETLoader,
    "TensorpressCheckpointLoader": CheckpointLoader,
    "TensorpressCLIPLoader": CLIPLoader,
    "TensorpressDualCLIPLoader": DualCLIPLoader,
    "TensorpressTripleCLIPLoader": TripleCLIPLoader,
    "TensorpressQuadrupleCLIPLoader": QuadrupleCLIPLoader,
    "TensorpressQuantize": Quantize,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "TensorpressUNETLoader": "Load Diffusion Model (tensorpress)",
    "TensorpressCheckpointLoader": "Load Checkpoint (tensorpress)",
    "TensorpressCLIPLoader": "Load CLIP (tensorpress)",
    "TensorpressDualCLIPLoader": "Load CLIP, Dual (tensorpress)",
    "TensorpressTripleCLIPLoader": "Load CLIP, Triple (tensorpress)",
    "TensorpressQuadrupleCLIPLoader": "Load CLIP, Quadruple (tensorpress)",
    "TensorpressQuantize": "Quantize (tensorpress)",
}
