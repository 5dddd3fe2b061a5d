"""Holds the plans of internal/names for text encoders against transformers, which
writes them, and ComfyUI's classes, which read them.

    texts.py COMFYUI [--write]
"""
import pathlib
import sys
import tempfile

import torch
import transformers

sys.argv, ARGS = sys.argv[:1], sys.argv[1:]
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "comfy")]
import check  # noqa: E402
import comfyui  # noqa: E402

comfyui.start([a for a in ARGS if a != "--write"][0])
import comfy.clip_model  # noqa: E402
import comfy.diffusers_convert  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.text_encoders.llama as llama  # noqa: E402
import comfy.text_encoders.t5 as t5  # noqa: E402
import comfy.utils  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=50)
LM = SMALL | dict(num_key_value_heads=2, head_dim=8)
T5 = dict(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=50, feed_forward_proj="gated-gelu")
COMFY_T5 = T5 | dict(dense_act_fn="gelu_pytorch_tanh", is_gated_act=True, model_type="t5")
CLIP = SMALL | dict(max_position_embeddings=77, projection_dim=32, bos_token_id=0, eos_token_id=1, pad_token_id=1)
COMFY_CLIP = CLIP | dict(hidden_act="quick_gelu")
COMFY_LM = {name: value for name, value in LM.items() if name != "head_dim"}  # it has its own
OPS = torch.bfloat16, "meta", comfy.ops.disable_weight_init


def vision():
    return transformers.Mistral3Config(
        text_config=LM | dict(model_type="mistral"),
        vision_config=dict(model_type="pixtral", num_hidden_layers=1, hidden_size=32, intermediate_size=48, num_attention_heads=2, head_dim=16))


def gemma_vision():
    return transformers.Gemma3Config(
        text_config=LM, vision_config=dict(num_hidden_layers=27, hidden_size=32, intermediate_size=48, num_attention_heads=2, patch_size=14, image_size=28))


def qwen_vl():
    text = {k: v for k, v in LM.items() if k != "head_dim"} | dict(rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6})
    return transformers.Qwen2_5_VLConfig(text_config=text, vision_config=dict(depth=1, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=32))


# The class that writes the encoder, and the one of ComfyUI's that reads it.
CASES = {
    "t5": (lambda: transformers.T5EncoderModel(transformers.T5Config(**T5)), lambda: t5.T5(COMFY_T5, *OPS)),
    "umt5": (lambda: transformers.UMT5EncoderModel(transformers.UMT5Config(**T5)), lambda: t5.T5(COMFY_T5 | dict(model_type="umt5"), *OPS)),
    "clip": (lambda: transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP)), lambda: comfy.clip_model.CLIPTextModel(COMFY_CLIP, *OPS)),
    "clip-projection": (lambda: transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**CLIP)), lambda: comfy.clip_model.CLIPTextModel(COMFY_CLIP, *OPS)),
    "gemma2": (lambda: transformers.Gemma2Model(transformers.Gemma2Config(**LM)), lambda: llama.Gemma2_2B(COMFY_LM, *OPS)),
    "qwen3": (lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**LM)), lambda: llama.Qwen3_4B(COMFY_LM, *OPS)),
    "qwen3-headless": (lambda: transformers.Qwen3Model(transformers.Qwen3Config(**LM)), lambda: llama.Qwen3_4B(COMFY_LM, *OPS)),
    "qwen25-vl": (lambda: transformers.Qwen2_5_VLForConditionalGeneration(qwen_vl()), lambda: llama.Qwen25_7BVLI(COMFY_LM, *OPS)),
    "gemma3-vision": (lambda: transformers.Gemma3ForConditionalGeneration(gemma_vision()), lambda: llama.Gemma3_12B(COMFY_LM, *OPS)),
    "mistral3": (lambda: transformers.Mistral3ForConditionalGeneration(vision()), lambda: llama.Mistral3Small24B(COMFY_LM, *OPS)),
}
# What either side has by itself: a head that ComfyUI does not use, a projection that it takes for one where there is none, its own vision model.
OWN = ("lm_head.", "text_projection.", "visual.", "encoder.embed_tokens.", "logit_scale")


def saved(model):
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return {k: v for file in pathlib.Path(folder).glob("*.safetensors") for k, v in load_file(file).items()}


def names(state):
    return {name: True for name in state if not name.startswith(OWN)}


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for case, (writes, reads) in CASES.items():
        state, at = check.numbered(saved(writes()))
        comfy_state = check.applied(check.plan("diffusers", state), state)
        check.equal(f"{case}: ComfyUI's class", names(comfy_state), names(reads().state_dict()))
        renamed = sum(name not in state for name in comfy_state)
        print(f"{case}: {len(state)} tensors, {renamed} renamed, {len(state) - len(comfy_state)} left out: all of ComfyUI's class", flush=True)
        if renamed and "--write" in ARGS:
            check.golden(case, check.mapped(comfy_state, state, at), {name: (tuple(t.shape), "") for name, t in state.items()})
    # OpenCLIP's names are those of older checkpoints.
    state = {name: t for name, t in saved(transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**CLIP))).items() if name != "text_projection.weight"}
    old = comfy.diffusers_convert.convert_text_enc_state_dict_v20({"clip_g.transformer." + name: t for name, t in state.items()}, "clip_g")
    old, at = check.numbered({name.removeprefix("clip_g.transformer.").replace("clip_g.", ""): t for name, t in old.items()})
    for old_name in list(old):
        if old_name.startswith("resblocks."):
            old["transformer." + old_name] = old.pop(old_name)
    want = comfy.utils.clip_text_transformers_convert(dict(old), "", "")
    check.same("OpenCLIP: ComfyUI's conversion", check.applied(check.plan("comfyui", old), old), want)
    print(f"OpenCLIP: {len(old)} tensors, as ComfyUI converts them")


main()
