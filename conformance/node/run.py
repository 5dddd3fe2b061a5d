"""Loads files with layers of SDNQ into ComfyUI through the custom node, and compares
with the dequantized files in ComfyUI's own loaders. README.md beside this script says how.

run.py COMFY TENSORPRESS [CASE…]
"""
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "comfy"))
sys.path.insert(0, str(HERE.parents[1] / "python" / "src"))

import torch
import whole  # which reads the command line as this script does
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import comfy.hooks
import comfy.lora
import comfy.memory_management
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.quant_ops
import comfy.sd
import comfy.utils

torch.set_num_threads(1)
folder_of_node = HERE.parents[1] / "comfyui" / "ComfyUI-tensorpress"
# The parts of the node without its __init__, which asks for ComfyUI's server.
package = importlib.util.module_from_spec(importlib.util.spec_from_loader("node", None, is_package=True))
package.__path__ = [str(folder_of_node)]
sys.modules["node"] = package

import node.codes
import node.layers
import node.operations
from node import loading
from node.codes import LAYOUT, in_dtype, is_codes
from node.operations import Held

import tensorpress.torch.modules

BF16 = torch.bfloat16
SCHEMES = {
    "uint4 groups": ["--dtype", "sdnq:uint4", "--group-size", "64"],
    "int8 rows": ["--dtype", "sdnq:int8", "--group-size", "-1"],
    "svd": ["--dtype", "sdnq:uint4", "--svd-rank", "16"],
    "hadamard": ["--dtype", "sdnq:int4", "--hadamard"],
    "codebook": ["--dtype", "sdnq:uint4", "--codebook"],
    "double": ["--dtype", "sdnq:uint4", "--scale-dtype", "uint8"],
    "float": ["--dtype", "sdnq:float6_e3m2fn"],
    "matmul": ["--dtype", "sdnq:int8", "--quantized-matmul"],
    "awq_w4a16": ["--dtype", "awq_w4a16"],  # which ComfyUI 0.33.0 lacks
    "svdquant_w4a4": ["--dtype", "svdquant_w4a4", "--svd-rank", "16"],  # likewise
}


def mix(*patterns):
    """All of SDNQ's options and two native formats, a layer each in turn."""
    settings = ["sdnq:int8,group-size=-1", "sdnq:uint4,svd-rank=16", "sdnq:uint4,codebook", "sdnq:uint4,scale-dtype=uint8", "nvfp4", "float8_e4m3fn"]
    found = ["--dtype", "sdnq:uint4"]
    for pattern, setting in zip(patterns, settings):
        found += ["--set", f"{pattern}={setting}"]
    return found


MIXES = {
    "flux": mix("img_attn.qkv", "img_attn.proj", "txt_attn.qkv", "txt_attn.proj", "img_mlp.0", "txt_mlp.0"),
    "z-image": mix("layers.0.attention.qkv", "layers.0.attention.out", r"layers.0.feed_forward.w1", "layers.0.feed_forward.w2", "layers.1.attention.qkv", "layers.1.attention.out"),
    "wan": mix("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "cross_attn.q", "cross_attn.k"),
    "clip-l": mix(r"layers.0\.", r"layers.1\.", r"layers.2\.", r"layers.3\.", r"layers.4\.mlp", r"layers.5\.mlp") + ["--embedding", "--set", r"layers.6\.=sdnq:int4,hadamard"],
    "t5-xxl": mix(r"block.0\.", r"block.1\.", r"block.2\.", r"block.3\.", r"block.4\.", r"block.5\.") + ["--embedding", "--set", r"block.6\.=sdnq:int4,hadamard"],
    "text": mix(r"layers\.0\.|block\.0\.", r"layers\.1\.|block\.1\.", r"layers\.2\.|block\.2\.", r"layers\.3\.|block\.3\.", r"layers\.4\.mlp|block\.4\.layer\.1", r"layers\.5\.mlp|block\.5\.layer\.1"),
    "sdxl-unet": mix("attn1.to_q", "middle_block.*attn1.to_k", "middle_block.*attn1.to_v", "attn2.to_q", "attn1.to_out", "attn2.to_k"),
}
MIXES["vega-unet"] = mix("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q", "attn1.to_out", "attn2.to_k")
#: Convolutions too, which are not taken unless they are asked for.
CONVS = ["--conv", "--set", "input_blocks.1.0.in_layers.2=sdnq:uint8"]


#: These run in float32, which takes a CPU a fraction of what bf16 takes.
LARGE = ("sdxl-unet", "vega-unet", "z-image")
module, name, _, inputs = whole.MODELS["sdxl-unet"]
#: SDXL's UNet with fewer blocks, as Segmind's Vega has it.
VEGA = dict(whole.XL, transformer_depth=[0, 0, 1, 1, 2, 2], transformer_depth_middle=-1, transformer_depth_output=[0, 0, 0, 1, 1, 1, 2, 2, 2])
whole.MODELS["vega-unet"] = (module, name, VEGA, inputs)


def quantize(source, out, options):
    """Quantizes and returns the layers that the node reads, and those that ComfyUI does."""
    run = whole.tensorpress("quantize", source, out, "--force", "-q", "--layout", "comfy", *options)
    if run.returncode:
        raise RuntimeError(run.stderr)
    ours, others = [], []
    with safe_open(out, "pt") as file:
        for name in file.keys():
            if name.endswith(".comfy_quant"):
                text = file.get_tensor(name).numpy().tobytes()
                (ours if node.layers.is_ours(text, comfy.quant_ops.QUANT_ALGOS) else others).append(name.removesuffix(".comfy_quant"))
    return ours, others


def dequantize(out, plain, *options):
    run = whole.tensorpress("dequantize", out, plain, "--force", "-q", *options)
    if run.returncode:
        raise RuntimeError(run.stderr)


def holders(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, Held) and m.holds_codes}


