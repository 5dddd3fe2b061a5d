"""Commands as functions, of a program that stands in for the real one, and of that one if it is there."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

import tensorpress
from tensorpress import _program

SCRIPT = """#!{python}
import json, sys
args = sys.argv[1:]
if "--progress=json" in args:
    print('{{"done":1,"total":2}}', file=sys.stderr)
    print("tensorpress: note: a note", file=sys.stderr)
    print('{{"done":2,"total":2}}', file=sys.stderr)
status = {status}
print("x" * 300000 if {much} else "", file=sys.stderr)
if status in (0, 4):
    print(json.dumps({{"args": args}}))
if status:
    print("tensorpress: error: it is wrong", file=sys.stderr)
sys.exit(status)
"""


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, status: int = 0, much: bool = False) -> None:
    if sys.platform == "win32":
        pytest.skip("a script is no program there")
    path = folder / "program"
    path.write_text(SCRIPT.format(python=sys.executable, status=status, much=much))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("TENSORPRESS", str(path))


def test_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, much=True)
    found = tensorpress.quantize(
        Path("a"), "-b", dtype="uint4", group_size=-1, hadamard=True, skip_keys=False, for_="comfyui", seed=None,
        keep=["x", "y"], set={"p": "int8", "q": "keep"}, report=Path("r"),
    )  # fmt: skip
    assert found["args"] == [
        "quantize", "--dtype=uint4", "--group-size=-1", "--hadamard=true", "--skip-keys=false", "--for=comfyui",
        "--keep=x", "--keep=y", "--set=p=int8", "--set=q=keep", "--report=r", "--json", "--", "a", "-b",
    ]  # fmt: skip


def test_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch)
    said: list[tuple[int, int]] = []
    tensorpress.dequantize("a", "b", progress=lambda done, total: said.append((done, total)))
    assert said == [(1, 2), (2, 2)]

    def stop(done: int, total: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError):
        tensorpress.dequantize("a", "b", progress=stop)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (1, tensorpress.RunError),
        (2, tensorpress.UsageError),
        (3, tensorpress.SourceError),
        (4, tensorpress.VerifyError),
        (130, tensorpress.InterruptedRunError),
        (9, tensorpress.RunError),
    ],
)
def test_errors(
    status: int, error: type[tensorpress.TensorpressError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, status)
    with pytest.raises(error, match=r"^it is wrong$") as e:
        tensorpress.verify("a", source="b")
    assert e.value.status == status
    if status == 4:
        assert e.value.result == {"args": ["verify", "--source=b", "--json", "--", "a"]}


def test_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORPRESS", str(tmp_path / "none"))
    with pytest.raises(tensorpress.ProgramNotFoundError, match="which is no program"):
        tensorpress.find()
    monkeypatch.delenv("TENSORPRESS")
    monkeypatch.setenv("PATH", str(tmp_path))
    if (Path(_program.__file__).parent / _program.NAME).exists():
        pytest.skip("the program is in the package")
    with pytest.raises(tensorpress.ProgramNotFoundError, match="go install"):
        tensorpress.find()


def test_the_program_itself(tmp_path: Path) -> None:
    try:
        tensorpress.find()
    except tensorpress.ProgramNotFoundError:
        pytest.skip("there is none")
    goldens = Path(__file__).resolve().parent / "goldens"
    found = tensorpress.inspect(goldens / "model.safetensors")
    assert [layer["name"] for layer in found["layers"]] == ["blocks.0.proj", "blocks.0.rows", "conv", "embed", "up"]
    said: list[tuple[int, int]] = []
    report = tensorpress.dequantize(
        goldens / "model.safetensors", tmp_path / "plain.safetensors", dtype="f32", progress=lambda *p: said.append(p)
    )
    assert len(report["layers"]) == 5
    assert said[-1][0] == said[-1][1]
    with pytest.raises(tensorpress.UsageError, match="exists"):
        tensorpress.dequantize(goldens / "model.safetensors", tmp_path / "plain.safetensors")
    with pytest.raises(tensorpress.UsageError, match="unknown flag --dtipe, did you mean --dtype"):
        tensorpress.plan(goldens / "model.safetensors", dtipe="x")
    again = tensorpress.transcode(
        goldens / "model-sdnq.safetensors", tmp_path / "c.safetensors", layout="comfy", rename=True
    )
    assert json.dumps(again)
    assert tensorpress.verify(tmp_path / "c.safetensors", source=goldens / "model-sdnq.safetensors")["ok"]
    assert os.path.exists(tmp_path / "c.safetensors")
    table = tmp_path / "m.json"
    measured = tensorpress.measure(goldens / "model.safetensors", preset="none", min_numel=0, out=table)
    assert len(measured["layers"]) > 0
    chosen = tensorpress.plan(goldens / "model.safetensors", preset="none", min_numel=0, budget="150%", measured=table)
    assert chosen["budget"]["chosen"]["bytes"] <= chosen["budget"]["bytes"]
    assert {f["name"] for f in tensorpress.formats()} >= {"uint4", "nvfp4"}
    assert tensorpress.presets()
