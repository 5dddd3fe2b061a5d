"""Layers that tensorpress quantized, in PyTorch.

`load` puts a file into a model:

    with torch.device("meta"):
        model = Model(config)
    tensorpress.torch.load(model, "small.safetensors", device="cuda")

`read_layer` and `decode` are for who holds the tensors.
"""

try:
    import safetensors as _safetensors  # noqa: F401
    import torch as _torch  # noqa: F401
except ImportError as e:
    raise ImportError(f"tensorpress.torch needs {e.name}: pip install 'tensorpress[torch]'") from e

from .decode import Stored, decode, decode_rows, read_layer
from .errors import LayerError
from .loading import Loaded, LoadError, load
from .modules import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Embedding,
    Linear,
    Quantized,
    multiply_int8,
    prefers_int8,
    swap,
)
from .native import Native
from .scheme import Scheme, parse

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Embedding",
    "LayerError",
    "Linear",
    "LoadError",
    "Loaded",
    "Native",
    "Quantized",
    "Scheme",
    "Stored",
    "decode",
    "decode_rows",
    "load",
    "multiply_int8",
    "parse",
    "prefers_int8",
    "read_layer",
    "swap",
]
