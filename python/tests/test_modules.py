"""Modules give what torch's own give with the decoded weight."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from conftest import Layers
from torch import Tensor, nn

from tensorpress.torch import Embedding, LayerError, Linear, Quantized, decode, read_layer, swap

Tensors = dict[str, Tensor]


def module_of(layers: Layers, name: str, module: nn.Module, **flags: bool) -> tuple[Quantized, Tensor]:
    tensors = layers[name]
    stored = read_layer(tensors["comfy_quant"], tensors, name)
    module.requires_grad_(False)
    return swap(module, stored, tensors, torch.float32, **flags), decode(stored, tensors, torch.float32)


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool, layers: Layers) -> None:
    plain = nn.Linear(64, 24, bias)
    m, w = module_of(layers, "groups.uint4", copy.deepcopy(plain))
    assert type(m) is Linear
    assert isinstance(m, nn.Linear)
    x = torch.randn(2, 3, 64)
    assert torch.equal(m(x), nn.functional.linear(x, w, plain.bias))
    low = m(x.to(torch.bfloat16))
    assert low.dtype is torch.bfloat16
    assert torch.equal(m.weight, w)
    assert repr(m) == "Linear(24, 64, uint4)"


def test_gradients_pass_through(layers: Layers) -> None:
    m, w = module_of(layers, "rank.uint4", nn.Linear(64, 24, False))
    x = torch.randn(5, 64, requires_grad=True)
    m(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, w.sum(0).expand(5, 64))


@pytest.mark.parametrize("name", ["embedding.uint4", "embedding.uint3", "embedding.int8", "embedding-odd.uint5"])
def test_embedding(name: str, layers: Layers) -> None:
    n, d = read_layer(layers[name]["comfy_quant"], layers[name]).shape
    m, w = module_of(layers, name, nn.Embedding(n, d, padding_idx=0))
    assert type(m) is Embedding
    ids = torch.tensor([[0, 5, 5], [n - 1, 2, 1]])
    assert torch.equal(m(ids), w[ids])
    assert m.to(torch.bfloat16)(ids).dtype is torch.bfloat16


CONVS: list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = [
    ("conv1d.uint4", lambda: nn.Conv1d(12, 16, 3, padding=1), (2, 12, 9)),
    ("conv2d.uint4", lambda: nn.Conv2d(16, 16, 3, stride=2, padding="valid"), (1, 16, 9, 8)),
    ("conv2d.int8", lambda: nn.Conv2d(16, 16, 3, padding=2, padding_mode="circular"), (1, 16, 9, 8)),
    ("conv2d-matmul.int8", lambda: nn.Conv2d(32, 32, 2, dilation=2), (1, 32, 7, 7)),
    ("conv3d.uint4", lambda: nn.Conv3d(8, 8, (2, 1, 2)), (1, 8, 4, 3, 5)),
    ("transpose1d.uint4", lambda: nn.ConvTranspose1d(8, 12, 4, stride=2), (2, 8, 6)),
    ("transpose2d.int8", lambda: nn.ConvTranspose2d(12, 16, 2, groups=2, stride=2, output_padding=1), (1, 12, 4, 4)),
    ("transpose3d-book.uint2", lambda: nn.ConvTranspose3d(16, 4, (2, 2, 1)), (1, 16, 3, 3, 3)),
]


@pytest.mark.parametrize(("name", "make", "shape"), CONVS, ids=[c[0] for c in CONVS])
def test_convolutions(name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], layers: Layers) -> None:
    plain = make()
    m, w = module_of(layers, name, copy.deepcopy(plain))
    assert isinstance(m, type(plain))
    plain.weight = nn.Parameter(w)
    x = torch.randn(shape)
    assert torch.equal(m(x), plain(x))


def test_codes_are_never_cast(layers: Layers) -> None:
    for name in ("all.float8_e4m3fn", "all.bfloat16", "groups.uint4", "rank-f32.uint4", "native.nvfp4"):
        tensors = layers[name]
        stored = read_layer(tensors["comfy_quant"], tensors, name)
        m = swap(nn.Linear(stored.shape[1], stored.shape[0]), stored, tensors)
        m.to(torch.float16).half().to("cpu")
        assert m.dtype is torch.float16
        assert m.bias is not None and m.bias.dtype is torch.float16
        for own, t in m.tensors.items():
            assert torch.equal(raw(t), raw(tensors[own])), (name, own)


def test_state_dict_is_the_file(layers: Layers) -> None:
    m, _ = module_of(layers, "groups.uint4", nn.Linear(64, 24, False))
    found = m.state_dict()
    assert set(found) == set(layers["groups.uint4"])
    m.load_state_dict(found)
    again = copy.deepcopy(m)
    assert torch.equal(again.decode(), m.decode())


def raw(t: Tensor) -> Tensor:
    return t.reshape(-1).view(torch.uint8)


class Scaled(nn.Embedding):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 3


class Named(nn.Linear):
    def name(self) -> str:
        return "mine"


def test_classes_of_other_people(layers: Layers) -> None:
    m, w = module_of(layers, "embedding.uint4", Scaled(40, 32))
    ids = torch.tensor([1, 2])
    assert isinstance(m, Scaled)
    assert torch.equal(m(ids), w[ids] * 3)
    named, w = module_of(layers, "groups.uint4", Named(64, 24, False))
    assert isinstance(named, Named) and isinstance(named, Linear)
    assert named.name() == "mine"
    assert torch.equal(named(torch.eye(64)), w.t())
    with pytest.raises(LayerError, match=r"want a Linear, an Embedding or a convolution, got LayerNorm"):
        module_of(layers, "groups.uint4", nn.LayerNorm(24))


INT8 = ["rows.int8", "tensor.int8", "matmul.int8", "matmul-rank.int8", "native.int8_rows", "native.int8_tensor",
        "native.int8_rotated"]  # fmt: skip


@pytest.mark.parametrize("name", INT8)
def test_int8_products(name: str, layers: Layers) -> None:
    rows, columns = read_layer(layers[name]["comfy_quant"], layers[name]).shape
    m, w = module_of(layers, name, nn.Linear(columns, rows), int8_matmul=True)
    assert isinstance(m, Linear) and m.multiplies_int8(torch.device("cpu"))
    x = torch.randn(3, 20, columns)
    x[0, 0] = 0
    want = nn.functional.linear(x, w, m.bias)
    found = m(x)
    assert found.shape == want.shape
    # Rows of the input are rounded to 127 steps: an error of 0.3 of a step in each product.
    assert not torch.equal(found, want)
    error = (found - want).norm() / want.norm()
    assert error < 0.02
    m.int8_matmul = False
    assert torch.equal(m(x), want)


def test_full_precision_is_obeyed(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    from tensorpress.torch import modules

    tensors = layers["rows.int8"]
    o = json.loads(bytes(tensors["comfy_quant"].tolist())) | {"full_precision_matrix_mult": True}
    m = swap(nn.Linear(24, 20), read_layer(o, tensors), tensors)
    assert isinstance(m, Linear)
    monkeypatch.setattr(modules, "multiplies_int8_fast", lambda: True)
    assert not m.multiplies_int8(torch.device("cpu"))
    m.stored = read_layer(tensors["comfy_quant"], tensors)
    assert m.multiplies_int8(torch.device("cpu"))
    monkeypatch.setattr(modules, "multiplies_int8_fast", lambda: False)
    assert not m.multiplies_int8(torch.device("cpu"))
    m.int8_matmul = True
    assert m.multiplies_int8(torch.device("cpu"))


def test_input_scale_of_nvfp4(layers: Layers) -> None:
    tensors = dict(layers["native.nvfp4"], pre_quant_scale=torch.rand(64))
    m = swap(nn.Linear(64, 32, False), read_layer(tensors["comfy_quant"], tensors), tensors)
    x = torch.randn(4, 64)
    assert torch.equal(m(x), nn.functional.linear(x * tensors["pre_quant_scale"], m.decode(torch.float32)))


@pytest.mark.parametrize("name", ["groups.uint4", "rank.uint4", "matmul-rank.int8", "native.float8_e4m3fn"])
def test_compiles_whole(name: str, layers: Layers) -> None:
    rows, columns = read_layer(layers[name]["comfy_quant"], layers[name]).shape
    m, _ = module_of(layers, name, nn.Linear(columns, rows), int8_matmul=True)
    x = torch.randn(40, columns)
    torch._dynamo.reset()
    compiled = torch.compile(m, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), m(x), rtol=1e-2, atol=1e-2 * math.sqrt(columns))


def test_autocast(layers: Layers) -> None:
    m, _ = module_of(layers, "groups.uint4", nn.Linear(64, 24))
    with torch.autocast("cpu", torch.bfloat16):
        assert m(torch.randn(2, 64)).dtype is torch.bfloat16
