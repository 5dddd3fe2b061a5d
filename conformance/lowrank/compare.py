"""Compare low-rank residuals with torch.svd_lowrank, SDNQ's way to its factors.

    python compare.py WORK [--model MODEL.safetensors] [--ranks 4,8,16,32,64] [--dtypes F32,BF16] [--steps 8] [--source F32] [--only PART ...] [--again]

WORK is a folder for matrices and factors, outside the repository; singular
values stay there from run to run. Takes torch, safetensors and numpy; Go
factors the same matrices through `go test -run TestWriteFactors`.

Columns: our residual's norm above the least there is, in ppm; the reference's
(of three seeds the best); ours / reference. The residual is W - up·down with
the factors as they are stored, the product exact.
"""
import argparse
import json
import os
import pathlib
import subprocess

import numpy as np
import torch
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
TORCH = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def spectrum(rows, cols, s, seed):
    g = torch.Generator().manual_seed(seed)
    k = min(rows, cols)
    u = torch.linalg.qr(torch.randn(rows, k, generator=g, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(cols, k, generator=g, dtype=torch.float64))[0]
    return ((u * s(torch.arange(1, k + 1, dtype=torch.float64))) @ v.T).float()


def outliers(w, seed):
    g = torch.Generator().manual_seed(seed)
    w = w.clone()
    w[:, torch.randint(w.shape[1], (max(w.shape[1] // 256, 1),), generator=g)] *= 12
    return w


def gauss(rows, cols, seed):
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed)) * 0.02


def power(i):
    return i**-0.5


def flat(i):
    return 1 - 0.2 * i / len(i)


SYNTHETIC = {
    "power+outliers 3072²": lambda: outliers(spectrum(3072, 3072, power, 1), 1),
    "gauss 3072²": lambda: gauss(3072, 3072, 2),
    "steep 3072²": lambda: spectrum(3072, 3072, lambda i: i**-1.5, 3),
    "power+outliers 4096×1024": lambda: outliers(spectrum(4096, 1024, power, 4), 4),
    "gauss 4096×1024": lambda: gauss(4096, 1024, 5),
    "power+outliers 1024×4096": lambda: outliers(spectrum(1024, 4096, power, 6), 6),
    "gauss 1024×4096": lambda: gauss(1024, 4096, 7),
    "flat 1024×4096": lambda: spectrum(1024, 4096, flat, 8),
    "geometric 1536×1024": lambda: spectrum(1536, 1024, lambda i: 0.8**i, 9),
    "huge outlier 1024²": lambda: gauss(1024, 1024, 10).index_fill_(1, torch.tensor([17]), 300.0),
    "identity 1024": lambda: torch.eye(1024),
    "gauss 384²": lambda: gauss(384, 384, 11),
    "power+outliers 384²": lambda: outliers(spectrum(384, 384, power, 12), 12),
    "geometric 384²": lambda: spectrum(384, 384, lambda i: 0.5**i, 13),
}


def real(model):
    found = load_file(ROOT / "testdata/minilm.safetensors")
    names = {f"minilm {n}": w for n, w in found.items() if w.ndim == 2 and min(w.shape) > 64}
    if model:
        for n, w in load_file(model).items():
            if w.ndim == 2 and min(w.shape) > 64 and n.endswith("weight") and f"minilm {n}" not in names:
                names[f"model {n}"] = w
    return names


def optimum(work, name, w):
    path = work / f"{key(name)}.s.npy"
    if not path.exists():
        np.save(path, torch.linalg.svdvals(w.double()).numpy())
    return np.load(path)


def key(name):
    return "".join(c if c.isalnum() else "_" for c in name)


def rest(w, up, down):
    return torch.linalg.norm(w.double() - up.double() @ down.double()).item()


def reference(w, rank, dtype, steps):
    best = float("inf")
    for seed in range(3):
        torch.manual_seed(seed)
        u, s, v = torch.svd_lowrank(w, q=rank, niter=steps)
        best = min(best, rest(w, (u * s).to(dtype), v.T.to(dtype)))
    return best


def main():
    p = argparse.ArgumentParser()
    p.add_argument("work", type=pathlib.Path)
    p.add_argument("--model")
    p.add_argument("--ranks", default="4,8,16,32,64")
    p.add_argument("--dtypes", default="F32,BF16")
    p.add_argument("--steps", type=int, default=8, help="of ours and of the reference")
    p.add_argument("--source", default="F32", choices=["F32", "BF16"], help="what matrices are rounded to, and read from")
    p.add_argument("--only", nargs="*", default=[""], help="parts of names")
    p.add_argument("--again", action="store_true", help="take the factors of the last run")
    a = p.parse_args()
    a.work.mkdir(exist_ok=True)
    matrices = {n: (lambda w=w: w.float()) for n, w in real(a.model).items()} | SYNTHETIC
    matrices = {n: m for n, m in matrices.items() if any(o in n for o in a.only)}
    synthetic = set(SYNTHETIC)
    if a.source != "F32":
        synthetic = {f"{n} in {a.source}" for n in SYNTHETIC}
        matrices = {f"{n} in {a.source}": (lambda m=m: m().to(TORCH[a.source]).float()) for n, m in matrices.items()}
    jobs, shapes = [], {}
    for name, make in matrices.items():
        path = a.work / f"{key(name)}.w.npy"
        if not path.exists():
            np.save(path, make().contiguous().numpy())
        w = np.load(path)
        shapes[name] = w.shape
        w.tofile(a.work / f"{key(name)}.f32")
        for rank in map(int, a.ranks.split(",")):
            for dtype in a.dtypes.split(","):
                jobs.append({"In": f"{key(name)}.f32", "Out": "%s.%d.%s.f32" % (key(name), rank, dtype),
                             "Rows": w.shape[0], "Columns": w.shape[1], "Rank": rank, "Dtype": dtype, "Steps": a.steps, "Source": a.source})
    if not a.again:
        (a.work / "jobs.json").write_text(json.dumps(jobs))
        env = dict(os.environ, TENSORPRESS_LOWRANK=str(a.work.resolve()))
        subprocess.run(["go", "test", "-count=1", "-timeout=2h", "-run=TestWriteFactors", "./internal/lowrank"], cwd=ROOT, env=env, check=True)
    done = {(j["In"], j["Rank"], j["Dtype"]): j for j in json.loads((a.work / "done.json").read_text())}
    cache_path = a.work / "reference.json"
    cache = json.loads(cache_path.read_text()) if cache_path.exists() else {}
    worst, sums = 0, {}
    print("| matrix | rank | dtype | ours, ppm | reference, ppm | ours / reference | passes | s |\n|---|---|---|---|---|---|---|---|")
    for name in matrices:
        w = torch.from_numpy(np.load(a.work / f"{key(name)}.w.npy"))
        s = optimum(a.work, name, w)
        for rank in map(int, a.ranks.split(",")):
            least = float(np.sqrt((s[rank:] ** 2).sum()))
            for dtype in a.dtypes.split(","):
                job = done[f"{key(name)}.f32", rank, dtype]
                raw = np.fromfile(a.work / job["Out"], dtype=np.float32)
                r, n = min(rank, *w.shape), w.shape[0]
                up, down = torch.from_numpy(raw[: n * r].reshape(n, r)), torch.from_numpy(raw[n * r :].reshape(r, -1))
                ours = rest(w, up, down)
                at = f"{name} {rank} {dtype}" + (f" {a.steps}" if a.steps != 8 else "")
                if at not in cache:
                    cache[at] = reference(w, rank, TORCH[dtype], a.steps)
                    cache_path.write_text(json.dumps(cache))
                theirs = cache[at]
                worst = max(worst, ours / theirs)
                kind = name if name in synthetic else "real, %d wide" % w.shape[1]
                sums.setdefault((kind, rank, dtype), []).append((ours / least - 1, theirs / least - 1, ours / theirs))
                print(f"| {name} | {rank} | {dtype} | {(ours / least - 1) * 1e6:.4g} | {(theirs / least - 1) * 1e6:.4g} "
                      f"| {ours / theirs:.7f} | {job['Passes']} | {job['Seconds']:.2f} |", flush=True)
    print("\n| matrices | rank | dtype | ours, ppm: mean (max) | reference, ppm: mean (max) | ours / reference, max |\n|---|---|---|---|---|---|")
    for (kind, rank, dtype), v in sums.items():
        v = np.array(v)
        print(f"| {kind} ({len(v)}) | {rank} | {dtype} | {v[:, 0].mean() * 1e6:.4g} ({v[:, 0].max() * 1e6:.4g}) "
              f"| {v[:, 1].mean() * 1e6:.4g} ({v[:, 1].max() * 1e6:.4g}) | {v[:, 2].max():.7f} |")
    print(f"\nworst ours / reference: {worst:.7f}")


if __name__ == "__main__":
    main()
