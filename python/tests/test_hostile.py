"""Files and models that are not as they should be: one clear error, or the right thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GOLDENS, digest
from safetensors.torch import load_file, save_file
from test_loading import Model, empty, weights
from torch import Tensor, nn

from tensorpress import SourceError
from tensorpress.torch import LayerError, Linear, LoadError, Quantized, decode, load, parse, read_layer

Tensors = dict[str, Tensor]
MODEL = GOLDENS / "model.safetensors"
PROJ = "blocks.0.proj"


def described(tensors: Tensors, layer: str, **changes: object) -> Tensors:
    """Tensors with another description of a layer."""
    o = json.loads(bytes(tensors[f"{layer}.comfy_quant"].tolist())) | changes
    text = json.dumps(o).encode()
    return tensors | {f"{layer}.comfy_quant": torch.tensor(list(text), dtype=torch.uint8)}


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: t for name, t in tensors.items() if name not in names}


CHANGES: list[tuple[str, Callable[[Tensors], Tensors], str]] = [
    ("truncated", lambda t: t | {f"{PROJ}.comfy_quant": t[f"{PROJ}.comfy_quant"][:40]}, "comfy_quant: is no JSON: "),
    ("empty", lambda t: t | {f"{PROJ}.comfy_quant": torch.empty(0, dtype=torch.uint8)}, "comfy_quant: is no JSON: "),
    ("not utf-8", lambda t: t | {f"{PROJ}.comfy_quant": torch.full((9,), 255, dtype=torch.uint8)}, "is no JSON: "),
    ("deep", lambda t: t | {f"{PROJ}.comfy_quant": torch.full((100000,), 91, dtype=torch.uint8)}, "is no JSON: "),
    ("no text", lambda t: t | {f"{PROJ}.comfy_quant": torch.zeros(9)}, "want uint8 of one dimension, got float32 [9]"),
    ("version", lambda t: described(t, PROJ, format_version=2), "version 2: this package reads version 1"),
    ("no version", lambda t: described(t, PROJ, format_version=None), "format_version: want a whole number, got null"),
    ("dtype", lambda t: described(t, PROJ, weights_dtype="uint5"), "weight: want uint8 [256, 5], got uint8 [1024]"),
    ("dtype list", lambda t: described(t, PROJ, weights_dtype=["uint4"]), 'weights_dtype: unknown dtype ["uint4"]'),
    ("format list", lambda t: described(t, PROJ, format=["sdnq"]), "format: want one of sdnq, "),
    ("negative shape", lambda t: described(t, PROJ, orig_shape=[-64, 32]), "orig_shape: want 2 dimensions of a linear"),
    ("huge shape", lambda t: described(t, PROJ, orig_shape=[64, 1 << 70]), "weight: want uint8 "),
    ("group 0", lambda t: described(t, PROJ, group_size=0), "group size 0 does not fit shape [64, 32]"),
    ("rank", lambda t: described(t, PROJ, svd_rank=1 << 40), "svd_rank: want 1 to 32, got 1099511627776"),
    ("switch", lambda t: described(t, PROJ, use_hadamard=1), "use_hadamard: want true or false, got 1"),
    ("no codes", lambda t: without(t, f"{PROJ}.weight"), "weight: want uint8 [1024], got nothing"),
    ("no scale", lambda t: without(t, f"{PROJ}.weight_scale"), "weight_scale: want float32 [64, 2, 1], got nothing"),
    ("no factor", lambda t: without(t, f"{PROJ}.svd_down"), "svd_down: want bfloat16 [4, 32], got nothing"),
    ("dtype of codes", lambda t: t | {f"{PROJ}.weight": t[f"{PROJ}.weight"].view(torch.int8)}, "got int8 [1024]"),
    ("dtype of scales", lambda t: t | {f"{PROJ}.weight_scale": t[f"{PROJ}.weight_scale"].half()}, "got float16 [64, 2"),
    ("shape of scales", lambda t: t | {f"{PROJ}.weight_scale": t[f"{PROJ}.weight_scale"][:, :1]}, "got float32 [64, 1"),
    ("too many", lambda t: t | {f"{PROJ}.weight_zp_2": torch.ones(1)}, "weight_zp_2: want nothing, got float32 [1]"),
]


@pytest.mark.parametrize(("change", "said"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_layers(change: Callable[[Tensors], Tensors], said: str, tmp_path: Path) -> None:
    tensors = {name: t.contiguous() for name, t in change(load_file(MODEL)).items()}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(LayerError) as e:
        load(empty(), tmp_path / "a.safetensors", strict=False)
    text = str(e.value)
    assert text.startswith(PROJ) and said in text and "\n" not in text


NATIVE: list[tuple[str, Callable[[Tensors], Tensors], str]] = [
    ("shape", lambda t: described(t, "native.nvfp4", orig_shape=["a", None]), ""),
    ("no dimension", lambda t: t | {"native.nvfp4.weight": torch.tensor(1).byte()}, "weight: want a matrix"),
    ("nothing", lambda t: t | {"native.nvfp4.weight": torch.zeros(0, 4, dtype=torch.uint8)}, "weight: want a matrix"),
    ("group", lambda t: described(t, "native.awq", group_size="64"), "group_size: want a whole number from 1 on"),
    ("rotation", lambda t: described(t, "native.int8_rotated", convrot_groupsize=24), "a rotation of 24 values"),
]


@pytest.mark.parametrize(("change", "said"), [c[1:] for c in NATIVE], ids=[c[0] for c in NATIVE])
def test_layers_of_comfyui(change: Callable[[Tensors], Tensors], said: str) -> None:
    all_ = change(load_file(GOLDENS / "layers.safetensors"))
    for layer in ("native.nvfp4", "native.awq", "native.int8_rotated"):
        own = {name.rpartition(".")[2]: t for name, t in all_.items() if name.startswith(f"{layer}.")}
        try:
            stored = read_layer(own["comfy_quant"], own, layer)
        except LayerError as e:
            assert said and str(e).startswith(layer) and said in str(e)
            return
        assert decode(stored, own).shape == stored.shape
    assert not said


def test_files(tmp_path: Path) -> None:
    whole = MODEL.read_bytes()
    path = tmp_path / "a.safetensors"
    for data in (b"", whole[:5], whole[:100], whole[:-10], b"\xff" * 100, b"PK\x03\x04" + whole):
        path.write_bytes(data)
        with pytest.raises(SourceError, match=r"a\.safetensors: is no whole safetensors file: "):
            load(empty(), path)
    index = tmp_path / "a.safetensors.index.json"
    for text, said in (
        ("{", "is no JSON"),
        ("[]", r"want a JSON object, got \[\]"),
        ("{}", "want a weight_map of names of files, got null"),
        ('{"weight_map": {"a": 1}}', "want a weight_map of names of files, got"),
        ('{"weight_map": {"a": "none.safetensors"}}', r"none\.safetensors: no such file"),
    ):
        index.write_text(text)
        with pytest.raises(SourceError, match=said):
            load(empty(), index)


def test_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for metadata, said in (
        ({"_quantization_metadata": "{"}, "_quantization_metadata in the header: is no JSON"),
        ({"_quantization_metadata": "[1]"}, r"_quantization_metadata in the header: want a JSON object, got \[1\]"),
        ({"_quantization_metadata": '{"layers": 1}'}, "_quantization_metadata in the header: want layers, got 1"),
        ({"quantization_config": "{"}, "quantization_config in the header: is no JSON"),
    ):
        save_file(load_file(GOLDENS / "model-sdnq.safetensors"), path, metadata)
        with pytest.raises(SourceError, match=said):
            load(empty(), path)


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"weights_dtype": "uint17"}, "unknown dtype 'uint17'"),
    ({"weights_dtype": 4}, "unknown dtype 4"),
    ({"group_size": "16"}, "group_size: want a whole number, got '16'"),
    ({"svd_rank": [4]}, r"svd_rank: want a whole number, got \[4\]"),
    ({"modules_dtype_dict": {"uint99": ["blocks"]}}, "unknown dtype 'uint99'"),
    ({"modules_quant_config": {"blocks": {"group_size": None}}}, "group_size: want a whole number, got None"),
]


@pytest.mark.parametrize(("changes", "said"), CONFIGS)
def test_configs(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    tensors = load_file(GOLDENS / "model-sdnq.safetensors")
    config = {"quant_method": "sdnq", "weights_dtype": "uint4", "group_size": 16, "use_svd": True, "svd_rank": 4}
    save_file(tensors, tmp_path / "a.safetensors", {"quantization_config": json.dumps(config | changes)})
    with pytest.raises(LayerError, match=said):
        load(empty(), tmp_path / "a.safetensors")


def test_codes_are_not_taken_for_weights(tmp_path: Path) -> None:
    tensors = load_file(MODEL)
    codes = torch.zeros(10, 64, dtype=torch.int8)
    for t in (codes, codes.to(torch.float8_e4m3fn)):
        save_file(tensors | {"head.weight": t}, tmp_path / "a.safetensors")
        with pytest.raises(LoadError, match=r"head\.weight: want numbers, got \w+ codes, which nothing describes"):
            load(empty(), tmp_path / "a.safetensors", strict=False)
    # Nor weights for codes.
    model = empty()
    load(model, MODEL)
    plain = {"blocks.0.rows.weight": torch.ones(64, 64)}
    save_file(plain, tmp_path / "b.safetensors")
    with pytest.raises(LoadError, match=r"rows\.weight: nothing describes it, and the module holds codes"):
        load(model, tmp_path / "b.safetensors", strict=False)
    with pytest.raises(RuntimeError, match=r"rows\.weight: nothing describes it, and the module holds codes"):
        model.load_state_dict(plain, strict=False)


def test_shapes_are_an_error_in_any_case(tmp_path: Path) -> None:
    model = empty()
    model.head = nn.Linear(64, 11, bias=False)
    with pytest.raises(LoadError, match=r"head\.weight: want \[11, 64\], got \[10, 64\]"):
        load(model, MODEL, strict=False)


def test_what_has_no_values(tmp_path: Path, goldens: dict[str, dict[str, str]]) -> None:
    class Rotary(Model):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(4.0), persistent=False)

    model = Rotary()
    load(model, MODEL)
    assert torch.equal(model.get_buffer("table"), torch.arange(4.0))
    with torch.device("meta"):
        model = Rotary()
    with pytest.raises(LoadError, match="no values on device meta for table"):
        load(model, MODEL)
    assert load(model, MODEL, strict=False).empty == ["table"]
    assert weights(model) == goldens["model"]


def test_a_model_that_is_one_module(tmp_path: Path, goldens: dict[str, dict[str, str]]) -> None:
    for name in ("model", "model-sdnq"):
        model = nn.Linear(32, 64, dtype=torch.float16)
        loaded = load(model, GOLDENS / f"{name}.safetensors", prefix=f"{PROJ}.")
        assert (loaded.layers, loaded.unexpected) == ([""], [])
        assert weights(model) == {"": goldens[name][PROJ]}
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    again = nn.Linear(32, 64)
    load(again, tmp_path / "a.safetensors")
    assert weights(again) == weights(model)
    module = empty().blocks[0]
    load(module, MODEL, prefix="blocks.0.")
    assert weights(module)["proj"] == goldens["model"][PROJ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_models_in_other_dtypes(dtype: torch.dtype, goldens: dict[str, dict[str, str]]) -> None:
    model = Model().to(dtype)
    load(model, MODEL, dtype=dtype, int8_matmul=False)
    assert {t.dtype for t in model.parameters()} == {dtype}
    assert weights(model) == goldens["model"]
    ids = torch.arange(64).remainder(40).reshape(1, 64)
    found = model(ids)
    assert found.dtype is dtype and bool(found.isfinite().all())
    again = empty()
    load(again, MODEL, int8_matmul=False)
    assert torch.equal(again.to(dtype)(ids), found)


def test_a_header_is_saved_again(tmp_path: Path) -> None:
    """Also of ComfyUI's formats, whose layers may be described there alone."""
    layers = load_file(GOLDENS / "layers.safetensors")
    own = {n.removeprefix("native."): t for n, t in layers.items() if n.startswith("native.float8_rows.")}
    o = json.loads(bytes(own.pop("float8_rows.comfy_quant").tolist())) | {"by": "me"}
    metadata = {"_quantization_metadata": json.dumps({"layers": {"float8_rows": o}})}
    save_file(own, tmp_path / "a.safetensors", metadata)
    model, again = (nn.ModuleDict({"float8_rows": nn.Linear(32, 16, bias=False)}) for _ in range(2))
    load(model, tmp_path / "a.safetensors")
    save_file(model.state_dict(), tmp_path / "b.safetensors")
    load(again, tmp_path / "b.safetensors")
    assert weights(model) == weights(again)
    assert json.loads(bytes(again.state_dict()["float8_rows.comfy_quant"].tolist())) == o


