"""Runs deploy/slurm on a real Slurm, with a task killed in its middle, and compares bytes.

    python slurm.py TENSORPRESS

Wants Debian's slurm-wlm and munge; starts a controller and four nodes of its own on this
machine, as the user that runs it, and ends them. With `weed` (SeaweedFS) on PATH an array
writes to a store as well. Only the standard library is used.
"""

import argparse
import contextlib
import getpass
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

from model import hashes, make_model

sys.path.append(str(Path(__file__).resolve().parents[1] / "remote"))
from stores import BUCKET, S3

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "slurm"
NODES, PARTS = 4, 8
# rounds of a search take long enough that a task can be met in its middle
OPTIONS = ["--dtype", "uint4", "--svd-rank", "32", "--svd-steps", "12", "--shard-size", "400kB"]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]


def until(what: str, holds: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(0.02)


class Slurm:
    """A cluster on this machine."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.env = {**os.environ, "SLURM_CONF": str(home / "slurm.conf")}

    def start(self, name: str, *command: str) -> None:
        log = (self.home / f"{name}.out").open("ab")
        # a session each, so that a node can be killed with all that runs on it
        self.daemons[name] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True
        )
        log.close()

    def configure(self) -> None:
        for folder in ("state", "munge", *(f"spool/n{i}" for i in range(1, NODES + 1))):
            (self.home / folder).mkdir(parents=True)
        key = self.home / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        ports = free_ports(NODES + 1)
        user, host = getpass.getuser(), socket.gethostname()
        lines = [
            "ClusterName=check",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={ports[0]}",
            "AuthType=auth/munge",
            f"AuthInfo=socket={self.home}/munge/socket",
            f"SlurmUser={user}",
            f"SlurmdUser={user}",
            f"StateSaveLocation={self.home}/state",
            f"SlurmdSpoolDir={self.home}/spool/%n",
            f"SlurmctldPidFile={self.home}/slurmctld.pid",
            f"SlurmdPidFile={self.home}/%n.pid",
            f"SlurmctldLogFile={self.home}/slurmctld.log",
            f"SlurmdLogFile={self.home}/%n.log",
            "ProctrackType=proctrack/pgid",
            "TaskPlugin=task/none",
            "MpiDefault=none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "SlurmdParameters=config_overrides",  # nodes have what is said here, as far as Slurm knows
            "ReturnToService=2",
            "SlurmdTimeout=5",
            "KillWait=5",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=2",
            *(
                f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[i]} CPUs=8 RealMemory=4096"
                for i in range(1, NODES + 1)
            ),
            "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
        ]
        (self.home / "slurm.conf").write_text("\n".join(lines) + "\n")

    def node(self, i: int) -> None:
        self.start(f"n{i}", "slurmd", "-D", "-N", f"n{i}")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.configure()
        munge = self.home / "munge"
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = [f"--{what}={munge / name}" for what, name in names.items()]
        try:
            self.start("munged", "munged", "--foreground", "--force", *files)
            until("munged listens", (munge / "socket").exists)
            self.start("slurmctld", "slurmctld", "-D")
            for i in range(1, NODES + 1):
                self.node(i)
            until("all nodes are up", lambda: self.ask("sinfo", "-h", "-o", "%D %t").strip() == f"{NODES} idle")
            yield
        finally:
            self.ask("scancel", "--signal=KILL", "--user", getpass.getuser())
            for daemon in reversed(self.daemons.values()):
                daemon.terminate()
            for daemon in self.daemons.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.wait(10)
                    continue
                daemon.kill()

    def ask(self, *command: str) -> str:
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False).stdout

    def lose(self, node: str) -> None:
        """Kills a node's daemon and all that it has started, as when its power goes."""
        self.daemons[node].kill()
        self.daemons[node].wait()
        tasks, parents = [], set()
        for p in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                env = (p / "environ").read_bytes().split(b"\0")
                if f"SLURMD_NODENAME={node}".encode() in env and f"SLURM_CONF={self.home}/slurm.conf".encode() in env:
                    tasks.append(int(p.name))
                    parents.add(int((p / "stat").read_text().rpartition(")")[2].split()[1]))
        for pid in parents - set(tasks):  # first, or they would report what becomes of the tasks
            assert b"slurmstepd" in Path(f"/proc/{pid}/cmdline").read_bytes()
            os.kill(pid, signal.SIGKILL)
        for pid in tasks:
            os.kill(pid, signal.SIGKILL)

    def restarts(self, job: str) -> int:
        """How often its tasks were started again."""
        words = self.ask("scontrol", "show", "job", job).split()
        return sum(int(w.removeprefix("Restarts=")) for w in words if w.startswith("Restarts="))

    def submit(self, work: Path, *args: str) -> tuple[str, str]:
        """The jobs of the parts and of the finish."""
        done = subprocess.run([DEPLOY / "submit.sh", *args], env=self.env, cwd=work, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"submit.sh: {done.stdout}{done.stderr}")
        words = done.stdout.replace(",", "").split()
        return words[words.index("job") + 1], words[-1]

    def states(self, job: str) -> list[str]:
        """Those of its tasks."""
        return [
            word.removeprefix("JobState=")
            for word in self.ask("scontrol", "show", "job", job).split()
            if word.startswith("JobState=")
        ]

    def wait(self, work: Path, job: str, want: str = "COMPLETED", seconds: float = 400) -> None:
        ends = {"COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT", "OUT_OF_MEMORY"}
        until(f"job {job} ends", lambda: set(self.states(job)) <= ends, seconds)
        if set(self.states(job)) != {want}:
            raise SystemExit(f"job {job}: {self.states(job)}, want {want}:\n{logs(work, job)}")

    def process_of(self, job: str, task: int) -> int:
        """The process of a task's tensorpress, 0 where there is none now."""
        for p in Path("/proc").iterdir():
            if not p.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                env = (p / "environ").read_bytes().split(b"\0")
                mine = f"SLURM_ARRAY_JOB_ID={job}".encode() in env and f"SLURM_ARRAY_TASK_ID={task}".encode() in env
                words = (p / "cmdline").read_bytes().split(b"\0")
                if mine and words[0].endswith(b"tensorpress") and b"--part" in words:
                    return int(p.name)
        return 0

    def act(self, *command: str) -> None:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


DONE = ".done.json"  # the end of the name of a record


def finished(dest: Path) -> set[str]:
    """The names of weights of which there are records."""
    kept = dest.parent / f".{dest.name}.parts" / ".tensorpress"
    return {p.name.removesuffix(DONE) for p in kept.glob(f"*{DONE}")} if kept.exists() else set()


def keys(store: S3, name: str) -> list[str]:
    """Those of a destination in the store, from its name on."""
    status, text = store.signed("GET", f"/{BUCKET}", f"list-type=2&prefix={name}%2F")
    assert status == 200, text
    found = (e.text or "" for e in ET.fromstring(text).iter() if e.tag.endswith("}Key"))
    return [k.removeprefix(f"{name}/") for k in found]


def stored_hashes(store: S3, name: str) -> dict[str, str]:
    """The sha256 of every object of a destination."""
    got = {}
    for key in keys(store, name):
        status, body = store.signed("GET", f"/{BUCKET}/{name}/{urllib.parse.quote(key)}")
        assert status == 200, key
        got[key] = hashlib.sha256(body).hexdigest()
    return got


def shards_of(work: Path, task: int) -> set[str]:
    """Those of a part."""
    command = ["tensorpress", "plan", "model", *OPTIONS, "--part", f"{task}/{PARTS}", "--json"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=True)
    return {f["name"] for f in json.loads(done.stdout)["shards"]["files"]}


def in_its_middle(slurm: Slurm, work: Path, done: Callable[[], set[str]], job: str, task: int) -> int:
    """Waits until a task has finished another shard and is at work on more: its process."""
    own = shards_of(work, task)
    before = done() & own
    until(f"task {task} has begun", lambda: slurm.process_of(job, task) != 0)
    process = slurm.process_of(job, task)
    until(f"a shard of task {task} is there", lambda: done() & own > before)
    there = done() & own
    if there == own:
        raise SystemExit(f"task {task} ended before it was met")
    print(f"met {job}_{task} with {len(there)} of {len(own)} shards finished")
    return process


def compare(dest: Path, want: dict[str, str]) -> None:
    got = hashes(dest)
    if got != want:
        wrong = sorted(n for n in got.keys() | want.keys() if got.get(n) != want.get(n))
        raise SystemExit(f"{dest.name}: other bytes than a single run's: {', '.join(wrong)}")
    left = [p.name for p in dest.parent.iterdir() if p.name.startswith(f".{dest.name}")]
    if left:
        raise SystemExit(f"{dest.name}: left beside it: {', '.join(left)}")


def logs(work: Path, job: str) -> str:
    return "".join(f"{p.name}:\n{p.read_text()}" for p in sorted(work.glob(f"tensorpress-{job}*.log")))


def requeued(slurm: Slurm, work: Path, want: dict[str, str]) -> None:
    """A task is requeued in its middle; the finish waits for it, and may run again."""
    dest = work / "requeued"
    parts, finish = slurm.submit(work, str(PARTS), "model", dest.name, *OPTIONS)
    process = in_its_middle(slurm, work, lambda: finished(dest), parts, 5)
    slurm.act("scontrol", "requeue", f"{parts}_5")
    until("the requeued process is gone", lambda: not Path(f"/proc/{process}").exists())
    slurm.act("scontrol", "update", f"JobId={parts}_5", "StartTime=now")  # else Slurm waits two minutes
    slurm.wait(work, parts)
    slurm.wait(work, finish)
    log = logs(work, f"{parts}_5")
    assert "DUE TO JOB REQUEUE" in log and "were finished before, and are taken" in log, log
    compare(dest, want)
    slurm.act("scontrol", "requeue", finish)
    slurm.act("scontrol", "update", f"JobId={finish}", "StartTime=now")
    slurm.wait(work, finish)
    compare(dest, want)
    print("requeued in its middle: the same bytes, and finish again does no harm")


def node_lost(slurm: Slurm, work: Path, want: dict[str, str]) -> None:
    """A node goes with all that runs on it; Slurm starts its tasks again."""
    dest = work / "lost"
    parts, finish = slurm.submit(work, str(PARTS), "model", dest.name, *OPTIONS)
    process = in_its_middle(slurm, work, lambda: finished(dest), parts, 3)
    env = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    node = next(e for e in env if e.startswith(b"SLURMD_NODENAME=")).partition(b"=")[2].decode()
    slurm.lose(node)
    until(f"{node} is down", lambda: "down" in slurm.ask("sinfo", "-h", "-n", node, "-o", "%t"))
    slurm.node(int(node[1:]))
    slurm.wait(work, parts)
    slurm.wait(work, finish)
    compare(dest, want)
    print(f"a node lost with its tasks: the same bytes, {slurm.restarts(parts)} tasks started again")


def failed(slurm: Slurm, work: Path, want: dict[str, str]) -> None:
    """A process is killed: its task fails, no finish runs, and a second array does what is left."""
    dest = work / "failed"
    parts, finish = slurm.submit(work, str(PARTS), "model", dest.name, *OPTIONS)
    os.kill(in_its_middle(slurm, work, lambda: finished(dest), parts, 2), signal.SIGKILL)
    slurm.wait(work, finish, "CANCELLED")
    assert not dest.exists()
    before = len(finished(dest))
    parts, finish = slurm.submit(work, str(PARTS), "model", dest.name, *OPTIONS)
    slurm.wait(work, parts)
    slurm.wait(work, finish)
    compare(dest, want)
    print(f"a process killed: nothing at DEST; the second array took up {before} shards: the same bytes")


def stored(slurm: Slurm, work: Path, want: dict[str, str]) -> None:
    """A store as DEST: a task is killed, and one requeued; readers find nothing before the end."""
    store = S3()
    folder = work / "store"
    folder.mkdir()
    with store.serve(folder):
        store.make_bucket()
        slurm.env |= store.environment()
        args = [str(PARTS), "model", f"s3://{BUCKET}/stored", *OPTIONS]

        def done() -> set[str]:
            return {Path(k).name.removesuffix(DONE) for k in keys(store, "stored") if k.endswith(DONE)}

        parts, finish = slurm.submit(work, *args)
        os.kill(in_its_middle(slurm, work, done, parts, 2), signal.SIGKILL)
        slurm.wait(work, finish, "CANCELLED")
        assert not {"model.safetensors.index.json", "config.json"} & set(keys(store, "stored"))
        before = len(done())
        parts, finish = slurm.submit(work, *args)
        process = in_its_middle(slurm, work, done, parts, 2)
        slurm.act("scontrol", "requeue", f"{parts}_2")
        until("the requeued process is gone", lambda: not Path(f"/proc/{process}").exists())
        slurm.act("scontrol", "update", f"JobId={parts}_2", "StartTime=now")
        slurm.wait(work, parts)
        slurm.wait(work, finish)
        got = stored_hashes(store, "stored")
        if got != want:
            wrong = sorted(n for n in got.keys() | want.keys() if got.get(n) != want.get(n))
            raise SystemExit(f"a store: other bytes than a single run's: {', '.join(wrong)}")
        assert store.unfinished() == 0, f"{store.unfinished()} uploads are unfinished"
    print(f"a store: killed, {before} shards taken up, requeued: the same bytes, no upload unfinished")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tensorpress")
    args = parser.parse_args()
    tool = Path(shutil.which(args.tensorpress) or args.tensorpress).resolve()
    os.environ["PATH"] = f"{tool.parent}{os.pathsep}{os.environ['PATH']}"
    if tool.name != "tensorpress":
        raise SystemExit(f"{tool}: the scripts call it tensorpress")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        home = Path(folder)
        work = home / "work"
        make_model(work / "model", 96, 512, 1024, 6)
        subprocess.run([tool, "quantize", "model", "single", *OPTIONS, "-q"], cwd=work, check=True)
        want = hashes(work / "single")
        print(f"{sum(n.endswith('.safetensors') for n in want)} shards in {PARTS} parts on {NODES} nodes")
        slurm = Slurm(home)
        with slurm.running():
            for check in (requeued, node_lost, failed, *([stored] if shutil.which("weed") else [])):
                check(slurm, work, want)


if __name__ == "__main__":
    main()
    sys.exit(0)
