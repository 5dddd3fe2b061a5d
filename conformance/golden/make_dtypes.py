"""Writes sdnq's own dtype table to dtype/testdata, for the test of package dtype."""
import os
import pathlib
import sys
from importlib.metadata import version

os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"
from sdnq.common import dtype_dict  # noqa: E402

root = pathlib.Path(__file__).resolve().parents[2]
path = root / "dtype" / "testdata" / f"sdnq-{version('sdnq')}.tsv"
with open(path, "w", encoding="utf-8") as out:
    out.write(f"# sdnq {version('sdnq')}, torch {version('torch')}: sdnq.common.dtype_dict, made by conformance/golden/make_dtypes.py\n")
    out.write("# name bits exponent mantissa unsigned integer min max\n")
    for name, row in dtype_dict.items():
        fields = (
            name, row["num_bits"], row["exponent"], row["mantissa"],
            str(row["is_unsigned"]).lower(), str(row["is_integer"]).lower(),
            repr(float(row["min"])), repr(float(row["max"])),
        )
        out.write("\t".join(map(str, fields)) + "\n")
print(path, len(dtype_dict), file=sys.stderr)
