"""What the node's fields say to the program. Nothing here needs ComfyUI."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

#: What the node offers first; a dtype of any other name goes into its flags.
DTYPES = (
    "sdnq:uint4",
    "sdnq:int8",
    "sdnq:uint8",
    "sdnq:int4",
    "sdnq:uint5",
    "sdnq:uint6",
    "sdnq:float4_e2m1fn",
    "sdnq:float8_e4m3fn",
    "int8_tensorwise",
    "float8_e4m3fn",
    "nvfp4",
    "mxfp8",
    "convrot_w4a4",
    "asym_w4a8_int8",
)
#: What the program does without a model: not for a node.
REFUSED = ("layout", "json", "progress", "verbose", "quiet", "q", "dry-run", "help", "h")


def collect(dtype: str, group_size: int, svd_rank: int, hadamard: bool, more: str, overwrite: bool) -> dict[str, Any]:
    """Returns the keyword arguments of tensorpress.quantize.

    Args:
        group_size: 0 for the program's own choice.
        svd_rank: 0 for none.
        more: further flags as on a command line; those win.
    """
    found: dict[str, Any] = {"layout": "comfy", "dtype": dtype}
    if group_size:
        found["group_size"] = group_size
    if svd_rank:
        found["svd_rank"] = svd_rank
    if hadamard:
        found["hadamard"] = True
    if overwrite:
        found["force"] = True
    for name, values in parse(more).items():
        if name in REFUSED:
            raise ValueError(f"--{name} is not for this node")
        found[name.replace("-", "_")] = values if len(values) > 1 else values[0]
    return found


def parse(line: str) -> dict[str, list[str | bool]]:
    """Reads flags as of a command line: --name value, --name=value, --name."""
    found: dict[str, list[str | bool]] = {}
    name = ""
    for word in shlex.split(line):
        if re.match(r"--?[A-Za-z]", word):
            name, given, value = word.lstrip("-").partition("=")
            found.setdefault(name, []).append(value if given else True)
        elif name and found[name][-1] is True:
            found[name][-1] = word
        else:
            raise ValueError(f"{word}: want a flag, such as --keep PATTERN")
    return found


def beside(source: str, name: str) -> str:
    """Returns the path of a file of a name in the folder of the source."""
    name = name.strip()
    if not name:
        raise ValueError("name: want the name of a file, got nothing")
    if not name.endswith(".safetensors"):
        name += ".safetensors"
    folder = os.path.dirname(os.path.abspath(source))
    found = os.path.abspath(os.path.join(folder, name))
    if os.path.dirname(found) != folder or os.path.basename(found) != name or "\\" in name:
        raise ValueError(f"name: want the name of a file, got {name}")
    if os.path.exists(found) and os.path.samefile(found, source):
        raise ValueError(f"{name} is the file that is to be quantized")
    return found
