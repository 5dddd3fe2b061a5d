"""Holds the plans of internal/names against ComfyUI's and diffusers' own conversions.

    check.py COMFYUI [--write] [CASE…]

A small model of every family is given values of which each is a number of its own,
so that what becomes of every row can be read off what the programs make of it. With
--write the answers become the golden files of internal/names/testdata.
"""
import inspect
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import torch

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "comfy")]
os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)

from gathered import shape_text, tests  # noqa: E402

NORM = re.compile(r"(_norm|norms\.\d+)\.scale$")


def comfy_names(state):
    """What ComfyUI makes of the older names of norms, which it reads too."""
    return {NORM.sub(r"\1.weight", name): t for name, t in state.items()}


def numbered(state):
    """A state dict in which every value is a number of its own, and where each lies."""
    out, at, start = {}, [], 0
    for name in sorted(state):
        n = state[name].numel()
        out[name] = torch.arange(start, start + n, dtype=torch.int64).reshape(state[name].shape)
        at.append((start, name))
        start += n
    return out, at


def parts(tensor, source, starts, names):
    """The rows of a tensor as ranges of rows of the source's tensors."""
    if tensor.numel() == 0:
        return ""
    rows = tensor.shape[0] if tensor.dim() else 1
    flat = tensor.reshape(rows, -1)
    assert torch.equal(flat - flat[:, :1], torch.arange(flat.shape[1]).expand_as(flat)), "values of a row are not in their order"
    found = []
    for first in flat[:, 0].tolist():
        i = int(torch.searchsorted(starts, first, right=True)) - 1
        name, width = names[i], flat.shape[1]
        of = source[name]
        assert width == (of.numel() // of.shape[0] if of.dim() else 1), name
        row, rest = divmod(first - int(starts[i]), width)
        assert rest == 0
        if found and found[-1][0] == name and found[-1][2] == row:
            found[-1][2] = row + 1
        else:
            found.append([name, row, row + 1])
    return " ".join(f"{name}[{a}:{b}]" for name, a, b in found)


def mapped(converted, source, at):
    """For every converted tensor its shape and parts."""
    starts = torch.tensor([start for start, _ in at])
    names = [name for _, name in at]
    return {name: (tuple(t.shape), parts(t, source, starts, names)) for name, t in converted.items()}


def plan(side, state):
    """The plan of internal/names for a state dict with a side's names."""
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
        for name, t in state.items():
            file.write(f"{side}\t{name}\t{shape_text(t.shape)}\t\n")
        file.flush()
        run = subprocess.run(
            [tests(), "-test.v", "-test.run", "^TestPlanOf$"], cwd=ROOT / "internal/names", text=True, capture_output=True,
            env=os.environ | {"TENSORPRESS_NAMES_OF": file.name})
    if run.returncode:
        raise SystemExit(run.stdout + run.stderr)
    found = {}
    for line in run.stdout.splitlines():
        if line.startswith("plan\t"):
            _, name, shape, pieces = line.split("\t")
            found[name] = (tuple(int(n) for n in shape.split(",") if n), pieces)
    return found


PART = re.compile(r"^(.+)\[(\d+):(\d+)\]$")


def applied(planned, state):
    """A plan carried out on real values."""
    out = {}
    for name, (shape, pieces) in planned.items():
        rows = []
        for piece in pieces.split(" "):
            source, a, b = PART.match(piece).groups()
            t = state[source]
            rows.append(t[int(a):int(b)] if t.dim() else t.reshape(1))
        out[name] = torch.cat(rows).reshape(shape).clone()
    return out


def equal(what, got, want):
    missing, extra = sorted(want.keys() - got.keys()), sorted(got.keys() - want.keys())
    differ = [name for name in got.keys() & want.keys() if got[name] != want[name]]
    if missing or extra or differ:
        lines = [f"{what}: {len(missing)} missing, {len(extra)} unexpected, {len(differ)} differ"]
        lines += [f"  missing    {name}" for name in missing[:8]] + [f"  unexpected {name}" for name in extra[:8]]
        lines += [f"  {name}: {got[name]}, want {want[name]}" for name in differ[:8]]
        raise AssertionError("\n".join(lines))


def same(what, got, want):
    """Equal names and values."""
    equal(what, {n: (tuple(t.shape), hash(t.numpy().tobytes())) for n, t in got.items()}, {n: (tuple(t.shape), hash(t.numpy().tobytes())) for n, t in want.items()})


# ComfyUI's side


def comfy_unet(model, state):
    import comfy.utils

    c = model.config
    layers = c.transformer_layers_per_block
    depth = [layers] * len(c.down_block_types) if isinstance(layers, int) else list(layers)
    depth = [d if "CrossAttn" in kind else 0 for d, kind in zip(depth, c.down_block_types)]
    config = dict(
        num_res_blocks=[2] * len(depth), channel_mult=[1] * len(depth), transformer_depth=[d for d in depth for _ in range(2)],
        transformer_depth_output=[d for d in depth for _ in range(3)], transformer_depth_middle=layers if isinstance(layers, int) else layers[-1])
    names = comfy.utils.unet_to_diffusers(config)
    return {names[name]: t for name, t in state.items()}


def comfy_vae(_, state):
    import comfy.diffusers_convert

    return comfy.diffusers_convert.convert_vae_state_dict(dict(state))


def comfy_mmdit(_, state):
    import comfy.model_detection

    state = {name: t.clone() for name, t in state.items()}  # it swaps in place
    out = comfy.model_detection.convert_diffusers_mmdit(state, "")
    assert not state, f"left over: {sorted(state)[:5]}"
    return out


# Which families ComfyUI converts from diffusers' names itself.
FROM_DIFFUSERS = {
    **dict.fromkeys(["flux", "flux-schnell", "sd3", "sd35-medium", "auraflow", "z-image", "pixart", "pixart-ms"], comfy_mmdit),
    **dict.fromkeys(["sd15", "sd21", "sdxl", "sdxl-refiner"], comfy_unet),
    "vae": comfy_vae,
}

# What ComfyUI's classes have and diffusers' do not: buffers that it makes itself, and parts
# that are a model of their own in diffusers.
OWN = ("pos_embed", "y_embedder.y_embedding", "video_embeddings_connector.", "audio_embeddings_connector.")


# What the detection takes from the sizes of the published model.
LUMINA = dict(axes_dims=[16, 8, 8], axes_lens=[300, 512, 512], multiple_of=1)
SIZES = {
    "hidream": dict(num_layers=1, num_single_layers=1, num_routed_experts=2, caption_channels=[24, 24]),
    "z-image": LUMINA | dict(n_heads=2, n_kv_heads=2, ffn_dim_multiplier=8 / 3, z_image_modulation=True, pad_tokens_multiple=32),
    "lumina2": LUMINA | dict(n_heads=4, n_kv_heads=2, ffn_dim_multiplier=4.0),
}
# Classes with sizes of their own, where names alone are compared.
SIZED = {"hidream", "chroma", "auraflow", "qwen-image", "z-image", "lumina2", "ltx2"}


def comfy_loads(case, state):
    """ComfyUI knows the model by its names and shapes, and its class has these very tensors."""
    import comfy.model_detection

    state = {name: torch.zeros(t.shape, dtype=torch.bfloat16) for name, t in state.items()}
    config = comfy.model_detection.model_config_from_unet(dict(state), "")
    assert config is not None, "ComfyUI does not know the model"
    config.unet_config |= SIZES.get(case, {})
    config.set_inference_dtype(torch.bfloat16, None)
    model = config.get_model(dict(state), "", device=torch.device("meta")).diffusion_model
    state = config.process_unet_state_dict(dict(state))

    def shapes(tensors):
        return {name: case in SIZED or tuple(t.shape) for name, t in tensors.items() if not name.startswith(OWN)}

    equal(f"{case}: {type(model).__name__}", shapes(state), shapes(model.state_dict()))
    return type(model).__name__


# diffusers' side


def single_file(function, **sizes):
    """A conversion of diffusers' loaders, with the sizes of a small model in place of those that it has in its text."""
    import diffusers.loaders.single_file_utils as module

    text = inspect.getsource(getattr(module, function))
    for name, value in sizes.items():
        text, n = re.subn(rf"\b{name} = [\d.]+", f"{name} = {value}", text)
        assert n, f"{function} has no {name}"
    scope = dict(vars(module))
    exec(text, scope)
    return lambda model, state: scope[function](dict(state), config=model.config)


def ldm_unet(model, state):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    return convert_ldm_unet_checkpoint({"model.diffusion_model." + name: t for name, t in state.items()}, model.config)


def ldm_vae(model, state):
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    return convert_ldm_vae_checkpoint({"first_stage_model." + name: t for name, t in state.items()}, model.config)


FLUX = single_file("convert_flux_transformer_checkpoint_to_diffusers", inner_dim=128)
WAN = single_file("convert_wan_transformer_to_diffusers")


def wan_ends(model, state):
    """With the one name that only diffusers' script for Wan knows."""
    state = WAN(model, state)
    return {name.replace("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"): t for name, t in state.items()}


SD3 = single_file("convert_sd3_transformer_checkpoint_to_diffusers")
FROM_SINGLE = {
    "flux": FLUX, "flux-schnell": FLUX, "sd3": SD3, "sd35-medium": SD3,
    "flux2": single_file("convert_flux2_transformer_checkpoint_to_diffusers"), "flux2-klein": single_file("convert_flux2_transformer_checkpoint_to_diffusers"),
    "chroma": single_file("convert_chroma_transformer_checkpoint_to_diffusers", inner_dim=128),
    "auraflow": single_file("convert_auraflow_transformer_checkpoint_to_diffusers"), "z-image": single_file("convert_z_image_transformer_checkpoint_to_diffusers"),
    "lumina2": single_file("convert_lumina2_to_diffusers", q_dim=128, v_dim=64), "wan": WAN, "wan-i2v": WAN, "wan-vace": WAN, "wan-flf2v": wan_ends,
    "ltx": single_file("convert_ltx_transformer_checkpoint_to_diffusers"), "ltx2": single_file("convert_ltx2_transformer_to_diffusers"),
    **dict.fromkeys(["sd15", "sd21", "sdxl", "sdxl-refiner"], ldm_unet), "vae": ldm_vae,
    "hunyuan-video": single_file("convert_hunyuan_video_transformer_to_diffusers", hidden_size=256), "hidream": single_file("convert_hidream_transformer_to_diffusers"),
    "qwen-image": lambda _, state: dict(state),
}


def check(case, build, write):
    torch.manual_seed(0)
    model = build()
    state, at = numbered(model.state_dict())
    comfy = applied(plan("diffusers", state), state)
    seen = []
    want = None
    if case in FROM_DIFFUSERS:
        real = FROM_DIFFUSERS[case](model, state)
        same(f"{case}: ComfyUI's conversion", comfy_names(comfy), comfy_names(real))
        want = mapped(real, state, at)
        seen.append("as ComfyUI converts it")
    if FROM_DIFFUSERS.get(case) not in (comfy_unet, comfy_vae):
        seen.append(f"loads as ComfyUI's {comfy_loads(case, comfy)}")
    if case in FROM_SINGLE:
        back = {name: t for name, t in FROM_SINGLE[case](model, comfy).items() if t is not None}
        same(f"{case}: diffusers' conversion", back, state)
        seen.append("diffusers makes its own of it")
    same(f"{case}: there and back", applied(plan("comfyui", comfy), comfy), state)
    assert case in FROM_SINGLE or want
    print(f"{case}: {len(state)} tensors, {len(comfy)} in ComfyUI: {', '.join(seen)}; there and back", flush=True)
    if write:
        numbers, where = numbered(comfy)
        if case in FROM_SINGLE:
            home = mapped({n: t for n, t in FROM_SINGLE[case](model, numbers).items() if t is not None}, numbers, where)
        else:
            home = mapped(applied(plan("comfyui", comfy), numbers), numbers, where)
        if want is None:
            want = mapped(comfy, state, at)
        else:  # by the names that files have
            want = {name: want[name] if name in want else want[NORM.sub(r"\1.weight", name)] for name in comfy}
        golden(case, want, home)


# Too much like others to keep.
UNKEPT = {"sd21", "sdxl-refiner", "flux-schnell", "flux2-klein", "pixart-ms", "wan-i2v", "gemma3-vision"}


def golden(case, comfy, diffusers):
    """Writes what each side's tensors consist of; what is only renamed is one line."""
    if case in UNKEPT:
        return

    def whole(name, side, other):
        shape, pieces = side[name]
        source, a, b = PART.match(pieces).groups() if " " not in pieces and pieces else ("", "0", "0")
        return source if source and other[source][0] == shape and a == "0" and int(b) == (shape[0] if shape else 1) else None

    path = ROOT / "internal/names/testdata" / f"{case}.tsv"
    path.parent.mkdir(exist_ok=True)
    renamed = {name: source for name in comfy if (source := whole(name, comfy, diffusers)) and whole(source, diffusers, comfy) == name}
    with open(path, "w") as file:
        for name, source in sorted(renamed.items()):
            file.write(f"{name}\t{source}\t{shape_text(comfy[name][0])}\n")
        for side, tensors, left in (("comfyui", comfy, renamed.keys()), ("diffusers", diffusers, set(renamed.values()))):
            for name, (shape, pieces) in sorted(tensors.items()):
                if name not in left:
                    file.write(f"{side}\t{name}\t{shape_text(shape)}\t{pieces}\n")


def main():
    args = sys.argv[1:]
    write = "--write" in args
    folder, *cases = [a for a in args if a != "--write"]
    import comfyui

    print("ComfyUI", comfyui.start(folder))
    import models

    failed = 0
    for case in cases or models.MODELS:
        try:
            check(case, models.MODELS[case], write)
        except AssertionError as e:
            failed += 1
            print(f"{case}: FAILED\n{e}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
