"""What importing the package takes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"


def run(code: str) -> str:
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {code}"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout


def test_commands_need_the_standard_library_alone() -> None:
    code = "before = set(sys.modules); import tensorpress; print(*(set(sys.modules) - before))"
    names = {name.partition(".")[0] for name in run(code).split()}
    assert names - set(sys.stdlib_module_names) == {"tensorpress"}

    # no part of the standard library that takes as long as all of these
    slow = {"asyncio", "email", "http", "importlib.metadata", "inspect", "typing_extensions", "unittest", "zipfile"}
    assert not slow & set(run(code).split())


def test_they_are_there_at_once() -> None:
    times = []
    for code in ("pass", "import tensorpress"):
        start = time.perf_counter()
        run(code)
        times.append(time.perf_counter() - start)
    print(f"python alone takes {times[0]:.3f} s, with the package {times[1]:.3f} s")


def test_without_torch_it_says_what_to_install() -> None:
    for missing in ("torch", "safetensors"):
        code = (
            "sys.modules.update(torch=sys, safetensors=sys)\n"
            f"sys.modules[{missing!r}] = None\n"
            "try:\n import tensorpress.torch\n"
            "except ImportError as e: print(e)"
        )
        assert run(code) == f"tensorpress.torch needs {missing}: pip install 'tensorpress[torch]'\n"
