"""Measures what models take through the node: memory, and time beside plain bf16, sdnq's own
modules and, where $GGUF names a checkout of it, ComfyUI-GGUF. README.md beside this script
says how.

cost.py COMFY TENSORPRESS [memory] [speed]
"""
import importlib.util
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("SDNQ_USE_TORCH_COMPILE", "0")

import run
import torch
import whole
from safetensors.torch import load_file, save_file

import comfy.lora
import comfy.ops
import node.codes
import node.layers
import node.operations
import tensorpress.torch.modules
from comfy.model_patcher import LowVramPatch

BF16 = torch.bfloat16
whole.MODELS["flux"][2].update(hidden_size=2048, num_heads=16, depth=3, depth_single_blocks=3)


def peak():
    """Memory of the process at most since it was asked last, in MiB: of its own, and of files' pages."""
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def reset():
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return peak()


def memory(folder):
    source, out = folder / "in.safetensors", folder / "out.safetensors"
    subprocess.run([sys.executable, __file__, *sys.argv[1:3], f"make={source}"], check=True)  # whose memory is its own
    print("| | file | layers, MiB of codes | largest, MiB in bf16 | loaded, MiB | with a forward pass | with a LoRA |\n|---|---|---|---|---|---|---|")
    for label in ("uint4 groups", "int8 rows"):
        ours, _ = run.quantize(source, out, [*run.SCHEMES[label], "--preset", "none"])  # of all layers, or plain ones are most of it
        code = subprocess.run([sys.executable, __file__, *sys.argv[1:3], f"load={out}"], check=True, capture_output=True, text=True).stdout
        shapes = whole.shapes(source)
        largest = max(shapes[f"{n}.weight"][0] * shapes[f"{n}.weight"][1] for n in ours) * 2 / 2**20
        codes = sum(t.nbytes for name, t in load_file(out).items() if name.rpartition(".")[0] in ours and not name.endswith("bias")) / 2**20
        print(f"| {label} | {os.path.getsize(out) / 2**20:.0f} | {len(ours)}, {codes:.0f} | {largest:.0f} | {code.strip()} |", flush=True)


def load(path):
    """In a process of its own: what loading takes, and a forward pass, and one with a LoRA."""
    torch.nn.functional.linear(torch.zeros(8, 512).to(BF16), torch.zeros(512, 512).to(BF16))  # what torch itself takes
    before = reset()
    patcher = run.loading.load_diffusion_model(path, {"dtype": BF16})
    for t in patcher.model.state_dict().values():
        t.reshape(-1).view(torch.uint8)[::4096].sum()  # pages of files count when they are touched
    loaded = peak() - before
    run.forward(patcher, "flux")
    ran = peak() - before
    names = {f"diffusion_model.{n}": tuple(m.weight.shape) for n, m in run.holders(patcher.model.diffusion_model).items()}
    run.forward(run.with_lora(patcher, run.lora_for(names, names)), "flux", lowvram_model_memory=0)
    print(f"{loaded:.0f} | {ran:.0f} | {peak() - before:.0f}")


def linear(state, n, int8_matmul="auto"):
    """The node's module, with a layer of a file."""
    operations = node.operations.operations(comfy.ops.mixed_precision_ops({}, BF16), int8_matmul=int8_matmul)
    found = operations.Linear(n, n, bias=False, device="cpu", dtype=BF16)
    node.layers.put(state, node.codes.wrap)
    found.load_state_dict({name.removeprefix("layer."): t for name, t in state.items()}, strict=False)
    assert found.holds_codes
    return found


def sdnq_linear(w, **options):
    from sdnq import SDNQConfig
    from sdnq.quantizer import sdnq_post_load_quant

    model = torch.nn.Sequential(torch.nn.Linear(*w.shape, bias=False))
    model[0].weight.data = w
    return sdnq_post_load_quant(model, torch_dtype=BF16, quantization_config=SDNQConfig(**options, modules_to_not_convert=[]))[0]


