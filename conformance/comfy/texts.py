"""Writes which text encoders ComfyUI reads quantized layers in, and by which
kind of module it reads each of their weights.

texts.py COMFY: asks load_text_encoder_state_dicts about the names by which it
tells text encoders apart, builds the class that it picks without memory, and
writes testdata/golden/comfyui/texts.tsv: a row "case NAME reads|plain", then the
names, their shapes where the telling goes by them, and kinds (l: linear,
e: embedding, -: another). Of the layers of a model the first alone is written.
"""
import logging
import pathlib
import re
import sys

sys.path.insert(0, sys.argv[1])

import comfy.cli_args

comfy.cli_args.args.cpu = True
import comfy.ops
import comfy.sd
import torch

logging.disable(logging.CRITICAL)
BF16 = torch.bfloat16
ROOT = pathlib.Path(__file__).resolve().parents[2]


def z(*shape):
    return torch.empty(shape, device="meta", dtype=BF16)


def language(width, *layers, prefix="model.", **more):
    """A language model of a width, with the norms that each of its layers has
    beside those that all have, and further tensors."""
    sd = {prefix + "norm.weight": z(width), prefix + "embed_tokens.weight": z(64, width)}
    for i, norms in {0: layers[0] if layers else (), **dict(layers[1:])}.items():
        for norm in ("input_layernorm", "post_attention_layernorm", *norms):
            sd[f"{prefix}layers.{i}.{norm}.weight"] = z(width)
    for part in "qkvo":
        sd[f"{prefix}layers.0.self_attn.{part}_proj.weight"] = z(64, width)
    return {**sd, **more}


def gemma(width, last, **more):
    return language(width, (AFTER, QK), (last, (AFTER, QK)), **more)


def qwen35(width):
    p = "model.language_model."
    sd = {k: v for k, v in language(width, prefix=p).items() if "self_attn" not in k}
    return {**sd, p + "layers.0.linear_attn.A_log": z(8), p + "layers.0.linear_attn.in_proj_a.weight": z(8, width)}


def qwen3vl(width):
    return language(width, (QK,), prefix="model.language_model.", **{"model.visual.deepstack_merger_list.0.norm.weight": z(8), "model.visual.merger.linear_fc2.weight": z(width, 8)})


def clip(layers):
    return {f"text_model.encoder.layers.{i}.mlp.fc1.weight": z(8, 8) for i in range(layers)}


def t5(rows, keys, part="wi_1", blocks=24):
    return {"encoder.block.0.layer.0.SelfAttention.k.weight": z(keys, 8), "encoder.final_layer_norm.weight": z(8)} | (
        {f"encoder.block.23.layer.1.DenseReluDense.{part}.weight": z(rows, 8)} if blocks == 24 else {})


