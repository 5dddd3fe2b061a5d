"""Writes what ComfyUI takes the keys of adapters for, family by family.

    keys.py COMFYUI

The names and shapes of small models are those of internal/names/testdata; what ComfyUI's
`model_lora_keys_unet` makes of them goes to internal/lora/testdata/keys.tsv.gz, a line for
each: the family, the module of an adapter, the tensor, and the rows of it, none for all;
or `swapped`, where the halves of the change change places.
"""
import gzip
import pathlib
import sys

import torch

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "comfy"))

# ComfyUI's classes; the rest of a model is not looked at.
CLASSES = {
    "flux": "Flux", "flux2": "Flux2", "chroma": "Chroma", "sd3": "SD3", "sd35-medium": "SD3", "auraflow": "AuraFlow", "pixart": "PixArt", "hunyuan-video": "HunyuanVideo",
    "qwen-image": "QwenImage", "z-image": "Lumina2", "wan": "WAN21", "ltx": "LTXV", "hidream": "HiDream", "sd15": "BaseModel", "sdxl": "SDXL",
}


def tensors(case):
    """The tensors of a small model under ComfyUI's names."""
    state = {}
    for line in (ROOT / f"internal/names/testdata/{case}.tsv").read_text().splitlines():
        words = line.split("\t")
        if len(words) == 3:
            name, _, shape = words
        elif words[0] == "comfyui":
            name, shape = words[1:3]
        else:
            continue
        state[name] = torch.empty([int(n) for n in shape.split(",") if n], device="meta")
    return state


def model(case):
    """What ComfyUI's maps of keys look at of a model."""
    import comfy.model_base
    import comfy.model_detection

    state = tensors(case)
    kind = getattr(comfy.model_base, CLASSES[case])
    stub = kind.__new__(kind)
    torch.nn.Module.__init__(stub)
    stub.state_dict = lambda: {f"diffusion_model.{name}": t for name, t in state.items()}
    config = comfy.model_detection.detect_unet_config({name: torch.zeros(t.shape) for name, t in state.items()}, "") or {}
    stub.model_config = type("Config", (), {"unet_config": config})()
    return stub, state


def keys(case):
    import comfy.lora

    stub, state = model(case)
    for module, to in sorted(comfy.lora.model_lora_keys_unet(stub, {}).items()):
        name, rows, turned = (to, None, None) if isinstance(to, str) else (*to, None)[:3]
        name = name.removeprefix("diffusion_model.")
        if name in state:
            assert rows is None or rows[0] == 0, (module, to)
            yield module, name, (rows[1], rows[1] + rows[2]) if rows else turned and ("swapped",)


# Text encoders of a file that holds several, by what stands before their names.
TEXTS = {"texts-sd3": ["clip_l", "clip_g", "t5xxl"], "texts-flux": ["clip_l", "t5xxl"], "texts-sd1": ["clip_l"]}


def text_keys(case):
    """The same of `model_lora_keys_clip`, of the layers that such adapters have."""
    import comfy.lora

    layers = [f"text_model.encoder.layers.{i}.{one}" for i in range(2) for one in comfy.lora.LORA_CLIP_MAP]
    blocks = [f"encoder.block.0.layer.{one}" for one in ("0.SelfAttention.q", "0.SelfAttention.k", "0.SelfAttention.v", "0.SelfAttention.o", "1.DenseReluDense.wo")]
    state = {f"{encoder}.transformer.{layer}.weight" for encoder in TEXTS[case] for layer in (blocks if encoder == "t5xxl" else layers)}
    stub = type("Texts", (), {"state_dict": lambda _: dict.fromkeys(sorted(state))})()
    for module, name in sorted(comfy.lora.model_lora_keys_clip(stub, {}).items()):
        yield module, f"text_encoders.{name}", None


def main(folder):
    import comfyui

    print("ComfyUI", comfyui.start(folder))
    lines = []
    for case in [*CLASSES, *TEXTS]:
        found = list((keys if case in CLASSES else text_keys)(case))
        lines += ["\t".join([case, module, name, *map(str, rows or ())]) for module, name, rows in found]
        print(f"{case}: {len(found)} keys, {sum(rows is not None for *_, rows in found)} of them for rows of a tensor")
    out = ROOT / "internal/lora/testdata/keys.tsv.gz"
    out.parent.mkdir(exist_ok=True)
    out.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), 9, mtime=0))
    print(out.stat().st_size, "bytes")


if __name__ == "__main__":
    main(sys.argv[1])
