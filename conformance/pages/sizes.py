#!/usr/bin/env python3
"""What models of real sizes take at each number of bits, for the pages of the applications.

    python conformance/pages/sizes.py TENSORPRESS [PAGE…]

Every model is built on torch's meta device from its class's own settings at its real
size, and written as a file that has all of its names and shapes and holes for its
values. `tensorpress plan --for APP --bits N` says what it takes; nothing is quantized.
The tables between the marks of docs/apps/*.md (or of the pages named) are made anew.
"""
import json
import math
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", SDNQ_USE_TORCH_COMPILE="0")

import diffusers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
GB = 1e9
CARDS = (8, 12, 16, 24)  # GB of memory
LEFT = 3  # GB of a card for all that is not weights

SDXL = dict(
    sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=[1, 2, 10], attention_head_dim=[5, 10, 20], use_linear_projection=True,
    addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
)
T5 = dict(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, is_gated_act=True, feed_forward_proj="gated-gelu")
QWEN25VL = dict(
    text_config=dict(vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
                     rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}),
    vision_config=dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584, patch_size=14, fullatt_block_indexes=[7, 15, 23, 31]),
)

# key: (what people call it, class, settings beside the class's own)
MODELS = {
    "sdxl": ("SDXL, the UNet", "UNet2DConditionModel", SDXL),
    "z-image": ("Z-Image", "ZImageTransformer2DModel", {}),
    "flux": ("Flux.1 dev or schnell", "FluxTransformer2DModel", dict(guidance_embeds=True)),
    "wan": ("Wan 2.2 14B, each of its two", "WanTransformer3DModel", {}),
    "qwen-image": ("Qwen-Image", "QwenImageTransformer2DModel", {}),
    "qwen3-4b": ("Qwen3 4B, text encoder of Z-Image", "Qwen3ForCausalLM",
                 dict(vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True)),
    "t5-xxl": ("T5-XXL, text encoder of Flux", "T5EncoderModel", dict(T5, vocab_size=32128)),
    "umt5-xxl": ("UMT5-XXL, text encoder of Wan", "UMT5EncoderModel", dict(T5, vocab_size=256384)),
    "qwen2.5-vl": ("Qwen2.5-VL 7B, text encoder of Qwen-Image", "Qwen2_5_VLForConditionalGeneration", QWEN25VL),
    "llama-3-8b": ("Llama 3.1 8B", "LlamaForCausalLM",
                   dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False)),
}
TEXT = ("qwen3-4b", "t5-xxl", "umt5-xxl", "qwen2.5-vl")
DIFFUSION = ("sdxl", "z-image", "flux", "wan", "qwen-image")

# page: (application, flags, models, bits)
PAGES = {
    "comfyui": ("comfyui", ["--names", "comfyui"], DIFFUSION + TEXT, (8, 6, 4)),
    "sdnext": ("sdnext", [], DIFFUSION + TEXT, (8, 6, 5, 4, 3)),
    "diffusers": ("diffusers", [], DIFFUSION + TEXT, (8, 6, 5, 4, 3)),
    "transformers": ("transformers", [], ("llama-3-8b",) + TEXT, (8, 6, 5, 4, 3)),
    "invokeai": ("invokeai", [], ("z-image", "flux", "qwen3-4b", "t5-xxl"), (8, 5, 4)),
}


def build(cls, settings):
    with torch.device("meta"):
        if hasattr(diffusers, cls):
            return getattr(diffusers, cls)(**settings)
        kind = getattr(transformers, cls)
        return kind(kind.config_class(architectures=[cls], **settings))


def names_on_disk(name):
    """Published files of Qwen2.5-VL have the names that its class had first."""
    return re.sub(r"^model\.(language_model|visual)\.", lambda m: "model." if m[1] == "language_model" else "visual.", name)


def write(key, folder):
    _, cls, settings = MODELS[key]
    model = build(cls, settings)
    folder.mkdir()
    of_diffusers = hasattr(diffusers, cls)
    (model.save_config if of_diffusers else model.config.save_pretrained)(folder)
    header, at = {}, 0
    tensors = dict(model.named_parameters())  # each once, where two names share one
    saved = model.state_dict()
    tensors.update({n: b for n, b in model.named_buffers() if n in saved})
    for name, t in tensors.items():
        size = 2 * math.prod(t.shape)
        header[names_on_disk(name)] = {"dtype": "BF16", "shape": list(t.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / f"{'diffusion_pytorch_model' if of_diffusers else 'model'}.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)
    return at


def planned(program, folder, app, flags, bits):
    done = subprocess.run([program, "plan", folder, "--for", app, "--bits", str(bits), *flags, "--json", "-q"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{folder.name}, {app}, {bits} bits: {done.stderr.strip()}")
    return json.loads(done.stdout)["bytes_out"]


def choice(sizes, card):
    """The most bits at which all weights fit, as --fit chooses."""
    for bits, size in sizes.items():
        if size <= (card - LEFT) * GB:
            return str(bits)
    return "–"


def table(program, folders, plain, app, flags, models, bits):
    lines = [
        "| model | BF16 | " + " | ".join(f"{b} bits" for b in bits) + " | " + " | ".join(f"{c} GB" for c in CARDS) + " |",
        "|---|" + "---|" * (1 + len(bits) + len(CARDS)),
    ]
    for key in models:
        for name, more in [(MODELS[key][0], []), *([ALSO[app][key]] if key in ALSO.get(app, {}) else [])]:
            sizes = {b: planned(program, folders[key], app, flags + more, b) for b in bits}
            cells = [f"{plain[key] / GB:.1f}", *(f"{s / GB:.1f}" for s in sizes.values())]
            lines.append(f"| {name} | " + " | ".join(cells + [choice(sizes, c) for c in CARDS]) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


# application: {model: (what its second row is called, further flags)}
ALSO = {"comfyui": {"flux": ("the same, modulation in 8 bits", ["--set", r"(_mod|\.modulation)\.lin=int8_tensorwise,convrot"])}}

BEGIN, END = "<!-- sizes -->\n", "<!-- end -->\n"


def main():
    program, *pages = sys.argv[1:]
    program = os.path.abspath(program)
    pages = pages or list(PAGES)
    with tempfile.TemporaryDirectory() as tmp:
        needed = [k for k in MODELS if any(k in PAGES[p][2] for p in pages)]
        folders = {k: pathlib.Path(tmp) / k for k in needed}
        plain = {k: write(k, folders[k]) for k in needed}
        for page in pages:
            print(page)
            text = table(program, folders, plain, *PAGES[page])
            path = ROOT / "docs" / "apps" / f"{page}.md"
            before, rest = path.read_text().split(BEGIN)
            path.write_text(before + BEGIN + text + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
