"""Starts ComfyUI's server with the custom node, quantizes a tiny Flux and a narrow T5 by
its node, and runs the example workflow over HTTP on what it wrote.

server.py COMFY TENSORPRESS [MAIN-FLAG…]
"""
import asyncio
import importlib.util
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid

import aiohttp
import numpy
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NODE = ROOT / "comfyui" / "ComfyUI-tensorpress"
COMFY, TENSORPRESS, FLAGS = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]

# In the server's process: T5-XXL's config is narrow, as the files are.
NARROW = """
import json
import comfy.sd1_clip
load = json.load
def narrowed(*args, **kw):
    config = load(*args, **kw)
    return dict(config, d_model=256, d_kv=64, num_heads=4) if isinstance(config, dict) and config.get("d_model") == 4096 else config
comfy.sd1_clip.json = type("json", (), {"load": staticmethod(narrowed), "loads": json.loads, "dumps": json.dumps})
NODE_CLASS_MAPPINGS = {}
"""
# Another process writes the files, so that this one stays without ComfyUI.
FILES = """
import sys
sys.path.insert(0, sys.argv[3])
import whole
from safetensors.torch import save_file
whole.MODELS["flux"][2].update(context_in_dim=256)
folder = sys.argv[4]
save_file(whole.model_state("flux"), folder + "/diffusion_models/flux.safetensors")
save_file(whole.small_queries(whole.randomized(whole.t5_state())), folder + "/text_encoders/t5xxl.safetensors")
save_file(whole.randomized(whole.clip_state()), folder + "/text_encoders/clip_l.safetensors")
save_file(whole.vae_state(16), folder + "/vae/ae.safetensors")
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, base, port):
        self.base, self.url, self.id = base, f"http://127.0.0.1:{port}", str(uuid.uuid4())
        installed = importlib.util.find_spec("tensorpress") is not None  # as README.md of the node says
        paths = ["" if installed else str(ROOT / "python" / "src"), os.environ.get("PYTHONPATH", "")]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths)), TENSORPRESS=TENSORPRESS, OMP_NUM_THREADS="1")
        line = [sys.executable, str(COMFY / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base), "--database-url", "sqlite:///:memory:", "--disable-api-nodes", *FLAGS]
        self.log = open(base / "log", "w")
        self.process = subprocess.Popen(line, stdout=self.log, stderr=subprocess.STDOUT, env=environment, cwd=base)

    async def ready(self, session):
        for _ in range(900):  # a busy machine takes minutes
            if self.process.poll() is not None:
                break
            try:
                async with session.get(f"{self.url}/object_info") as r:
                    return await r.json()
            except aiohttp.ClientError:
                await asyncio.sleep(1)
        raise RuntimeError("the server did not start:\n" + (self.base / "log").read_text()[-3000:])

    async def run(self, session, prompt):
        """Runs a prompt: its outputs, and what the progress bar of each node was told."""
        bars = {}
        async with session.ws_connect(f"{self.url}/ws?clientId={self.id}", max_msg_size=0) as ws:
            async with session.post(f"{self.url}/prompt", json={"prompt": prompt, "client_id": self.id}) as r:
                answer = await r.json()
                if "prompt_id" not in answer:
                    raise RuntimeError(json.dumps(answer))
            async for message in ws:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                told = json.loads(message.data)
                data = told["data"]
                if told["type"] == "progress":
                    bars.setdefault(data["node"], []).append((data["value"], data["max"]))
                if told["type"] in ("execution_success", "execution_error") and data.get("prompt_id") == answer["prompt_id"]:
                    if told["type"] == "execution_error":
                        raise RuntimeError(data["exception_message"] + "".join(data["traceback"]))
                    break
        while True:  # it is there a moment after the success is told
            async with session.get(f"{self.url}/history/{answer['prompt_id']}") as r:
                found = await r.json()
            if answer["prompt_id"] in found:
                return found[answer["prompt_id"]]["outputs"], bars
            await asyncio.sleep(0.1)


def picture(base, outputs, node):
    name = outputs[node]["images"][0]["filename"]
    return numpy.asarray(Image.open(base / "output" / name)).astype(float)


WIDGETS = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}


def misfits(drawn, classes):
    """What of a drawn workflow the server's nodes have no place for."""
    found = []
    for drawn_node in drawn["nodes"]:
        kind = drawn_node["type"]
        if kind not in classes:
            found.append(f"no node {kind}")
            continue
        inputs = {name: spec for part in classes[kind]["input"].values() for name, spec in part.items()}
        found += [f"{kind} has no input {i['name']}" for i in drawn_node["inputs"] if i["name"] not in inputs]
        widgets = [(name, str if isinstance(spec[0], list) else WIDGETS.get(spec[0], str)) for name, spec in inputs.items() if isinstance(spec[0], list) or spec[0] in (*WIDGETS, "COMBO")]
        values = [v for v in drawn_node["widgets_values"] if v != "fixed"]  # of what follows a seed
        found += [f"{kind} has {len(widgets)} widgets, and not {len(values)}"] if len(values) > len(widgets) else []
        found += [f"{kind}: {name} is not {v}" for (name, t), v in zip(widgets, values) if not isinstance(v, t)]
    return found


