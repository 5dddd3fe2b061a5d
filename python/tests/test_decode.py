"""Every layer has the bits of the program's own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from conftest import GOLDENS, Layers, digest
from safetensors.torch import load_file

from tensorpress.torch import LayerError, Scheme, decode, decode_rows, parse, read_layer
from tensorpress.torch import numbers as arithmetic
from tensorpress.torch.dtypes import ALIASES, DTYPES

NAMES = sorted(json.loads((GOLDENS / "goldens.json").read_text())["layers"])


def test_table() -> None:
    assert len(DTYPES) == 172
    assert len(ALIASES) == 35
    assert all(name in DTYPES for name in ALIASES.values())
    assert {f"all.{name}" for name in DTYPES} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_values(name: str, layers: Layers, goldens: dict[str, dict[str, str]]) -> None:
    tensors = layers[name]
    stored = read_layer(tensors["comfy_quant"], tensors, name)
    exact = decode(stored, tensors, torch.float32)
    assert tuple(exact.shape) == stored.shape
    assert digest(exact) == goldens["layers"][name]
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(decode(stored, tensors, dtype), exact.to(dtype))
    assert decode(stored, tensors).dtype is stored.orig_dtype
    if len(stored.shape) == 2:
        rows = torch.tensor([[3, 0, 3], [stored.shape[0] - 1, 1, 2]])
        assert torch.equal(decode_rows(stored, tensors, rows, torch.float32), exact[rows])


@pytest.mark.parametrize("name", NAMES)
def test_json_is_what_was_read(name: str, layers: Layers) -> None:
    tensors = layers[name]
    text = bytes(tensors["comfy_quant"].tolist()).decode()
    stored = read_layer(text, tensors, name)
    if isinstance(stored, Scheme):
        assert json.dumps(stored.json()) == text


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith(("all.", "native."))])
def test_without_fused_additions(name: str, layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of torch that round products give the same."""
    tensors = layers[name]
    stored = read_layer(tensors["comfy_quant"], tensors, name)
    exact = decode(stored, tensors, torch.float32)
    monkeypatch.setattr(arithmetic, "addcmul_is_fused", lambda: False)
    assert torch.equal(decode(stored, tensors, torch.float32), exact)


