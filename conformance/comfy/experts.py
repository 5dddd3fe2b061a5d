"""Loads the experts of a layer, matrices in one tensor, with ComfyUI's own class.

experts.py TENSORPRESS COMFY: quantizes a small gpt-oss in every format that holds
experts, loads it into ComfyUI's GptOssModel on the CPU, compares what each expert
restores with `tensorpress dequantize`, to the bit (where rotated, within 1e-6 of the
greatest value), and a forward pass with that of the dequantized file. Then the same model as
it is published: gpt-oss's own MXFP4, whose values are those of transformers' function, and
experts that are layers of their own, plain and in 8 bits, joined, with a gate of its own or not.

experts.py golden COMFY: writes testdata/golden/experts: for each format a file of
ComfyUI's MoEExperts.state_dict(), with comfy-kitchen's codes, and what it restores.
"""
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import comfyui
import torch
from safetensors.torch import load_file, save_file

binary, folder = sys.argv[1:3]
release = comfyui.start(folder)

import comfy.ops
import comfy.quant_ops
from comfy.text_encoders.gpt_oss import GptOss20BConfig, GptOssModel

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = dict(vocab_size=96, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_local_experts=5, num_experts_per_tok=2)
CASES = (
    ("int8_tensorwise", []), ("int8_tensorwise", ["--scale", "tensor"]), ("int8_tensorwise", ["--search"]), ("int8_tensorwise", ["--convrot", "--convrot-group-size", "16"]),
    ("float8_e4m3fn", []), ("float8_e4m3fn", ["--input-scale", "--full-precision-matmul"]), ("float8_e5m2", []),
    ("nvfp4", []), ("nvfp4", ["--search"]), ("mxfp8", []), ("mxfp8", ["--search"]),
    ("convrot_w4a4", ["--convrot-group-size", "16"]), ("convrot_w4a4", ["--convrot-group-size", "16", "--search"]),
)


def model(state, full_precision=True):
    ops = comfy.ops.mixed_precision_ops({}, torch.float32, full_precision_mm=full_precision)
    made = GptOssModel(GptOss20BConfig(**SIZES), device="cpu", dtype=torch.float32, ops=ops)
    missing, unexpected = made.load_state_dict(dict(state), strict=False, assign=True)
    if missing or unexpected:
        raise SystemExit(f"missing {missing}, unexpected {unexpected}")
    return made


def source():
    torch.manual_seed(0)
    ops = comfy.ops.mixed_precision_ops({}, torch.float32, full_precision_mm=True)
    made = GptOssModel(GptOss20BConfig(**SIZES), device="cpu", dtype=torch.float32, ops=ops)
    state, e, h, i = {}, SIZES["num_local_experts"], SIZES["hidden_size"], SIZES["intermediate_size"]
    shapes = {k: v.shape for k, v in made.state_dict().items() if v is not None}
    for n in range(SIZES["num_hidden_layers"]):
        p = f"layers.{n}.mlp.experts."
        shapes |= {p + "gate_up_proj.weight": (e, 2 * i, h), p + "down_proj.weight": (e, h, i)}
        shapes |= {f"layers.{n}.self_attn.{x}_proj.weight": s for x, s in {"q": (64, h), "k": (32, h), "v": (32, h), "o": (h, 64)}.items()}
        shapes |= {f"layers.{n}.self_attn.{x}_proj.bias": (s,) for x, s in {"q": 64, "k": 32, "v": 32, "o": h}.items()}
    for k, shape in sorted(shapes.items()):
        scale = torch.logspace(-1, 1, e).view(-1, *[1] * (len(shape) - 1)) if len(shape) == 3 else 1
        state[k] = (torch.randn(shape) * 0.1 * scale).to(torch.bfloat16)
    return state


def banks(made):
    for name, module in made.named_modules():
        if type(module).__name__ == "MoEExperts":
            yield name, module


