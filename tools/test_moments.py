"""Moments that the script takes are those of what layers were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors import safe_open
from safetensors.torch import load_file, save_file

import moments


def test_means_of_squares() -> None:
    """Sums over rows of every shape, by the names of layers, without those that are not reached."""
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2), "b": torch.nn.Linear(2, 2), "c": torch.nn.Conv1d(1, 1, 1)})
    found = moments.Moments({"part": model})
    model["a"](torch.tensor([[[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]]))
    model["a"](input=torch.tensor([1.0, 2.0, 2.0]))
    found.close()
    model["a"](torch.ones(3))
    tensors = found.tensors()
    assert found.layers == 2
    assert list(tensors) == ["part.a.input_moment"]
    assert torch.allclose(tensors["part.a.input_moment"], torch.tensor([11 / 3, 4.0, 14 / 3]))
    assert tensors["part.a.input_moment"].dtype == torch.float32


def test_samples(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("one\n\n two \n", encoding="utf-8")
    save_file({"x": torch.ones(2)}, tmp_path / "a.safetensors")
    (tmp_path / "c.png").write_bytes(b"")
    first, *texts = moments.samples_of(tmp_path)
    assert isinstance(first, dict)
    assert list(first) == ["x"]
    assert texts == ["one", "two"]
    with pytest.raises(SystemExit, match="none does not exist"):
        list(moments.samples_of(tmp_path / "none"))


def tokenizer() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "cat": 2, "sat": 3, "[PAD]": 4}, unk_token="[UNK]")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")


def tiny(kind: str) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    size: dict[str, Any] = {"vocab_size": 8, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    if kind == "bert":
        return transformers.BertModel(transformers.BertConfig(intermediate_size=24, **size))
    if kind == "llama":
        return transformers.LlamaForCausalLM(
            transformers.LlamaConfig(intermediate_size=24, num_key_value_heads=2, **size)
        )
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    )


@pytest.mark.parametrize("kind", ["bert", "llama", "t5"])
def test_model(tmp_path: Path, kind: str) -> None:
    """A folder's model is run on texts, and its layers are called as in its file."""
    model = tiny(kind)
    model.save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("a cat sat\nsat a\n", encoding="utf-8")
    out = tmp_path / "out.safetensors"
    moments.main([str(tmp_path / "model"), str(tmp_path / "texts.txt"), str(out), "--device", "cpu"])
    found = load_file(out)
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert found
    for name, mean in found.items():
        weight = name.removesuffix(".input_moment") + ".weight"
        if weight in shapes:  # not a tied one
            assert list(mean.shape) == shapes[weight][1:]
    want = (
        "encoder.layer.1.attention.self.value"
        if kind == "bert"
        else {"llama": "model.layers.1.mlp.down_proj", "t5": "decoder.block.1.layer.1.EncDecAttention.k"}[kind]
    )
    assert want + ".input_moment" in found
    if kind == "llama":  # what the first layer is given: norms of the embeddings of five words
        ids = torch.tensor([[1, 2, 3, 3, 1]])
        inner = model.model
        x = inner.layers[0].input_layernorm(inner.embed_tokens(ids))
        assert torch.allclose(found["model.layers.0.self_attn.q_proj.input_moment"], x.square().mean((0, 1)), rtol=1e-4)


def test_tensors(tmp_path: Path) -> None:
    """Samples may be what a model's forward takes."""
    tiny("bert").save_pretrained(tmp_path / "model")
    save_file({"input_ids": torch.tensor([[1, 2, 3]])}, tmp_path / "ids.safetensors")
    out = tmp_path / "out.safetensors"
    moments.main([str(tmp_path / "model"), str(tmp_path / "ids.safetensors"), str(out), "--device", "cpu"])
    assert "encoder.layer.0.attention.self.query.input_moment" in load_file(out)


def test_pipeline(tmp_path: Path) -> None:
    """Layers of a pipeline's models are named after the models' folders."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    pipe = diffusers.DiTPipeline(
        transformer=diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
            patch_size=2, num_embeds_ada_norm=1000, norm_type="ada_norm_zero", norm_elementwise_affine=False,
        ),
        vae=diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, layers_per_block=1, sample_size=8),
        scheduler=diffusers.DDIMScheduler(),
    )  # fmt: skip
    pipe.save_pretrained(tmp_path / "pipe")
    save_file({"class_labels": torch.tensor([3])}, tmp_path / "label.safetensors")
    out = tmp_path / "out.safetensors"
    argv = [str(tmp_path / "pipe"), str(tmp_path / "label.safetensors"), str(out), "--device", "cpu", "--steps", "2"]
    moments.main(argv)
    assert "transformer.transformer_blocks.0.attn1.to_q.input_moment" in load_file(out)


@pytest.mark.parametrize("what", ["no model", "no samples"])
def test_refused(tmp_path: Path, what: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "texts.txt").write_text("\n" if what == "no samples" else "a\n", encoding="utf-8")
    match = {"no model": "neither a config.json", "no samples": "has no samples"}[what]
    with pytest.raises(SystemExit, match=match):
        moments.main([str(model), str(tmp_path / "texts.txt"), str(tmp_path / "out"), "--device", "cpu"])
    assert not (tmp_path / "out").exists()
