"""Layers out of a state dict, with the package's own golden files."""

import json
from pathlib import Path

import pytest
import torch
from node.layers import check, described_bytes, is_ours, names, put, renamed, stored, take, text_of
from safetensors.torch import load_file
from tensorpress.torch import LayerError

GOLDENS = Path(__file__).resolve().parents[2] / "python" / "tests" / "goldens" / "layers.safetensors"


@pytest.fixture
def state():
    """A state dict with a layer in format "sdnq", one of another and a plain one."""
    text = (
        '{"format": "sdnq", "format_version": 1, "weights_dtype": "uint4", "group_size": 4, '
        '"orig_shape": [2, 8], "orig_dtype": "torch.bfloat16", "note": 1}'
    )
    return {
        "a.weight": torch.arange(8, dtype=torch.uint8),
        "a.weight_scale": torch.full((2, 2, 1), 0.5),
        "a.weight_zp": torch.zeros(2, 2, 1),
        "a.bias": torch.ones(2),
        "a.comfy_quant": described_bytes(text.encode()),
        "b.weight": torch.zeros(2, 8, dtype=torch.int8),
        "b.weight_scale": torch.ones(2, 1),
        "b.comfy_quant": described_bytes(b'{"format": "int8_tensorwise"}'),
        "c.weight": torch.zeros(3, 3),
    }


def test_only_ours_are_taken(state):
    assert names(state) == ["a"]
    before = dict(state)
    assert put(state, lambda layer: torch.empty(layer.scheme.shape)) == 1
    assert tuple(state["a.weight"].shape) == (2, 8)
    assert "a.weight_scale" not in state and "a.weight_zp" not in state
    for name in ("a.bias", "a.comfy_quant", "b.weight", "b.weight_scale", "b.comfy_quant", "c.weight"):
        assert state[name] is before[name]


def test_a_layer_is_what_it_was(state):
    before = dict(state)
    layer = take(state, "a")
    assert layer.scheme.shape == (2, 8)
    assert json.loads(layer.text)["note"] == 1
    found = dict(stored(layer))
    assert found.keys() == {"weight", "weight_scale", "weight_zp", "comfy_quant"}
    assert all(torch.equal(t, before[f"a.{name}"]) for name, t in found.items())


def test_decoded_where_it_is_asked_for(state):
    put(state, lambda layer: pytest.fail("wrapped"), plain=["a"])
    # Two codes a byte, the first in the low bits.
    want = torch.tensor([[n for byte in row for n in (byte & 15, byte >> 4)] for row in ([0, 1, 2, 3], [4, 5, 6, 7])])
    assert torch.equal(state["a.weight"], (want * 0.5).to(torch.bfloat16))
    assert "a.comfy_quant" not in state


def test_descriptions_go_where_nobody_reads_them(state):
    put(state, lambda layer: torch.empty(layer.scheme.shape), described=lambda name: False)
    assert "a.comfy_quant" not in state and "b.comfy_quant" in state


def test_formats_that_comfyui_lacks_are_ours(state):
    for name in ("weight", "weight_scale", "comfy_quant"):
        del state[f"b.{name}"]
    state |= {
        "b.weight": torch.zeros(2, 4, dtype=torch.int8),
        "b.weight_scale": torch.ones(1, 2),
        "b.weight_zeros": torch.full((1, 2), 3.0),
        "b.comfy_quant": described_bytes(b'{"format": "awq_w4a16", "group_size": 8}'),
    }
    before = dict(state)
    assert names(state) == ["a"] and names(state, ["nvfp4"]) == ["a", "b"]
    found = []
    assert put(state, lambda layer: found.append(layer) or torch.empty(layer.scheme.shape), theirs=["nvfp4"]) == 2
    layer = found[1]
    assert tuple(state["b.weight"].shape) == (2, 8) and "b.weight_zeros" not in state
    assert torch.equal(layer.decode(torch.float32), torch.full((2, 8), -8 + 3.0))
    assert all(torch.equal(t, before[f"b.{name}"]) for name, t in stored(layer))


