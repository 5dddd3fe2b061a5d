"""Commands as functions, of a program that stands in for the real one, and of that one if it is there."""

from __future__ import annotations

import array
import json
import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDENS

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


def script(path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("a script is no program there")
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("TENSORPRESS", str(path))


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, status: int = 0, much: bool = False) -> None:
    script(folder / "program", SCRIPT.format(python=sys.executable, status=status, much=much), monkeypatch)


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
    with pytest.raises(tensorpress.ProgramNotFoundError, match=r"none, which is no program: .*unset it$"):
        tensorpress.find()
    monkeypatch.delenv("TENSORPRESS")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_program, "installed", lambda: [tmp_path / "none"])
    with pytest.raises(tensorpress.ProgramNotFoundError, match=r"^no tensorpress.*pip install .*set TENSORPRESS") as e:
        tensorpress.quantize("a", "b")
    assert "\n" not in str(e.value)


def test_the_program_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"named": "named", "target": "target/bin", "record": "env/bin", "path": "path"}
    for folder in places.values():
        (tmp_path / folder).mkdir(parents=True)
        script(tmp_path / folder / _program.NAME, "#!/bin/sh\n", monkeypatch)
    monkeypatch.setattr(_program, "PACKAGE", tmp_path / "target" / "tensorpress")
    recorded(tmp_path / "env" / "lib" / "site-packages", f"../../bin/{_program.NAME}")
    monkeypatch.syspath_prepend(tmp_path / "env" / "lib" / "site-packages")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("TENSORPRESS", str(tmp_path / "named" / _program.NAME))
    for folder in places.values():
        assert Path(tensorpress.find()).resolve().parent == tmp_path / folder
        (tmp_path / folder / _program.NAME).unlink()
        monkeypatch.delenv("TENSORPRESS", raising=False)


def recorded(site: Path, *files: str) -> None:
    """Writes what an installer leaves of a wheel with these files."""
    told = site / "tensorpress-1.2.3.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.4\nName: tensorpress\nVersion: 1.2.3\n")
    (told / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_the_version_is_that_of_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert tensorpress.__version__ == "1.2.3"


def test_as_a_module_it_is_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, 4)
    monkeypatch.setenv("PYTHONPATH", str(Path(tensorpress.__file__).parent.parent))
    line = [sys.executable, "-m", "tensorpress", "verify", "a b", "--json"]
    ran = subprocess.run(line, capture_output=True, text=True)
    assert (ran.returncode, json.loads(ran.stdout)["args"]) == (4, line[3:])
    monkeypatch.setenv("TENSORPRESS", str(tmp_path / "none"))
    ran = subprocess.run(line, capture_output=True, text=True)
    assert ran.returncode == 127
    assert ran.stderr.startswith("tensorpress: TENSORPRESS is ")


def test_what_is_not_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "other", "#!/bin/sh\necho hello\n", monkeypatch)
    with pytest.raises(tensorpress.RunError, match=r"other printed no JSON: is it tensorpress\?"):
        tensorpress.formats()
    script(tmp_path / "broken", f"#!{tmp_path}/none\n", monkeypatch)
    with pytest.raises(tensorpress.ProgramNotFoundError, match="broken does not run: No such file"):
        tensorpress.formats()
    script(tmp_path / "killed", "#!/bin/sh\nkill -9 $$\n", monkeypatch)
    with pytest.raises(tensorpress.RunError, match="tensorpress was ended by signal 9"):
        tensorpress.formats()


def test_notes_are_no_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "#!/bin/sh\necho 'tensorpress: error: it is wrong' >&2\necho 'tensorpress: note: a note' >&2\nexit 3\n"
    script(tmp_path / "program", text, monkeypatch)
    with pytest.raises(tensorpress.SourceError, match=r"^it is wrong$"):
        tensorpress.formats()


def test_words_of_convert_to_quant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch)
    printed = tensorpress.ctq("-i", Path("a b"), "--simple", "--scaling_mode", "row")
    assert json.loads(printed)["args"] == ["ctq", "-i", "a b", "--simple", "--scaling_mode", "row"]


def test_paths_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "größe 模型 $(x) 'q'"
    folder.mkdir()
    stand_in(folder, monkeypatch)
    assert tensorpress.inspect(folder)["args"][-1] == str(folder)
    words = (
        "import os, sys\nsys.stderr.buffer.write(b'tensorpress: error: ' + os.fsencode(sys.argv[-1]))\nsys.exit(3)\n"
    )
    script(folder / "echo", f"#!{sys.executable}\n{words}", monkeypatch)
    strange = os.fsdecode(b"\xff.safetensors")  # no UTF-8
    with pytest.raises(tensorpress.SourceError) as e:
        tensorpress.inspect(strange)
    assert str(e.value) == strange


#: A program that counts the signals that reach it, and one who runs it.
COUNTS = """#!{python}
import signal, sys, time
got = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: got.append(number))
print('{{"done":0,"total":1}}', file=sys.stderr, flush=True)
while not got:
    time.sleep(0.01)
print("x" * 300000, file=sys.stderr, flush=True)  # more than a pipe holds
time.sleep(0.3)
open({log!r}, "w").write(" ".join(signal.Signals(n).name for n in got))
sys.exit(130)
"""
CALLS = """import sys; sys.path.insert(0, {source!r})
import tensorpress
tensorpress.quantize({a!r}, {b!r}, progress=lambda *p: print(*p, flush=True), **{flags!r})
"""


