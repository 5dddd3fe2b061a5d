"""Holds the stand-in for the hub against the hub's own client, huggingface_hub.

    python hub.py HUB

HUB is the program of ./hub. If the client lists and downloads from it, and raises its own
errors, then a test against the stand-in says something of the hub.
"""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

TOKEN = "hf_token_of_the_check"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        files = {
            "config.json": b"{}",
            "model.safetensors": os.urandom(3_000_000),
            "sub/deep/a b+c.txt": b"text",
            "tokenizer.json": os.urandom(5000),
            "empty.txt": b"",
        }
        files |= {f"many/{i}.txt": str(i).encode() for i in range(25)}
        for name, data in files.items():
            path = work / "model" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        command = [sys.argv[1], "-page", "7", "-token", TOKEN, "-gated", "org/gated"]
        server = subprocess.Popen(
            [*command, f"org/open={work / 'model'}", f"org/gated={work / 'model'}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        try:
            check(server.stdout.readline().strip(), work, files)
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate()


def check(endpoint: str, work: Path, files: dict[str, bytes]) -> None:
    os.environ |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(work / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi(endpoint=endpoint, token=False)
    info = api.model_info("org/open")
    assert info.sha is not None and len(info.sha) == 40, info.sha
    assert sorted(api.list_repo_files("org/open")) == sorted(files)
    tree = {e.path: e for e in api.list_repo_tree("org/open", recursive=True)}
    for name, data in files.items():
        entry = tree[name]
        assert entry.size == len(data), (name, entry)
        if len(data) >= 4096:
            assert entry.lfs is not None and entry.lfs.sha256 == hashlib.sha256(data).hexdigest(), entry
    assert "sub/deep" in tree
    meta = get_hf_file_metadata(hf_hub_url("org/open", "model.safetensors"))
    assert meta.size == len(files["model.safetensors"]) and meta.commit_hash == info.sha, meta
    assert meta.etag == hashlib.sha256(files["model.safetensors"]).hexdigest(), meta

    whole = Path(snapshot_download("org/open", token=False))
    for name, data in files.items():
        assert (whole / name).read_bytes() == data, name
    at = hf_hub_download("org/open", "config.json", revision=info.sha, cache_dir=work / "other", token=False)
    assert Path(at).read_bytes() == b"{}"

    def raises(kind: type[Exception], repo: str, name: str, **more: object) -> None:
        try:
            hf_hub_download(repo, name, cache_dir=work / "none", **more)
        except kind:
            return
        raise AssertionError(f"{repo} {name}: no {kind.__name__}")

    raises(RevisionNotFoundError, "org/open", "config.json", revision="v9", token=False)
    raises(EntryNotFoundError, "org/open", "none.json", token=False)
    raises(RepositoryNotFoundError, "org/none", "config.json", token=False)
    raises(GatedRepoError, "org/gated", "config.json", token=False)
    raises(GatedRepoError, "org/gated", "model.safetensors", token="hf_another")
    at = hf_hub_download("org/gated", "model.safetensors", token=TOKEN, cache_dir=work / "gated")
    assert Path(at).read_bytes() == files["model.safetensors"]
    print("ok")


if __name__ == "__main__":
    main()
