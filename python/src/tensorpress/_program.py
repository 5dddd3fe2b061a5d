"""Finds the program, runs it and reads what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from .errors import BY_STATUS, ProgramNotFoundError, RunError, TensorpressError

StrPath: TypeAlias = "str | os.PathLike[str]"
Value: TypeAlias = "str | int | float | bool | os.PathLike[str] | None"
#: What a flag may be given: a list repeats it, a mapping gives PATTERN=SETTINGS.
Flag: TypeAlias = "Value | Iterable[Value] | Mapping[str, str]"
#: Called with what is done and what there is to do, in bytes.
Progress: TypeAlias = Callable[[int, int], None]

NAME = "tensorpress.exe" if sys.platform == "win32" else "tensorpress"


def find() -> str:
    """Returns the path of the program: what the environment's TENSORPRESS names, else
    the file of its name in this package's folder, else the first on the PATH."""
    named = os.environ.get("TENSORPRESS")
    if named:
        found = shutil.which(named)
        if found is None:
            raise ProgramNotFoundError(f"TENSORPRESS is {named}, which is no program")
        return found
    beside = Path(__file__).with_name(NAME)
    if os.access(beside, os.X_OK) and beside.is_file():
        return str(beside)
    found = shutil.which(NAME)
    if found is None:
        raise ProgramNotFoundError(
            f"no {NAME} beside {beside.parent} or on the PATH: install it "
            "(go install github.com/tensorpress/tensorpress/cmd/tensorpress@latest), or set TENSORPRESS to its path"
        )
    return found


def run(command: str, paths: Iterable[StrPath | None], progress: Progress | None, flags: Mapping[str, Flag]) -> Any:
    """Runs a command and returns its JSON. progress is for commands that have it."""
    line = [find(), command, *arguments(flags), "--json"]
    if progress is not None:
        line.append("--progress=json")
    line += ["--", *(os.fspath(p) for p in paths if p is not None)]
    return execute(line, progress)


def arguments(flags: Mapping[str, Flag]) -> list[str]:
    """Makes a command line of keyword arguments: underscores are dashes, and one at the
    end is for words that Python keeps (for_). None leaves a flag out."""
    line: list[str] = []
    for key, given in flags.items():
        name = "--" + key.rstrip("_").replace("_", "-")
        if isinstance(given, Mapping):
            values: Iterable[Value] = [f"{pattern}={settings}" for pattern, settings in given.items()]
        elif isinstance(given, Iterable) and not isinstance(given, (str, os.PathLike)):
            values = given
        else:
            values = [given]
        line += [f"{name}={text(v)}" for v in values if v is not None]
    return line


def text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return str(value)


def execute(line: list[str], progress: Progress | None) -> Any:
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None and process.stderr is not None
        out: list[str] = []
        # Both pipes are read at once: either could fill up while the other is read.
        reader = threading.Thread(target=lambda stream: out.append(stream.read()), args=(process.stdout,))
        reader.start()
        try:
            said = [words for words in map(str.rstrip, process.stderr) if words and not report(words, progress)]
        except BaseException:  # the callback's, or an interruption: the program must not go on alone
            process.terminate()
            raise
        finally:
            reader.join()
    result = parse("".join(out))
    if process.returncode == 0:
        return result
    raise failure(process.returncode, said, result)


def report(words: str, progress: Progress | None) -> bool:
    """Takes a line of progress; any other is left."""
    if progress is None or not words.startswith('{"done":'):
        return False
    try:
        found = json.loads(words)
    except ValueError:
        return False
    progress(int(found["done"]), int(found["total"]))
    return True


def parse(words: str) -> Any:
    try:
        return json.loads(words)
    except ValueError:
        return None


def failure(status: int, said: list[str], result: Any) -> TensorpressError:
    """The error of an exit status, with the program's last line, which says what is wrong."""
    message = next((line for line in reversed(said) if not line.startswith("note: ")), "")
    message = message.removeprefix("tensorpress: ").removeprefix("error: ")
    if not message:
        message = f"tensorpress ended with status {status}"
    found = result if isinstance(result, dict) else None
    return BY_STATUS.get(status, RunError)(message, status, found)
