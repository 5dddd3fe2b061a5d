"""Finds the program, runs it and reads what it says."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from .errors import BY_STATUS, ProgramNotFoundError, RunError, TensorpressError

StrPath: TypeAlias = "str | os.PathLike[str]"
#: Called with what is done and what there is to do, in bytes.
Progress: TypeAlias = Callable[[int, int], None]

PACKAGE = Path(__file__).resolve().parent
NAME = "tensorpress.exe" if sys.platform == "win32" else "tensorpress"


def find() -> str:
    """Returns the path of the program: what the environment's TENSORPRESS names, else
    what was installed with this package, else the first on the PATH."""
    named = os.environ.get("TENSORPRESS")
    if named:
        found = shutil.which(named)
        if found is None:
            raise ProgramNotFoundError(f"TENSORPRESS is {named}, which is no program: set it to its path, or unset it")
        return found
    for path in installed():
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    found = shutil.which(NAME)
    if found is None:
        raise ProgramNotFoundError(
            f"no {NAME} was installed with {PACKAGE} or is on the PATH: install it "
            "(pip install --force-reinstall tensorpress), or set TENSORPRESS to its path"
        )
    return found


def installed() -> Iterator[Path]:
    """Yields where an installer may have put the program: it lists its files in a record,
    but for pip install --target, which moves them afterwards."""
    yield PACKAGE.parent / "bin" / NAME
    # imported here, since it takes as long as all of the package
    from importlib.metadata import PackageNotFoundError, distribution

    with contextlib.suppress(PackageNotFoundError):
        for file in distribution("tensorpress").files or ():
            if file.name == NAME:
                yield Path(os.path.normpath(file.locate()))


def run(command: str, paths: Iterable[StrPath | None], progress: Progress | None, flags: Mapping[str, object]) -> Any:
    """Runs a command and returns its JSON. progress is for commands that have it."""
    line = [find(), command, *arguments(flags), "--json"]
    if progress is not None:
        line.append("--progress=json")
    line += ["--", *(os.fspath(p) for p in paths if p is not None)]
    words = execute(line, progress)
    try:
        return json.loads(words)
    except ValueError:
        raise RunError(f"{line[0]} printed no JSON: is it tensorpress?") from None


def arguments(flags: Mapping[str, object]) -> list[str]:
    """Makes a command line of keyword arguments: underscores are dashes, and one at the
    end is for words that Python keeps (for_). A list repeats a flag, a mapping gives
    PATTERN=SETTINGS, None leaves it out."""
    line: list[str] = []
    for key, given in flags.items():
        name = "--" + key.rstrip("_").replace("_", "-")
        if isinstance(given, Mapping):
            values: Iterable[object] = [f"{pattern}={settings}" for pattern, settings in given.items()]
        elif isinstance(given, Iterable) and not isinstance(given, (str, os.PathLike)):
            values = given
        else:
            values = [given]
        line += [f"{name}={text(v)}" for v in values if v is not None]
    return line


def text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(os.fspath(value)) if isinstance(value, os.PathLike) else str(value)


def execute(line: list[str], progress: Progress | None = None) -> str:
    """Runs a command line and returns what it prints."""
    try:
        process = start(line)
    except OSError as e:
        raise ProgramNotFoundError(f"{line[0]} does not run: {e.strerror}") from None
    with process:
        assert process.stdout is not None and process.stderr is not None
        out: list[str] = []
        # Both pipes are read at once: either could fill up while the other is read.
        reader = threading.Thread(target=lambda stream: out.append(stream.read()), args=(process.stdout,))
        reader.start()
        try:
            said = [words for words in map(str.rstrip, process.stderr) if words and not report(words, progress)]
        except BaseException:  # the callback's, or an interruption: the program must not go on alone
            stop(process)
            raise
        finally:
            reader.join()
    found = "".join(out)
    if process.returncode:
        raise failure(process.returncode, said, found)
    return found


def start(line: list[str]) -> subprocess.Popen[str]:
    """Starts the program where no key of the terminal reaches it. It cleans up after one
    signal, and a second ends it at once: it must not get one from there and one from here."""
    apart: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        errors="surrogateescape", **apart,
    )  # fmt: skip


def stop(process: subprocess.Popen[str]) -> None:
    """Tells the program to end, and takes what it has still to say: it removes what it
    has half written."""
    if sys.platform == "win32":
        process.send_signal(signal.CTRL_BREAK_EVENT)  # to terminate would not let it
    else:
        process.terminate()
    assert process.stderr is not None
    with contextlib.suppress(Exception):
        process.stderr.read()


def report(words: str, progress: Progress | None) -> bool:
    """Takes a line of progress; any other is left."""
    if progress is None or not words.startswith('{"done":'):
        return False
    try:
        found = json.loads(words)
    except ValueError:
        return False
    if found["total"]:  # else nobody knows yet what there is to do
        progress(int(found["done"]), int(found["total"]))
    return True


def failure(status: int, said: list[str], printed: str) -> TensorpressError:
    """The error of an exit status, with the program's last line, which says what is wrong."""
    message = next((line for line in reversed(said) if not line.startswith("tensorpress: note: ")), "")
    message = message.removeprefix("tensorpress: ").removeprefix("error: ")
    if not message:
        ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        message = f"tensorpress {ended}"
    result = None
    with contextlib.suppress(ValueError):
        result = json.loads(printed)
    return BY_STATUS.get(status, RunError)(message, status, result if isinstance(result, dict) else None)
