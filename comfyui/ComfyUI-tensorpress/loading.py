"""Files into ComfyUI's models. Each function is named after ComfyUI's own, and leaves a file
without layers of ours to it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import comfy.model_detection
import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.utils
import torch
from comfy.quant_ops import QUANT_ALGOS
from safetensors import SafetensorError
from tensorpress.torch import LayerError

from .codes import is_codes, wrap
from .layers import check, put, renamed
from .operations import INT8_MATMUL, Held, mixed, operations
from .patcher import adopt

State = dict[str, Any]
Options = dict[str, Any]
QUANTIZED = {"mixed_ops": True}


def _read(path: str) -> tuple[State, dict[str, str] | None]:
    with open(path, "rb") as file:
        if file.read(4) == b"GGUF":
            raise RuntimeError(f"{path}: a GGUF file, which the loaders of ComfyUI-GGUF take")
    try:
        state, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    except SafetensorError as e:
        raise RuntimeError(f"{path}: not a whole safetensors file, was its download cut short? ({e})") from e
    return state, metadata


def _put(path: str, state: State, **how: Any) -> int:
    """Makes the layers of a file that ComfyUI has no format for one tensor each."""
    try:
        check(state, QUANT_ALGOS)
        return put(state, wrap, theirs=QUANT_ALGOS, **how)
    except (LayerError, ValueError) as e:
        raise RuntimeError(f"{path}: {e}") from e


def _config(state: State, prefix: str, metadata: Any) -> Any:
    """What ComfyUI takes a model for, None where it knows none such."""
    try:
        return comfy.model_detection.model_config_from_unet(state, prefix, metadata=metadata)
    except AttributeError:  # it asks what it did not find for its quantized layers
        return None


def _diffusion_operations(state: State, config: Any, options: Options, int8_matmul: str) -> type:
    """The operations that ComfyUI would take for a quantized model, and ours on them."""
    device = options.get("load_device", comfy.model_management.get_torch_device())
    if config.quant_config is not None:
        dtype = comfy.model_management.unet_manual_cast(None, device, config.supported_inference_dtypes)
    else:
        weights = options.get("dtype") or comfy.model_management.unet_dtype(
            model_params=comfy.utils.calculate_parameters(state),
            supported_dtypes=list(config.supported_inference_dtypes),
            weight_dtype=comfy.utils.weight_dtype(state),
        )
        dtype = comfy.model_management.unet_manual_cast(weights, device, config.supported_inference_dtypes) or weights
    base = comfy.ops.pick_operations(None, dtype, model_config=SimpleNamespace(quant_config=QUANTIZED))
    return operations(base, int8_matmul=int8_matmul)


def _with_comfyui_names(state: State) -> State:
    """Decodes the layers that ComfyUI joins or changes when it gives a model its own names.
    Those that only get another name stay codes."""

    def convert(shapes: State) -> State | None:
        after: State | None = comfy.model_detection.convert_diffusers_mmdit(shapes, "")
        return after

    moved = renamed(state, convert)
    if moved is None:  # a UNet of diffusers' names, of which none is joined
        return state
    joined = [name for name, value in state.items() if is_codes(value) and name not in moved]
    if joined:
        logging.warning(
            f"tensorpress: {len(joined)} layers are joined with others under ComfyUI's names, and decoded for it. "
            "tensorpress transcode --names comfyui writes a file that keeps their codes."
        )
    return {name: value.dequantize() if name in joined else value for name, value in state.items()}


def load_diffusion_model(
    path: str,
    model_options: Options | None = None,
    int8_matmul: str = INT8_MATMUL[0],
    disable_dynamic: bool = False,
) -> Any:
    """Loads a diffusion model: ComfyUI's patcher of it. Which int8 rows are multiplied in
    int8 is one of INT8_MATMUL."""
    options = dict(model_options or {})
    state, metadata = _read(path)
    state, metadata = comfy.utils.convert_old_quants(state, "", metadata=metadata)
    prefix = comfy.model_detection.unet_prefix_from_state_dict(state)
    own = comfy.utils.state_dict_prefix_replace(state, {prefix: ""}, filter_keys=True)
    if own:
        state, metadata = comfy.utils.convert_old_quants(own, "", metadata=metadata)
    if not _put(path, state):
        return comfy.sd.load_diffusion_model(path, model_options=options, disable_dynamic=disable_dynamic)
    config = _config(state, "", metadata)
    if config is None:
        state = _with_comfyui_names(state)
        config = _config_of_other_names(state)
    if config is None:
        hint = comfy.sd.model_detection_error_hint(path, state)
        raise RuntimeError(
            f"{path}: no diffusion model that ComfyUI knows by its layers and their shapes. {hint}".strip()
        )
    options["custom_operations"] = _diffusion_operations(state, config, options, int8_matmul)
    patcher = comfy.sd.load_diffusion_model_state_dict(
        state, model_options=options, metadata=metadata, disable_dynamic=disable_dynamic
    )
    patcher.cached_patcher_init = (load_diffusion_model, (path, dict(model_options or {}), int8_matmul))
    return adopt(patcher)


def _config_of_other_names(state: State) -> Any:
    """What ComfyUI takes a model with diffusers' names for."""
    shapes = {name: torch.empty(t.shape, dtype=t.dtype, device="meta") for name, t in state.items()}
    after = comfy.model_detection.convert_diffusers_mmdit(dict(shapes), "")
    if after is not None:
        return comfy.model_detection.model_config_from_unet(after, "")
    return comfy.model_detection.model_config_from_diffusers_unet(shapes)