def test_layers_that_the_model_has_not(tmp_path: Path) -> None:
    tensors = load_file(MODEL)
    more = {name.replace(PROJ, "blocks"): t.clone() for name, t in tensors.items() if name.startswith(PROJ)}
    save_file(tensors | more, tmp_path / "a.safetensors")
    with pytest.raises(LoadError, match=r"unexpected blocks\.weight, blocks\.bias$"):
        load(empty(), tmp_path / "a.safetensors")


def test_weights_that_are_buffers(tmp_path: Path, goldens: dict[str, dict[str, str]]) -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.zeros(64, 32))

    tensors = {n: t for n, t in load_file(MODEL).items() if n.startswith(PROJ) and not n.endswith("bias")}
    save_file(tensors, tmp_path / "a.safetensors")
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"proj": Bare()})])})
    assert load(model, tmp_path / "a.safetensors", dtype=torch.float32).decoded == [f"{PROJ}.weight"]
    assert digest(model.get_buffer(f"{PROJ}.weight")) == goldens["model"][PROJ]


def test_attention_of_torch(tmp_path: Path) -> None:
    """It asks for its projection's weight, and for the dtype of that."""
    tensors = {n.replace("blocks.0.rows", "out_proj"): t for n, t in load_file(MODEL).items() if ".rows." in n}
    plain = {"in_proj_weight": torch.randn(192, 64) * 0.1, "in_proj_bias": torch.zeros(192)}
    save_file(tensors | plain | {"out_proj.bias": torch.zeros(64)}, tmp_path / "a.safetensors")
    model = nn.MultiheadAttention(64, 4)
    load(model, tmp_path / "a.safetensors", dtype=torch.float32)
    x = torch.randn(5, 2, 64)
    want = nn.MultiheadAttention(64, 4)
    want.load_state_dict(plain | {"out_proj.weight": model.out_proj.weight, "out_proj.bias": torch.zeros(64)})
    for mode in (True, False):
        with torch.set_grad_enabled(mode):
            found, _ = model.train(mode)(x, x, x)
            assert torch.equal(found, want.train(mode)(x, x, x)[0])