def mxfp4(state):
    """The source as gpt-oss is published, and what transformers makes of it, turned back."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    out, want = {}, {}
    for k, v in state.items():
        if ".experts." not in k:
            out["model." + k] = want[k] = v
        elif k.endswith(".bias"):
            out["model." + k.removesuffix(".bias") + "_bias"] = want[k] = v
        else:
            e, rows, columns = v.shape
            blocks = torch.randint(0, 256, (e, rows, columns // 32, 16), dtype=torch.uint8)
            scales = torch.randint(118, 124, (e, rows, columns // 32), dtype=torch.uint8)
            base = "model." + k.removesuffix(".weight")
            out |= {base + "_blocks": blocks, base + "_scales": scales}
            want[k] = convert_moe_packed_tensors(blocks, scales).transpose(1, 2).contiguous()
    return out, want, {"architectures": ["GptOssForCausalLM"], "quantization_config": {"quant_method": "mxfp4"}}


def apart(state, halves, eight):
    """The source with a layer for each expert, or for its halves, and what it stands for."""
    out, want = {}, {}
    for k, v in state.items():
        if ".experts." not in k:
            out["model." + k] = want[k] = v
            continue
        base, end = k.rsplit(".", 1)
        name, made = base.rsplit(".", 1)[1], []
        for i, one in enumerate(v):
            here = "model." + base.rsplit(".", 1)[0] + "."
            if not halves:
                parts = {f"{here}{name}s.{i}": one}
            elif name == "down_proj":
                parts = {f"{here}{i}.down_proj": one}
            else:
                parts = {f"{here}{i}.gate_proj": one[::2], f"{here}{i}.up_proj": one[1::2]}
            for layer, w in parts.items():
                w = w.contiguous()
                if eight and end == "weight":
                    scale = w.float().abs().amax(1, keepdim=True) / 448
                    codes = (w.float() / scale).to(torch.float8_e4m3fn)
                    out |= {f"{layer}.weight": codes, f"{layer}.weight_scale": scale}
                    w = codes.float() * scale
                else:
                    out[f"{layer}.{end}"] = w
                made.append(w)
        if halves and name != "down_proj":
            made = [torch.stack([g, u], 1).flatten(0, 1) for g, u in zip(made[::2], made[1::2])]
        want[k] = torch.stack(made)
    config = {"architectures": ["GptOssForCausalLM"]}
    if eight:
        weights = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False}
        config["quantization_config"] = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
    return out, want, config


def check_sources():
    """Whether what is made of published experts is what is made of their values."""
    failed = False
    state = source()
    shapes = {"mxfp4": lambda: mxfp4(state)} | {
        f"{'gate and up' if h else 'an expert'} a layer, {'float8' if q else 'plain'}": lambda h=h, q=q: apart(state, h, q) for h in (False, True) for q in (False, True)
    }
    with tempfile.TemporaryDirectory() as tmp:
        run = lambda *args: subprocess.run([binary, *map(str, args), "-q", "--force"], check=True, stdout=subprocess.DEVNULL)
        for name, make in shapes.items():
            tensors, want, config = make()
            folder, out, plain, like = (pathlib.Path(tmp, n) for n in ("source", "out.safetensors", "plain.safetensors", "like.safetensors"))
            folder.mkdir(exist_ok=True)
            save_file(tensors, folder / "model.safetensors")
            (folder / "config.json").write_text(json.dumps(config))
            if "quantization_config" in config:
                run("dequantize", folder, plain, "--names", "comfyui", "--dtype", "f32")
            else:
                run("quantize", folder, plain, "--names", "comfyui", "--keep", ".", "--layout", "comfy")
            got = load_file(plain)
            equal = got.keys() == want.keys() and all(torch.equal(got[k].float(), want[k].float()) for k in want)
            save_file({k: v.contiguous() for k, v in want.items()}, like)
            options = ("--dtype", "nvfp4", "--for", "comfyui", "--preset", "none", "--keep", "router", "--keep", "embed_tokens", "--keep", "self_attn")
            run("quantize", folder, out, "--names", "comfyui", *options)
            stored = load_file(out)
            run("quantize", like, out, *options)
            same = {k: v.view(torch.uint8).tolist() for k, v in stored.items()} == {k: v.view(torch.uint8).tolist() for k, v in load_file(out).items()}
            loaded = 0
            for _, bank in banks(model(stored)):
                loaded += bank.num_experts
            good = equal and same and loaded == 4 * SIZES["num_local_experts"]
            failed = failed or not good
            print(f"{'ok  ' if good else 'FAIL'} {name}: values {'equal' if equal else 'DIFFER'}, nvfp4 {'as' if same else 'NOT as'} of their values, {loaded} experts loaded")
    return failed


def check():
    print(f"ComfyUI {release}")
    failed = check_sources()
    with tempfile.TemporaryDirectory() as tmp:
        src = pathlib.Path(tmp, "src.safetensors")
        save_file(source(), src)
        run = lambda *args: subprocess.run([binary, *map(str, args), "-q", "--force"], check=True, stdout=subprocess.DEVNULL)
        for dtype, options in CASES:
            out, plain = pathlib.Path(tmp, "out.safetensors"), pathlib.Path(tmp, "plain.safetensors")
            run("quantize", src, out, "--dtype", dtype, "--for", "comfyui", "--preset", "none", "--keep", "router", "--keep", "embed_tokens", "--keep", "self_attn", *options)
            run("dequantize", out, plain, "--dtype", "f32")
            stored, want = load_file(out), load_file(plain)
            if "--input-scale" in options:  # of the layers beside: experts have none
                if any("experts" in k and "input_scale" in k for k in stored):
                    raise SystemExit("experts with a scale of activations, which ComfyUI does not read")
            made, equal, count, worst = model(stored), 0, 0, 0.0
            for name, bank in banks(made):
                conf = json.loads(stored[name + ".comfy_quant"].numpy().tobytes())
                if conf["num_experts"] != SIZES["num_local_experts"]:
                    raise SystemExit(f"{name}: {conf}")
                for i in range(bank.num_experts):
                    got, w = bank.expert_weight(i).dequantize().float(), want[name + ".weight"][i]
                    count, equal = count + 1, equal + torch.equal(got, w)
                    worst = max(worst, ((got - w).abs().max() / w.abs().max()).item())
            ids = torch.arange(24).view(1, -1)
            with torch.no_grad():
                a, b, c = (m(ids)["last_hidden_state"] for m in (made, model(want), model(load_file(src))))
            far, off = ((x - y).norm() / y.norm() for x, y in ((a, b), (b, c)))
            good = count == 2 * 2 * SIZES["num_local_experts"] and (worst <= 1e-6 if "rot" in dtype else equal == count) and far <= 1e-4
            failed = failed or not good
            print(f"{'ok  ' if good else 'FAIL'} {dtype} {' '.join(options)}: {count} experts, {equal} equal to the bit, worst {worst:.1e}; output {far:.1e} from the dequantized file's, which is {off:.1e} from the source's")
    sys.exit(failed)


def quantized(layout, weights, **how):
    """A bank of comfy-kitchen's layout, each matrix quantized by itself."""
    each = [comfy.quant_ops.get_layout_class(layout).quantize(w, **how) for w in weights]
    params = {}
    for name in each[0][1]._tensor_fields():
        params[name] = torch.stack([getattr(p, name) for _, p in each])
    rest = {k: getattr(each[0][1], k) for k in ("convrot_groupsize", "quant_group_size", "linear_dtype") if hasattr(each[0][1], k)}
    bank = type(each[0][1])(**params, **rest, orig_dtype=torch.float32, orig_shape=tuple(weights.shape))
    return comfy.quant_ops.QuantizedTensor(torch.stack([q for q, _ in each]), layout, bank)