def natives(model):
    return sum(isinstance(p, comfy.ops.QuantizedTensor) and p._layout_cls != LAYOUT for p in model.parameters())


def check_bits(model, path, rename, dtype=torch.float32):
    """How many weights decode to other bits than those in a file."""
    wrong = 0
    with safe_open(path, "pt") as file:
        for name, m in holders(model).items():
            want = file.get_tensor(f"{rename(name)}.weight")
            got = in_dtype(m.weight, dtype).dequantize()
            wrong += not torch.equal(want.view(torch.uint8), got.view(torch.uint8))
    return wrong


def check_saved(model_state, path, prefix=""):
    """How many tensors of a file's layers that the node reads are not in a state dict as they are."""
    source = load_file(path)
    layers = node.layers.names(source, comfy.quant_ops.QUANT_ALGOS)
    wrong = 0
    for layer in layers:
        for own in ("weight", *node.layers.COMPANIONS, "comfy_quant"):
            name = f"{layer}.{own}"
            if name in source:
                got = model_state.get(prefix + name)
                wrong += got is None or got.dtype != source[name].dtype or not torch.equal(got, source[name])
    return wrong


def lora_for(names, shapes, rank=4):
    g = torch.Generator().manual_seed(3)
    found = {}
    for name in names:
        out, into = shapes[name]
        found[f"{name}.lora_up.weight"] = torch.randn(out, rank, generator=g) * 0.02
        found[f"{name}.lora_down.weight"] = torch.randn(rank, into, generator=g) * 0.2
        found[f"{name}.alpha"] = torch.tensor(float(rank))
    return found


def with_lora(patcher, lora):
    clone, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)
    return clone


def run_model(patcher, case, precise=False):
    """A forward pass: in float32 where bf16 takes a CPU minutes."""
    inputs = whole.MODELS[case][3]()
    if precise or case in LARGE:
        inputs = {name: v.float() if isinstance(v, torch.Tensor) else v for name, v in inputs.items()}
    return patcher.model.diffusion_model(**inputs, transformer_options={}).float()


def forward(patcher, case, precise=False, **load):
    """A forward pass of a model that ComfyUI has loaded, and unloaded after it."""
    if load:
        patcher.patch_model(device_to=torch.device("cpu"), **load)
    out = run_model(patcher, case, precise)
    if load:
        patcher.unpatch_model(torch.device("cpu"))
    return out


class Report:
    def __init__(self):
        self.good = True

    def __call__(self, fine, line):
        self.good = self.good and bool(fine)
        print(f"  {'ok  ' if fine else 'FAIL'} {line}", flush=True)


def check_model(case, folder, report):
    source, out, plain = (folder / name for name in ("in.safetensors", "out.safetensors", "plain.safetensors"))
    save_file(whole.model_state(case), source)
    large = case in LARGE
    dtype = torch.float32 if large else BF16
    runs = {"mixed": MIXES[case] + (CONVS if case in ("sdxl-unet", "vega-unet") else [])}
    if case == "flux":
        runs |= SCHEMES
    for label, options in runs.items():
        ours, others = quantize(source, out, options)
        dequantize(out, plain, *(["--dtype", "f32"] if large else []))
        patcher = loading.load_diffusion_model(str(out), {"dtype": dtype})
        model = patcher.model.diffusion_model
        found = len(holders(model)), natives(model)
        report(found == (len(ours), len(others)) and ours, f"{label}: {found[0]} of {len(ours)} layers hold codes, {found[1]} of {len(others)} are ComfyUI's own")
        exact = plain
        if not large:
            exact = folder / "exact.safetensors"
            dequantize(out, exact, "--dtype", "f32")
        wrong = check_bits(model, exact, str)
        report(wrong == 0, f"{label}: {wrong} weights decode to other bits")
        stock = comfy.sd.load_diffusion_model(str(plain), model_options={"dtype": dtype})
        want, got = forward(stock, case), forward(patcher, case)
        off = whole.distance(got, want)
        report(off < (1e-5 if large else 0.01), f"{label}: output {off:.5f} from the dequantized file's")
        wrong = check_saved(patcher.model_state_dict(), out, "diffusion_model.")
        report(wrong == 0, f"{label}: {wrong} tensors differ in the state dict")
        if label in ("mixed", "svd"):
            check_lora(case, label, folder, patcher, stock, want, got, ours, out, report)
        del patcher, model, stock


