"""Holds merged weights against what ComfyUI and PEFT make of the same adapters.

    merge.py COMFYUI TENSORPRESS [--write] [CASE…]

Small cases of every kind of adapter, by ComfyUI's weight adapters or by PEFT's
`merge_and_unload`, and then whole models of all families, of which every layer that
ComfyUI's map of keys names gets an adapter of some kind. TENSORPRESS merges into a file of
single precision (`--keep .`); figures are the greatest difference, relative to the greatest
value. With --write the small cases go to internal/lora/testdata/merged.safetensors.
"""
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "comfy")]
torch.set_num_threads(1)
torch.manual_seed(7)

LINEAR, WIDE, CONV = (12, 10), (24, 16), (6, 4, 3, 3)


def rand(*shape, scale=0.3):
    """Values that bfloat16 holds, so that a file of any dtype has them."""
    return (torch.randn(*shape) * scale).bfloat16().float()


def two(shape, rank, up="lora_up.weight", down="lora_down.weight"):
    """The factors of a LoRA."""
    ones = (1,) * (len(shape) - 2)
    return {up: rand(shape[0], rank, *ones), down: rand(rank, *shape[1:])}


def hada(shape, rank):
    cols = torch.Size(shape[1:]).numel()
    return {"hada_w1_a": rand(shape[0], rank), "hada_w1_b": rand(rank, cols), "hada_w2_a": rand(shape[0], rank), "hada_w2_b": rand(rank, cols)}


def hada_conv(shape, rank):
    out, cols, *places = shape
    one = lambda: (rand(rank, rank, *places), rand(rank, out), rand(rank, cols))  # noqa: E731
    (t1, a1, b1), (t2, a2, b2) = one(), one()
    return {"hada_t1": t1, "hada_w1_a": a1, "hada_w1_b": b1, "hada_t2": t2, "hada_w2_a": a2, "hada_w2_b": b2}


def kron(shape, rank, first=True, second=True, tucker=False):
    """Factors of a Kronecker product: whole, or as products themselves."""
    (out, cols), places = shape[:2], shape[2:]
    a, b = 2, 2
    c, d = out // a, cols // b
    k = {"lokr_w1": rand(a, b)} if first else {"lokr_w1_a": rand(a, rank), "lokr_w1_b": rand(rank, b)}
    if second:
        return k | {"lokr_w2": rand(c, d, *places)}
    if tucker:
        return k | {"lokr_t2": rand(rank, rank, *places), "lokr_w2_a": rand(rank, c), "lokr_w2_b": rand(rank, d)}
    return k | {"lokr_w2_a": rand(c, rank), "lokr_w2_b": rand(rank, d * torch.Size(places).numel())}


def alpha(x):
    return {"alpha": torch.tensor(float(x))}


def rows(shape):
    return {"dora_scale": rand(shape[0], *[1] * (len(shape) - 1)).abs() + 1}


def columns(shape):
    return {"dora_scale": rand(1, shape[1], *[1] * (len(shape) - 2)).abs() + 1}


def comfy_cases():
    """By name: the shape of the weight, the parts of the adapter, and strengths."""
    for kind, shape in [("linear", LINEAR), ("conv", CONV)]:
        lora = two(shape, 3)
        yield f"lora-{kind}", shape, lora | alpha(2), [1, -0.6]
        yield f"lora-plain-{kind}", shape, lora, [0.8]
        yield f"loha-{kind}", shape, hada(shape, 3) | alpha(2), [0.7]
        yield f"lokr-{kind}", shape, kron(shape, 2) | alpha(5), [1.5]
        yield f"lokr-second-{kind}", shape, kron(shape, 2, second=False) | alpha(3), [0.5]
        yield f"lokr-both-{kind}", shape, kron(shape, 2, first=False, second=False) | alpha(3), [1]
        yield f"dora-rows-{kind}", shape, lora | alpha(2) | rows(shape), [1, 0.5]
        yield f"dora-columns-{kind}", shape, lora | alpha(2) | columns(shape), [1, 0.5]
        yield f"dora-loha-{kind}", shape, hada(shape, 2) | alpha(1) | columns(shape), [1]
        yield f"dora-lokr-{kind}", shape, kron(shape, 2, second=False) | alpha(1) | rows(shape), [0.5]
        yield f"diff-{kind}", shape, {"diff": rand(*shape), "diff_b": rand(shape[0])}, [0.4]
        yield f"set-{kind}", shape, {"set_weight": rand(*shape)}, [1]
    yield "locon", CONV, {"lora_up.weight": rand(6, 3, 1, 1), "lora_down.weight": rand(3, 4, 1, 1), "lora_mid.weight": rand(3, 3, 3, 3)} | alpha(2), [0.9]
    yield "loha-conv-t", CONV, hada_conv(CONV, 3) | alpha(2), [0.9]
    yield "lokr-conv-t", CONV, kron(CONV, 2, second=False, tucker=True) | alpha(2), [0.9]
    yield "norm", (12,), {"w_norm": rand(12), "b_norm": rand(12)}, [0.9]


