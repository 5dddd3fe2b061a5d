"""The flags of each command, as keyword arguments. Made by tests/make_flags.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TypedDict

_Path = str | PathLike[str] | None


class DoctorFlags(TypedDict, total=False):
    """Those of `tensorpress doctor`."""

    #: also look at the Python at PATH, an interpreter or an environment
    python: _Path
    #: the folder of ComfyUI is PATH
    comfyui: _Path
    #: the folder of SD.Next is PATH
    sdnext: _Path


class FinishFlags(TypedDict, total=False):
    """Those of `tensorpress finish`."""

    #: replace DEST if it is an output and holds nothing else
    force: bool | None
    #: N cores to use, 0 for all
    threads: int | None
    #: bound of the peak memory (default 256MiB)
    memory: str | int | None
    #: no progress and no notes
    quiet: bool | None
    #: keep a FILE of figures for Prometheus while this runs; see docs/watching.md
    metrics: _Path


class InspectFlags(TypedDict, total=False):
    """Those of `tensorpress inspect`."""

    #: also write everything as a page to FILE
    html: _Path
    #: read all, and list the sha256 of each tensor's bytes
    hash: bool | None
    #: N cores to use, 0 for all
    threads: int | None
    #: bound of the peak memory (default 256MiB)
    memory: str | int | None
    #: no progress and no notes
    quiet: bool | None
    #: keep a FILE of figures for Prometheus while this runs; see docs/watching.md
    metrics: _Path


class DiffFlags(TypedDict, total=False):
    """Those of `tensorpress diff`."""

    #: the same only where bytes and header entries are the same
    bytes: bool | None
    #: take values for the same up to a rel_mse of X
    max_rel_mse: str | float | None
    #: also write the result to FILE: JSON, or HTML, by its suffix
    report: _Path
    #: N cores to use, 0 for all
    threads: int | None
    #: bound of the peak memory (default 256MiB)
    memory: str | int | None
    #: no progress and no notes
    quiet: bool | None
    #: keep a FILE of figures for Prometheus while this runs; see docs/watching.md
    metrics: _Path


class SplitFlags(FinishFlags, total=False):
    """Those of `tensorpress split`."""

    #: print what would be done; write nothing
    dry_run: bool | None
    #: also write the result to FILE: JSON, or HTML, by its suffix
    report: _Path


class JoinFlags(SplitFlags, total=False):
    """Those of `tensorpress join`."""

    #: SIDE whose names the shards of one model get: comfyui, diffusers, or keep (default keep)
    names: str | None


class VerifyFlags(TypedDict, total=False):
    """Those of `tensorpress verify`."""

    #: SOURCE that it was made of
    source: _Path
    #: with --source: an adapter that was merged into it, FILE[=STRENGTH]; repeatable
    lora: Iterable[str] | str | None
    #: leave out what of an adapter fits no tensor
    lora_partial: bool | None
    #: with --source: a layer's rel_mse above X is a problem
    max_rel_mse: str | float | None
    #: APP that must load it: comfyui, sdnext, diffusers, transformers, invokeai
    for_: str | None
    #: also write the result to FILE: JSON, or HTML, by its suffix
    report: _Path
    #: N cores to use, 0 for all
    threads: int | None
    #: bound of the peak memory (default 256MiB)
    memory: str | int | None
    #: no progress and no notes
    quiet: bool | None
    #: keep a FILE of figures for Prometheus while this runs; see docs/watching.md
    metrics: _Path


class DequantizeFlags(FinishFlags, total=False):
    """Those of `tensorpress dequantize`."""

    #: bf16, f16 or f32 for the weights that were quantized (default theirs before)
    dtype: str | None
    #: SIDE whose names the output has: comfyui, diffusers, or keep (default keep)
    names: str | None
    #: merge an adapter into the weights as they are restored: FILE[=STRENGTH]; repeatable; see docs/lora.md
    lora: Iterable[str] | str | None
    #: leave out what of an adapter fits no tensor
    lora_partial: bool | None
    #: most bytes of weights in a file of a folder (default 5GB)
    shard_size: str | int | None
    #: also copy weight files that the output does not describe
    copy_weights: bool | None
    #: also write the result to FILE: JSON, or HTML, by its suffix
    report: _Path


class TranscodeFlags(SplitFlags, total=False):
    """Those of `tensorpress transcode`."""

    #: sdnq or comfy, where the layers are to go
    layout: str | None
    #: SIDE whose names the output has: comfyui, diffusers, or keep (default keep)
    names: str | None
    #: comfy: keep SDNQ's layers, which then describe themselves; stock ComfyUI does not load them
    rename: bool | None
    #: quantize layers that cannot move again, in the nearest dtype
    requantize: bool | None
    #: row lets float8 with a scale a row become float8_e4m3fn_rowwise, which stock ComfyUI does not load
    scale: str | None
    #: of awq_w4a16's scales: bf16, f16 or f32 (default bf16)
    scale_dtype: str | None
    #: refuse what APP would not load: comfyui, sdnext, diffusers, transformers, invokeai
    for_: str | None
    #: most bytes of weights in a file of a folder (default 5GB)
    shard_size: str | int | None
    #: also copy weight files that the output does not describe
    copy_weights: bool | None


class MigrateFlags(SplitFlags, total=False):
    """Those of `tensorpress migrate`."""

    #: set keys of the layers' descriptions, a JSON object
    add_keys: str | None
    #: remove KEYS from the layers' descriptions; repeatable, or with commas
    remove_keys: Iterable[str] | str | None
    #: do so, --input-scale and --drop-ignored for layers that match PATTERN alone, in Python's syntax
    only: str | None
    #: leave out tensors beside layers that their formats ignore, such as input_scale beside int8
    drop_ignored: bool | None
    #: give float8 layers an input scale of 1 where they have none
    input_scale: bool | None
    #: describe layers in the header too, as _quantization_metadata
    quantization_metadata: bool | None
    #: take PREFIX off the names of tensors, such as _orig_mod.; repeatable, one after the other
    strip_prefix: Iterable[str] | str | None
    #: refuse what APP would not load: comfyui, sdnext, diffusers, transformers, invokeai
    for_: str | None
    #: most bytes of weights in a file of a folder (default 5GB)
    shard_size: str | int | None
    #: also copy weight files that the output does not describe
    copy_weights: bool | None


class MeasureFlags(TypedDict, total=False):
    """Those of `tensorpress measure`."""

    #: sdnq or comfy (default sdnq where a config.json is there, else comfy)
    layout: str | None
    #: NAME as in tensorpress formats (default int8, int8_tensorwise in comfy)
    dtype: str | None
    #: refuse what APP would not load: comfyui, sdnext, diffusers, transformers, invokeai; with --bits or --fit
    #: and no dtype, choose what it loads best
    for_: str | None
    #: with --for and no dtype: the best that the application loads at N bits a value; asym_w4a8_int8: 4 or 6, 4
    #: where not given
    bits: int | None
    #: with --for: the most bits a value at which all weights fit SIZE of a card's memory
    fit: str | int | None
    #: choose scales and zero points that lose least; slower, and the same size
    search: bool | None
    #: SIDE whose names the output has: comfyui, diffusers, or keep (default keep)
    names: str | None
    #: take flags from a YAML or JSON FILE, or those of a --report; those given here win over it
    recipe: _Path
    #: weigh errors in the search by what layers are given, from a FILE of its mean squares; see
    #: docs/importance.md
    importance: _Path
    #: measure the weights with an adapter merged into them: FILE[=STRENGTH]; repeatable; see docs/lora.md
    lora: Iterable[str] | str | None
    #: leave out what of an adapter fits no tensor
    lora_partial: bool | None
    #: choose among these: an application's NAME or LIST of dtypes with settings after colons: uint4:group-
    #: size=32,int8,keep (default what --for loads)
    menu: str | None
    #: leave tensors that match PATTERN as they are; repeatable
    keep: Iterable[str] | str | None
    #: quantize none but those that match PATTERN; repeatable
    only: Iterable[str] | str | None
    #: PATTERN=SETTINGS for some layers; repeatable
    set: Mapping[str, str] | Iterable[str] | str | None
    #: NAME of the model family whose layers are kept, none, generic or auto (default auto); ctq:NAME is
    #: convert_to_quant's own
    preset: str | None
    #: SDNQ: quantize convolutions too
    conv: bool | None
    #: SDNQ: quantize embeddings too
    embedding: bool | None
    #: sdnq layout: keep what SDNQ's own list says (default true)
    skip_keys: bool | None
    #: keep weights of fewer than N values (default 16384 in the sdnq layout)
    min_numel: int | None
    #: keep weights of fewer than N columns (default 32 in the sdnq layout)
    min_channels: int | None
    #: write the table to FILE: JSON, which --measured reads, or CSV, by its suffix; repeatable
    out: Iterable[str] | str | None
    #: N cores to use, 0 for all
    threads: int | None
    #: bound of the peak memory (default 256MiB)
    memory: str | int | None
    #: no progress and no notes
    quiet: bool | None
    #: keep a FILE of figures for Prometheus while this runs; see docs/watching.md
    metrics: _Path
    #: N values share a scale; SDNQ: 0 automatic, -1 one a row, -2 one a tensor
    group_size: int | None
    #: SDNQ: scales in F32 (default true)
    dequantize_fp32: bool | None
    #: SDNQ: the dtype that the model is to be loaded in, bf16, f16 or f32; weights are rounded to it first
    model_dtype: str | None
    #: SDNQ: rotate weights first
    hadamard: bool | None
    #: SDNQ: rotate N values at a time (default 256)
    hadamard_group_size: int | None
    #: SDNQ: store a part of rank N as two factors; 0 is off; svdquant_w4a4: at least 1 (default 32)
    svd_rank: int | None
    #: look for that part in N steps; fewer are faster and leave a little more to quantize (default 8)
    svd_steps: int | None
    #: fit that part again N times, to what the quantization of the rest leaves
    svd_refit: int | None
    #: SDNQ: a table of levels for every group, for unsigned integers
    codebook: bool | None
    #: SDNQ: refine a codebook N times (default 24)
    codebook_steps: int | None
    #: SDNQ: quantize scales themselves, to this dtype (double quantization)
    scale_dtype: str | None
    #: SDNQ: store zero points in this dtype, where not in that of scales
    zero_point_dtype: str | None
    #: SDNQ: store scales by a codebook
    codebook_scale: bool | None
    #: SDNQ: store weights as they are multiplied without being restored
    quantized_matmul: bool | None
    #: SDNQ: the same for convolutions
    quantized_matmul_conv: bool | None
    #: SDNQ: multiply in int8, uint8, float8_e4m3fn or float16
    quantized_matmul_dtype: str | None
    #: SDNQ: round up or down by chance
    stochastic_rounding: bool | None
    #: SDNQ: the first dtype, from --dtype on, whose loss is small enough, layer by layer
    dynamic: bool | None
    #: SDNQ: the loss that --dynamic accepts
    dynamic_loss_threshold: str | float | None
    #: of the chances that --stochastic-rounding takes
    seed: int | None
    #: ComfyUI's formats: one scale a tensor, row or block
    scale: str | None
    #: ComfyUI's formats: blocks of N by N values share a scale; 128 where not given
    block_size: int | None
    #: int8_tensorwise: rotate weights first
    convrot: bool | None
    #: ComfyUI's formats: rotate N values at a time; 256 where not given
    convrot_group_size: int | None
    #: ComfyUI's formats: say that layers are to be multiplied in full precision
    full_precision_matmul: bool | None
    #: ComfyUI's formats: store scales of activations, which are 1
    input_scale: bool | None
    #: int8_tensorwise: rotate in the largest groups that fit, not smaller than --convrot-group-size
    dynamic_convrot: bool | None
    #: ComfyUI's formats: describe layers in the header too, as _quantization_metadata
    quantization_metadata: bool | None
    #: the reference's bytes also where it is at fault
    exact_reference: bool | None
    #: quantize NaN and infinity as the reference does
    allow_nonfinite: bool | None
    #: keep weights with a side that is no multiple of N; 0 for none
    whole_blocks: int | None
    #: take fp8 weights without any scale for plain numbers
    accept_unscaled_fp8: bool | None


class QuantizeFlags(FinishFlags, total=False):
    """Those of `tensorpress quantize`."""

    #: sdnq or comfy (default sdnq where a config.json is there, else comfy)
    layout: str | None
    #: NAME as in tensorpress formats (default int8, int8_tensorwise in comfy)
    dtype: str | None
    #: refuse what APP would not load: comfyui, sdnext, diffusers, transformers, invokeai; with --bits or --fit
    #: and no dtype, choose what it loads best
    for_: str | None
    #: with --for and no dtype: the best that the application loads at N bits a value; asym_w4a8_int8: 4 or 6, 4
    #: where not given
    bits: int | None
    #: with --for: the most bits a value at which all weights fit SIZE of a card's memory
    fit: str | int | None
    #: choose scales and zero points that lose least; slower, and the same size
    search: bool | None
    #: SIDE whose names the output has: comfyui, diffusers, or keep (default keep)
    names: str | None
    #: leave tensors that match PATTERN as they are; repeatable
    keep: Iterable[str] | str | None
    #: quantize none but those that match PATTERN; repeatable
    only: Iterable[str] | str | None
    #: PATTERN=SETTINGS for some layers; repeatable
    set: Mapping[str, str] | Iterable[str] | str | None
    #: NAME of the model family whose layers are kept, none, generic or auto (default auto); ctq:NAME is
    #: convert_to_quant's own
    preset: str | None
    #: SDNQ: quantize convolutions too
    conv: bool | None
    #: SDNQ: quantize embeddings too
    embedding: bool | None
    #: sdnq layout: keep what SDNQ's own list says (default true)
    skip_keys: bool | None
    #: keep weights of fewer than N values (default 16384 in the sdnq layout)
    min_numel: int | None
    #: keep weights of fewer than N columns (default 32 in the sdnq layout)
    min_channels: int | None
    #: choose for each layer what makes the output lose least within that many bytes, or that part of the
    #: source's
    budget: str | int | None
    #: the same within X bits for each value of all tensors
    target_bpw: str | float | None
    #: choose among these: an application's NAME or LIST of dtypes with settings after colons: uint4:group-
    #: size=32,int8,keep (default what --for loads)
    menu: str | None
    #: take the errors from a FILE of tensorpress measure, and read no weights for them
    measured: _Path
    #: write what was chosen to FILE, a recipe, YAML or JSON by its suffix, that makes the same bytes of the
    #: same source
    lock: _Path
    #: most bytes of weights in a file of a folder (default 5GB)
    shard_size: str | int | None
    #: also copy weight files that the output does not describe
    copy_weights: bool | None
    #: keep the finished files of a folder if the run ends early, and go on with those
    resume: bool | None
    #: write part I/N of a folder's files alone, for finish to put in place; auto or auto/N asks Slurm, AWS
    #: Batch or Kubernetes which; see docs/resume.md
    part: str | None
    #: read the output once more for each layer's error, as --report of a page does
    measure: bool | None
    #: the same as plan
    dry_run: bool | None
    #: also write the result to FILE: JSON, or HTML, by its suffix
    report: _Path
    #: take flags from a YAML or JSON FILE, or those of a --report; those given here win over it
    recipe: _Path
    #: weigh errors in the search by what layers are given, from a FILE of its mean squares; see
    #: docs/importance.md
    importance: _Path
    #: merge an adapter into the weights before they are rounded: FILE[=STRENGTH]; repeatable; see docs/lora.md
    lora: Iterable[str] | str | None
    #: leave out what of an adapter fits no tensor
    lora_partial: bool | None
    #: take the settings of a quantized model at PATH, layer by layer
    like: _Path
    #: take settings from an SDNQ config FILE, or the config.json that holds one; flags win over it
    config: _Path
    #: take settings of layers by patterns from a convert_to_quant layer config FILE
    layer_config: _Path
    #: make all outputs that a recipe FILE lists, and read SOURCE once for all; DEST is then the folder that
    #: they lie in
    outputs: _Path
    #: with --outputs: keep those that succeed where others fail
    keep_going: bool | None
    #: N values share a scale; SDNQ: 0 automatic, -1 one a row, -2 one a tensor
    group_size: int | None
    #: SDNQ: scales in F32 (default true)
    dequantize_fp32: bool | None
    #: SDNQ: the dtype that the model is to be loaded in, bf16, f16 or f32; weights are rounded to it first
    model_dtype: str | None
    #: SDNQ: rotate weights first
    hadamard: bool | None
    #: SDNQ: rotate N values at a time (default 256)
    hadamard_group_size: int | None
    #: SDNQ: store a part of rank N as two factors; 0 is off; svdquant_w4a4: at least 1 (default 32)
    svd_rank: int | None
    #: look for that part in N steps; fewer are faster and leave a little more to quantize (default 8)
    svd_steps: int | None
    #: fit that part again N times, to what the quantization of the rest leaves
    svd_refit: int | None
    #: SDNQ: a table of levels for every group, for unsigned integers
    codebook: bool | None
    #: SDNQ: refine a codebook N times (default 24)
    codebook_steps: int | None
    #: SDNQ: quantize scales themselves, to this dtype (double quantization)
    scale_dtype: str | None
    #: SDNQ: store zero points in this dtype, where not in that of scales
    zero_point_dtype: str | None
    #: SDNQ: store scales by a codebook
    codebook_scale: bool | None
    #: SDNQ: store weights as they are multiplied without being restored
    quantized_matmul: bool | None
    #: SDNQ: the same for convolutions
    quantized_matmul_conv: bool | None
    #: SDNQ: multiply in int8, uint8, float8_e4m3fn or float16
    quantized_matmul_dtype: str | None
    #: SDNQ: round up or down by chance
    stochastic_rounding: bool | None
    #: SDNQ: the first dtype, from --dtype on, whose loss is small enough, layer by layer
    dynamic: bool | None
    #: SDNQ: the loss that --dynamic accepts
    dynamic_loss_threshold: str | float | None
    #: of the chances that --stochastic-rounding takes
    seed: int | None
    #: ComfyUI's formats: one scale a tensor, row or block
    scale: str | None
    #: ComfyUI's formats: blocks of N by N values share a scale; 128 where not given
    block_size: int | None
    #: int8_tensorwise: rotate weights first
    convrot: bool | None
    #: ComfyUI's formats: rotate N values at a time; 256 where not given
    convrot_group_size: int | None
    #: ComfyUI's formats: say that layers are to be multiplied in full precision
    full_precision_matmul: bool | None
    #: ComfyUI's formats: store scales of activations, which are 1
    input_scale: bool | None
    #: int8_tensorwise: rotate in the largest groups that fit, not smaller than --convrot-group-size
    dynamic_convrot: bool | None
    #: ComfyUI's formats: describe layers in the header too, as _quantization_metadata
    quantization_metadata: bool | None
    #: the reference's bytes also where it is at fault
    exact_reference: bool | None
    #: quantize NaN and infinity as the reference does
    allow_nonfinite: bool | None
    #: keep weights with a side that is no multiple of N; 0 for none
    whole_blocks: int | None
    #: take fp8 weights without any scale for plain numbers
    accept_unscaled_fp8: bool | None


class PlanFlags(QuantizeFlags, total=False):
    """Those of `tensorpress plan`."""