def test_a_state_dict_is_read_again(goldens: dict[str, dict[str, str]]) -> None:
    """Into modules that hold other codes, whose dtypes torch would cast to."""
    layers = load_file(GOLDENS / "layers.safetensors")

    def module(name: str) -> Linear:
        m = nn.ModuleDict({"x": nn.Linear(32, 8, bias=False)})
        own = {n.removeprefix(f"all.{name}."): t for n, t in layers.items() if n.startswith(f"all.{name}.")}
        from tensorpress.torch import swap

        found = swap(m["x"], read_layer(own["comfy_quant"], own, name), own)
        assert isinstance(found, Linear)
        return found

    for assign in (False, True):
        m, other = module("float8_e4m3fn"), module("float8_e5m2")
        m.load_state_dict(other.state_dict(), assign=assign)
        assert digest(m.decode(torch.float32)) == goldens["layers"]["all.float8_e5m2"]
        assert (m.tensors["weight"].data_ptr() == other.tensors["weight"].data_ptr()) == assign
        m.load_state_dict(module("uint5").state_dict())
        assert digest(m.decode(torch.float32)) == goldens["layers"]["all.uint5"]
        assert repr(m) == "Linear(8, 32, uint5)"
        with pytest.raises(RuntimeError, match=r"Missing key.*\"weight\""):
            m.load_state_dict({})
        assert m.load_state_dict({"x": torch.zeros(1)}, strict=False).unexpected_keys == ["x"]
        assert digest(m.decode(torch.float32)) == goldens["layers"]["all.uint5"]