def test_sums_as_on_other_devices(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are not exact, they are as near as float32 is."""
    from tensorpress.torch import native, sdnq

    exact = {}
    stored = {name: read_layer(tensors["comfy_quant"], tensors, name) for name, tensors in layers.items()}
    for name, tensors in layers.items():
        exact[name] = decode(stored[name], tensors, torch.float32)
    for module in (arithmetic, native, sdnq):
        monkeypatch.setattr(module, "exact_here", lambda x: False)
    for name, tensors in layers.items():
        found = decode(stored[name], tensors, torch.float32)
        s = stored[name]
        if isinstance(s, Scheme) and not s.hadamard and not s.rank:
            assert torch.equal(found, exact[name]), name
        # Low-rank parts are rounded to their factors' dtype: a last bit of that.
        torch.testing.assert_close(found, exact[name], rtol=1e-2, atol=1e-3)


def test_chunks_do_not_matter(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorpress.torch import sdnq

    for name in ("groups.uint4", "groups.uint13", "rank.uint4", "conv2d.uint4", "matmul.int8", "book.uint2"):
        tensors = layers[name]
        stored = read_layer(tensors["comfy_quant"], tensors, name)
        exact = decode(stored, tensors, torch.float32)
        for constant in ("CPU_CHUNK", "CHAIN_CHUNK"):
            monkeypatch.setattr(sdnq, constant, 1)
        assert torch.equal(decode(stored, tensors, torch.float32), exact)
        monkeypatch.undo()


def test_denormals_may_be_flushed(layers: Layers, goldens: dict[str, dict[str, str]]) -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("not on this machine")
    try:
        for name in [n for n in NAMES if n.startswith("all.float")]:
            tensors = layers[name]
            exact = decode(parse(tensors["comfy_quant"], tensors), tensors, torch.float32)
            assert digest(exact) == goldens["layers"][name]
    finally:
        torch.set_flush_denormal(False)


def test_defaults_of_torch_do_not_matter(layers: Layers, goldens: dict[str, dict[str, str]]) -> None:
    """Tables that are made once are not made of a default device or dtype."""
    names = ["groups.uint4", "groups.float6_e3m2fn", "all.float8_e5m2", "native.nvfp4", "rotated-8.uint4"]
    arithmetic._values.cache_clear()
    arithmetic._native_values.cache_clear()
    arithmetic.addcmul_is_fused.cache_clear()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            for name in names:
                tensors = layers[name]
                stored = read_layer(tensors["comfy_quant"], tensors, name)
                assert decode(stored, tensors, torch.float32).device.type == "cpu"
    finally:
        torch.set_default_dtype(torch.float32)
    for name in names:
        tensors = layers[name]
        stored = read_layer(tensors["comfy_quant"], tensors, name)
        assert digest(decode(stored, tensors, torch.float32)) == goldens["layers"][name]


def test_arithmetic_of_the_result(layers: Layers, goldens: dict[str, dict[str, str]]) -> None:
    """Where loaders compute in the dtype of the result, so does the program, and so can we."""
    wanted = goldens["layers-bf16"]
    assert len(wanted) > 20
    for name, want in wanted.items():
        tensors = layers[name]
        stored = read_layer(tensors["comfy_quant"], tensors, name)
        low = decode(stored, tensors, torch.bfloat16, arithmetic=torch.bfloat16)
        assert digest(low.float()) == want, name


COMPILED = [
    "groups.uint4", "groups.int5", "groups.uint13", "groups.float6_e3m2fn", "rows.uint16", "tensor.int8", "rank.uint4",
    "rotated-16.uint4", "matmul-rank.int8", "low.int9", "twice.uint4", "twice-book.uint4", "book.uint4",
    "book-tensor.uint4",
    "conv2d.uint4", "transpose3d-book.uint2", "native.nvfp4", "native.mxfp8", "native.asym_w6a8", "native.awq",
]  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_whole(name: str, layers: Layers) -> None:
    """Without a break: what a compiler makes of it may differ where sums have an order."""
    tensors = layers[name]
    stored = read_layer(tensors["comfy_quant"], tensors, name)
    torch._dynamo.reset()
    compiled = torch.compile(lambda t: decode(stored, t, torch.float32), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tensors), decode(stored, tensors, torch.float32), rtol=1e-2, atol=1e-3)


def test_other_devices_do_not_stop_it(layers: Layers, goldens: dict[str, dict[str, str]]) -> None:
    """Shapes follow on the device that has no values."""
    for name, tensors in layers.items():
        meta = {n: t.to("meta") for n, t in tensors.items() if n != "comfy_quant"}
        stored = read_layer(tensors["comfy_quant"], meta, name)
        found = decode(stored, meta)
        assert tuple(found.shape) == stored.shape, name
        assert found.dtype is stored.orig_dtype


def description(layers: Layers, name: str, **changes: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(bytes(layers[name]["comfy_quant"].tolist()))
    return found | changes


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format_version": 2}, "x: format sdnq, version 2: this package reads version 1"),
        ({"weights_dtype": "uint17"}, 'x: weights_dtype: unknown dtype "uint17"'),
        ({"weights_dtype": "uint5"}, "x.weight: want uint8 [192, 5], got uint8 [768]"),
        ({"group_size": 32}, "x.weight_scale: want float32 [24, 2, 1], got float32 [24, 4, 1]"),
        ({"group_size": 7}, "x: group size 7 does not fit shape [24, 64]"),
        ({"group_size": "16"}, 'x: group_size: want a whole number, got "16"'),
        ({"orig_shape": [24, 32]}, "x.weight: want uint8 [384], got uint8 [768]"),
        ({"orig_shape": [24]}, "x: orig_shape: want 2 dimensions of a linear, got [24]"),
        ({"orig_dtype": "torch.int8"}, 'torch.bfloat16, torch.float16 or torch.float32, got "torch.int8"'),
        ({"kind": "conv4d"}, "conv_transpose2d, conv_transpose3d, got conv4d"),
        ({"use_svd": True, "svd_rank": 4}, "x.svd_up: want float32 [24, 4], got nothing"),
        ({"use_codebook": True}, "x.weight_scale: want float32 [24, 4, 16], got float32 [24, 4, 1]"),
        ({"use_hadamard": True, "hadamard_group_size": 128}, "x: a rotation of 128 values does not fit shape [24, 64]"),
        ({"format": "nf4"}, 'got "nf4"'),
    ],
)  # fmt: skip
def test_errors_name_layer_tensor_wanted_and_got(changes: dict[str, object], text: str, layers: Layers) -> None:
    tensors = {n: t for n, t in layers["groups.uint4"].items() if n != "comfy_quant"}
    with pytest.raises(LayerError) as e:
        read_layer(description(layers, "groups.uint4", **changes), tensors, "x")
    assert str(e.value).endswith(text)
    assert e.value.layer == "x"
    assert e.value.status == 3


def test_a_companion_too_many(layers: Layers) -> None:
    tensors = dict(layers["rows.int8"], weight_zp=torch.zeros(20, 1))
    with pytest.raises(LayerError, match=r"x\.weight_zp: want nothing, got float32 \[20, 1\]"):
        read_layer(tensors["comfy_quant"], tensors, "x")


def test_description_that_is_none() -> None:
    with pytest.raises(LayerError, match="is no JSON"):
        read_layer(b"{", {}, "x")
    with pytest.raises(LayerError, match=r"want uint8 of one dimension, got float32 \[2\]"):
        read_layer(torch.zeros(2), {}, "x")
    with pytest.raises(LayerError, match=r"want a JSON object, got \[\]"):
        read_layer(b"[]", {}, "x")


def test_native_errors(layers: Layers) -> None:
    tensors = layers["native.nvfp4"]
    with pytest.raises(LayerError, match=r"x\.weight_scale_2: want float32 \[\] or float32 \[1\], got nothing"):
        read_layer(tensors["comfy_quant"], {n: t for n, t in tensors.items() if n != "weight_scale_2"}, "x")
    with pytest.raises(
        LayerError, match=r"x\.weight_scale: want float8_e4m3fn \[128, 4\], got float8_e4m3fn \[64, 4\]"
    ):
        read_layer(tensors["comfy_quant"], dict(tensors, weight_scale=tensors["weight_scale"][:64]), "x")


EXPERTS = Path(__file__).resolve().parents[2] / "testdata" / "golden" / "experts"


@pytest.mark.parametrize("name", sorted(p.stem for p in EXPERTS.glob("*.safetensors")))
def test_experts_of_comfyui(name: str) -> None:
    """Files that ComfyUI's class for experts saved restore to what it restores."""
    wanted = dict(line.split("\t") for line in (EXPERTS / "restored.tsv").read_text().splitlines() if line[0] != "#")
    tensors = {k.removeprefix("mlp.experts.up."): v for k, v in load_file(EXPERTS / f"{name}.safetensors").items()}
    stored = read_layer(tensors["comfy_quant"], tensors, name, (3, 24, 64))
    assert stored.shape == (3, 24, 64)
    found = decode(stored, tensors, torch.float32)
    if name != "convrot_w4a4":  # whose sums have no fixed order
        assert wanted[name].endswith(hashlib.sha256(found.numpy().tobytes()).hexdigest()[:16])
    for i in range(3):
        one = {k: v[i] for k, v in tensors.items() if k.startswith("weight")}
        matrix = {**json.loads(bytes(tensors["comfy_quant"].tolist()))}
        del matrix["num_experts"]
        assert torch.equal(found[i], decode(read_layer(matrix, one, name, (24, 64)), one, torch.float32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_experts": 4}, "num_experts: 4, and its weight has 3"),
        ({"num_experts": "3"}, 'num_experts: "3"'),
        ({"convrot": True}, "does not rotate"),
    ],
)
def test_experts_that_contradict(change: dict[str, object], words: str) -> None:
    tensors = {k.removeprefix("mlp.experts.up."): v for k, v in load_file(EXPERTS / "int8_rows.safetensors").items()}
    o = json.loads(bytes(tensors["comfy_quant"].tolist())) | change
    with pytest.raises(LayerError, match=words):
        read_layer(o, tensors, "experts")
    tensors["weight_scale"] = tensors["weight_scale"][:2]
    with pytest.raises(LayerError, match="a scale for each of 3 experts"):
        read_layer({"format": "int8_tensorwise"}, tensors, "experts")


def test_svdquant_of_kitchen() -> None:
    """A layer of comfy-kitchen's restores to what its kernel makes of an identity."""
    folder = EXPERTS.parent
    tensors = {k.removeprefix("x."): v for k, v in load_file(folder / "svdquant.safetensors").items()}
    wanted = load_file(folder / "svdquant_restored.safetensors")["x.weight"]
    stored = read_layer(tensors["comfy_quant"], tensors, "x")
    found = decode(stored, tensors, torch.float32)
    assert (found - wanted).abs().max() < 1e-6 * wanted.abs().max()
    rows = torch.tensor([3, 0, 19])
    assert torch.equal(decode_rows(stored, tensors, rows, torch.float32), found[rows])
    tensors["weight_smooth_factor"] = tensors["weight_smooth_factor"][1:]
    with pytest.raises(LayerError, match="weight_smooth_factor"):
        read_layer(tensors["comfy_quant"], tensors, "x")
