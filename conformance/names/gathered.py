"""What internal/names says of the rows of quantized layers, carried out on their bytes."""
import functools
import os
import pathlib
import subprocess
import tempfile

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
BY_ROWS, WHOLE, UP, DOWN = range(4)


@functools.cache
def tests():
    """The package's tests as a program."""
    program = pathlib.Path(tempfile.mkdtemp()) / "names.test"
    subprocess.run(["go", "test", "-c", "-o", program, "./internal/names"], cwd=ROOT, check=True)
    return program


def shape_text(shape):
    return ",".join(str(n) for n in shape)


def data(t):
    return t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def gather(layers, parts, same=(), tile=5):
    """The tensors of a layer made of parts, by role, or why there is none: layers are
    rows, settings and by role a tensor and how it lies along the rows."""
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
        for name, (rows, settings, tensors) in layers.items():
            file.write(f"layer\t{name}\t{rows}\t{settings}\n")
            for role, (t, *lies) in tensors.items():
                words = ["stored", name, role, str(t.dtype).removeprefix("torch."), t.element_size(), shape_text(t.shape), *lies]
                file.write("\t".join(map(str, words)) + "\n")
        for name, a, b in parts:
            file.write(f"part\t{name}\t{a}\t{b}\n")
        for role in same:
            file.write(f"same\t{role}\n")
        file.write(f"tile\t{tile}\n")
        file.flush()
        run = subprocess.run([tests(), "-test.v", "-test.run", "^TestGatherOf$"], cwd=ROOT / "internal/names", text=True, capture_output=True,
                             env=os.environ | {"TENSORPRESS_ROWS_OF": file.name})
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)
    out, sources = {}, {}
    for line in run.stdout.splitlines():
        match line.split("\t"):
            case ["refused", why]:
                return why
            case ["tensor", role, dtype, shape]:
                shape, dtype = [int(n) for n in shape.split(",") if n], getattr(torch, dtype)
                out[role] = bytearray(torch.empty(shape, dtype=dtype).nbytes), dtype, shape
            case ["run", role, to, size, source, at] if source:
                if (source, role) not in sources:
                    sources[source, role] = data(layers[source][2][role][0])
                out[role][0][int(to):int(to) + int(size)] = sources[source, role][int(at):int(at) + int(size)]
    return {role: torch.frombuffer(held, dtype=torch.uint8).view(dtype).reshape(shape) for role, (held, dtype, shape) in out.items()}
