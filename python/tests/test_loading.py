"""Files into models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import GOLDENS, digest
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tensorpress import SourceError
from tensorpress.torch import LayerError, Linear, LoadError, Quantized, load

LAYERS = ["blocks.0.proj", "blocks.0.rows", "conv", "embed", "up"]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(32, 64)
        self.rows = nn.Linear(64, 64, bias=False)
        self.norm = nn.RMSNorm(64)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.rows(self.proj(x)))
        return found


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.blocks = nn.ModuleList([Block()])
        self.head = nn.Linear(64, 10, bias=False)
        self.conv = nn.Conv2d(8, 16, 3)
        self.up = nn.ConvTranspose2d(16, 8, 2, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        image = self.up(self.conv(x.reshape(1, 8, 8, -1)))
        found: Tensor = self.head(x) + image.mean()
        return found


def empty() -> Model:
    with torch.device("meta"):
        return Model()


def weights(model: nn.Module) -> dict[str, str]:
    return {name: digest(m.decode(torch.float32)) for name, m in model.named_modules() if isinstance(m, Quantized)}


@pytest.mark.parametrize("name", ["model", "model-sdnq"])
@pytest.mark.parametrize("make", [empty, Model])
def test_load(name: str, make: type[Model], goldens: dict[str, dict[str, str]]) -> None:
    model = make()
    loaded = load(model, GOLDENS / f"{name}.safetensors", int8_matmul=False)
    assert sorted(loaded.layers) == LAYERS
    assert (loaded.decoded, loaded.missing, loaded.unexpected) == ([], [], [])
    assert weights(model) == goldens[name]
    ids = torch.arange(64).remainder(40).reshape(2, 32)
    found = model(ids)
    assert found.shape == (2, 32, 10)
    plain = Model()
    for layer in LAYERS:
        m = model.get_submodule(layer)
        assert isinstance(m, Quantized)
        own = plain.get_submodule(layer)
        own.weight = nn.Parameter(m.decode())
        if getattr(own, "bias", None) is not None:
            own.bias = m.bias
    plain.head.weight = model.head.weight
    plain.blocks[0].load_state_dict({"norm.weight": model.get_parameter("blocks.0.norm.weight")}, strict=False)
    assert torch.equal(found, plain.to(torch.bfloat16)(ids))


def test_both_layouts_hold_the_same(goldens: dict[str, dict[str, str]]) -> None:
    comfy, sdnq = empty(), empty()
    load(comfy, GOLDENS / "model.safetensors")
    load(sdnq, GOLDENS / "model-sdnq.safetensors")
    for name, t in sdnq.state_dict().items():
        other = comfy.state_dict()[name]
        if name.endswith("comfy_quant"):
            continue
        assert t.dtype == other.dtype and t.shape == other.shape, name


def test_saved_again(tmp_path: Path, goldens: dict[str, dict[str, str]]) -> None:
    model = empty()
    load(model, GOLDENS / "model-sdnq.safetensors")
    save_file(model.state_dict(), tmp_path / "again.safetensors")
    again = empty()
    load(again, tmp_path / "again.safetensors")
    assert weights(again) == goldens["model-sdnq"]
    assert set(load_file(tmp_path / "again.safetensors")) == set(load_file(GOLDENS / "model.safetensors"))


def test_shards_and_folders(tmp_path: Path, goldens: dict[str, dict[str, str]]) -> None:
    tensors = load_file(GOLDENS / "model.safetensors")
    names = sorted(tensors)
    where: dict[str, str] = {}
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({n: tensors[n] for n in part}, tmp_path / f"model-{i}.safetensors")
        where |= dict.fromkeys(part, f"model-{i}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    for path in (index, tmp_path):
        model = empty()
        load(model, path)
        assert weights(model) == goldens["model"]
    index.unlink()
    with pytest.raises(SourceError, match=r"want one \.safetensors file or one index"):
        load(empty(), tmp_path)
    with pytest.raises(SourceError, match="no such file"):
        load(empty(), tmp_path / "none")


def test_config_beside(tmp_path: Path, goldens: dict[str, dict[str, str]]) -> None:
    path = GOLDENS / "model-sdnq.safetensors"
    from safetensors import safe_open

    with safe_open(str(path), "pt") as f:
        config = json.loads(f.metadata()["quantization_config"])
    save_file(load_file(path), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
    model = empty()
    load(model, tmp_path)
    assert weights(model) == goldens["model-sdnq"]


def test_prefix_and_dtype(tmp_path: Path, goldens: dict[str, dict[str, str]]) -> None:
    tensors = {f"model.net.{n}": t for n, t in load_file(GOLDENS / "model.safetensors").items()}
    save_file(tensors | {"vae.weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    model = empty()
    loaded = load(model, tmp_path / "a.safetensors", prefix="model.net.", dtype=torch.float32)
    assert loaded.unexpected == []
    assert weights(model) == goldens["model"]
    assert model.head.weight.dtype is torch.float32
    assert model(torch.zeros(1, 64, dtype=torch.int64)).dtype is torch.float32


def test_missing_and_unexpected(tmp_path: Path) -> None:
    tensors = load_file(GOLDENS / "model.safetensors")
    del tensors["head.weight"]
    tensors["extra.weight"] = torch.zeros(3)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(LoadError, match=r"missing head\.weight; unexpected extra\.weight") as e:
        load(empty(), tmp_path / "a.safetensors")
    assert e.value.loaded.missing == ["head.weight"]
    loaded = load(empty(), tmp_path / "a.safetensors", strict=False)
    assert loaded.missing == ["head.weight"]
    assert loaded.unexpected == ["extra.weight"]


def test_wrong_shapes(tmp_path: Path) -> None:
    model = empty()
    model.head = nn.Linear(64, 11, bias=False)
    with pytest.raises(LoadError, match=r"head\.weight: want \[11, 64\], got \[10, 64\]"):
        load(model, GOLDENS / "model.safetensors")
    model = empty()
    model.blocks[0].proj = nn.Linear(16, 64)
    with pytest.raises(LayerError, match=r"blocks\.0\.proj\.weight: want \[64, 16\], got \[64, 32\]"):
        load(model, GOLDENS / "model.safetensors")


def test_tied_weights(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(40, 32)
            self.out = nn.Linear(32, 40, bias=False)
            self.out.weight = self.embed.weight

    tensors = load_file(GOLDENS / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if n.startswith("embed.")}, tmp_path / "a.safetensors")
    model = Tied()
    loaded = load(model, tmp_path / "a.safetensors")
    assert loaded.layers == ["embed", "out"]
    assert isinstance(model.out, Linear)
    assert torch.equal(model.out.weight, model.embed.weight)
    save_file({"embed.weight": torch.ones(40, 32)}, tmp_path / "b.safetensors")
    model = Tied()
    load(model, tmp_path / "b.safetensors")
    assert model.out.weight is model.embed.weight


def test_tied_weights_that_are_there_twice(tmp_path: Path) -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items = nn.ModuleList([nn.Linear(4, 4, bias=False) for _ in range(40)])
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

    tensors = {f"items.{i}.weight": torch.full((4, 4), float(i)) for i in range(40)}
    tensors |= {"a.weight": torch.full((4, 4), -1.0), "b.weight": torch.full((4, 4), -1.0)}
    save_file(tensors, tmp_path / "a.safetensors")
    model = Many()
    load(model, tmp_path / "a.safetensors")
    assert model.a.weight is model.b.weight
    for name, t in tensors.items():
        assert torch.equal(model.get_parameter(name), t), name


def test_loaded_twice(goldens: dict[str, dict[str, str]]) -> None:
    for name in ("model", "model-sdnq"):
        model = empty()
        for _ in range(2):
            load(model, GOLDENS / f"{name}.safetensors")
        assert weights(model) == goldens[name]


def test_weights_that_no_module_holds(tmp_path: Path) -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(40, 32))

    tensors = load_file(GOLDENS / "model.safetensors")
    save_file(
        {n.replace("embed", "x"): t for n, t in tensors.items() if n.startswith("embed.")}, tmp_path / "a.safetensors"
    )
    model = nn.ModuleDict({"x": Bare()})
    loaded = load(model, tmp_path / "a.safetensors", dtype=torch.float32)
    assert loaded.decoded == ["x.weight"]
    whole = empty()
    load(whole, GOLDENS / "model.safetensors")
    assert torch.equal(model.get_parameter("x.weight"), whole.embed.to(torch.float32).weight)


def test_header_goes_before(tmp_path: Path) -> None:
    tensors = load_file(GOLDENS / "model.safetensors")
    text = bytes(tensors["blocks.0.rows.comfy_quant"].tolist()).decode()
    o = json.loads(text) | {"full_precision_matrix_mult": True}
    metadata = {"_quantization_metadata": json.dumps({"layers": {"blocks.0.rows": o}})}
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    model = empty()
    load(model, tmp_path / "a.safetensors")
    rows = model.blocks[0].rows
    assert isinstance(rows, Linear)
    assert rows.stored.full_precision_matrix_mult