def golden():
    torch.manual_seed(1)
    out = ROOT / "testdata" / "golden" / "experts"
    out.mkdir(parents=True, exist_ok=True)
    weights = torch.randn(3, 24, 64) * torch.tensor([1, 0.01, 30]).view(3, 1, 1)
    restored = ["# ComfyUI " + release + ", what it restores, in binary32"]
    for fmt, how in (("float8_e4m3fn", {"scale": "recalculate"}), ("float8_e5m2", {"scale": "recalculate"}), ("int8_tensorwise", {}), ("int8_rows", {"per_channel": True}), ("nvfp4", {}), ("mxfp8", {}), ("convrot_w4a4", {"convrot_groupsize": 64})):
        name = fmt.replace("int8_rows", "int8_tensorwise")
        bank = comfy.ops.mixed_precision_ops({}, torch.float32).MoEExperts(3, 64, 24, bias=True, device="cpu", dtype=torch.float32)
        bank.quant_format, bank.layout_type = name, comfy.quant_ops.QUANT_ALGOS[name]["comfy_tensor_layout"]
        bank.weight = torch.nn.Parameter(quantized(bank.layout_type, weights, **how), requires_grad=False)
        bank.bias.data.zero_()
        state = {k: v.detach().contiguous() for k, v in bank.state_dict(prefix="mlp.experts.up.").items()}
        state = {k: v.view(torch.uint8) if v.dtype == torch.float8_e8m0fnu else v for k, v in state.items()}
        save_file(state, out / f"{fmt}.safetensors")
        values = torch.stack([bank.expert_weight(i).dequantize() for i in range(3)]).contiguous()
        restored.append(f"{fmt}\tF32:{'x'.join(map(str, values.shape))}:{hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]}")
        print(fmt, {k: (str(v.dtype), tuple(v.shape)) for k, v in state.items()})
    (out / "restored.tsv").write_text("\n".join(restored) + "\n")


golden() if binary == "golden" else check()
