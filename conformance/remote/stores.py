"""Drives the command against object stores that run on this machine.

    python stores.py TENSORPRESS [s3] [gs] [az]

s3 is SeaweedFS (`weed`), a real server; gs is fake-gcs-server, az Azurite
(`azurite-blob`), the emulators that Google's and Azure's users test with. README.md says
where they come from. Only the standard library is used.
"""

import argparse
import base64
import contextlib
import datetime
import filecmp
import hashlib
import hmac
import http.client
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

BUCKET = "models"
KEY, SECRET = "AKIDTEST", "s3-secret-of-the-check"
ACCOUNT = "devstoreaccount1"  # Azurite's, with a key that everybody knows
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def ask(port: int, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, bytes]:
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    c.request(method, path, body, headers)
    answer = c.getresponse()
    return answer.status, answer.read()


@contextlib.contextmanager
def running(command: list[str], port: int, logs: Path) -> Iterator[None]:
    """A server, once it takes connections."""
    with logs.open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=logs.parent)
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if server.poll() is not None:
                    raise SystemExit(f"{command[0]} ended: {logs.read_text()[-500:]}")
                time.sleep(0.1)
            yield
        finally:
            server.terminate()
            server.wait()


class Store:
    """A store, and what is asked of it beside the command."""

    scheme = ""

    def __init__(self) -> None:
        self.port = free_port()

    def serve(self, folder: Path) -> contextlib.AbstractContextManager[None]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        raise NotImplementedError

    def wrong(self) -> dict[str, str]:
        """Credentials that are not the store's; empty where it asks for none."""
        return {}

    def make_bucket(self) -> None:
        raise NotImplementedError

    def unfinished(self) -> int:
        return 0