def contiguous_kron():
    """ComfyUI gives torch.kron a view that this release of torch does not take, logs an
    error and merges nothing; of a copy it makes what it means."""
    kronecker = torch.kron
    torch.kron = lambda a, b: kronecker(a.contiguous(), b.contiguous())


def calculate(weights, patches, strength):
    """ComfyUI's merge of patches, by what its maps call the weights."""
    import comfy.lora

    merged = {name: w.clone() for name, w in weights.items()}
    for key, patch in patches.items():
        name, offset, function = (key, None, None) if isinstance(key, str) else (*key, None)[:3]
        w = comfy.lora.calculate_weight([(strength, patch, 1.0, offset, function)], merged[name].clone(), name)
        merged[name] = w
    return merged


def by_comfyui():
    import comfy.lora

    for name, shape, parts, strengths in comfy_cases():
        weights = {"layer.x.weight": rand(*shape), "layer.x.bias": rand(shape[0])}
        adapter = {f"layer.x.{end}": t for end, t in parts.items()}
        patches = comfy.lora.load_lora(adapter, {"layer.x": "layer.x.weight"}, False)
        for s in strengths:
            yield (name if s == strengths[0] else f"{name}*{s}"), weights, adapter, None, s, calculate(weights, patches, s)


class Small(torch.nn.Module):
    def __init__(self):
        from transformers.pytorch_utils import Conv1D

        super().__init__()
        self.embed = torch.nn.Embedding(*LINEAR)
        self.linear = torch.nn.Linear(*reversed(WIDE))
        self.second = torch.nn.Linear(*reversed(WIDE))
        self.turned = Conv1D(6, 16)
        self.conv = torch.nn.Conv2d(4, 6, 3)
        self.head = torch.nn.Linear(6, 5)
        for p in self.parameters():
            p.data = rand(*p.shape)

    def forward(self, x):
        return x


# Keys that some cases take out of the config, so that PEFT's own defaults count.
UNSAID = {"peft-unsaid": ("r", "lora_alpha", "use_rslora", "alpha_pattern", "rank_pattern", "fan_in_fan_out", "use_dora"), "peft-loha-unsaid": ("r", "alpha"), "peft-lokr-unsaid": ("r", "alpha")}


def peft_cases():
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    yield "peft-unsaid", LoraConfig(r=8, lora_alpha=8, init_lora_weights=False, target_modules=["linear", "conv"])
    yield "peft-alpha-unsaid", LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=["linear"])
    yield "peft-loha-unsaid", LoHaConfig(r=8, target_modules=["linear"], init_weights=False)
    yield "peft-lokr-unsaid", LoKrConfig(r=8, target_modules=["linear"], init_weights=False)
    yield "peft-two-patterns", LoraConfig(r=4, lora_alpha=6, init_lora_weights=False, target_modules=["linear", "second"], rank_pattern={"second": 2}, alpha_pattern={".*ond": 5, "second": 7, "li": 3})
    plain = dict(r=4, lora_alpha=6, init_lora_weights=False)
    yield "peft-lora", LoraConfig(**plain, target_modules=["linear", "second", "conv"])
    yield "peft-rslora", LoraConfig(**plain, target_modules=["linear"], use_rslora=True)
    yield "peft-patterns", LoraConfig(**plain, target_modules=["linear", "second"], rank_pattern={"second": 2}, alpha_pattern={"second": 5})
    yield "peft-dora", LoraConfig(**plain, target_modules=["linear"], use_dora=True)
    yield "peft-dora-conv", LoraConfig(**plain, target_modules=["conv"], use_dora=True)
    yield "peft-turned", LoraConfig(**plain, target_modules=["turned"], fan_in_fan_out=True)
    yield "peft-embedding", LoraConfig(**plain, target_modules=["embed"])
    yield "peft-bias", LoraConfig(**plain, target_modules=["linear"], lora_bias=True)
    yield "peft-saved", LoraConfig(**plain, target_modules=["linear"], modules_to_save=["head"])
    yield "peft-biases", LoraConfig(**plain, target_modules=["linear"], bias="all")
    yield "peft-loha", LoHaConfig(r=3, alpha=5, target_modules=["linear", "conv"], init_weights=False)
    yield "peft-loha-t", LoHaConfig(r=3, alpha=5, target_modules=["conv"], init_weights=False, use_effective_conv2d=True)
    yield "peft-lokr", LoKrConfig(r=2, alpha=3, target_modules=["linear", "conv"], init_weights=False)
    yield "peft-lokr-both", LoKrConfig(r=2, alpha=3, target_modules=["linear"], init_weights=False, decompose_both=True)


