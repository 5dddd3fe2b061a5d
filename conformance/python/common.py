"""What the scripts share: they run again with the Python that has the references."""
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def start():
    if not os.environ.get("PYTHON_CONFORMANCE"):
        python = os.environ.get("PYTHON", sys.executable)
        env = dict(os.environ, PYTHON_CONFORMANCE="1", SDNQ_USE_TORCH_COMPILE="0", HF_HUB_OFFLINE="1", PYTHONDONTWRITEBYTECODE="1")
        os.execve(python, [python, *sys.argv], env)
    sys.path.insert(0, str(ROOT / "python" / "src"))
    import torch

    torch.set_num_threads(1)