class S3(Store):
    scheme = "s3"

    def serve(self, folder: Path) -> contextlib.AbstractContextManager[None]:
        config = {
            "identities": [
                {
                    "name": "me",
                    "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                    "actions": ["Admin", "Read", "Write", "List"],
                }
            ]
        }
        (folder / "s3.json").write_text(json.dumps(config))
        ports = [f"-{name}.port={free_port()}" for name in ("master", "volume", "filer")]
        # Ports for gRPC are chosen too, as theirs would be 10 000 above.
        ports += [f"-{name}.port.grpc={free_port()}" for name in ("master", "volume", "filer", "s3")]
        command = [
            "weed",
            "-logdir",
            str(folder),
            "server",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-filer",
            "-s3",
            f"-s3.port={self.port}",
        ]
        return running(
            [*command, f"-s3.config={folder / 's3.json'}", "-master.volumeSizeLimitMB=64", "-volume.max=30", *ports],
            self.port,
            folder / "weed.log",
        )

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def wrong(self) -> dict[str, str]:
        return {"AWS_SECRET_ACCESS_KEY": "another-secret"}

    def signed(self, method: str, path: str, query: str = "") -> tuple[int, bytes]:
        """Asks with Amazon's fourth signature, written here so that it is no copy of ours."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        empty = hashlib.sha256(b"").hexdigest()
        host = f"127.0.0.1:{self.port}"
        names = "host;x-amz-content-sha256;x-amz-date"
        shown = f"host:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{now}\n"
        text = f"{method}\n{path}\n{query}\n{shown}\n{names}\n{empty}"
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        key = ("AWS4" + SECRET).encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(
            key,
            f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(text.encode()).hexdigest()}".encode(),
            hashlib.sha256,
        ).hexdigest()
        headers = {
            "Host": host,
            "X-Amz-Date": now,
            "X-Amz-Content-Sha256": empty,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}",
        }
        return ask(self.port, method, path + ("?" + query if query else ""), headers)

    def make_bucket(self) -> None:
        for _ in range(100):  # the parts of the server find each other
            if self.signed("PUT", f"/{BUCKET}")[0] == 200:
                return
            time.sleep(0.3)
        raise SystemExit("no bucket could be made")

    def unfinished(self) -> int:
        status, text = self.signed("GET", f"/{BUCKET}", "uploads=")
        assert status == 200, text
        return text.count(b"<Upload>")


class GS(Store):
    scheme = "gs"

    def serve(self, folder: Path) -> contextlib.AbstractContextManager[None]:
        command = [
            "fake-gcs-server",
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-port",
            str(self.port),
            "-backend",
            "memory",
        ]
        return running([*command, "-public-host", f"127.0.0.1:{self.port}"], self.port, folder / "gcs.log")

    def environment(self) -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": f"127.0.0.1:{self.port}"}

    def make_bucket(self) -> None:
        status, text = ask(
            self.port,
            "POST",
            "/storage/v1/b?project=p",
            {"Content-Type": "application/json"},
            json.dumps({"name": BUCKET}).encode(),
        )
        assert status == 200, text


class AZ(Store):
    scheme = "az"

    def serve(self, folder: Path) -> contextlib.AbstractContextManager[None]:
        command = [
            "azurite-blob",
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
            str(self.port),
            "--inMemoryPersistence",
            "--silent",
            "--disableTelemetry",
        ]
        return running(command, self.port, folder / "azurite.log")

    def connection(self, key: str) -> dict[str, str]:
        home = f"http://127.0.0.1:{self.port}/{ACCOUNT}"
        return {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={home}"}

    def environment(self) -> dict[str, str]:
        return self.connection(ACCOUNT_KEY)

    def wrong(self) -> dict[str, str]:
        return self.connection(base64.b64encode(b"another secret").decode())

    def make_bucket(self) -> None:
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"x-ms-date": now, "x-ms-version": "2021-12-02"}
        text = (
            "PUT"
            + "\n" * 12
            + "".join(f"{k}:{v}\n" for k, v in sorted(headers.items()))
            + f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
        )
        signature = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
        status, answer = ask(self.port, "PUT", f"/{ACCOUNT}/{BUCKET}?restype=container", headers)
        assert status == 201, answer


def make_model(folder: Path, layers: int, rows: int, cols: int) -> None:
    """A model of noise, in one file, with another beside it in a folder."""
    (folder / "tokenizer").mkdir(parents=True)
    size = rows * cols * 2
    header = {
        f"model.layers.{i}.mlp.up_proj.weight": {
            "dtype": "BF16",
            "shape": [rows, cols],
            "data_offsets": [i * size, (i + 1) * size],
        }
        for i in range(layers)
    }
    text = json.dumps(header).encode()
    noise = random.Random(1)
    with (folder / "model.safetensors").open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _ in range(layers):
            f.write(
                b"".join(
                    struct.pack("<H", noise.choice((0x3C00, 0xBC00)) | noise.getrandbits(9)) for _ in range(rows * cols)
                )
            )
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    (folder / "tokenizer" / "a b+c%20é.txt").write_text("words")


def check(store: Store, tool: str, work: Path) -> None:
    env = {**os.environ, "AWS_EC2_METADATA_DISABLED": "true", **store.environment()}
    base = f"{store.scheme}://{BUCKET}"

    def run(*args: str, want: int = 0, says: str = "", wrong: dict[str, str] | None = None) -> None:
        done = subprocess.run([tool, *args], env={**env, **(wrong or {})}, cwd=work, capture_output=True, text=True)
        text = done.stdout + done.stderr
        if done.returncode != want or says not in text:
            raise SystemExit(
                f"{store.scheme}: {' '.join(args)}: status {done.returncode}, want {want} and {says!r}:\n{text}"
            )
        for secret in (SECRET, "another-secret", ACCOUNT_KEY):
            assert secret not in text, text

    def same(address: str, local: str) -> None:
        """What the store has is read again by a command that changes nothing."""
        back = work / "back"
        shutil.rmtree(back, ignore_errors=True)
        run("quantize", address, str(back), "--keep", ".", "--layout", "sdnq", "-q")
        shutil.rmtree(work / "want", ignore_errors=True)
        run("quantize", local, str(work / "want"), "--keep", ".", "--layout", "sdnq", "-q")
        compared = filecmp.cmpfiles(
            back, work / "want", [str(p.relative_to(back)) for p in back.rglob("*") if p.is_file()], shallow=False
        )
        assert not compared[1] and not compared[2] and compared[0], compared

    run("quantize", "model", f"{base}/plain", "--keep", ".", "--layout", "sdnq", "-q")
    same(f"{base}/plain", "model")
    shards = ["--dtype", "uint4", "--shard-size", "8MB"]
    run("quantize", f"{base}/plain", f"{base}/out", *shards)
    shutil.rmtree(work / "out", ignore_errors=True)
    run("quantize", "model", "out", *shards, "-q")
    run("dequantize", f"{base}/out", f"{base}/restored.safetensors")
    run("verify", f"{base}/out", "--source", f"{base}/plain", says="ok")
    run("verify", f"{base}/restored.safetensors", says="ok")
    run("dequantize", "out", "restored", "-q")
    run(
        "verify",
        f"{base}/restored.safetensors",
        "--source",
        "restored/model.safetensors",
        "--max-rel-mse",
        "0",
        says="ok",
    )
    shutil.rmtree(work / "restored")

    run("quantize", "model", f"{base}/out", want=2, says="exists")
    run("quantize", "model", f"{base}/out", "--dtype", "int8", "--force", "-q")
    run("inspect", f"{base}/out", says="int8")
    run("inspect", f"{base}/out/model-00001-of-00002.safetensors", want=1, says="does not exist")
    run("quantize", f"{base}/plain", f"{base}/plain/out", want=2, says="lies in the source")
    run("plan", f"{base}/none", want=1, says="does not exist")
    run("plan", f"{store.scheme}://no-such-bucket/none", want=3, says="there is no bucket no-such-bucket")
    run("quantize", "model", f"{store.scheme}://no-such-bucket/none", want=1, says="there is no bucket no-such-bucket")
    if store.wrong():
        run("plan", f"{base}/plain", want=3, says="credentials", wrong=store.wrong())
        run("quantize", "model", f"{base}/new", want=1, says="credentials", wrong=store.wrong())

    for i in range(8):  # an interrupt at some moment leaves nothing
        p = subprocess.Popen(
            [tool, "quantize", "model", f"{base}/stopped", "--dtype", "int8", "-q"],
            env=env,
            cwd=work,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.02 + 0.05 * i)
        p.send_signal(signal.SIGINT)
        if p.wait() == 0:
            break
        run("plan", f"{base}/stopped", want=1, says="does not exist")
    assert store.unfinished() == 0, f"{store.unfinished()} uploads are left"
    check_parts(store, tool, env, work, f"{base}/parts")
    left = list(Path(env.get("TMPDIR", tempfile.gettempdir())).glob(".scratch-*"))
    assert not left, left
    print(f"{store.scheme}: ok")


def check_parts(store: Store, tool: str, env: dict[str, str], work: Path, dest: str) -> None:
    """Processes write parts, some of them killed and some twice at once, and one finishes."""
    settings = ["--keep", ".", "--layout", "sdnq", "--shard-size", "18MB", "-q"]  # a file in two parts, and a small one

    def part(text: str) -> subprocess.Popen[str]:
        command = [tool, "quantize", "model", dest, *settings, "--part", text]
        return subprocess.Popen(command, env=env, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def ends(p: subprocess.Popen[str], want: int = 0, says: str = "") -> None:
        text = p.communicate()[0]
        if p.returncode != want or says not in text:
            raise SystemExit(f"{dest}: status {p.returncode}, want {want} and {says!r}: {text}")

    def finish(want: int = 0, says: str = "") -> str:
        done = subprocess.run([tool, "finish", dest, "--json"], env=env, cwd=work, capture_output=True, text=True)
        if done.returncode != want or says not in done.stderr:
            raise SystemExit(f"{dest}: finish: status {done.returncode}, want {want} and {says!r}: {done.stderr}")
        return done.stdout

    for i in range(6):
        killed = part("1/2")
        time.sleep(0.02 + 0.04 * i)
        killed.kill()
        killed.wait()
    killed = part("1/2")
    for _ in range(500):  # killed while an upload is on its way, where the store lists those
        if store.unfinished() or killed.poll() is not None:
            break
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    left = store.unfinished()
    ends(part("2/2"))
    first, second = part("1/2"), part("1/2")
    ends(first)
    ends(second)
    shutil.rmtree(work / "single", ignore_errors=True)
    subprocess.run([tool, "quantize", "model", "single", *settings], cwd=work, check=True)
    got = {f["path"]: f["sha256"] for f in json.loads(finish())["files"]}
    single = [p for p in (work / "single").rglob("*") if p.is_file()]
    want = {str(p.relative_to(work / "single")): hashlib.sha256(p.read_bytes()).hexdigest() for p in single}
    assert got == want, (got, want)
    assert store.unfinished() == 0, f"{left} uploads were left by killed runs, and {store.unfinished()} by finish"
    if store.scheme == "s3":
        assert left > 0, "no run was killed while an upload was on its way"
    assert json.loads(finish())["already"]
    back = work / "back"
    shutil.rmtree(back, ignore_errors=True)
    # what a reader finds there, records or not
    subprocess.run([tool, "quantize", dest, "back", *settings], env=env, cwd=work, check=True)
    assert sorted(str(p.relative_to(back)) for p in back.rglob("*") if p.is_file()) == sorted(want), "other files"
    ends(part("1/2"), 2, "exists")
    # of another output some is there, and finish says what is missing
    dest += "-some"
    ends(part("2/2"))
    finish(2, "1/2")
    ends(part("1/2"))
    finish()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tensorpress")
    parser.add_argument("kinds", nargs="*", default=[])
    args = parser.parse_args()
    tool = shutil.which(args.tensorpress) or args.tensorpress
    known = {one.scheme: one for one in (S3, GS, AZ)}
    with tempfile.TemporaryDirectory(prefix="stores-") as folder:
        work = Path(folder)
        make_model(work / "model", 6, 1024, 2048)
        for kind in args.kinds or known:
            store = known[kind]()
            home = work / kind
            home.mkdir()
            with store.serve(home):
                store.make_bucket()
                check(store, str(Path(tool).resolve()), work)


if __name__ == "__main__":
    main()
    sys.exit(0)
