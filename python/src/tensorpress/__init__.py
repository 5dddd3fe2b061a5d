"""Runs tensorpress, which presses safetensors checkpoints into quantized ones.

Every function is a command of the program. Keyword arguments are its flags, with
underscores for dashes and one at the end where Python keeps the word (`for_`): a
list repeats a flag, a dict gives `set` its patterns and settings, None leaves the
flag out. The result is the JSON of the command.

    import tensorpress

    tensorpress.quantize("model.safetensors", "small.safetensors", dtype="uint4",
                         keep=[r"\\.norm"], set={r"\\.attn\\.": "int8"})

`ctq` takes the command line of convert_to_quant, word by word.

An error is a `TensorpressError` with the program's own line and its exit status.
`tensorpress.torch` runs the layers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ._program import Progress, StrPath, execute, find, run
from .errors import (
    InterruptedRunError,
    ProgramNotFoundError,
    RunError,
    SourceError,
    TensorpressError,
    UsageError,
    VerifyError,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._flags import (
        DequantizeFlags,
        DiffFlags,
        DoctorFlags,
        FinishFlags,
        InspectFlags,
        JoinFlags,
        MeasureFlags,
        MigrateFlags,
        PlanFlags,
        QuantizeFlags,
        SplitFlags,
        TranscodeFlags,
        VerifyFlags,
    )

__all__ = [
    "DequantizeFlags",
    "DiffFlags",
    "DoctorFlags",
    "FinishFlags",
    "InspectFlags",
    "InterruptedRunError",
    "JoinFlags",
    "MeasureFlags",
    "MigrateFlags",
    "PlanFlags",
    "ProgramNotFoundError",
    "Progress",
    "QuantizeFlags",
    "RunError",
    "SourceError",
    "SplitFlags",
    "StrPath",
    "TensorpressError",
    "TranscodeFlags",
    "UsageError",
    "VerifyError",
    "VerifyFlags",
    "ctq",
    "dequantize",
    "diff",
    "doctor",
    "find",
    "finish",
    "formats",
    "inspect",
    "join",
    "measure",
    "migrate",
    "plan",
    "presets",
    "quantize",
    "split",
    "transcode",
    "verify",
]

Result = dict[str, Any]


def __getattr__(name: str) -> Any:
    """Types of flags and the version are made when they are asked for: that takes longer
    than all else here."""
    if name == "__version__":
        from importlib.metadata import version

        return version("tensorpress")
    if name in __all__ and name.endswith("Flags"):
        from . import _flags

        return getattr(_flags, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def quantize(
    source: StrPath, dest: StrPath | None = None, *, progress: Progress | None = None, **flags: Unpack[QuantizeFlags]
) -> Result:
    """Quantizes a checkpoint: `tensorpress quantize SOURCE DEST`.

    Args:
        source: a .safetensors file, a weight index, a model folder or a pipeline.
        dest: a .safetensors file, or a folder; with `outputs` the folder that they lie in, if it is not the recipe's.
        progress: called with what is done and what there is to do, in bytes.
        flags: see `QuantizeFlags`.

    Returns:
        The report: layers with action, dtype, options, shape and bytes; files; notes. With `outputs` the list
        `outputs` of these.
    """
    found: Result = run("quantize", [source, dest], progress, flags)
    return found


def plan(source: StrPath, dest: StrPath | None = None, **flags: Unpack[PlanFlags]) -> Result:
    """Says what `quantize` would do, from headers, and for a budget from weights: `tensorpress plan SOURCE [DEST]`."""
    found: Result = run("plan", [source, dest], None, flags)
    return found


def finish(dest: StrPath, *, progress: Progress | None = None, **flags: Unpack[FinishFlags]) -> Result:
    """Puts an output in place that `quantize` wrote with `part`, once all is there: `tensorpress finish DEST`.

    Args:
        dest: the folder that the parts were written for.
        progress: as in `quantize`.
        flags: see `FinishFlags`.

    Returns:
        The files, with their sha256; `already` where it was in place before.
    """
    found: Result = run("finish", [dest], progress, flags)
    return found


def measure(source: StrPath, *, progress: Progress | None = None, **flags: Unpack[MeasureFlags]) -> Result:
    """Measures what each layer takes and loses in several formats: `tensorpress measure SOURCE`.

    Args:
        source: as in `quantize`.
        progress: as in `quantize`.
        flags: `menu` names the formats; `out` is a file that `measured` of `quantize` and `plan` takes.
    """
    found: Result = run("measure", [source], progress, flags)
    return found


def dequantize(
    source: StrPath, dest: StrPath, *, progress: Progress | None = None, **flags: Unpack[DequantizeFlags]
) -> Result:
    """Turns quantized layers into plain tensors: `tensorpress dequantize SOURCE DEST`."""
    found: Result = run("dequantize", [source, dest], progress, flags)
    return found


def transcode(
    source: StrPath, dest: StrPath, *, progress: Progress | None = None, **flags: Unpack[TranscodeFlags]
) -> Result:
    """Moves layers to another layout without rounding again: `tensorpress transcode SOURCE DEST`."""
    found: Result = run("transcode", [source, dest], progress, flags)
    return found


def migrate(
    source: StrPath, dest: StrPath, *, progress: Progress | None = None, **flags: Unpack[MigrateFlags]
) -> Result:
    """Brings names and metadata up to date: `tensorpress migrate SOURCE DEST`."""
    found: Result = run("migrate", [source, dest], progress, flags)
    return found


def split(
    source: StrPath, dest: StrPath | None = None, *, progress: Progress | None = None, **flags: Unpack[SplitFlags]
) -> Result:
    """Takes an all-in-one checkpoint apart: `tensorpress split SOURCE DIR`.

    Args:
        source: a checkpoint that ComfyUI loads all in one.
        dest: a folder; None only with `dry_run`.
        progress: as in `quantize`.
        flags: see `SplitFlags`.

    Returns:
        The parts, with their files, and what should be said of them.
    """
    found: Result = run("split", [source, dest], progress, flags)
    return found


def join(*paths: StrPath, progress: Progress | None = None, **flags: Unpack[JoinFlags]) -> Result:
    """Makes one file of parts, or of shards: `tensorpress join PARTS… DEST`.

    Args:
        paths: the parts, each a path or PART=PATH as text, and last the file that they become.
        progress: as in `quantize`.
        flags: see `JoinFlags`.
    """
    found: Result = run("join", paths, progress, flags)
    return found


def verify(path: StrPath, *, progress: Progress | None = None, **flags: Unpack[VerifyFlags]) -> Result:
    """Checks that a checkpoint is sound: `tensorpress verify PATH`.

    Args:
        path: what is checked.
        progress: as in `quantize`.
        flags: `source` is what it was made from, `for_` an application.

    Raises:
        VerifyError: it is not; `result` says what is wrong.
    """
    found: Result = run("verify", [path], progress, flags)
    return found


def diff(a: StrPath, b: StrPath, *, progress: Progress | None = None, **flags: Unpack[DiffFlags]) -> Result:
    """Compares two checkpoints, tensor by tensor: `tensorpress diff A B`.

    Args:
        a: a file, a weight index, a model folder or a pipeline, quantized or not.
        b: another one.
        progress: as in `quantize`.
        flags: `bytes` asks for the same bytes, `all` lists what is the same too.

    Returns:
        What was found: `same`, and `tensors` with what differs. That they differ is no error.
    """
    try:
        found: Result = run("diff", [a, b], progress, flags)
    except VerifyError as e:
        if e.result is None:
            raise
        return e.result
    return found


def inspect(path: StrPath, *, progress: Progress | None = None, **flags: Unpack[InspectFlags]) -> Result:
    """Lists layers, other tensors and metadata: `tensorpress inspect PATH`.

    Args:
        path: what is looked into.
        progress: as in `quantize`, with `hash`.
        flags: `hash` reads all for the sha256 of each tensor.
    """
    found: Result = run("inspect", [path], progress, flags)
    return found


def ctq(*words: StrPath) -> str:
    """Takes the command line of convert_to_quant: `tensorpress ctq WORDS…`.

        tensorpress.ctq("-i", "model.safetensors", "-o", "small.safetensors", "--simple", "--int8")

    Returns:
        What it prints.
    """
    return execute([find(), "ctq", *(os.fspath(word) for word in words)])


def formats() -> list[Result]:
    """Lists every dtype, its range and who loads it: `tensorpress formats`."""
    found: list[Result] = run("formats", [], None, {})
    return found


def presets(name: str | None = None) -> list[Result]:
    """Lists the model families and what they keep, or one: `tensorpress presets`."""
    found: list[Result] = run("presets", [name] if name else [], None, {})
    return found


def doctor(**flags: Unpack[DoctorFlags]) -> Result:
    """Says what the machine has, and which applications here load outputs: `tensorpress doctor`."""
    found: Result = run("doctor", [], None, flags)
    return found