def by_peft():
    from peft import PeftModel, get_peft_model

    for name, config in peft_cases():
        model = Small()
        weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        wrapped = get_peft_model(model, config)
        for key, p in wrapped.named_parameters():
            if any(word in key for word in ("lora_", "hada_", "lokr_", "modules_to_save")):
                p.data = rand(*p.shape).abs() + 0.5 if "magnitude" in key else rand(*p.shape)
            elif "bias" in key and config.to_dict().get("bias") == "all":
                p.data = rand(*p.shape)
        with tempfile.TemporaryDirectory() as folder:
            wrapped.save_pretrained(folder)
            adapter = load_file(f"{folder}/adapter_model.safetensors")
            where = pathlib.Path(f"{folder}/adapter_config.json")
            unsaid = UNSAID.get(name, ("lora_alpha",) if "unsaid" in name else ())
            text = {k: v for k, v in json.loads(where.read_text()).items() if k not in unsaid}
            where.write_text(json.dumps(text))
            again = Small()
            again.load_state_dict(weights)
            wrapped = PeftModel.from_pretrained(again, folder)
        merged = {k: v.detach() for k, v in wrapped.merge_and_unload().state_dict().items()}
        yield name, weights, adapter, text, 1, merged


def refused(tensorpress):
    """Adapters that PEFT merges into other weights than the source's, or not at all."""
    from peft import LoraConfig, get_peft_model

    for name, more in {"pissa": {"init_lora_weights": "pissa"}, "olora": {"init_lora_weights": "olora"}, "alora_invocation_tokens": {"alora_invocation_tokens": [1]}, "trainable_tokens_delta": {"trainable_token_indices": {"embed": [1]}}}.items():
        model = Small()
        weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=["linear"], **more))
        with tempfile.TemporaryDirectory() as folder:
            wrapped.save_pretrained(folder)
            adapter = load_file(f"{folder}/adapter_model.safetensors")
            text = json.loads(pathlib.Path(f"{folder}/adapter_config.json").read_text())
        try:
            merged_by(tensorpress, weights, adapter, text, 1)
        except SystemExit as err:
            if name not in str(err):
                raise
            print(f"{name}: refused, {str(err).strip().splitlines()[-1][-160:]}")
            continue
        raise SystemExit(f"{name} was merged")


