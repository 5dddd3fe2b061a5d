"""Makes a layer of comfy-kitchen's SVDQuant layout and what it restores.

svdquant.py [TENSORPRESS]: writes testdata/golden/svdquant.safetensors, a layer with random
codes whose scales and factors are F32, so that comfy-kitchen's own dequantization, which
multiplies an identity, is exact but for last bits; with TENSORPRESS it also compares what
the program restores of it, and of a BF16 one, with comfy-kitchen's values.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from comfy_kitchen.tensor import TensorCoreSVDQuantW4A4Layout as Layout
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS, COLUMNS, RANK = 20, 192, 4


def layer(dtype):
    g = torch.Generator().manual_seed(5)
    r = lambda *shape: torch.randn(shape, generator=g)
    codes = torch.randint(-128, 128, (ROWS, COLUMNS // 2), generator=g, dtype=torch.int8)
    params = Layout.Params(
        scale=(r(COLUMNS // 64, ROWS).abs() + 0.1).to(dtype) / 64, orig_dtype=dtype, orig_shape=(ROWS, COLUMNS),
        proj_down=r(COLUMNS, RANK).to(dtype), proj_up=r(ROWS, RANK).to(dtype), smooth_factor=(r(COLUMNS).abs() + 0.5).to(dtype))
    state = {"x.weight" + k: v.contiguous() for k, v in Layout.state_dict_tensors(codes, params).items()}
    state["x.comfy_quant"] = torch.tensor(list(json.dumps({"format": "svdquant_w4a4"}).encode()), dtype=torch.uint8)
    return state, Layout.dequantize(codes, params).float()


def restored(binary, state):
    with tempfile.TemporaryDirectory() as tmp:
        save_file(state, tmp + "/a.safetensors")
        subprocess.run([binary, "dequantize", tmp + "/a.safetensors", tmp + "/b.safetensors", "--dtype", "f32", "-q"], check=True, stdout=subprocess.DEVNULL)
        return load_file(tmp + "/b.safetensors")["x.weight"]


state, values = layer(torch.float32)
golden = ROOT / "testdata" / "golden" / "svdquant.safetensors"
save_file(state, golden)
save_file({"x.weight": values.contiguous()}, golden.with_name("svdquant_restored.safetensors"))
failed = False
for binary in sys.argv[1:2]:
    for dtype, most in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        state, values = layer(dtype)
        worst = ((restored(binary, state) - values).abs().max() / values.abs().max()).item()
        failed = failed or worst > most
        print(f"{'ok  ' if worst <= most else 'FAIL'} {dtype}: worst {worst:.1e} of the greatest value")
sys.exit(failed)
