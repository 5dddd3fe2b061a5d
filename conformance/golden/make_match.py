#!/usr/bin/env python3
"""Which names sdnq's list entries match, and what its dtype lists make of them.

    python conformance/golden/make_match.py [FOLDER]

writes FOLDER/match.tsv (a first row with all names, then an entry and the names
that it matches, or the exception) and FOLDER/minimum.tsv (dtype, key, the dtype
that the key gives, or the exception). Default FOLDER: internal/sdnqconfig/testdata of
this repository. It only calls sdnq.
"""
import os
import pathlib
import sys

os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"

from sdnq.common import dtype_dict
from sdnq.utils import check_param_name_in, get_minimum_dtype

NAMES = """
proj_out.weight proj_out_2.weight blocks.0.proj_out.weight blocks.0.attn.to_q.weight blocks.10.attn.to_q.weight
blocks.0.attn2.to_q.weight blocksx0.attn.to_q.weight time_embed.linear_1.weight net.time_embed.weight
model.embed_tokens.weight lm_head.weight model.lm_head.weight lm_head_2.weight a.b.weight a.b.c.weight ab.weight
weight A.B.weight transformer_blocks.0.norm1.linear.weight single_transformer_blocks.0.norm.linear.weight x..y.weight
""".split()

ENTRIES = """
.proj_out .time_embed .blocks.0 . .. proj_out lm_head proj_out.weight blocks.0.attn.to_q.weight blocks.0.attn.to_q
embed_tokens model.embed_tokens model.embed_tokens.weight 0 weight to_q blocks.*.attn blocks.*.attn. blocks.*.attn.to_q.weight
*attn *.attn *attn2* *.weight *norm* transformer_blocks.0.norm* * ** .* a.* a.*.b a.** a*b a?* (a|b)* (?i)A* [ab]* [^a]*
^a* $* \\w* *\\.weight *to_q$ blocks.[0-9].* blocks.\\d+.* *(?<!blocks)\\.0\\.* *?b a{2}* x..y* [* a(* *) *+x proj_out*
""".split()

KEYS = """
uint4 INT8 float8_e4m3fn fp8 float8_e4m3fn_sdnq minimum_6bit minimum-6bit minimum6 6bit 6bits 6-bit 6_bits minimum_uint4
minimum-uint8 minimum_int8 minimum_4bits MINIMUM_5BIT minimum_2 minimum_uint16 minimum_9bit minimum_float6 minimum bit
minimum__6bit minimum_uint_6
""".split()

DTYPES = "int8 uint4 int5 uint2 float6_e3m2fn float8_e4m3fn int16".split()


def attempt(f):
    try:
        return f()
    except Exception as e:
        return f"raise={type(e).__name__}"


def table(path, rows):
    with open(path, "w", newline="\n") as f:
        for row in rows:
            f.write("\t".join(row) + "\n")


folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2] / "internal/sdnqconfig/testdata")
folder.mkdir(parents=True, exist_ok=True)
table(folder / "match.tsv", [("", " ".join(NAMES))] + [
    (entry, attempt(lambda: " ".join(name for name in NAMES if check_param_name_in(name, [entry]) is not None)))
    for entry in ENTRIES])
table(folder / "minimum.tsv", (
    (dtype, key, attempt(lambda: get_minimum_dtype(dtype, "x.weight", {key: ["x"]})))
    for key in KEYS for dtype in DTYPES))
