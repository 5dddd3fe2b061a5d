"""python -m tensorpress: the program, as it was installed with this package."""

from __future__ import annotations

import os
import subprocess
import sys

from ._program import find
from .errors import ProgramNotFoundError


def main() -> int:
    try:
        line = [find(), *sys.argv[1:]]
    except ProgramNotFoundError as e:
        print(f"tensorpress: {e}", file=sys.stderr)
        return e.status
    if sys.platform != "win32":
        os.execv(line[0], line)  # its signals and its status are then the caller's
    try:
        return subprocess.call(line)
    except KeyboardInterrupt:  # which the program got as well, and has ended
        return 130


if __name__ == "__main__":
    sys.exit(main())
