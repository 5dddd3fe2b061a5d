#!/bin/sh
# make.sh PYTHON WHEEL: makes every golden file again (see README.md).
set -eu
python=$1
here=$(dirname "$0")
"$python" "$here/make_minilm.py" "$2"
"$python" "$here/make_sdnq.py"
"$python" "$here/make_sdnq_options.py"
"$python" "$here/make_sdnq_files.py"
"$python" "$here/make_ctq.py"
"$python" "$here/make_ctq_lines.py"
"$python" "$here/make_kitchen.py"
"$python" "$here/make_rotation.py"
"$python" "$here/make_codebook.py"
"$python" "$here/make_comfy.py"
"$python" "$here/make_match.py"
"$python" "$here/make_dtypes.py"
"$python" "$here/make_dynamic.py"
"$python" "$here/make_foreign.py"
"$python" "$here/make_modes.py"
