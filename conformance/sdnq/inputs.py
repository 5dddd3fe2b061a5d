"""Fixed inputs of the models of conformance/families/models.py: case -> keyword arguments of forward."""
import torch


class Inputs:
    """Draws the same numbers in the same order every time."""

    def __init__(self):
        self.g = torch.Generator().manual_seed(7)

    def normal(self, *shape):
        return torch.randn(shape, generator=self.g).to(torch.bfloat16)

    def tokens(self, n=12, vocabulary=96):
        return torch.randint(3, vocabulary, (2, n), generator=self.g)


T = torch.tensor


def ids(n, columns):
    out = torch.zeros(n, columns)
    out[:, 1] = torch.arange(n) // 4
    out[:, 2] = torch.arange(n) % 4
    return out


def text(i):
    return dict(input_ids=i.tokens(), attention_mask=torch.ones(2, 12, dtype=torch.long))


def flux(i):
    return dict(hidden_states=i.normal(1, 16, 16), encoder_hidden_states=i.normal(1, 6, 48), pooled_projections=i.normal(1, 40),
                timestep=T([0.5]).bfloat16(), img_ids=ids(16, 3), txt_ids=torch.zeros(6, 3), guidance=T([3.5]).bfloat16())


def flux2(i):
    return dict(hidden_states=i.normal(1, 16, 32), encoder_hidden_states=i.normal(1, 6, 48), timestep=T([0.5]).bfloat16(),
                img_ids=ids(16, 4), txt_ids=torch.zeros(6, 4), guidance=T([3.5]).bfloat16())


def qwen_image(i):
    return dict(hidden_states=i.normal(1, 16, 16), encoder_hidden_states=i.normal(1, 6, 48),
                encoder_hidden_states_mask=torch.ones(1, 6, dtype=torch.bool), timestep=T([0.5]).bfloat16(), img_shapes=[[(1, 4, 4)]])


def z_image(i):
    return dict(x=[i.normal(16, 1, 8, 8)], t=T([0.5]).bfloat16(), cap_feats=[i.normal(6, 48)])


def chroma(i):
    return dict(hidden_states=i.normal(1, 16, 16), encoder_hidden_states=i.normal(1, 6, 48), timestep=T([0.5]).bfloat16(),
                img_ids=ids(16, 3), txt_ids=torch.zeros(6, 3), attention_mask=torch.ones(1, 22, dtype=torch.bool))


def wan(i):
    return dict(hidden_states=i.normal(1, 16, 2, 8, 8), timestep=T([500]), encoder_hidden_states=i.normal(1, 6, 48))


def ltx2(i):
    return dict(hidden_states=i.normal(1, 16, 16), audio_hidden_states=i.normal(1, 6, 16), encoder_hidden_states=i.normal(1, 6, 40),
                audio_encoder_hidden_states=i.normal(1, 6, 40), timestep=torch.full((1, 16), 500.0), audio_timestep=torch.full((1, 6), 500.0),
                num_frames=1, height=4, width=4, audio_num_frames=6)


def lumina2(i):
    return dict(hidden_states=i.normal(1, 16, 8, 8), timestep=T([0.5]).bfloat16(), encoder_hidden_states=i.normal(1, 6, 48),
                encoder_attention_mask=torch.ones(1, 6, dtype=torch.bool))


def sd3(i):
    return dict(hidden_states=i.normal(1, 16, 16, 16), encoder_hidden_states=i.normal(1, 6, 48), pooled_projections=i.normal(1, 40), timestep=T([500]))


def pixart(i):
    return dict(hidden_states=i.normal(1, 4, 16, 16), encoder_hidden_states=i.normal(1, 6, 48), timestep=T([500]),
                added_cond_kwargs=dict(resolution=None, aspect_ratio=None))


def unet(i):
    return dict(sample=i.normal(1, 4, 16, 16), timestep=T([500]), encoder_hidden_states=i.normal(1, 6, 48),
                added_cond_kwargs=dict(text_embeds=i.normal(1, 40), time_ids=i.normal(1, 6)))


INPUTS = {
    "bert": text, "llama": text, "llama-tied": text, "qwen3": text, "t5-encoder": text, "umt5-encoder": text, "clip-text": text, "clip-text-projection": text,
    "qwen3-moe": text, "mixtral": text, "gemma3": text, "gpt2": text,
    "flux": flux, "flux2": flux2, "qwen-image": qwen_image, "z-image": z_image, "chroma": chroma, "wan": wan, "ltx2": ltx2, "lumina2": lumina2,
    "sd3": sd3, "pixart": pixart, "sdxl-unet": unet, "sd15-unet": unet,
    "dac": lambda i: dict(input_values=i.normal(1, 1, 256)),
    "autoencoder-oobleck": lambda i: dict(sample=i.normal(1, 2, 256)),
    "autoencoder-kl": lambda i: dict(sample=i.normal(1, 3, 16, 16)),
}
