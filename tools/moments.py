"""Second moments of the inputs of a model's linear layers, for tensorpress --importance.

    python tools/moments.py MODEL SAMPLES OUT

MODEL is a folder of transformers' (config.json) or a pipeline of diffusers'
(model_index.json). SAMPLES is what the model is to be good at: a text file, of which
every line that is not empty is a text or prompt; a file of safetensors, of which every
tensor is an argument of the model's forward (input_ids, input_features, pixel_values,
hidden_states …); or a folder of such files. OUT is a file of safetensors with an F32
tensor X.input_moment for each layer X that was reached: the mean of the squares of each
of its inputs, over all samples.

Some dozens of samples that resemble the use do; of a pipeline some prompts. Needs torch,
safetensors, and transformers or diffusers.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

SUFFIX = ".input_moment"
TEXTS = ".txt"
TENSORS = ".safetensors"

Sample = str | dict[str, torch.Tensor]


class Moments:
    """Sums the squares of the inputs of every linear layer of some models while they run."""

    def __init__(self, models: dict[str, torch.nn.Module]) -> None:
        """models are by what goes before the names of their layers, "" for nothing."""
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self.layers = 0
        self.hooks = [
            layer.register_forward_pre_hook(self._hook(f"{before}.{name}" if before else name), with_kwargs=True)
            for before, model in models.items()
            for name, layer in model.named_modules()
            if isinstance(layer, torch.nn.Linear)
        ]
        self.layers = len(self.hooks)

    def _hook(self, name: str) -> Any:
        def add(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            rows = x.detach().reshape(-1, x.shape[-1])
            total = rows.float().square().sum(0, dtype=torch.float64).cpu()
            self.sums[name] = self.sums[name] + total if name in self.sums else total
            self.counts[name] = self.counts.get(name, 0) + rows.shape[0]

        return add

    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The means by the tensors' names, of layers that were reached."""
        means = {}
        for name in sorted(self.sums):
            if self.counts[name] == 0:
                continue
            mean = (self.sums[name] / self.counts[name]).float()
            if not torch.isfinite(mean).all():
                raise SystemExit(f"layer {name}: its inputs are not finite: try --dtype float32")
            means[name + SUFFIX] = mean.contiguous()
        return means


def files_of(path: Path) -> list[Path]:
    if not path.exists():
        raise SystemExit(f"{path} does not exist")
    if path.is_file():
        return [path]
    return sorted(p for p in path.iterdir() if p.suffix in (TEXTS, TENSORS))


def samples_of(path: Path) -> Iterator[Sample]:
    """Yields texts, and the tensors of files of them, in the order of the files' names."""
    for file in files_of(path):
        if file.suffix == TENSORS:
            try:
                yield load_file(file)
            except SafetensorError as error:
                raise SystemExit(f"{file}: {error}") from error
            continue
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise SystemExit(f"{file}: {error}: want a text in UTF-8, or {TENSORS}") from error
        yield from (line.strip() for line in lines if line.strip())


def the_class(folder: Path) -> Any:
    """The class of transformers' that the folder's config names, so that layers are called as in its files."""
    import transformers

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name in config.get("architectures") or []:
        if hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModel


def with_decoder(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Gives a decoder its own text where none is given."""
    takes = inspect.signature(model.forward).parameters
    inputs = {name: x for name, x in inputs.items() if name in takes or "kwargs" in takes}
    alone = not any(name.startswith("decoder_") or name == "labels" for name in inputs)
    if alone and getattr(model.config, "is_encoder_decoder", False) and "decoder_input_ids" in takes:
        start = getattr(model.config, "decoder_start_token_id", None) or 0
        ids = inputs.get("input_ids")
        inputs["decoder_input_ids"] = torch.full((1, 1), start) if ids is None else ids
    return inputs


def run_model(folder: Path, samples: list[Sample], args: argparse.Namespace) -> Moments:
    import transformers

    model = the_class(folder).from_pretrained(folder, dtype=getattr(torch, args.dtype), local_files_only=True)
    model.to(args.device).eval()
    tokenizer = None
    if any(isinstance(sample, str) for sample in samples):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    moments = Moments({"": model})
    for i, sample in enumerate(samples):
        inputs: dict[str, Any]
        if isinstance(sample, str):
            assert tokenizer is not None
            inputs = dict(tokenizer(sample, return_tensors="pt", truncation=True, max_length=args.max_tokens))
        else:
            inputs = dict(sample)
        inputs = with_decoder(model, inputs)
        for name, x in inputs.items():
            x = x.to(args.device)
            inputs[name] = x.to(model.dtype) if x.is_floating_point() else x
        model(**inputs)
        say(i + 1, len(samples))
    moments.close()
    return moments


def run_pipeline(folder: Path, samples: list[Sample], args: argparse.Namespace) -> Moments:
    import diffusers

    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(
        folder, torch_dtype=getattr(torch, args.dtype), local_files_only=True
    )
    pipe.to(args.device)
    pipe.set_progress_bar_config(disable=True)
    moments = Moments({name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)})
    for i, sample in enumerate(samples):
        generator = torch.Generator().manual_seed(i)
        given: dict[str, Any] = {"prompt": sample} if isinstance(sample, str) else dict(sample)
        takes = inspect.signature(pipe.__call__).parameters
        for name, value in {
            "num_inference_steps": args.steps,
            "height": args.size,
            "width": args.size,
            "output_type": "latent",
            "generator": generator,
        }.items():
            if name in takes and value is not None:
                given.setdefault(name, value)
        pipe(**given)
        say(i + 1, len(samples))
    moments.close()
    return moments


def say(done: int, of: int) -> None:
    print(f"\r{done} of {of} samples", end="" if done < of else "\n", file=sys.stderr, flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        description="Second moments of the inputs of a model's linear layers, for tensorpress --importance."
    )
    p.add_argument("model", type=Path, help="folder of a model of transformers' or of a pipeline of diffusers'")
    p.add_argument("samples", type=Path, help="texts (.txt, one a line), tensors (.safetensors), or a folder of them")
    p.add_argument("out", type=Path, help="file of safetensors that is written")
    p.add_argument("--limit", type=int, help="take so many samples at most")
    p.add_argument("--max-tokens", type=int, default=512, help="cut texts there (default 512)")
    p.add_argument("--steps", type=int, default=8, help="steps of a pipeline (default 8)")
    p.add_argument("--size", type=int, help="height and width of a pipeline's pictures (default its own)")
    p.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="(default float32)")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return p.parse_args(argv)


@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    samples = list(samples_of(args.samples))[: args.limit]
    if not samples:
        raise SystemExit(f"{args.samples} has no samples: want texts in {TEXTS} or tensors in {TENSORS}")
    if (args.model / "model_index.json").is_file():
        moments = run_pipeline(args.model, samples, args)
    elif (args.model / "config.json").is_file():
        moments = run_model(args.model, samples, args)
    else:
        raise SystemExit(f"{args.model} has neither a config.json nor a model_index.json")
    tensors = moments.tensors()
    if not tensors:
        raise SystemExit("no sample reached a linear layer")
    save_file(tensors, args.out, metadata={"samples": str(len(samples))})
    left = moments.layers - len(tensors)
    print(f"{len(tensors)} layers" + (f"; {left} that no sample reached are left out" if left else ""), file=sys.stderr)


if __name__ == "__main__":
    main()