def interrupt(a: Path, b: Path, **flags: object) -> str:
    """Presses Ctrl-C in a terminal where Python quantizes: all of its processes get the
    signal. Returns what is said."""
    source = str(Path(tensorpress.__file__).parent.parent)
    code = CALLS.format(source=source, a=str(a), b=str(b), flags=flags)
    caller = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    with caller:
        assert caller.stdout is not None
        caller.stdout.readline()
        os.killpg(caller.pid, signal.SIGINT)
        _, said = caller.communicate(timeout=60)
    return said


def test_an_interruption_is_one_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    script(tmp_path / "program", COUNTS.format(python=sys.executable, log=str(log)), monkeypatch)
    assert "KeyboardInterrupt" in interrupt(tmp_path / "a", tmp_path / "b")
    assert log.read_text() == "SIGTERM"


def big(folder: Path) -> Path:
    """A model that takes the program seconds."""
    random.seed(1)
    rows = array.array("f", [random.gauss(0, 0.05) for _ in range(1 << 16)]).tobytes() * 64
    names = [f"blocks.{i}.weight" for i in range(4)]
    header = {
        name: {"dtype": "F32", "shape": [2048, 2048], "data_offsets": [i * len(rows), (i + 1) * len(rows)]}
        for i, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    path = folder / "big.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + rows * len(names))
    return path


SLOW = {"dtype": "sdnq:uint4", "layout": "comfy", "svd_rank": 128, "svd_steps": 32, "threads": 1}


def test_nothing_half_written_remains(program: str, tmp_path: Path) -> None:
    source = big(tmp_path)

    def enough(done: int, total: int) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        tensorpress.quantize(
            source, tmp_path / "a.safetensors", progress=enough, dtype="sdnq:uint4", layout="comfy", svd_rank=128,
            svd_steps=32, threads=1,
        )  # fmt: skip
    assert os.listdir(tmp_path) == [source.name]
    if sys.platform != "win32":
        assert "KeyboardInterrupt" in interrupt(source, tmp_path / "a.safetensors", **SLOW)
        assert os.listdir(tmp_path) == [source.name]


def test_the_program_itself(program: str, tmp_path: Path) -> None:
    found = tensorpress.inspect(GOLDENS / "model.safetensors")
    assert [layer["name"] for layer in found["layers"]] == ["blocks.0.proj", "blocks.0.rows", "conv", "embed", "up"]
    said: list[tuple[int, int]] = []
    plain = tmp_path / "mögliche Ablage" / "plain 模型.safetensors"
    plain.parent.mkdir()
    report = tensorpress.dequantize(
        GOLDENS / "model.safetensors", plain, dtype="f32", progress=lambda *p: said.append(p)
    )
    assert len(report["layers"]) == 5
    assert said[-1][0] == said[-1][1]
    with pytest.raises(tensorpress.UsageError, match=r"plain 模型\.safetensors exists"):
        tensorpress.dequantize(GOLDENS / "model.safetensors", plain)
    wrong: dict[str, Any] = {"dtipe": "x"}
    with pytest.raises(tensorpress.UsageError, match="unknown flag --dtipe, did you mean --dtype"):
        tensorpress.plan(GOLDENS / "model.safetensors", **wrong)
    with pytest.raises(tensorpress.UsageError, match="svd-rank"):
        tensorpress.plan(GOLDENS / "model.safetensors", svd_rank="many")  # type: ignore[arg-type]
    again = tensorpress.transcode(
        GOLDENS / "model-sdnq.safetensors", tmp_path / "c.safetensors", layout="comfy", rename=True
    )
    assert json.dumps(again)
    assert tensorpress.verify(tmp_path / "c.safetensors", source=GOLDENS / "model-sdnq.safetensors")["ok"]
    assert tensorpress.diff(tmp_path / "c.safetensors", GOLDENS / "model-sdnq.safetensors")["same"]
    differ = tensorpress.diff(tmp_path / "c.safetensors", GOLDENS / "model-sdnq.safetensors", bytes=True)
    assert not differ["same"] and differ["counts"]
    assert os.path.exists(tmp_path / "c.safetensors")
    table = str(tmp_path / "m.json")
    measured = tensorpress.measure(GOLDENS / "model.safetensors", preset="none", min_numel=0, out=table)
    assert len(measured["layers"]) > 0
    chosen = tensorpress.plan(GOLDENS / "model.safetensors", preset="none", min_numel=0, budget="150%", measured=table)
    assert chosen["budget"]["chosen"]["bytes"] <= chosen["budget"]["bytes"]
    several = tmp_path / "several.json"
    several.write_text(
        json.dumps({"preset": "none", "outputs": [{"dest": "e1.safetensors"}, {"dest": "e2.safetensors"}]})
    )
    all_made = tensorpress.quantize(GOLDENS / "model.safetensors", outputs=several, threads=1)
    assert [Path(one["dest"]).name for one in all_made["outputs"]] == ["e1.safetensors", "e2.safetensors"]
    assert (tmp_path / "e2.safetensors").exists()
    assert {f["name"] for f in tensorpress.formats()} >= {"uint4", "nvfp4"}
    assert tensorpress.presets()
    tensorpress.ctq("-i", plain, "-o", tmp_path / "d.safetensors", "--simple", "--int8")
    made = tensorpress.inspect(tmp_path / "d.safetensors")
    assert {layer["format"] for layer in made["layers"]} == {"int8_tensorwise"}
    with pytest.raises(tensorpress.UsageError, match="unrecognized arguments: --intt8"):
        tensorpress.ctq("-i", plain, "--intt8")
