"""What planning a part of a 1 TB model takes, and how equal its parts are.

    python plan.py TENSORPRESS

DeepSeek-V3 as sparse files (deepseek.py), as published in FP8 and restored to BF16, in 64
parts: the processor time of `plan --part I/64`, which a machine that does other things too
changes less than the time, its peak memory, and the bytes of the smallest and the largest
part. Only the standard library is used.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deepseek import make

PARTS = 64
# every weight is quantized: the most that a plan has to say
SETTINGS = ["--dtype", "uint4", "--preset", "none"]


def used() -> float:
    """The processor time of all processes that ended, in seconds."""
    u = resource.getrusage(resource.RUSAGE_CHILDREN)
    return u.ru_utime + u.ru_stime


def measure(tool: Path, model: Path) -> None:
    times: list[float] = []
    parts: list[int] = []
    largest = total = 0
    for i in range(1, PARTS + 1):
        command = [str(tool), "plan", str(model), f"{model}-uint4", *SETTINGS, "--part", f"{i}/{PARTS}", "--json"]
        begun = used()
        done = subprocess.run(command, capture_output=True, text=True)
        times.append(used() - begun)
        if done.returncode:
            raise SystemExit(done.stderr)
        shards = json.loads(done.stdout)["shards"]
        parts.append(sum(f["bytes"] for f in shards["files"]))
        largest = max([largest, *(f["bytes"] for f in shards["files"])])
        total = shards["count"]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    times.sort()
    print(
        f"{model.name}: {total} files of up to {largest / 1e9:.1f} GB; parts of {min(parts) / 1e9:.2f} to "
        f"{max(parts) / 1e9:.2f} GB; plan: median {times[PARTS // 2]:.2f} s of processor time, "
        f"most {times[-1]:.2f} s, {peak:.0f} MiB"
    )
    assert max(parts) - min(parts) <= largest, "the parts differ by more than a file"
    assert times[PARTS // 2] < 2, "a plan takes 2 s or more"
    assert peak < 256, "a plan takes 256 MiB or more"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tensorpress")
    args = parser.parse_args()
    tool = Path(shutil.which(args.tensorpress) or args.tensorpress).resolve()
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        for name, fp8 in (("fp8", True), ("bf16", False)):
            count, size = make(Path(folder) / name, fp8)
            print(f"{name}: {count} tensors, {size / 1e9:.0f} GB")
            measure(tool, Path(folder) / name)


if __name__ == "__main__":
    main()
    sys.exit(0)