async def check(base, report):
    models = base / "models"
    server = Server(base, free_port())
    try:
        async with aiohttp.ClientSession() as session:
            classes = await server.ready(session)
            mine = sorted(name for name in classes if name.startswith("Tensorpress"))
            report(len(mine) == 7, f"the server has {len(mine)} of 7 nodes among {len(classes)}")

            drawn = json.loads((NODE / "example_workflows" / "flux.json").read_text())
            found = misfits(drawn, classes)
            report(not found, f"the drawn workflow's {len(drawn['nodes'])} nodes are the server's: {'; '.join(found) or 'all inputs and values fit'}")

            def quantize(model, name, **more):
                fields = dict(model=model, name=name, dtype="sdnq:uint4", group_size=0, svd_rank=0, hadamard=False, flags="", overwrite=False)
                return {"class_type": "TensorpressQuantize", "inputs": dict(fields, **more)}

            outputs, bars = await server.run(session, {"1": quantize("diffusion_models/flux.safetensors", "flux1-dev-uint4", flags="--set img_mod=nvfp4"), "2": quantize("text_encoders/t5xxl.safetensors", "t5xxl-uint4.safetensors", hadamard=True)})
            told = [bars[node][-1] for node in ("1", "2") if node in bars]
            report(len(told) == 2 and all(value == end > 1 for value, end in told), f"quantized by the node: {[outputs[n]['text'][0] for n in ('1', '2')]}, the bar ended at {told}")
            try:
                await server.run(session, {"1": quantize("diffusion_models/flux.safetensors", "again", dtype="nvfp4", flags="--no-such-flag")})
                report(False, "an unknown flag was accepted")
            except RuntimeError as e:
                report("no-such-flag" in str(e), f"an unknown flag is refused: {str(e).splitlines()[0]}")

            workflow = json.loads((NODE / "example_workflows" / "flux-api.json").read_text())
            workflow["7"]["inputs"].update(width=64, height=64)
            workflow["8"]["inputs"].update(steps=2)
            outputs, _ = await server.run(session, workflow)
            got = picture(base, outputs, "10")
            report(got.shape == (64, 64, 3) and got.std() > 1, f"the example workflow wrote a picture of {got.shape[1]} × {got.shape[0]}, deviation {got.std():.1f}")

            for source, plain in (("diffusion_models/flux1-dev-uint4", "diffusion_models/flux-plain"), ("text_encoders/t5xxl-uint4", "text_encoders/t5xxl-plain")):
                subprocess.run([TENSORPRESS, "dequantize", "-q", models / f"{source}.safetensors", models / f"{plain}.safetensors"], check=True, capture_output=True)
            stock = json.loads(json.dumps(workflow))
            stock["1"] = {"class_type": "UNETLoader", "inputs": {"unet_name": "flux-plain.safetensors", "weight_dtype": "default"}}
            stock["2"]["class_type"] = "DualCLIPLoader"
            stock["2"]["inputs"]["clip_name2"] = "t5xxl-plain.safetensors"
            stock["10"]["inputs"]["filename_prefix"] = "plain"
            outputs, _ = await server.run(session, stock)
            want = picture(base, outputs, "10")
            off = abs(got - want)
            report(off.mean() < 1, f"beside the dequantized files in ComfyUI's own loaders: {off.mean():.3f} of 255 off on average, {off.max():.0f} at most")
    finally:
        server.process.terminate()
        server.process.wait()
        server.log.close()
        if os.environ.get("TRACE"):
            print((base / "log").read_text()[-6000:])


def main():
    failed = []

    def report(fine, line):
        failed.extend([] if fine else [line])
        print("ok  " if fine else "FAIL", line, flush=True)

    start = time.time()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as place:
        base = pathlib.Path(place)
        for name in ("diffusion_models", "text_encoders", "vae", "checkpoints"):
            (base / "models" / name).mkdir(parents=True)
        for name in ("input", "output", "user", "custom_nodes/narrow"):
            (base / name).mkdir(parents=True)
        (base / "custom_nodes" / "narrow" / "__init__.py").write_text(NARROW)
        shutil.copytree(NODE, base / "custom_nodes" / NODE.name)
        subprocess.run([sys.executable, "-c", FILES, COMFY, TENSORPRESS, HERE.parent / "comfy", base / "models"], check=True)
        asyncio.run(check(base, report))
    print(f"{time.time() - start:.0f} s, {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
