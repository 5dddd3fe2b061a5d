"""Every command of the program is a function, and every flag a keyword argument."""

from __future__ import annotations

import keyword
import re
import typing

import make_flags

import tensorpress
from tensorpress import _flags


def test_every_command_is_a_function(program: str) -> None:
    commands = make_flags.commands()
    assert {"quantize", "plan", "verify", "dequantize", "transcode", "migrate", "ctq"} <= set(commands)
    functions = {name for name in tensorpress.__all__ if name.islower() and name != "find"}
    assert functions == set(commands) - set(make_flags.OTHER)


def test_every_flag_is_a_keyword(program: str) -> None:
    table = make_flags.table()
    classes = [name for name in vars(_flags) if name.endswith("Flags")]
    assert sorted(table) == sorted(name.removesuffix("Flags").lower() for name in classes)
    for command, flags in table.items():
        typed = getattr(_flags, f"{command.capitalize()}Flags")
        keys = set(typed.__annotations__)
        assert getattr(tensorpress, typed.__name__) is typed
        said = make_flags.said(command, "--help")
        # Not by make_flags' own reading of the help.
        names = set(re.findall(r"^ {2,6}(?:-\w, )?--([\w-]+)", said, re.MULTILINE)) - set(make_flags.OWN)
        assert keys == {name.replace("-", "_") + "_" * keyword.iskeyword(name) for name in names}, command
        assert {flag.key for flag in flags} == keys, command
        assert f"Unpack[{typed.__name__}]" in typing.cast(str, getattr(tensorpress, command).__annotations__["flags"])


def test_types_are_those_of_the_help(program: str) -> None:
    assert make_flags.text() == (make_flags.SOURCE / "tensorpress" / "_flags.py").read_text(encoding="utf-8")
