"""Splits all-in-one checkpoints, and loads the parts as ComfyUI loads them by themselves.

parts.py COMFY TENSORPRESS [CASE…]: COMFY is a checkout of ComfyUI 0.33.0.

A checkpoint of whole.py's, plain and with the diffusion model (and T5-XXL) quantized, is
loaded with load_checkpoint_guess_config. tensorpress split takes it apart; the parts are
loaded with load_diffusion_model, load_clip and VAE, and must give the same, to the bit,
with as many quantized weights. What tensorpress join makes of them must be the same file,
to the byte.

Of SDXL and SD 2 the names of text encoders are compared alone: those that ComfyUI makes of
the checkpoint's, and those that it makes of the parts'.
"""
import os
import pathlib
import sys
import tempfile

import whole
from whole import BF16, CHECKPOINTS, TOKENS, comfy, quantized, r, run_checkpoint, run_model, save_file, tensorpress, torch

import comfy.supported_models
import comfy.utils


def run_parts(folder, case):
    """What the parts give, each from a loader of its own."""
    model, t5, channels = CHECKPOINTS[case][0], CHECKPOINTS[case][2], CHECKPOINTS[case][4]
    patcher = comfy.sd.load_diffusion_model(str(folder / "diffusion_models" / "all.safetensors"), model_options={"dtype": BF16}, disable_dynamic=True)
    out, in_model = run_model(patcher, model)
    texts = sorted(map(str, (folder / "text_encoders").iterdir()))
    kind = comfy.sd.CLIPType.FLUX if t5 else comfy.sd.CLIPType.STABLE_DIFFUSION
    clip = comfy.sd.load_clip(ckpt_paths=texts, embedding_directory=None, clip_type=kind, disable_dynamic=True)
    text, pooled = clip.encode_from_tokens(clip.tokenize(TOKENS), return_pooled=True)
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(folder / "vae" / "all_vae.safetensors")))
    picture = vae.decode(r(1, channels, 8, 8).float())
    return dict(model=out, text=text.float(), pooled=pooled.float(), picture=picture.float()), [in_model, quantized(clip.cond_stage_model), quantized(vae.first_stage_model)]


def check(case, folder, *options):
    source, parts, again = folder / "all.safetensors", folder / "parts", folder / "again.safetensors"
    if options:
        plain = folder / "plain.safetensors"
        source.rename(plain)
        layers, error = whole.quantize_layers(plain, source, *options)
        if not layers:
            return f"FAIL {error}"
    want, counts = run_checkpoint(source, case)
    run = tensorpress("split", source, parts, "--force", "-q")
    if run.returncode:
        return f"FAIL {run.stderr}"
    got, found = run_parts(parts, case)
    same = [part for part in want if torch.equal(want[part], got[part])]
    joined = tensorpress("join", *sorted(parts.rglob("*.safetensors")), again, "--force", "-q")
    bytes_too = joined.returncode == 0 and again.read_bytes() == source.read_bytes()
    good = len(same) == len(want) and found == counts and bytes_too
    return f"{'ok  ' if good else 'FAIL'} {' '.join(options) or 'plain'}: {found} of {counts} quantized weights, the same {', '.join(same)}; joined again {'the same bytes' if bytes_too else 'OTHER ' + joined.stderr}"


def names(state):
    return sorted(state)


def check_names(folder):
    """What ComfyUI calls the text encoders' tensors, from the checkpoint and from the parts."""
    lines = []
    layer = lambda p, n: {f"{p}transformer.resblocks.{n}.{k}": torch.zeros(6, 2) for k in ("ln_1.weight", "ln_2.bias", "attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight")}
    rest = lambda p: {p + k: torch.zeros(2, 2) for k in ("positional_embedding", "token_embedding.weight", "ln_final.weight", "text_projection", "logit_scale")}
    unet = lambda columns: {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2, 2, 1, 1), "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(2, columns)}
    big, small = "conditioner.embedders.1.model.", "conditioner.embedders.0.transformer.text_model."
    cases = {
        "SDXL": ({**unet(2048), small + "encoder.layers.0.mlp.fc1.weight": torch.zeros(2, 2), **layer(big, 0), **layer(big, 30), **rest(big)}, {"clip_l": "clip_l.transformer.", "clip_g": "clip_g."}),
        "SD20": ({**unet(1024), **layer("cond_stage_model.model.", 0), **layer("cond_stage_model.model.", 22), **rest("cond_stage_model.model.")}, {"clip_h": "clip_h."}),
    }
    for family, (state, places) in cases.items():
        source, parts, again = folder / "all.safetensors", folder / family, folder / "again.safetensors"
        save_file(state, source)
        tensorpress("split", source, parts, "-q")
        config = getattr(comfy.supported_models, family)
        want = names(config.process_clip_state_dict(config, dict(state)))
        got = {}
        for part, prefix in places.items():
            sd = comfy.utils.load_torch_file(str(parts / "text_encoders" / f"all_{part}.safetensors"))
            if "transformer.resblocks.0.ln_1.weight" in sd:  # as load_clip does
                sd = {f"transformer.{k}" if k.startswith("text_") else k: v for k, v in comfy.utils.clip_text_transformers_convert(sd, "", "").items()}
            got |= {prefix + k: v for k, v in sd.items()}
        joined = tensorpress("join", *sorted(parts.rglob("*.safetensors")), again, "--force", "-q")
        good = names(got) == want and joined.returncode == 0 and again.read_bytes() == source.read_bytes()
        lines.append(f"{'ok  ' if good else 'FAIL'} {family}: {len(want)} names; {joined.stderr}")
        if not good:
            lines.append(str(set(want) ^ set(got)))
    return lines


if __name__ == "__main__":
    failed = False
    for case in sys.argv[3:] or ["names", *CHECKPOINTS]:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            folder = pathlib.Path(folder)
            if case == "names":
                lines = check_names(folder)
            else:
                if CHECKPOINTS[case][2]:
                    whole.narrow_t5()
                save_file(whole.checkpoint_state(case), folder / "all.safetensors")
                lines = [check(case, folder), check(case, folder, "--dtype", "nvfp4")]
            print(case, *lines, sep="\n  ", flush=True)
            failed = failed or any(not line.startswith("ok") for line in lines)
    sys.exit(failed)
