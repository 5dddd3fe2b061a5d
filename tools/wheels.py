#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["build"]
# ///
"""Makes the wheels of every platform, and the archive of the sources, of what is checked
out, and looks into each.

    python tools/wheels.py                        # all of them, into dist/
    python tools/wheels.py linux/amd64            # one, and no archive
    uv run tools/wheels.py                        # where the package build is not installed

The program is built without cgo, so that one machine with Go makes them all; it must not
be Windows, which has no bit for what may be run. The same commit and the same Go give the
same bytes.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import struct
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "python"

#: What of the environment could change what Go builds.
CHANGING = ("GOFLAGS", "GOAMD64", "GOARM64", "GOEXPERIMENT", "GOFIPS140")


class Program(NamedTuple):
    """What the header of a program says."""

    platform: str  # as Go names it
    needs: str  # a dynamic linker, or a system's version; "" for nothing


def main() -> int:
    with open(PROJECT / "pyproject.toml", "rb") as f:
        tags: dict[str, str] = tomllib.load(f)["tool"]["hatch"]["build"]["hooks"]["custom"]["tags"]
    options = argparse.ArgumentParser(description="Makes wheels of every platform.")
    options.add_argument("platforms", nargs="*", metavar="GOOS/GOARCH", help="default: all, and the archive of sources")
    options.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder for them (default: dist)")
    given = options.parse_args()
    if unknown := set(given.platforms) - set(tags):
        options.error(f"no tags for {', '.join(sorted(unknown))}: want {', '.join(tags)}")
    for platform in given.platforms or tags:
        wheel = make("wheel", given.out, platform)
        check(wheel, platform, tags[platform])
        print(wheel)
    if not given.platforms:
        print(make("sdist", given.out))
    return 0


def make(kind: str, out: Path, platform: str = "") -> Path:
    """Builds a wheel or the archive of the sources, and returns its path."""
    environment = {name: value for name, value in os.environ.items() if name not in CHANGING}
    environment["TENSORPRESS_PLATFORM"] = platform
    environment.setdefault("SOURCE_DATE_EPOCH", said("git", "-C", str(ROOT), "log", "-1", "--format=%ct"))
    if importlib.util.find_spec("build") is None:
        raise SystemExit(f"the package build is missing: pip install build, or uv run {sys.argv[0]}")
    line = [sys.executable, "-m", "build", f"--{kind}", "--outdir", str(out), str(PROJECT)]
    ran = subprocess.run(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode:
        raise SystemExit(f"{ran.stdout}\n{' '.join(line)} failed for {platform or 'the archive'}")
    return out / ran.stdout.split()[-1]


def said(*line: str) -> str:
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def check(wheel: Path, platform: str, tags: str) -> None:
    """Fails for a wheel whose tags promise what its program does not hold."""
    with zipfile.ZipFile(wheel) as archive:
        program = next(file for file in archive.infolist() if "/scripts/tensorpress" in file.filename)
        data = archive.read(program)
    found = read(data)
    wants = f"macOS {tags.split('_')[1]}.{tags.split('_')[2]}" if platform.startswith("darwin/") else ""
    wrong = ""
    if not wheel.stem.endswith("-py3-none-" + tags):
        wrong = f"is not tagged {tags}"
    elif found != Program(platform, wants):
        wrong = f"is tagged for {platform} {wants}, and its program is for {found.platform} {found.needs}"
    elif not program.external_attr >> 16 & 0o111:
        wrong = "has a program that may not be run"
    if wrong:
        raise SystemExit(f"{wheel.name} {wrong}")


def read(data: bytes) -> Program:
    """Reads the header of a program."""
    if data.startswith(b"\x7fELF"):
        processors = {62: "amd64", 183: "arm64"}
        needs = "a dynamic linker" if 3 in segments(data) else ""
        return Program(f"linux/{processors[struct.unpack_from('<H', data, 18)[0]]}", needs)
    if data.startswith(b"\xcf\xfa\xed\xfe"):
        processors = {0x01000007: "amd64", 0x0100000C: "arm64"}
        oldest = next(version for command, version in commands(data) if command == 0x32)  # LC_BUILD_VERSION
        return Program(
            f"darwin/{processors[struct.unpack_from('<I', data, 4)[0]]}", f"macOS {oldest >> 16}.{oldest >> 8 & 0xFF}"
        )
    if data.startswith(b"MZ"):
        processors = {0x8664: "amd64", 0xAA64: "arm64"}
        start = struct.unpack_from("<I", data, 0x3C)[0]
        return Program(f"windows/{processors[struct.unpack_from('<H', data, start + 4)[0]]}", "")
    return Program("no platform that is known", "")


def segments(data: bytes) -> set[int]:
    """Returns the types of the segments of an ELF file; 3 names a dynamic linker."""
    start, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    return {struct.unpack_from("<I", data, start + i * size)[0] for i in range(count)}


def commands(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields the load commands of a Mach-O file, each with its fourth word."""
    at = 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size, _, word = struct.unpack_from("<4I", data, at)
        yield command, word
        at += size


if __name__ == "__main__":
    sys.exit(main())
