"""What the checks of this folder share: a model in shards, and the comparison of outputs."""

import hashlib
import json
import random
import struct
from pathlib import Path


def noise(seed: int, count: int) -> bytes:
    """BF16 values of either sign between 2^-7 and 2^-5."""
    size = 2 * count
    bits = int.from_bytes(random.Random(seed).randbytes(size), "little")
    mask = int.from_bytes(b"\xff\x81" * count, "little")
    exponent = int.from_bytes(b"\x00\x3c" * count, "little")
    return (bits & mask | exponent).to_bytes(size, "little")


def make_model(folder: Path, layers: int, rows: int, cols: int, shards: int) -> None:
    """A llama of linear layers alone, in shards, with a config and a tokenizer."""
    folder.mkdir(parents=True)
    where = {}
    for s in range(shards):
        name = f"model-{s + 1:05}-of-{shards:05}.safetensors"
        header, at, bodies = {}, 0, []
        for i in range(s * layers // shards, (s + 1) * layers // shards):
            body = noise(i, rows * cols)
            tensor = f"model.layers.{i}.mlp.up_proj.weight"
            header[tensor] = {"dtype": "BF16", "shape": [rows, cols], "data_offsets": [at, at + len(body)]}
            at += len(body)
            bodies.append(body)
            where[tensor] = name
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            f.writelines(bodies)
    total = layers * rows * cols * 2
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    (folder / "tokenizer.json").write_text("{}")


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file, hidden ones too."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