AFTER, QK = "post_feedforward_layernorm", "self_attn.q_norm"
BYTES = {"spiece_model": torch.zeros(4, dtype=torch.uint8)}
CASES = {
    "clip-l": clip(1), "clip-h": clip(23), "clip-g": clip(31), "jina-clip": {"model.encoder.layers.0.mixer.Wqkv.weight": z(8, 8)},
    "open-clip": {"transformer.resblocks.0.ln_1.weight": z(8), "text_projection": z(8, 8)},
    "t5-xxl": t5(10240, 4096), "umt5-xxl": t5(10240, 4096) | BYTES, "t5-xl": t5(5120, 2048), "t5-xxl-old": t5(65536, 16384, "wi"), "t5-base": t5(0, 768, blocks=12), "byt5": t5(0, 384, blocks=12),
    "t5-gemma": {"model.encoder.layers.0.pre_self_attn_layernorm.weight": z(8)},
    "gemma2-2b": language(2304, (AFTER,)), "gemma3-4b": gemma(2560, 33), "gemma3-4b-vision": gemma(2560, 33, **{"vision_model.embeddings.patch_embedding.weight": z(8, 3, 4, 4)}),
    "gemma3-12b": gemma(3840, 47, **{"model.layers.5.self_attn.v_proj.weight": z(8, 8)}), "gemma4-12b": gemma(3840, 47),
    "gemma4-e4b": gemma(2560, 41), "gemma4-e2b": gemma(1536, 34), "gemma4-31b": gemma(5376, 59),
    "gpt-oss": language(2880, prefix="", **{"layers.0.self_attn.sinks": z(64), "layers.0.mlp.experts.gate_up_proj.weight": z(2, 8, 8)}),
    "qwen2.5-3b": language(2048, **{"model.layers.0.self_attn.k_proj.bias": z(256)}), "qwen2.5-7b": language(3584, **{"model.layers.0.self_attn.k_proj.bias": z(512)}),
    **{f"qwen3.5-{name}": qwen35(width) for name, width in {"0.8b": 1024, "2b": 2048, "4b": 2560, "9b": 4096, "27b": 5120}.items()},
    "qwen3-vl-4b": qwen3vl(2560), "qwen3-vl-8b": qwen3vl(4096),
    "qwen3-vl-32b": language(5120, (QK,), (49, (QK,)), **{"visual.deepstack_merger_list.0.norm.weight": z(8), "model.layers.49.self_attn.q_proj.weight": z(8, 8)}),
    **{f"qwen3-{name}": language(width, (QK,)) for name, width in {"0.6b": 1024, "2b": 2048, "4b": 2560, "8b": 4096}.items()},
    "mistral3": language(5120, (), (39, ())), "mistral3-pruned": language(5120), "ministral3": language(3072), "llama3": language(4096),
    "merged-language": {k: v for k, v in language(4096).items() if "_proj" not in k} | {"model.layers.0.self_attn.qkv_proj.weight": z(64, 64)},
    "language-model-within": language(4096, prefix="model.language_model."), "language-model-before": language(4096, prefix="language_model.model."), "language-model-bare": language(4096, prefix=""),
}
WITHIN = ("qwen3.5-", "qwen3-vl-4b", "qwen3-vl-8b")  # published as model.language_model. and model.visual.


class Found(Exception):
    pass


def picked(sd):
    """The class that ComfyUI makes of a text encoder with a quantized layer."""
    def stop(target, **kw):
        raise Found(target, kw)

    comfy.sd.CLIP = stop
    name = next(k for k in sd if k.endswith(".weight"))
    try:
        comfy.sd.load_text_encoder_state_dicts([{**sd, name.removesuffix("weight") + "comfy_quant": torch.zeros(4, dtype=torch.uint8)}])
    except Found as found:
        target, kw = found.args
    with torch.device("meta"):
        return target.clip(device="meta", dtype=BF16, model_options=dict(kw["model_options"]), **target.params)


def mixed(module):
    return any("mixed_precision_ops" in c.__qualname__ for c in type(module).__mro__)


def weights(model, case):
    """name -> kind, of the first layer alone."""
    for name, module in model.named_modules():
        inner, name = ".transformer." in name, name.partition(".transformer.")[2] + ".weight"
        weight = getattr(module, "weight", None)
        if not inner or not isinstance(weight, torch.Tensor) and not mixed(module) or re.search(r"\.[1-9]\d*\.", name):
            continue
        if isinstance(weight, torch.Tensor) and weight.ndim != 2 or "MoEExperts" in type(module).__name__:
            continue  # which no format of matrices stores
        if case.startswith(WITHIN):
            name = "model." + name if name.startswith("visual.") else re.sub(r"^model\.", "model.language_model.", name)
        kind = type(module).__name__
        yield name, "l" if mixed(module) and "Linear" in kind else "e" if mixed(module) and "Embedding" in kind else "-"


rows = ["# ComfyUI 0.33.0"]
for case, sd in CASES.items():
    model = picked(sd)
    reads = any(map(mixed, model.modules()))
    rows.append(f"case\t{case}\t{'reads' if reads else 'plain'}")
    rows += [f"{name}\t{'x'.join(map(str, v.shape))}" for name, v in sd.items()]
    rows += [f"{name}\t\t{kind}" for name, kind in (weights(model, case) if reads else ()) ]
    print(case, model.__class__.__qualname__, reads, flush=True)
(ROOT / "testdata" / "golden" / "comfyui" / "texts.tsv").write_text("\n".join(rows) + "\n")
