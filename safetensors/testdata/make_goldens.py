"""Writes the golden files beside this script with the reference implementation.

    pip install safetensors==0.8.0
    python make_goldens.py

The bodies count upwards, so that a misplaced section shows. The files do not
change from run to run.
"""

import ctypes
import pathlib
import sys

import safetensors
from safetensors import TensorSpec, serialize

# The reference's name of each dtype it can write, and the bytes of an element.
# It reads F6_E2M3 and F6_E3M2, but offers no way to write them.
DTYPES = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "float8_e5m2": 1,
    "float8_e4m3fn": 1,
    "float8_e8m0fnu": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "float4_e2m1fn_x2": 1,  # two elements
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "bfloat16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "complex64": 8,
    "float64": 8,
    "int64": 8,
    "uint64": 8,
}


def numel(shape):
    n = 1
    for dim in shape:
        n *= dim
    return n


def encode(tensors, metadata):
    """tensors: (name, dtype, shape) triples."""
    specs, bodies, count = {}, [], 0
    for name, dtype, shape in tensors:
        size = numel(shape) * DTYPES[dtype]
        body = (ctypes.c_uint8 * max(size, 1))(*(i % 251 for i in range(count, count + size)))
        count += size
        bodies.append(body)
        specs[name] = TensorSpec(dtype=dtype, shape=shape, data_ptr=ctypes.addressof(body), data_len=size)
    return bytes(serialize(specs, metadata))


def encode_sorted(tensors, metadata):
    """The reference leaves the order of metadata keys to chance: wait for the sorted one."""
    want = sorted(metadata, key=lambda key: key.encode())
    while True:
        data = encode(tensors, metadata)
        at = [data.index(b'"' + key.encode() + b'":"') for key in want]
        if at == sorted(at):
            return data


CONTROLS = "".join(map(chr, range(0x20))) + '\x7f"\\/<>&\u2028\u2029'
ONE = [("x", "float32", [2])]
NAMES = ["z", "a", "A", "", "a.b", "a-b", "a10", "a2", "é", "e\u0301", "\ufffd", "\uffff", "\U00010000", "名前", "😀", CONTROLS]

GOLDENS = {
    "empty": ([], None),
    "every_dtype": ([(dtype, dtype, [2, 3]) for dtype in DTYPES], None),
    "every_dtype_scalar": ([(dtype, dtype, []) for dtype in DTYPES if dtype != "float4_e2m1fn_x2"], None),
    "metadata_only": ([], {"format": "pt"}),
    "metadata_empty": (ONE, {}),
    "metadata_one": (ONE, {"format": "pt"}),
    "metadata_sorted": (ONE, {"b": "2", "a": "1", "é": "3"}),
    "metadata_escapes": (ONE, {CONTROLS: CONTROLS}),
    "metadata_blank": (ONE, {"": ""}),
    "names": ([(name, "uint8", [i + 1]) for i, name in enumerate(NAMES)], None),
    "names_by_dtype": ([(name, dtype, [1]) for name, dtype in zip("dcba", DTYPES)], None),
    "zero_size": (
        [
            ("a", "float32", [0]),
            ("b", "float32", [2]),
            ("c", "float32", [0, 3]),
            ("d", "float32", [3, 0, 2]),
            ("e", "float32", [1]),
            ("f", "uint8", [0]),
            ("g", "float64", [0]),
        ],
        None,
    ),
    "scalars": ([("b", "float32", []), ("a", "float32", []), ("c", "bfloat16", [])], None),
    "rank_8": ([("x", "int8", [1, 2, 1, 3, 1, 1, 2, 1])], None),
}
# Each length of padding.
GOLDENS |= {f"padding_{n}": ([("x" * (n + 1), "uint8", [1])], None) for n in range(8)}


def main():
    print("python", sys.version.split()[0], "safetensors", safetensors.__version__)
    here, total = pathlib.Path(__file__).parent, 0
    for name, (tensors, metadata) in GOLDENS.items():
        order = encode_sorted if metadata and len(metadata) > 1 else encode
        data = order(tensors, metadata)
        (here / f"{name}.safetensors").write_bytes(data)
        total += len(data)
    print(len(GOLDENS), "files,", total, "bytes")


if __name__ == "__main__":
    main()
