#!/usr/bin/env python3
"""Makes the types of the commands' keyword arguments, of what the program's help says.

TENSORPRESS=… python tests/make_flags.py
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parent.parent / "src"
sys.path.insert(0, str(SOURCE))

from tensorpress import _program  # noqa: E402

#: Commands of the program that are no functions: for shells.
OTHER = ("completion",)
#: Flags that every function gives itself, and those of what is printed as text.
OWN = ("json", "progress", "help", "version", "all")

HEAD = '''"""The flags of each command, as keyword arguments. Made by tests/make_flags.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TypedDict

_Path = str | PathLike[str] | None
'''


class Flag(NamedTuple):
    """A flag as the help has it."""

    name: str
    value: str  # what it takes, "" for a switch
    about: str

    @property
    def key(self) -> str:
        key = self.name.replace("-", "_")
        return key + "_" * keyword.iskeyword(key)

    @property
    def type(self) -> str:
        if self.value == "PATTERN=SETTINGS":
            return "Mapping[str, str] | Iterable[str] | str | None"
        if "repeatable" in self.about:
            return "Iterable[str] | str | None"
        if not self.value:
            return "bool | None"
        if self.value in ("N", "int"):
            return "int | None"
        if self.value in ("FILE", "PATH", "SOURCE"):
            return "_Path"
        if self.value in ("SIZE", "SIZE|N%"):
            return "str | int | None"
        if self.value == "X" or self.name.endswith("threshold"):
            return "str | float | None"
        return "str | None"


def said(*args: str) -> str:
    return subprocess.run([_program.find(), *args], capture_output=True, text=True, check=True).stdout


def commands() -> list[str]:
    """The commands that the program has."""
    part = said("--help").split("\nCommands:\n")[1].split("\n\n")[0]
    return [line.split()[0] for line in part.splitlines()]


def flags(command: str) -> list[Flag]:
    """The flags of a command, but for those that functions give themselves."""
    found: list[list[str]] = []
    for line in said(command, "--help").splitlines():
        start = re.match(r"  (?:-\w, |    )--([\w-]+)(?: (\S.*?))?(?:  +(.*))?$", line)
        if start:
            found.append([start[1], start[2] or "", start[3] or ""])
        elif found and re.match(r" {12,}\S", line):
            found[-1][2] += " " + line.strip()
        elif not line.startswith("  "):
            found += [["", "", ""]]
    return [Flag(*words) for words in found if words[0] and words[0] not in OWN]


def table() -> dict[str, list[Flag]]:
    """Commands with flags. What another has all of comes after it."""
    found = {name: flags(name) for name in commands() if name not in (*OTHER, "ctq")}
    return {name: own for name, own in sorted(found.items(), key=lambda item: len(item[1])) if own}


def text() -> str:
    """The module."""
    parts = [HEAD]
    done: dict[str, list[Flag]] = {}
    for command, own in table().items():
        base = next((name for name in reversed(done) if set(done[name]) <= set(own)), "")
        inherited = set(done.get(base, []))
        lines = [
            f"class {command.capitalize()}Flags({base.capitalize() + 'Flags' if base else 'TypedDict'}, total=False):"
        ]
        lines += [f'    """Those of `tensorpress {command}`."""', ""]
        for flag in own:
            if flag not in inherited:
                lines += [*textwrap.wrap(flag.about, 112, initial_indent="    #: ", subsequent_indent="    #: ")]
                lines.append(f"    {flag.key}: {flag.type}")
        parts.append("\n".join(lines) + "\n")
        done[command] = own
    return "\n\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    (SOURCE / "tensorpress" / "_flags.py").write_text(text(), encoding="utf-8")