def check_lora(case, label, folder, patcher, stock, plain, before, ours, out, report):
    limit = 1e-5 if case in LARGE else 0.02  # ComfyUI rounds what it patches to the weights' dtype
    shapes = whole.shapes(folder / "in.safetensors")
    names = [n for n in ours if len(shapes[f"{n}.weight"]) == 2][:40]
    lora = lora_for([f"diffusion_model.{n}" for n in names], {f"diffusion_model.{n}": shapes[f"{n}.weight"] for n in names})
    a, b = with_lora(patcher, lora), with_lora(stock, lora)
    effect = None
    for way, load in (("whole", dict(lowvram_model_memory=0)), ("lowvram", dict(lowvram_model_memory=1))):
        want, got, again = forward(b, case, **load), forward(a, case, **load), forward(a, case, **load)
        effect = whole.distance(want, plain)
        off = whole.distance(got, want)
        report(off < limit and off < effect / 4, f"{label}, LoRA on {len(names)} layers, {way}: {off:.5f} from the dequantized file's, which it moved by {effect:.5f}")
        back = forward(patcher, case)
        report(torch.equal(again, got) and torch.equal(back, before), f"{label}, LoRA, {way}: run again, the output is the same, and taken off, as before")
    # Some of it loaded and the rest left, then some unloaded again.
    a.patch_model(device_to=torch.device("cpu"), lowvram_model_memory=patcher.model_size() // 2)
    part = run_model(a, case)
    a.partially_unload(torch.device("cpu"), patcher.model_size() // 4)
    less = run_model(a, case)
    a.unpatch_model(torch.device("cpu"))
    report(max(whole.distance(part, want), whole.distance(less, want)) < limit, f"{label}, LoRA, half loaded: {whole.distance(part, want):.5f}, and less of it {whole.distance(less, want):.5f}")
    if case in LARGE:
        return
    # Saved with it: what is patched is plain, the rest are codes.
    half = names[: len(names) // 2]
    c = with_lora(patcher, {k: v for k, v in lora.items() if k.split(".lora_")[0].removesuffix(".alpha").removeprefix("diffusion_model.") in half})
    saved = folder / "saved.safetensors"
    c.patch_model(device_to=torch.device("cpu"), lowvram_model_memory=0)
    direct = whole.run_model(c, case)[0]
    save_file({k: v.to("cpu").contiguous() for k, v in c.model_state_dict_for_saving(c.model.diffusion_model, "diffusion_model.").items()}, saved)
    c.unpatch_model(torch.device("cpu"))
    again = loading.load_diffusion_model(str(saved), {"dtype": BF16})
    left = len(holders(again.model.diffusion_model))
    off = whole.distance(forward(again, case), direct)
    report(left == len(ours) - len(half) and off < 0.02, f"{label}, saved with LoRA: {left} of {len(ours)} layers are codes, {len(half)} plain; loaded again {off:.5f} from before")
    if label == "mixed" and case == "flux":
        saved = folder / "checkpoint.safetensors"
        comfy.sd.save_checkpoint(str(saved), patcher)
        wrong = check_saved(load_file(saved), out, "model.diffusion_model.")
        report(wrong == 0, f"{label}, saved as a checkpoint: {wrong} tensors differ")
        again = loading.load_diffusion_model(str(saved), {"dtype": BF16})
        report(torch.equal(forward(again, case), before), f"{label}, saved as a checkpoint and loaded: the output is as before")


def check_names(folder, report):
    """A Flux with diffusers' names, which ComfyUI joins."""
    source, out, plain = (folder / name for name in ("in.safetensors", "out.safetensors", "plain.safetensors"))
    state = whole.model_state("flux")
    after = comfy.utils.flux_to_diffusers({"depth": 2, "depth_single_blocks": 2, "hidden_size": 512})
    theirs = {}
    for name, target in after.items():
        target = (target, None) if isinstance(target, str) else target
        if target[0] not in state:
            continue
        value, offset = state[target[0]], target[1]
        value = value if offset is None else value.narrow(*offset)
        theirs[name] = (torch.cat(value.chunk(2)[::-1]) if len(target) > 2 else value).contiguous().clone()
    save_file(theirs, source)
    ours, _ = quantize(source, out, ["--dtype", "sdnq:uint4", "--group-size", "64", "--preset", "none"])
    dequantize(out, plain)
    patcher = loading.load_diffusion_model(str(out), {"dtype": BF16})
    stock = comfy.sd.load_diffusion_model(str(plain), model_options={"dtype": BF16})
    off = whole.distance(forward(patcher, "flux"), forward(stock, "flux"))
    held = len(holders(patcher.model))
    report(off < 0.01 and held > 0, f"diffusers' names: {held} of {len(ours)} layers stay codes, the output is {off:.5f} from the dequantized file's")


def check_text(case, folder, report):
    source, out, plain = (folder / name for name in ("in.safetensors", "out.safetensors", "plain.safetensors"))
    if case == "t5-xxl":
        whole.narrow_t5()
        state, kind, prefix = whole.small_queries(whole.randomized(whole.t5_state())), comfy.sd.CLIPType.PIXART, "t5xxl.transformer."
    else:
        state, kind, prefix = whole.randomized(whole.clip_state()), comfy.sd.CLIPType.STABLE_DIFFUSION, "clip_l.transformer."
    save_file(state, source)
    for label, options in {"mixed": MIXES[case]}.items():
        ours, others = quantize(source, out, options)
        dequantize(out, plain)
        exact = folder / "exact.safetensors"
        dequantize(out, exact, "--dtype", "f32")
        clip = loading.load_clip([str(out)], clip_type=kind)
        model = clip.cond_stage_model
        found = len(holders(model)), natives(model)
        report(found == (len(ours), len(others)) and ours, f"{label}: {found[0]} of {len(ours)} layers hold codes, {found[1]} of {len(others)} are ComfyUI's own")
        wrong = check_bits(model, exact, lambda name: name.removeprefix(prefix))
        got = clip.encode_from_tokens(clip.tokenize(whole.TOKENS)).float()
        want = whole.encode(plain, kind)[0]
        report(wrong == 0, f"{label}: {wrong} weights decode to other bits")
        report(whole.distance(got, want) < 0.02, f"{label}: output {whole.distance(got, want):.5f} from the dequantized file's")
        wrong = check_saved(clip.get_sd(), out, prefix)
        report(wrong == 0, f"{label}: {wrong} tensors differ in the state dict")
    if case == "t5-xxl":  # two files, of which one is plain
        other = folder / "clip.safetensors"
        save_file(whole.randomized(whole.clip_state()), other)
        paths = [str(other), str(out)]
        clip = loading.load_clip(paths, clip_type=comfy.sd.CLIPType.FLUX)
        stock = comfy.sd.load_clip([str(other), str(plain)], clip_type=comfy.sd.CLIPType.FLUX)
        tokens = clip.tokenize(whole.TOKENS)
        off = [whole.distance(x.float(), y.float()) for x, y in zip(clip.encode_from_tokens(tokens, return_pooled=True), stock.encode_from_tokens(tokens, return_pooled=True))]
        report(max(off) < 0.01, f"with CLIP-L: outputs {off[0]:.5f} and {off[1]:.5f} from the dequantized files'")


def nodes(folder, kind):
    """The node's classes, with a folder of models of a kind."""
    import folder_paths
    import node.nodes

    folder_paths.add_model_folder_path(kind, str(folder), is_default=True)
    return node.nodes


def check_checkpoint(case, folder, report):
    source, out, plain = (folder / name for name in ("in.safetensors", "out.safetensors", "plain.safetensors"))
    model, _, t5, _, _ = whole.CHECKPOINTS[case]
    if t5:
        whole.narrow_t5()
    state = whole.checkpoint_state(case)
    state.pop("cond_stage_model.transformer.text_projection.weight", None)  # which no file of SD 1.5 has, and ComfyUI drops
    save_file(state, source)
    del state
    ours, others = quantize(source, out, ["--dtype", "sdnq:uint4", "--preset", "none", "--conv"])
    dequantize(out, plain, "--dtype", "f32")
    got = nodes(folder, "checkpoints").CheckpointLoader().load(out.name)
    want = comfy.sd.load_checkpoint_guess_config(str(plain))
    dtypes = [found[0].model.get_dtype_inference() for found in (got, want)]
    report(dtypes[0] == dtypes[1], f"it computes in {dtypes[0]}, the dequantized file in {dtypes[1]}")
    vae = sum(name.startswith(("first_stage_model.", "vae.")) for name in ours)
    held = len(holders(got[0].model)) + len(holders(got[1].cond_stage_model))
    report(held + vae == len(ours) and held, f"{held} layers hold codes, {vae} of the VAE are decoded, of {len(ours)}")
    for part in ("model", "text", "pooled", "picture"):
        x, y = (outputs(found, model, whole.CHECKPOINTS[case][4])[part] for found in (got, want))
        report(whole.distance(x, y) < 0.01, f"{part}: {whole.distance(x, y):.5f} from the dequantized file's")


class Words:
    """In the place of Llama's tokenizer, whose file is too large for some copies of ComfyUI."""

    def __init__(self, **kw):
        pass

    def tokenize_with_weights(self, text, *args, **kw):
        ids = [128000, *(1000 + sum(word.encode()) for word in text.split())]
        return [[(i, 1.0) for i in ids + [128009] * (128 - len(ids))]]


def text_files(folder):
    """CLIP-L, and CLIP-G, T5-XXL and Llama 3.1 as deep as they are and narrow."""
    import comfy.clip_model
    import comfy.text_encoders.hunyuan_video
    import comfy.text_encoders.llama

    whole.narrow_t5()
    whole.narrow("hidden_size", 1280, CLIP_G)
    whole.resize("Llama2Config", dict(hidden_size=512, intermediate_size=1024, num_attention_heads=4, num_key_value_heads=2))
    comfy.text_encoders.hunyuan_video.LLAMA3Tokenizer = Words
    path = pathlib.Path(comfy.clip_model.__file__).parent / "clip_config_bigg.json"
    clip_g = comfy.clip_model.CLIPTextModel(dict(json.loads(path.read_text()), **CLIP_G), BF16, "meta", comfy.ops.manual_cast)
    llama = comfy.text_encoders.llama.Llama2(dict(vocab_size=128256), BF16, "meta", comfy.ops.manual_cast)
    for name, state in (("l", whole.clip_state()), ("g", clip_g.state_dict()), ("t5", whole.t5_state()), ("llama", llama.state_dict())):
        # In F32: ComfyUI loads T5 and Llama in the dtype of a norm, whatever their weights have.
        state = {key: v.float() for key, v in whole.small_queries(whole.randomized(state)).items()}
        save_file(state, folder / f"{name}.safetensors")
        found = quantize(folder / f"{name}.safetensors", folder / f"{name}-out.safetensors", [*MIXES["text"], "--preset", "none"])
        dequantize(folder / f"{name}-out.safetensors", folder / f"{name}-plain.safetensors", "--dtype", "f32")
        yield name, found


def encoded(clip):
    """What every encoder of a CLIP makes of a text: SD3 joins them, for which T5 is too narrow."""
    tokens, model = clip.tokenize(whole.TOKENS), clip.cond_stage_model
    clip.load_model()
    modules = {key: getattr(model, name, None) for key, name in (("l", "clip_l"), ("g", "clip_g"), ("t5xxl", "t5xxl"), ("llama", "llama"))}
    return {key: m.encode_token_weights(tokens[key])[0].float() for key, m in modules.items() if m is not None}


CLIP_G = dict(hidden_size=256, intermediate_size=1024, num_attention_heads=4, projection_dim=256)
#: Node, type, what files it takes.
TEXTS = (
    ("CLIPLoader", "lumina2", ("llama",)),
    ("DualCLIPLoader", "sdxl", ("l", "g")),
    ("DualCLIPLoader", "flux", ("l", "t5")),
    ("DualCLIPLoader", "sd3", ("g", "t5")),
    ("DualCLIPLoader", "hidream", ("t5", "llama")),
    ("TripleCLIPLoader", "", ("l", "g", "t5")),
    ("QuadrupleCLIPLoader", "", ("l", "g", "t5", "llama")),
)


def check_texts(folder, report):
    """The loader nodes of one to four text encoders, of which all are quantized, or the first alone."""
    # ComfyUI would round what it loads to F16.
    comfy.model_management.text_encoder_dtype = lambda device=None: torch.float32
    files = dict(text_files(folder))
    mine = nodes(folder, "text_encoders")
    for name, kind, parts in TEXTS:
        cls = getattr(mine, name)
        stock = comfy.sd.load_clip([str(folder / f"{p}-plain.safetensors") for p in parts], clip_type=getattr(comfy.sd.CLIPType, kind.upper(), comfy.sd.CLIPType.STABLE_DIFFUSION))
        exact = encoded(stock)
        del stock
        for quantized in (len(parts), 1):
            chosen = [f"{p}-{'out' if i < quantized else 'plain'}.safetensors" for i, p in enumerate(parts)]
            loader = cls()
            (clip,) = loader.load(**dict(zip(loader.names, chosen)), **({"type": kind} if kind else {}))
            model = clip.cond_stage_model
            want = [sum(len(files[p][i]) for p in parts[:quantized]) for i in (0, 1)]
            found = [len(holders(model)), natives(model)]
            label = f"{name} {kind}, {quantized} of {len(parts)} quantized"
            report(found == want, f"{label}: {found} layers hold codes, and are ComfyUI's own, of {want}")
            got = encoded(clip)
            off = {part: whole.distance(got[part], v) for part, v in exact.items()}
            report(len(off) == len(parts) and got.keys() == exact.keys() and max(off.values()) < 1e-4, f"{label}: {', '.join(f'{part} {v:.6f}' for part, v in off.items())} from the dequantized files'")
            if len(parts) == 1:
                break


def outputs(found, model, channels):
    patcher, clip, vae = found[:3]
    text, pooled = clip.encode_from_tokens(clip.tokenize(whole.TOKENS), return_pooled=True)
    picture = vae.decode(whole.r(1, channels, 8, 8).float())
    return dict(model=run_model(patcher, model, True), text=text.float(), pooled=pooled.float(), picture=picture.float())


def check_int8(folder, report):
    """Which int8 rows are multiplied in int8, on a CPU that is said to be fast at it. In
    float32, in which ComfyUI computes on a CPU."""
    source, out, plain = (folder / name for name in ("in.safetensors", "out.safetensors", "plain.safetensors"))
    save_file(whole.model_state("flux"), source)
    multiplied, multiply = [], node.operations.multiply_int8
    node.operations.multiply_int8 = lambda *args: multiplied.append(args) or multiply(*args)
    fast = tensorpress.torch.modules.multiplies_int8_fast

    def run(patcher, **load):
        multiplied.clear()
        return forward(patcher, "flux", True, **load), len(multiplied)

    for label, options in (("stored for it", SCHEMES["matmul"]), ("in rows", SCHEMES["int8 rows"])):
        ours, _ = quantize(source, out, options)
        dequantize(out, plain, "--dtype", "f32")
        want = forward(comfy.sd.load_diffusion_model(str(plain)), "flux", True)
        models = {mode: loading.load_diffusion_model(str(out), None, mode) for mode in node.operations.INT8_MATMUL}
        tensorpress.torch.modules.multiplies_int8_fast = lambda: False
        counts = [run(m)[1] for m in models.values()]
        report(counts == [0, 0, 0], f"{label}, on a CPU that is slow at it: {counts} layers are multiplied in int8")
        tensorpress.torch.modules.multiplies_int8_fast = lambda: True
        found = {mode: run(m) for mode, m in models.items()}
        counts = [found[mode][1] for mode in node.operations.INT8_MATMUL]
        n = len(ours)
        report(counts == [n if label == "stored for it" else 0, n, 0], f"{label}: auto, all, none: {counts} of {n} layers are multiplied in int8")
        off = {mode: whole.distance(v, want) for mode, (v, _) in found.items()}
        fine = all(v < (0.05 if found[mode][1] else 1e-5) for mode, v in off.items()) and off["all"] > off["none"]
        report(fine, f"{label}: {', '.join(f'{mode} {v:.5f}' for mode, v in off.items())} from the dequantized file's")
        again = run(models["all"])[0]
        report(torch.equal(again, found["all"][0]), f"{label}: run again, the output is the same")
        shapes = whole.shapes(source)
        for count in (n, n // 2):
            names = [f"diffusion_model.{name}" for name in ours[:count]]
            lora = lora_for(names, {name: shapes[f"{name.removeprefix('diffusion_model.')}.weight"] for name in names})
            patched = {mode: with_lora(m, lora) for mode, m in models.items()}
            for memory in (0, 1):
                y, multiplied_ = run(patched["all"], lowvram_model_memory=memory)
                z, _ = run(patched["none"], lowvram_model_memory=memory)
                equal = torch.equal(y, z) if count == n else whole.distance(y, z) < 0.05
                report(multiplied_ == n - count and equal, f"{label}, LoRA on {count} of {n}, {'lowvram' if memory else 'whole'}: {multiplied_} are multiplied in int8, {whole.distance(y, z):.5f} from none")
        state = load_file(out)
        for name in ours:
            text = json.loads(state[f"{name}.comfy_quant"].numpy().tobytes()) | {"full_precision_matrix_mult": True}
            state[f"{name}.comfy_quant"] = node.layers.described_bytes(json.dumps(text).encode())
        save_file(state, out)
        counts = [run(loading.load_diffusion_model(str(out), None, mode))[1] for mode in node.operations.INT8_MATMUL]
        report(counts == [0, 0, 0], f"{label}, full_precision_matrix_mult: {counts} layers are multiplied in int8")
    clip = whole.randomized(whole.clip_state())
    save_file(clip, source)
    quantize(source, out, SCHEMES["matmul"])
    clip = loading.load_clip([str(out)])
    multiplied.clear()
    clip.encode_from_tokens(clip.tokenize(whole.TOKENS))
    report(not multiplied and holders(clip.cond_stage_model), f"text encoders: {len(multiplied)} layers are multiplied in int8, as ComfyUI has it of its own")
    node.operations.multiply_int8, tensorpress.torch.modules.multiplies_int8_fast = multiply, fast


def check_streamed(folder, report):
    """What ComfyUI does where it streams weights into a GPU's memory, with a buffer in its place."""
    source, out = folder / "in.safetensors", folder / "out.safetensors"
    save_file(whole.model_state("flux"), source)
    ours, _ = quantize(source, out, MIXES["flux"])
    shapes = whole.shapes(source)
    patcher = loading.load_diffusion_model(str(out), {"dtype": BF16})
    lora = lora_for([f"diffusion_model.{n}" for n in ours], {f"diffusion_model.{n}": shapes[f"{n}.weight"] for n in ours})
    patches = with_lora(patcher, lora).patches
    wrong, changed, sizes, weights = 0, 0, 0, 0
    for name, m in holders(patcher.model).items():
        x = torch.randn(3, m.in_features, generator=torch.Generator().manual_seed(1)).to(BF16)
        patch = comfy.model_patcher.LowVramPatch(f"{name}.weight", patches)
        plain = in_dtype(m.weight, torch.float32).dequantize()
        want = [torch.nn.functional.linear(x, w.to(BF16), None if m.bias is None else m.bias.to(BF16)) for w in (plain, patch(plain.clone()))]
        size = comfy.memory_management.vram_aligned_size([m.weight, m.bias])
        sizes, weights = sizes + size, weights + plain.numel() * 2
        buffer = torch.empty(size, dtype=torch.uint8)
        comfy.model_management.cast_to_gathered([m.weight, m.bias], buffer)
        before = buffer.clone()
        for function, expected in ((None, want[0]), (patch, want[1])):
            m.weight_lowvram_function, m.weight_function, m.bias_function = function, [], []
            geometry = comfy.memory_management.tensors_to_geometries([m.weight, m.bias])
            m._prefetch = dict(resident=False, signature=1, xfer_dest=buffer, cast_dest=None, cast_geometry=geometry, needs_cast=False)
            for _ in range(2):  # as it arrives, and when it is there
                weight, bias = comfy.ops.resolve_cast_module_with_vbar(m, BF16, x.device, BF16, BF16, False)
                got = m._forward(x, weight, bias)
                # Patched, there is a rounding to bf16 more.
                wrong += not torch.equal(got, expected) if function is None else whole.distance(got.float(), expected.float()) > 0.01
        changed += not torch.equal(buffer, before)
        m.weight_lowvram_function = None
    report(wrong == 0 and changed == 0, f"streamed: {wrong} outputs differ and {changed} buffers were changed, with a LoRA and without; {sizes / weights:.2f} of what weights in bf16 take")


def check_memory(folder, report):
    """Nothing is decoded while a model is loaded, and its layers hold what the file does."""
    source, out = folder / "in.safetensors", folder / "out.safetensors"
    save_file(whole.model_state("flux"), source)
    ours, _ = quantize(source, out, SCHEMES["uint4 groups"])
    decoded, decode = [], node.codes.decode
    node.codes.decode = node.layers.decode = node.operations.decode = lambda *args, **kw: decoded.append(args) or decode(*args, **kw)
    patcher = loading.load_diffusion_model(str(out), {"dtype": BF16})
    count = len(decoded)
    held = sum(t.nbytes for m in holders(patcher.model).values() for name, t in m.state_dict().items() if name != "bias")
    stored = sum(t.nbytes for name, t in load_file(out).items() if name.rpartition(".")[0] in ours and not name.endswith(".bias"))
    report(count == 0 and held == stored, f"memory: {count} layers were decoded by the loader, {held / 1e6:.2f} MB are held, {stored / 1e6:.2f} in the file")
    forward(patcher, "flux")
    report(len(decoded) == len(ours), f"memory: a forward pass decodes {len(decoded)} layers, one after another")
    node.codes.decode = node.layers.decode = node.operations.decode = decode


def check_hooks(folder, report):
    """A LoRA that hooks put on for a part of the steps."""
    source, out, plain = (folder / name for name in ("in.safetensors", "out.safetensors", "plain.safetensors"))
    save_file(whole.model_state("flux"), source)
    ours, _ = quantize(source, out, MIXES["flux"][:10])  # ComfyUI has no hooks for its own formats
    dequantize(out, plain)
    shapes = whole.shapes(source)
    lora = lora_for([f"diffusion_model.{n}" for n in ours], {f"diffusion_model.{n}": shapes[f"{n}.weight"] for n in ours})
    found = []
    for load in (loading.load_diffusion_model, comfy.sd.load_diffusion_model):
        patcher = load(str(out if load is loading.load_diffusion_model else plain), model_options={"dtype": BF16})
        before = forward(patcher, "flux")
        group = comfy.hooks.create_hook_lora(lora=lora, strength_model=1.0, strength_clip=0.0)
        clone = patcher.clone()
        clone.register_all_hook_patches(group, comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model))
        clone.patch_model(device_to=torch.device("cpu"), lowvram_model_memory=0)
        clone.apply_hooks(group)
        put = whole.run_model(clone, "flux")[0]
        clone.unpatch_hooks()
        off = whole.run_model(clone, "flux")[0]
        clone.unpatch_model(torch.device("cpu"))
        found.append((before, put, off))
    (before, put, off), (_, want, _) = found
    report(whole.distance(put, want) < 0.02 and whole.distance(put, before) > 0.05, f"hooks: {whole.distance(put, want):.5f} from the dequantized file's, {whole.distance(put, before):.5f} from without")
    report(torch.equal(off, before), "hooks: taken off again, the output is as before")


def check_compiled(folder, report):
    """What ComfyUI's compile node does to a Flux, alone and with a LoRA."""
    import comfy_extras.nodes_torch_compile

    source, out = folder / "in.safetensors", folder / "out.safetensors"
    save_file(whole.model_state("flux"), source)
    ours, _ = quantize(source, out, MIXES["flux"])
    patcher = loading.load_diffusion_model(str(out), {"dtype": BF16})
    shapes = whole.shapes(source)
    names = [f"diffusion_model.{n}" for n in ours]
    lora = lora_for(names, {f"diffusion_model.{n}": shapes[f"{n}.weight"] for n in ours})
    # On a CPU ComfyUI asks for free memory in its attention, where graphs break whatever the weights are.
    theirs = folder / "theirs.safetensors"
    quantize(source, theirs, ["--dtype", "float8_e4m3fn", "--preset", "none"])
    least = explained(comfy.sd.load_diffusion_model(str(theirs), model_options={"dtype": BF16})).graph_break_count
    for label, p in (("alone", patcher), ("with a LoRA", with_lora(patcher, lora))):
        before = sampled(p)
        told = explained(p)
        mine = [b.reason for b in told.break_reasons if any(str(place) in frame.filename for frame in b.user_stack for place in (folder_of_node, "/tensorpress/torch/"))]
        fine = not mine and (told.graph_break_count <= least or label != "alone")
        report(fine, f"{label}: {told.graph_break_count} breaks, {least} in ComfyUI's own loader with float8, {len(mine)} of them in the node: {'; '.join(mine)[:300]}")
        torch._dynamo.reset()
        compiled = comfy_extras.nodes_torch_compile.TorchCompileModel.execute(p, "inductor").result[0]
        found = [sampled(compiled) for _ in range(2)]
        off = whole.distance(found[0], before)
        report(off < 0.02 and torch.equal(*found), f"{label}, compiled by the node and sampled: {off:.5f} from before, twice the same")


def explained(patcher):
    """Where a compiler would break a loaded model's graph."""
    patcher.patch_model(device_to=torch.device("cpu"))
    torch._dynamo.reset()
    found = torch._dynamo.explain(patcher.model.diffusion_model)(**whole.MODELS["flux"][3](), transformer_options={})
    patcher.unpatch_model(torch.device("cpu"))
    return found


def sampled(patcher):
    """Two steps of ComfyUI's sampler."""
    import comfy.sample

    cond = [[whole.r(1, 8, 4096), {"pooled_output": whole.r(1, 768), "guidance": 3.5}]]
    noise = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(2))
    return comfy.sample.sample(patcher, noise, 2, 1.0, "euler", "simple", cond, cond, torch.zeros_like(noise), disable_pbar=True, seed=1)


CASES = {
    **{case: (lambda folder, report, case=case: check_model(case, folder, report)) for case in ("flux", "z-image", "wan", "vega-unet", "sdxl-unet")},
    "names": check_names,
    **{case: (lambda folder, report, case=case: check_text(case, folder, report)) for case in ("clip-l", "t5-xxl")},
    **{case: (lambda folder, report, case=case: check_checkpoint(case, folder, report)) for case in whole.CHECKPOINTS},
    "text-nodes": check_texts,
    "int8": check_int8,
    "streamed": check_streamed,
    "memory": check_memory,
    "hooks": check_hooks,
    "compiled": check_compiled,
}

if __name__ == "__main__":
    failed = []
    for case in sys.argv[3:] or CASES:
        start = time.time()
        report = Report()
        print(case, flush=True)
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as place:
            try:
                CASES[case](pathlib.Path(place), report)
            except Exception as e:
                report(False, f"{type(e).__name__} {str(e)[:300]}")
                if os.environ.get("TRACE"):
                    raise
        failed += [] if report.good else [case]
        print(f"  {time.time() - start:.0f} s", flush=True)
    print(f"ComfyUI with the node: {', '.join(failed) or 'nothing'} failed")
    sys.exit(bool(failed))
