"""DeepSeek-V3 as sparse files: its names, shapes and dtypes by rule, and no values.

    python deepseek.py FOLDER [--bf16]

The rule is that of the public config: 61 layers, of which three are dense, 256 experts
and one that is shared, and a layer that predicts a second token. As published the linear
weights are FP8 in blocks of 128 x 128; --bf16 is what it restores to, 1.34 TB. Both lie in
163 shards. The files take a few MB of disk. Only the standard library is used.
"""

import argparse
import json
import struct
from collections.abc import Iterator
from pathlib import Path

HIDDEN, DENSE, EXPERT, EXPERTS = 7168, 18432, 2048, 256
LAYERS, DENSE_LAYERS, VOCABULARY = 61, 3, 129280
HEADS, NOPE, ROPE, VALUE = 128, 128, 64, 128
Q_RANK, KV_RANK = 1536, 512
BLOCK, SHARDS = 128, 163
BYTES = {"F8_E4M3": 1, "BF16": 2, "F32": 4}

CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "first_k_dense_replace": DENSE_LAYERS,
    "hidden_size": HIDDEN,
    "intermediate_size": DENSE,
    "kv_lora_rank": KV_RANK,
    "moe_intermediate_size": EXPERT,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": Q_RANK,
    "qk_nope_head_dim": NOPE,
    "qk_rope_head_dim": ROPE,
    "torch_dtype": "bfloat16",
    "v_head_dim": VALUE,
    "vocab_size": VOCABULARY,
}
FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}

Tensor = tuple[str, str, list[int]]


def linear(name: str, rows: int, cols: int, fp8: bool) -> Iterator[Tensor]:
    if not fp8:
        yield f"{name}.weight", "BF16", [rows, cols]
        return
    yield f"{name}.weight", "F8_E4M3", [rows, cols]
    yield f"{name}.weight_scale_inv", "F32", [-(-rows // BLOCK), -(-cols // BLOCK)]


def mlp(name: str, width: int, fp8: bool) -> Iterator[Tensor]:
    yield from linear(f"{name}.gate_proj", width, HIDDEN, fp8)
    yield from linear(f"{name}.up_proj", width, HIDDEN, fp8)
    yield from linear(f"{name}.down_proj", HIDDEN, width, fp8)


def layer(i: int, fp8: bool) -> Iterator[Tensor]:
    name = f"model.layers.{i}"
    if i == LAYERS:  # predicts the token after the next
        yield f"{name}.embed_tokens.weight", "BF16", [VOCABULARY, HIDDEN]
        yield f"{name}.enorm.weight", "BF16", [HIDDEN]
        yield f"{name}.hnorm.weight", "BF16", [HIDDEN]
        yield f"{name}.eh_proj.weight", "BF16", [HIDDEN, 2 * HIDDEN]
        yield f"{name}.shared_head.norm.weight", "BF16", [HIDDEN]
        yield f"{name}.shared_head.head.weight", "BF16", [VOCABULARY, HIDDEN]
    yield f"{name}.input_layernorm.weight", "BF16", [HIDDEN]
    yield f"{name}.post_attention_layernorm.weight", "BF16", [HIDDEN]
    attention = f"{name}.self_attn"
    yield from linear(f"{attention}.q_a_proj", Q_RANK, HIDDEN, fp8)
    yield f"{attention}.q_a_layernorm.weight", "BF16", [Q_RANK]
    yield from linear(f"{attention}.q_b_proj", HEADS * (NOPE + ROPE), Q_RANK, fp8)
    yield from linear(f"{attention}.kv_a_proj_with_mqa", KV_RANK + ROPE, HIDDEN, fp8)
    yield f"{attention}.kv_a_layernorm.weight", "BF16", [KV_RANK]
    yield from linear(f"{attention}.kv_b_proj", HEADS * (NOPE + VALUE), KV_RANK, fp8)
    yield from linear(f"{attention}.o_proj", HIDDEN, HEADS * VALUE, fp8)
    if i < DENSE_LAYERS:
        yield from mlp(f"{name}.mlp", DENSE, fp8)
        return
    yield f"{name}.mlp.gate.weight", "BF16", [EXPERTS, HIDDEN]
    yield f"{name}.mlp.gate.e_score_correction_bias", "F32", [EXPERTS]
    yield from mlp(f"{name}.mlp.shared_experts", EXPERT, fp8)
    for e in range(EXPERTS):
        yield from mlp(f"{name}.mlp.experts.{e}", EXPERT, fp8)


def tensors(fp8: bool) -> Iterator[Tensor]:
    yield "model.embed_tokens.weight", "BF16", [VOCABULARY, HIDDEN]
    for i in range(LAYERS + 1):
        yield from layer(i, fp8)
    yield "model.norm.weight", "BF16", [HIDDEN]
    yield "lm_head.weight", "BF16", [VOCABULARY, HIDDEN]


def size(t: Tensor) -> int:
    n = BYTES[t[1]]
    for d in t[2]:
        n *= d
    return n


def make(folder: Path, fp8: bool) -> tuple[int, int]:
    """Writes the files, and returns how many tensors and bytes they hold."""
    folder.mkdir(parents=True)
    every = list(tensors(fp8))
    total = sum(map(size, every))
    shards: list[list[Tensor]] = [[]]
    done = 0
    for t in every:
        if done >= total * len(shards) / SHARDS:
            shards.append([])
        shards[-1].append(t)
        done += size(t)
    assert len(shards) == SHARDS, len(shards)
    where = {}
    for i, shard in enumerate(shards, 1):
        name = f"model-{i:05}-of-{SHARDS:06}.safetensors"
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        at = 0
        for t in shard:
            header[t[0]] = {"dtype": t[1], "shape": t[2], "data_offsets": [at, at + size(t)]}
            at += size(t)
            where[t[0]] = name
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with (folder / name).open("wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            f.truncate(8 + len(text) + at)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {**CONFIG, "quantization_config": FP8} if fp8 else CONFIG
    (folder / "config.json").write_text(json.dumps(config))
    return len(every), total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    count, total = make(args.folder, not args.bf16)
    print(f"{count} tensors, {total / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