def merged_by(tensorpress, weights, adapter, config, strength, *flags):
    """What the command makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors")
        (folder / "a").mkdir()
        save_file({k: v.contiguous() for k, v in adapter.items()}, folder / "a/adapter_model.safetensors")
        if config is not None:
            (folder / "a/adapter_config.json").write_text(json.dumps(config))
        run = subprocess.run([tensorpress, "quantize", folder / "model.safetensors", folder / "out.safetensors", "--keep", ".", "--preset", "none",
                              "--lora", f"{folder / 'a'}={strength}", *flags], capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(run.stderr)
        return load_file(folder / "out.safetensors")


def distance(got, want):
    assert got.keys() == want.keys(), got.keys() ^ want.keys()
    worst, where = 0.0, ""
    for name, w in want.items():
        assert got[name].shape == w.shape, name
        d = float((got[name] - w).abs().max() / w.abs().max().clamp(min=1e-30)) if w.numel() else 0.0
        if not d <= worst:
            worst, where = d, name
    return worst, where


# Which of ComfyUI's keys a whole model's adapter has, by a beginning.
STYLES = {
    "flux": ["lora_unet_", "transformer.", "lycoris_", "diffusion_model."], "flux2": ["transformer."], "chroma": ["lora_unet_"], "sd3": ["transformer.", "lora_unet_"],
    "sd35-medium": ["base_model.model."], "auraflow": ["transformer."], "pixart": ["transformer."], "hunyuan-video": ["diffusion_model."], "qwen-image": ["transformer."],
    "z-image": ["diffusion_model.", "lora_unet_"], "wan": ["lora_unet_", "diffusion_model."], "ltx": ["diffusion_model."], "hidream": ["lycoris_"],
    "sd15": ["lora_unet_down_", "unet.", "lora_unet_input_"], "sdxl": ["lora_unet_"],
}


def kinds_for(shape):
    """Adapters for a weight, of all kinds that fit it."""
    if len(shape) < 2:
        return [lambda: {"diff": rand(*shape)}]
    some = [
        lambda: two(shape, 4) | alpha(3), lambda: two(shape, 2, "lora_B.weight", "lora_A.weight"), lambda: hada(shape, 3) | alpha(2),
        lambda: two(shape, 2) | rows(shape) | alpha(2), lambda: {"diff": rand(*shape)},
    ]
    if shape[0] % 2 == 0 and shape[1] % 2 == 0:
        some.append(lambda: kron(shape, 2, second=False) | alpha(2))
    if len(shape) == 4 and shape[2] > 1:
        some.append(lambda: hada_conv(shape, 2) | alpha(2))
    return some


def families(cases):
    """Whole models, each with an adapter for all that a style of names says."""
    import comfy.lora
    import keys

    for case, styles in STYLES.items():
        if cases and case not in cases:
            continue
        stub, state = keys.model(case)
        weights = {name: rand(*t.shape) for name, t in state.items()}
        all_keys = comfy.lora.model_lora_keys_unet(stub, {})
        for style in styles:
            adapter, taken, n = {}, {}, 0
            for module, to in sorted(all_keys.items()):
                name, offset = (to, None) if isinstance(to, str) else to[:2]
                short = name.removeprefix("diffusion_model.")
                if not module.startswith(style) or short not in state:
                    continue
                if other(case, module):
                    continue
                span = (offset[1], offset[1] + offset[2]) if offset else (0, state[short].shape[0] if state[short].dim() else 1)
                if any(a < span[1] and span[0] < b for a, b in taken.get(short, [])):
                    continue
                taken.setdefault(short, []).append(span)
                shape = list(state[short].shape)
                if not shape:
                    continue
                shape[0] = span[1] - span[0]
                makes = kinds_for(shape)
                if not isinstance(to, str) and len(to) > 2:
                    makes = makes[:3]  # ComfyUI changes halves of the change, not of the lengths
                adapter |= {f"{module}.{end}": t for end, t in makes[n % len(makes)]().items()}
                n += 1
            patches = comfy.lora.load_lora(adapter, all_keys, False)
            full = calculate({f"diffusion_model.{k}": v for k, v in weights.items()}, patches, 0.8)
            yield f"{case}, {style}: {n} layers", weights, adapter, 0.8, {k.removeprefix("diffusion_model."): v for k, v in full.items()}


def other(case, module):
    """Names of FLUX.2 that ComfyUI gives FLUX.1, and the reverse."""
    flat = module.replace(".", "_")
    single = "single_transformer_blocks" in flat
    if case in ("flux", "chroma"):
        return flat.endswith(("_to_qkv_mlp_proj", "_linear_in", "_linear_out")) or single and flat.endswith("_attn_to_out")
    if case == "flux2":
        return "time_text_embed" in flat or flat.endswith(("_net_0_proj", "_net_2")) or single and flat.endswith(("_to_q", "_to_k", "_to_v", "_proj_mlp", "_proj_out"))
    return False


def main(folder, tensorpress, *rest):
    import comfyui

    write, cases = "--write" in rest, {one for one in rest if one != "--write"}
    print("ComfyUI", comfyui.start(folder))
    contiguous_kron()
    import peft

    print("PEFT", peft.__version__)
    golden, about, worst = {}, {}, 0.0
    for source in (by_comfyui, by_peft):
        for name, weights, adapter, config, strength, want in source():
            if cases and name not in cases:
                continue
            d, where = distance(merged_by(tensorpress, weights, adapter, config, strength), want)
            worst = max(worst, d)
            print(f"{name}: {d:.1e} {where}", flush=True)
            changed = {k for k, v in want.items() if not torch.equal(v, weights[k])}
            for kind, tensors in (("weights", weights), ("adapter", adapter), ("merged", want)):
                golden |= {f"{name}/{kind}/{k}": v.contiguous().clone() for k, v in tensors.items() if kind == "adapter" or k in changed}
            about[name] = json.dumps({"strength": strength, "config": config})
    if not cases:
        refused(tensorpress)
    for name, weights, adapter, strength, want in families(cases):
        d, where = distance(merged_by(tensorpress, weights, adapter, None, strength), want)
        worst = max(worst, d)
        print(f"{name}: {d:.1e} {where}", flush=True)
    print(f"at most {worst:.1e}")
    if write:
        out = ROOT / "internal/lora/testdata/merged.safetensors"
        save_file(golden, out, about)
        print(out.stat().st_size, "bytes")
    if worst > 2e-6:
        raise SystemExit("more than single precision leaves")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(*sys.argv[1:])