def test_every_tensor_of_svdquant_is_taken(state):
    for name in [name for name in state if name.startswith("b.")]:
        del state[name]
    state |= {
        "b.weight": torch.full((2, 32), 0x11, dtype=torch.int8),  # ones
        "b.weight_scale": torch.full((1, 2), 3.0),
        "b.weight_proj_down": torch.full((64, 5), 0.5),
        "b.weight_proj_up": torch.full((2, 5), 2.0),
        "b.weight_smooth_factor": torch.full((64,), 4.0),
        "b.comfy_quant": described_bytes(b'{"format": "svdquant_w4a4"}'),
    }
    before = dict(state)
    found = []
    assert put(state, lambda layer: found.append(layer) or torch.empty(layer.scheme.shape), theirs=["nvfp4"]) == 2
    assert [name for name in state if name.startswith("b.")] == ["b.comfy_quant", "b.weight"]
    assert torch.equal(found[1].decode(torch.float32), torch.full((2, 64), 3 / 4 + 5.0))
    assert all(torch.equal(t, before[f"b.{name}"]) for name, t in stored(found[1]))


def test_errors_name_the_layer(state):
    state["a.weight_scale"] = torch.ones(2, 3, 1)
    with pytest.raises(LayerError, match=r"a.*weight_scale.*\[2, 2, 1\].*\[2, 3, 1\]"):
        put(state, lambda layer: torch.empty(layer.scheme.shape))


def test_a_later_version_is_refused(state):
    text = text_of(state["a.comfy_quant"]).replace(b'"format_version": 1', b'"format_version": 2')
    state["a.comfy_quant"] = described_bytes(text)
    with pytest.raises(LayerError, match="version 2"):
        put(state, lambda layer: torch.empty(layer.scheme.shape))


def test_layers_of_equal_schemes_are_alike(state):
    twin = {name.replace("a.", "d.", 1): t for name, t in state.items() if name.startswith("a.")}
    assert take(state, "a").scheme == take(twin, "d").scheme


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"format": "nvfp4"}', b'{"formats": "sdnq"}'])
def test_what_is_not_ours(text):
    assert not is_ours(text)


def test_goldens_have_the_shapes_of_their_weights():
    state = load_file(GOLDENS)
    ours = names(state)
    put(state, lambda layer: layer.decode())
    assert ours
    for name in ours:
        assert list(state[f"{name}.weight"].shape) == json.loads(text_of(state[f"{name}.comfy_quant"]))["orig_shape"]


def test_what_becomes_of_names():
    state = {name: torch.zeros(2, 2) for name in ("q", "k", "same", "moves", "swapped", "gone")}

    def convert(shapes):
        swapped = shapes["swapped"]
        swapped[:] = swapped.flip(0)
        joined = torch.cat([shapes["q"], shapes["k"]])
        return {"qk": joined, "same": shapes["same"], "moved": shapes["moves"], "swapped": swapped}

    assert renamed(state, convert) == {"same": "same", "moves": "moved"}
    assert renamed(state, lambda shapes: None) is None


def test_what_nobody_decodes_is_refused(state):
    check(state)
    for broken, message in (
        ({"b.comfy_quant": described_bytes(b'{"format": "int9"}')}, "b: format int9"),
        ({"b.comfy_quant": described_bytes(b"\0\0")}, "b.comfy_quant: want JSON"),
        ({"b.comfy_quant": torch.zeros(2)}, "b.comfy_quant: want JSON"),
        ({"d.weight": torch.zeros(4, dtype=torch.uint8), "d.scale": torch.ones(1)}, "d: as SDNQ stores it"),
        ({"d.weight": torch.zeros(4, dtype=torch.float8_e4m3fn), "d.scale": torch.ones(1)}, "d: as SDNQ stores it"),
        ({"d.weight": torch.zeros(4, dtype=torch.int8), "d.weight_scale": torch.ones(1)}, "d: quantized, and no"),
    ):
        with pytest.raises(ValueError, match=message):
            check({**state, **broken})
    # A norm's scale, and float8 that is said nothing about.
    check({"n.scale": torch.ones(2), "f.weight": torch.zeros(2, 2, dtype=torch.float8_e4m3fn)})
