"""What the fields of the node become."""

import pytest
from node.flags import DTYPES, beside, collect, parse


def test_fields_that_say_nothing_are_left_out():
    assert collect("nvfp4", 0, 0, False, "", False) == {"layout": "comfy", "dtype": "nvfp4"}


def test_all_fields():
    found = collect("sdnq:uint4", 64, 16, True, "", True)
    assert found == {
        "layout": "comfy",
        "dtype": "sdnq:uint4",
        "group_size": 64,
        "svd_rank": 16,
        "hadamard": True,
        "force": True,
    }


def test_flags_win_and_repeat():
    more = r"--dtype=int8 --keep norm --keep '\.bias' --codebook --set 'a b=nvfp4' --group-size -1"
    found = collect("sdnq:uint4", 64, 0, False, more, False)
    assert found == {
        "layout": "comfy",
        "dtype": "int8",
        "keep": ["norm", r"\.bias"],
        "codebook": True,
        "set": "a b=nvfp4",
        "group_size": "-1",
    }


@pytest.mark.parametrize("more", ["norm", "--keep a b", "--layout sdnq", "--json", "-q"])
def test_what_is_refused(more):
    with pytest.raises(ValueError):
        collect("nvfp4", 0, 0, False, more, False)


def test_no_flags():
    assert parse("  ") == {}


def test_a_name_is_beside_the_source(tmp_path):
    source = tmp_path / "model.safetensors"
    source.write_bytes(b"")
    assert beside(str(source), "small") == str(tmp_path / "small.safetensors")
    assert beside(str(source), " small.safetensors ") == str(tmp_path / "small.safetensors")
    for name in ("", "../small", "/tmp/small", "a/b", "a\\b", "model"):
        with pytest.raises(ValueError):
            beside(str(source), name)


def test_dtypes_are_offered_once():
    assert len(set(DTYPES)) == len(DTYPES)