def test_the_weight_cannot_be_set() -> None:
    model = empty()
    load(model, MODEL)
    rows = model.get_submodule("blocks.0.rows")
    assert isinstance(rows, Linear)
    before = rows.decode()
    for value in (nn.Parameter(torch.zeros(64, 64)), torch.zeros(64, 64)):
        with pytest.raises(AttributeError, match="weight is decoded from codes: it cannot be set, nor tied"):
            rows.weight = value
    assert torch.equal(rows.decode(), before)


def test_a_module_that_does_not_fit_a_device_stays_whole() -> None:
    model = empty()
    load(model, MODEL)
    rows = model.get_submodule("blocks.0.rows")
    assert isinstance(rows, Linear)

    def fail(t: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        rows._apply(fail)
    assert rows.decode().shape == (64, 64)


@pytest.mark.parametrize("name", ["embedding.uint4", "embedding.uint3", "embedding.int8", "native.int8_rows",
                                  "native.nvfp4", "native.awq", "native.asym_w6a8", "matmul.int8"])  # fmt: skip
def test_entries_that_are_not_there(name: str) -> None:
    from tensorpress.torch import swap

    layers = load_file(GOLDENS / "layers.safetensors")
    own = {n.rpartition(".")[2]: t for n, t in layers.items() if n.startswith(f"{name}.")}
    stored = read_layer(own["comfy_quant"], own, name)
    rows, columns = stored.shape
    m = swap(nn.Embedding(rows, columns, padding_idx=1), stored, own)
    for ids in ([-1], [stored.shape[0]], [0, -stored.shape[0]]):
        with pytest.raises((IndexError, RuntimeError)):
            m(torch.tensor(ids))
    assert m(torch.zeros(0, dtype=torch.int64)).shape == (0, stored.shape[1])
    assert m(torch.tensor(3, dtype=torch.int32)).shape == (stored.shape[1],)


@pytest.mark.parametrize("int8", [True, False])
def test_inputs_of_any_shape(int8: bool) -> None:
    model = empty()
    load(model, MODEL, int8_matmul=int8)
    rows = model.blocks[0].rows
    assert isinstance(rows, Linear) and rows.multiplies_int8(torch.device("cpu")) == int8
    for shape in ((64,), (0, 64), (2, 0, 64), (1, 1, 3, 64)):
        assert rows(torch.randn(shape)).shape == shape
    x = torch.randn(3, 64, requires_grad=True)
    rows(x).sum().backward()  # codes have no gradient: they are decoded
    assert x.grad is not None
    torch.testing.assert_close(x.grad, rows.decode(torch.float32).sum(0).expand(3, 64))


def test_a_description_alone() -> None:
    text = '{"format": "sdnq", "format_version": 1, "weights_dtype": "uint4", "group_size": 16, ' \
           '"orig_shape": [8, 32], "orig_dtype": "torch.bfloat16"}'  # fmt: skip
    assert parse(text).tensors()["weight"] == (torch.uint8, (128,))
    for key in ("weights_dtype", "group_size", "orig_shape", "format", "format_version"):
        o = json.loads(text)
        del o[key]
        with pytest.raises(LayerError, match=key):
            parse(o, layer="x")


def test_all_are_quantized() -> None:
    model = empty()
    load(model, MODEL)
    assert sum(isinstance(m, Quantized) for m in model.modules()) == 5
