"""Checks the manifests of deploy/kubernetes and runs what their pods would.

    pip install kubernetes-validate
    python manifests.py TENSORPRESS

Every manifest is held against the schema that Kubernetes publishes, of each version from
the first that has backoffLimitPerIndex; each with a mistake in it must be refused. Then
the commands of the pods run on this machine, one after the other and a failed one again,
and the bytes are compared with those of a single run.
"""

import argparse
import copy
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]
from model import hashes, make_model

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
FIRST = (1, 29)


def validate(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def versions() -> list[str]:
    every = kubernetes_validate.utils.all_versions()
    return [v for v in every if tuple(int(n) for n in v.split(".")[:2]) >= FIRST]


def check_schema(manifests: dict[str, dict[str, Any]]) -> None:
    for name, manifest in manifests.items():
        for version in versions():
            validate(manifest, version)
        for spoil in ("spec", "labels"):
            wrong = copy.deepcopy(manifest)
            if spoil == "spec":
                wrong["spec"]["no-such-field"] = 1
            else:
                wrong["metadata"]["labels"] = ["no", "map"]
            try:
                validate(wrong, versions()[-1])
            except kubernetes_validate.ValidationError:
                continue
            raise SystemExit(f"{name}: a mistake in it passes")
    print(f"{', '.join(manifests)}: as the schemas of Kubernetes {versions()[0]} to {versions()[-1]} have it")


def container(job: dict[str, Any]) -> dict[str, Any]:
    (one,) = job["spec"]["template"]["spec"]["containers"]
    return dict(one)


def check_words(parts: dict[str, Any], finish: dict[str, Any]) -> None:
    """What no schema knows."""
    spec, args = parts["spec"], container(parts)["args"]
    assert spec["completionMode"] == "Indexed"
    assert f"auto/{spec['completions']}" == args[args.index("--part") + 1], "the count of parts is said twice"
    assert container(finish)["args"][:2] == ["finish", args[2]], "finish is of another destination"
    for job in (parts, finish):
        pod = job["spec"]["template"]["spec"]
        one = container(job)
        assert pod["restartPolicy"] == "Never", "podFailurePolicy wants it"
        assert one["resources"]["limits"]["memory"] == "2Gi"
        assert {m["name"] for m in one["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
        for rule in job["spec"]["podFailurePolicy"]["rules"]:
            assert len({"onExitCodes", "onPodConditions"} & rule.keys()) == 1
            assert rule.get("onExitCodes", {}).get("containerName", one["name"]) == one["name"]
        secrets = [e for e in one.get("env", []) if "value" in e]
        assert not secrets, "what is secret comes from a Secret"


def run_pods(tool: Path, parts: dict[str, Any], finish: dict[str, Any], work: Path) -> None:
    """Runs what the pods do, with a volume that is a folder here."""
    volume = work / "models"
    make_model(volume / "llama", 32, 256, 1024, 4)

    def there(args: list[str]) -> list[str]:
        return [str(work) + a if a.startswith("/models") else a for a in args]

    # a few files of weights a part, as real models have
    args = [*there(container(parts)["args"]), "--shard-size", "300kB"]
    at = args.index("--part")
    single = [*args[:2], str(work / "single"), *args[3:at], *args[at + 2 :]]
    subprocess.run([tool, *single, "-q"], check=True)
    env = {**os.environ}
    count = parts["spec"]["completions"]
    for index in [3, *range(count), 5]:  # in any order, and some twice
        subprocess.run([tool, *args, "-q"], env={**env, "JOB_COMPLETION_INDEX": str(index)}, check=True)
        if index == 3:
            early = subprocess.run([tool, *there(container(finish)["args"])], capture_output=True, text=True)
            rules = parts["spec"]["podFailurePolicy"]["rules"]
            assert early.returncode in rules[1]["onExitCodes"]["values"], early.stderr
    subprocess.run([tool, *there(container(finish)["args"])], check=True)
    want, got = hashes(work / "single"), hashes(Path(args[2]))
    assert got == want, "other bytes than a single run's"
    print(f"{count} pods and the finish: {len(want)} files, the bytes of a single run")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tensorpress")
    args = parser.parse_args()
    manifests = {p.name: yaml.safe_load(p.read_text()) for p in sorted(DEPLOY.glob("*.yaml"))}
    assert manifests.keys() == {"parts.yaml", "finish.yaml", "volume.yaml"}
    check_schema(manifests)
    parts, finish = manifests["parts.yaml"], manifests["finish.yaml"]
    check_words(parts, finish)
    tool = Path(shutil.which(args.tensorpress) or args.tensorpress).resolve()
    with tempfile.TemporaryDirectory(prefix="manifests-") as folder:
        run_pods(tool, parts, finish, Path(folder))


if __name__ == "__main__":
    main()
    sys.exit(0)