def _text_options(options: Options | None) -> Options:
    options = dict(options or {})
    device = options.get("load_device", comfy.model_management.text_encoder_device())
    dtype = options.get("dtype") or comfy.model_management.text_encoder_dtype(device)
    options["custom_operations"] = operations(mixed(dtype), own_dtypes=True)
    return options


def load_clip(
    ckpt_paths: list[str],
    embedding_directory: Any = None,
    clip_type: Any = comfy.sd.CLIPType.STABLE_DIFFUSION,
    model_options: Options | None = None,
    disable_dynamic: bool = False,
) -> Any:
    """Loads a text encoder out of one file or several: ComfyUI's CLIP."""
    states, count = [], 0
    for path in ckpt_paths:
        state, metadata = _read(path)
        state, metadata = comfy.utils.convert_old_quants(state, model_prefix="", metadata=metadata)
        count += _put(path, state, described=lambda name: False)
        states.append(state)
    if not count:
        return comfy.sd.load_clip(
            ckpt_paths, embedding_directory, clip_type, dict(model_options or {}), disable_dynamic=disable_dynamic
        )
    clip = comfy.sd.load_text_encoder_state_dicts(
        states,
        embedding_directory=embedding_directory,
        clip_type=clip_type,
        model_options=_text_options(model_options),
        disable_dynamic=disable_dynamic,
    )
    if not any(isinstance(m, Held) and m.holds_codes for m in clip.cond_stage_model.modules()):
        raise RuntimeError(f"{', '.join(ckpt_paths)}: no layer is one of the text encoder that ComfyUI takes it for")
    again = (ckpt_paths, embedding_directory, clip_type, dict(model_options or {}))
    clip.patcher.cached_patcher_init = (_clip_patcher, again)
    adopt(clip.patcher)
    return clip


def _clip_patcher(*args: Any, **kwargs: Any) -> Any:
    return load_clip(*args, **kwargs).patcher


#: What ComfyUI loads with operations of its own choice: weights there are decoded.
DECODED = ("first_stage_model.", "vae.", "clip_vision.")


def load_checkpoint(
    path: str,
    embedding_directory: Any = None,
    model_options: Options | None = None,
    te_model_options: Options | None = None,
    int8_matmul: str = INT8_MATMUL[0],
    disable_dynamic: bool = False,
) -> tuple[Any, Any, Any]:
    """Loads a checkpoint: ComfyUI's patcher of its diffusion model, its CLIP and its VAE.
    Layers of the VAE are decoded at once. Which int8 rows of the diffusion model are
    multiplied in int8 is one of INT8_MATMUL."""
    options = dict(model_options or {})
    state, metadata = _read(path)
    prefix = comfy.model_detection.unet_prefix_from_state_dict(state)
    state, metadata = comfy.utils.convert_old_quants(state, prefix, metadata=metadata)
    for scaled in [key.removesuffix("scaled_fp8") for key in state if key.endswith(".scaled_fp8")]:
        state, _ = comfy.utils.convert_old_quants(state, scaled, metadata={})
    if not _put(path, state, plain=DECODED, described=lambda name: name.startswith(prefix)):
        found = comfy.sd.load_checkpoint_guess_config(
            path,
            embedding_directory=embedding_directory,
            model_options=options,
            te_model_options=dict(te_model_options or {}),
            disable_dynamic=disable_dynamic,
        )
        return found[0], found[1], found[2]
    config = _config(state, prefix, metadata)
    if config is None:
        raise RuntimeError(f"{path}: no checkpoint that ComfyUI knows; is it a diffusion model alone?")
    own = {key: value for key, value in state.items() if key.startswith(prefix)}
    options["custom_operations"] = _diffusion_operations(own, config, options, int8_matmul)
    model, clip, vae, _ = comfy.sd.load_state_dict_guess_config(
        state,
        embedding_directory=embedding_directory,
        model_options=options,
        te_model_options=_text_options(te_model_options),
        metadata=metadata,
        disable_dynamic=disable_dynamic,
    )
    again = (path, embedding_directory, dict(model_options or {}), dict(te_model_options or {}), int8_matmul)
    model.cached_patcher_init = (_checkpoint_part, (0, *again))
    adopt(model)
    if clip is not None:
        clip.patcher.cached_patcher_init = (_checkpoint_part, (1, *again))
        adopt(clip.patcher)
    if vae is not None and getattr(vae, "patcher", None) is not None:
        vae.patcher.cached_patcher_init = (_checkpoint_part, (2, *again))
    return model, clip, vae


def _checkpoint_part(part: int, *args: Any, **kwargs: Any) -> Any:
    found = load_checkpoint(*args, **kwargs)[part]
    return found if part == 0 else found.patcher
