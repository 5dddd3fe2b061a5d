"""Quantizes a file with sdnq as its users do: a model of linear layers, saved.

    python sdnq.py SOURCE.safetensors FOLDER SETTINGS.json
"""
import json
import sys
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sdnq import SDNQConfig, sdnq_post_load_quant

start = time.perf_counter()


class Model(torch.nn.Module):
    """Modules by the names of the tensors."""

    def __init__(self, path):
        super().__init__()
        with safe_open(path, "pt") as f:
            tensors = {k: f.get_tensor(k) for k in f.keys()}
        for name in list(tensors):
            if name not in tensors or not name.endswith(".weight") or tensors[name].ndim != 2:
                continue
            weight, bias = tensors.pop(name), tensors.pop(name[:-6] + "bias", None)
            with torch.device("meta"):
                layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
            layer.weight = torch.nn.Parameter(weight, requires_grad=False)
            if bias is not None:
                layer.bias = torch.nn.Parameter(bias, requires_grad=False)
            self.put(name[:-7], layer)
        for name, value in tensors.items():
            self.put(name, torch.nn.Parameter(value, requires_grad=False))

    def put(self, name, value):
        at = self
        *path, last = name.split(".")
        for part in path:
            if part not in at._modules:
                at.add_module(part, torch.nn.Module())
            at = at._modules[part]
        setattr(at, last, value)


source, folder, settings = sys.argv[1:]
model = Model(source)
model = sdnq_post_load_quant(model, torch_dtype=torch.bfloat16, quantization_config=SDNQConfig(**json.loads(settings)))
save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder + "/model.safetensors", metadata={"format": "pt"})
print("seconds", time.perf_counter() - start)
