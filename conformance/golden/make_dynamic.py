"""The dtypes that sdnq's dynamic quantization chooses for testdata/minilm.safetensors.

Writes testdata/golden/dynamic.tsv: settings as JSON, then modules_dtype_dict and
modules_to_not_use_matmul as sdnq saves them, lists sorted.
"""
import json
import os
import pathlib
from importlib.metadata import version

os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from sdnq import SDNQConfig  # noqa: E402
from sdnq.quantizer import sdnq_post_load_quant  # noqa: E402

root = pathlib.Path(__file__).resolve().parents[2]
weights = load_file(root / "testdata" / "minilm.safetensors")

CASES = (
    {"weights_dtype": "uint4"},
    {"weights_dtype": "int5", "use_hadamard": True},
    {"weights_dtype": "uint2", "dynamic_loss_threshold": 0.001},
    {"weights_dtype": "uint4", "use_codebook": True},
    {"weights_dtype": "int2"},
    {"weights_dtype": "int8"},
    {"weights_dtype": "int4", "group_size": 32, "use_quantized_matmul": True},
    {"weights_dtype": "float4_e2m1fn", "dynamic_loss_threshold": 0.002},
    {"weights_dtype": "uint7", "dynamic_loss_threshold": 1e-05, "use_quantized_matmul": True},
    {"weights_dtype": "int15", "dynamic_loss_threshold": 1e-12},
)


def model():
    """Linear modules under the names of the checkpoint, embeddings left out."""
    top = torch.nn.Module()
    for name, weight in weights.items():
        if not name.endswith(".weight") or weight.dim() != 2 or "embedd" in name:
            continue
        *path, last = name.removesuffix(".weight").split(".")
        at = top
        for part in path:
            if not hasattr(at, part):
                at.add_module(part, torch.nn.Module())
            at = getattr(at, part)
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = weight.clone()
        at.add_module(last, layer)
    return top


with open(root / "testdata" / "golden" / "dynamic.tsv", "w", encoding="utf-8") as out:
    out.write(f"# sdnq {version('sdnq')}, torch {version('torch')}: settings, modules_dtype_dict, modules_to_not_use_matmul\n")
    for case in CASES:
        config = SDNQConfig(use_dynamic_quantization=True, add_skip_keys=False, **case)
        saved = sdnq_post_load_quant(model(), torch_dtype=torch.float32, quantization_config=config).quantization_config
        saved = saved.to_dict() if hasattr(saved, "to_dict") else saved
        dtypes = {key: sorted(names) for key, names in saved["modules_dtype_dict"].items()}
        fields = (case, dtypes, sorted(saved["modules_to_not_use_matmul"]))
        out.write("\t".join(json.dumps(f, sort_keys=True) for f in fields) + "\n")