def patched(n, rank=16):
    """A LoRA of one layer, as ComfyUI's patcher has it."""
    lora = {"x.lora_up.weight": torch.randn(n, rank).to(BF16), "x.lora_down.weight": torch.randn(rank, n).to(BF16)}
    found = comfy.lora.load_lora(lora, {"x": "layer.weight"})
    return {"layer.weight": [(1.0, found["layer.weight"], 1.0, None, None)]}


def gguf_linears(w, patches):
    """ComfyUI-GGUF's module, without and with a LoRA."""
    spec = importlib.util.spec_from_file_location("gguf_node", pathlib.Path(os.environ["GGUF"]) / "ops.py", submodule_search_locations=[os.environ["GGUF"]])
    module = importlib.util.module_from_spec(spec)
    module.__package__ = "gguf_node"
    sys.modules["gguf_node"] = module
    spec.loader.exec_module(module)
    import gguf

    found = []
    for patch in ([], [(patches["layer.weight"], "layer.weight")]):
        layer = module.GGMLOps.Linear(*w.shape, bias=False)
        codes = torch.from_numpy(gguf.quants.quantize(w.float().numpy(), gguf.GGMLQuantizationType.Q4_0))
        t = module.GGMLTensor(codes, tensor_type=gguf.GGMLQuantizationType.Q4_0, tensor_shape=torch.Size(w.shape))
        layer.weight = torch.nn.Parameter(t, requires_grad=False)
        layer.weight.tensor_type, layer.weight.tensor_shape, layer.weight.patches = t.tensor_type, t.tensor_shape, patch
        found.append(layer)
    return found


def speed(folder, n=2048, rows=256, rounds=9):
    torch.manual_seed(1)
    w, x, patches = (torch.randn(n, n) * 0.05).to(BF16), torch.randn(rows, n).to(BF16), patched(n)
    source, out = folder / "in.safetensors", folder / "out.safetensors"
    save_file({"layer.weight": w}, source)
    tensorpress.torch.modules.multiplies_int8_fast = lambda: True  # to see what it costs where it is not
    calls = {"plain bf16": torch.nn.Linear(n, n, bias=False).to(BF16)}
    calls["plain bf16"].weight.data = w
    for label, mode, options, theirs in (
        ("uint4, groups of 64", "auto", run.SCHEMES["uint4 groups"], dict(weights_dtype="uint4", group_size=64)),
        ("int8 rows", "auto", run.SCHEMES["int8 rows"], dict(weights_dtype="int8", group_size=-1)),
        ("int8 rows, multiplied in int8", "all", run.SCHEMES["int8 rows"], dict(weights_dtype="int8", group_size=-1, use_quantized_matmul=True)),
    ):
        run.quantize(source, out, [*options, "--preset", "none"])
        calls[f"{label}: the node"] = linear(load_file(out), n, mode)
        calls[f"{label}: sdnq"] = sdnq_linear(w.clone(), **theirs)
        if mode == "auto":
            calls[f"{label}, LoRA: the node"] = linear(load_file(out), n, mode)
            calls[f"{label}, LoRA: the node"].codes_patch = LowVramPatch("layer.weight", patches)
    if "GGUF" in os.environ:
        calls["Q4_0: ComfyUI-GGUF"], calls["Q4_0, LoRA: ComfyUI-GGUF"] = gguf_linears(w, patches)
    times = {label: [] for label in calls}
    for i in range(rounds + 1):  # one after another, so that all of them see the same machine
        for label, call in calls.items():
            start = time.process_time()
            call(x)
            if i:
                times[label].append(time.process_time() - start)
    print(f"{n} × {n}, {rows} rows, one thread; plain bf16: {statistics.median(times['plain bf16']) * 1e3:.0f} ms\n\n| layer | time, plain bf16 is 1 |\n|---|---|")
    for label, found in times.items():
        print(f"| {label} | {statistics.median(a / b for a, b in zip(found, times['plain bf16'])):.2f} |", flush=True)


if __name__ == "__main__":
    for step in sys.argv[3:] or ("memory", "speed"):
        name, _, path = step.partition("=")
        if name == "make":
            save_file(whole.model_state("flux"), path)
        elif name == "load":
            load(path)
        else:
            with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as place:
                {"memory": memory, "speed": speed}[name](pathlib.Path(place))
