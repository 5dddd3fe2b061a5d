#!/usr/bin/env python3
"""Which tensors sdnq quantizes in models of many classes.

    python conformance/families/make_families.py [FOLDER [CASE…]]

builds every model of models.py with random weights, saves it plainly, loads it
again through from_pretrained with an SDNQConfig, and writes FOLDER/CASE.tsv
(default FOLDER: testdata/golden/families of this repository). It only calls
sdnq, diffusers and transformers; README.md beside this script describes the files.
"""
import hashlib
import json
import os
import pathlib
import shutil
import sys
import tempfile

os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file

from sdnq import SDNQConfig, SDNQQuantizer
from sdnq.utils import check_param_name_in

from models import DIFFUSERS, TRANSFORMERS

# letter -> settings. Low minimums let the list and the kind decide alone.
LOW = dict(minimum_allowed_numel=1, minimum_allowed_channel_size=1)
VARIANTS = {
    "d": LOW,
    "c": dict(LOW, quant_conv=True),
    "e": dict(LOW, quant_embedding=True),
    "m": dict(minimum_allowed_numel=3073, minimum_allowed_channel_size=33, quant_conv=True, quant_embedding=True),
}
# Essentials of a config: what tells the class, and what its lists depend on.
ESSENTIAL = ("_class_name", "architectures", "model_type", "tie_word_embeddings")
# Published files of these classes have names that the classes no longer write.
PUBLISHED = {"clip-text": "text_model.", "clip-vision-projection": "", "siglip-vision": "vision_model."}


def randomize(model):
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in list(model.parameters()) + [b for b in model.buffers() if b.is_floating_point()]:
            p.copy_(torch.randn(p.shape, generator=g))


def digest(t):
    t = t.detach().to(torch.float32).contiguous()
    return tuple(t.shape), hashlib.sha256(t.numpy().tobytes()).hexdigest()


def build(case):
    torch.manual_seed(0)
    if case in TRANSFORMERS:
        name, settings = TRANSFORMERS[case]
        cls = getattr(transformers, name)
        return cls, cls(cls.config_class(**settings))
    name, settings = DIFFUSERS[case]
    cls = getattr(diffusers, name)
    return cls, cls(**settings)


def tensors_of(folder):
    out = {}
    for path in sorted(folder.glob("*.safetensors")):
        out.update(load_file(path))
    return out


def publish(case, folder):
    """Gives the file the names that published files have."""
    prefix = PUBLISHED.get(case)
    if not prefix:
        return
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if not all(k.startswith(prefix) for k in tensors):
        save_file({prefix + k: v for k, v in tensors.items()}, path, metadata={"format": "pt"})


def essentials(folder):
    config = json.loads((folder / "config.json").read_text())
    out = {k: config[k] for k in ESSENTIAL if k in config}
    if "text_config" in config:
        out["text_config"] = {k: config["text_config"][k] for k in ESSENTIAL if config["text_config"].get(k) is not None}
    return out


before_loading = SDNQQuantizer._process_model_before_weight_loading
entries = []  # modules_to_not_convert before the first weight is looked at


def snapshot(self, model, *args, **kw):
    before_loading(self, model, *args, **kw)
    entries[:] = sorted(set(self.quantization_config.modules_to_not_convert))


SDNQQuantizer._process_model_before_weight_loading = snapshot


def load(cls, folder, **kw):
    key = "dtype" if issubclass(cls, transformers.PreTrainedModel) else "torch_dtype"
    return cls.from_pretrained(folder, **{key: torch.float32}, **kw)


def make(case, out):
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(tmp) / "plain"
        cls, model = build(case)
        randomize(model)
        model.save_pretrained(folder)
        publish(case, folder)
        files = tensors_of(folder)
        plain = load(cls, folder)
        modules = dict(plain.named_modules())
        memory = {}
        for name, t in list(plain.named_parameters(remove_duplicate=False)) + list(plain.named_buffers()):
            memory.setdefault(digest(t), []).append(name)
        quantized = {}
        weights = {n for n, _ in plain.named_parameters() if n.endswith(".weight")}
        for letter, settings in VARIANTS.items():
            q = load(cls, folder, quantization_config=SDNQConfig(weights_dtype="int8", **settings))
            quantized[letter] = {n for n, m in q.named_modules() if hasattr(m, "sdnq_dequantizer")}
            # the rest of the list is every kept weight that no entry matches
            kept = {n for n in weights if n.removesuffix(".weight") not in quantized[letter] and check_param_name_in(n, entries) is None}
            assert set(q.quantization_config.modules_to_not_convert) == kept | set(entries), (case, letter)
        config = essentials(folder)

    rows = [f"# {cls.__name__}; sdnq 0.2.8, diffusers {diffusers.__version__}, transformers {transformers.__version__}"]
    rows.append("config\t" + json.dumps(config, separators=(",", ":"), sort_keys=True))
    rows.append("\t".join(["list", *entries]))
    used = set()
    for name, t in sorted(files.items()):
        if name.endswith(".bias") and name.removesuffix("bias") + "weight" in files:
            continue
        hits = memory.get(digest(t), [])
        at = name if name in hits else (hits[0] if hits else "-")
        row = [name, "x".join(map(str, t.shape)), "", "", "" if at == name or not name.endswith(".weight") else at]
        if at != "-" and at.endswith(".weight"):
            module = at.removesuffix(".weight")
            used.add(module)
            row[3] = "".join(letter for letter in VARIANTS if module in quantized[letter])
            if t.ndim > 1:
                row[2] = type(modules[module]).__name__
        rows.append("\t".join(row).rstrip("\t"))
    for letter in VARIANTS:
        lost = quantized[letter] - used
        assert not lost, (case, letter, sorted(lost)[:5])
    (out / f"{case}.tsv").write_text("\n".join(rows) + "\n")
    print(case, cls.__name__, len(files), {k: len(v) for k, v in quantized.items()}, flush=True)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "testdata" / "golden" / "families"
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for case in sys.argv[2:] or [*TRANSFORMERS, *DIFFUSERS]:
        try:
            make(case, out)
        except Exception as e:  # a report of all that is wrong, not of the first alone
            failed.append(case)
            print(case, "FAILED", type(e).__name__, str(e)[:300], flush=True)
            if os.environ.get("TRACE"):
                raise
    sys.exit(", ".join(failed) or 0)


if __name__ == "__main__":
    main()
