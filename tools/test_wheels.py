"""What tools/wheels.py says where it cannot work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_it_says_what_is_missing() -> None:
    """-S leaves out all that is installed, the package build too."""
    line = [sys.executable, "-S", str(Path(__file__).with_name("wheels.py")), "linux/amd64"]
    ran = subprocess.run(line, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith("the package build is missing: pip install build, or uv run ")
