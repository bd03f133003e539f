"""The world's text-to-image model: a small UNet and its text encoder, trained together.

Velocity prediction on Stable Diffusion's noise schedule; one caption in ten is left empty for
classifier-free guidance.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .training import train_networks

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
}
_EMPTY_FRACTION = 0.1
_FOCUS_WEIGHT = 4.0


def build_unet(latent_size: int, channels: int = 8, width: int = 128) -> Any:
    """Return an untrained UNet2DConditionModel with cross-attention at every level."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    heads: Any = (2, 4, 4)  # diffusers' annotations do not allow a number per level
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=heads,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
    )


def train_denoiser(
    latents: torch.Tensor,
    tokens: torch.Tensor,
    empty: torch.Tensor,
    text_encoder: Any,
    focus: tuple[float, float, float, float],
    folder: Path,
    *,
    unet: Any = None,
    device: str = "cpu",
    steps: int = 10_000,
    batch: int = 32,
    learning_rate: float = 1e-3,
    minutes: float = float("inf"),
) -> Any:
    """Train a UNet and its text encoder.

    Args:
        latents: (n, c, h, w), with mean 0 and std 1.
        tokens: token ids (n, captions, length) of several captions per image.
        empty: token ids (1, length) of the empty caption.
        text_encoder: a pretrained one; it is trained further with the UNet.
        focus: `World.focus`; errors there count four times.
        folder: for checkpoints.
        unet: the UNet to continue from; None starts from scratch.
        device: "cpu" or "cuda".
        steps: number of steps.
        batch: images per step.
        learning_rate: peak learning rate.
        minutes: stop with a checkpoint after this time.

    Returns:
        `unet` and `text_encoder`, averaged.

    Raises:
        TimeIsUp: after `minutes`; the next call continues.
    """
    from diffusers.models.attention_processor import AttnProcessor
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    torch.manual_seed(0)
    unet = unet or build_unet(latents.shape[-1], latents.shape[1])
    unet.to(device).train().requires_grad_(True)
    text_encoder = text_encoder.to(device).train().requires_grad_(True)
    if device == "cpu":  # flash attention's backward pass takes 37 % of a step there
        unet.set_attn_processor(AttnProcessor())
        text_encoder.set_attn_implementation("eager")
    schedule = DDPMScheduler(**SCHEDULE)
    timestep_count = SCHEDULE["num_train_timesteps"]
    several = tokens.shape[1]
    weight = focus_weight(focus, latents.shape[-2:]).to(device)
    latents, tokens, empty = latents.half().to(device), tokens.to(device), empty.to(device)

    def loss_of(generator: torch.Generator) -> torch.Tensor:
        def uniform() -> torch.Tensor:
            return torch.rand(batch, generator=generator, device=device)

        chosen = (uniform() * len(latents)).long()
        prompts = tokens[chosen, (uniform() * several).long()].long()
        prompts = torch.where(uniform()[:, None] < _EMPTY_FRACTION, empty, prompts)
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        # One timestep from each of `batch` equal ranges: less noise in the loss.
        ranges = torch.arange(batch, device=device)
        timesteps = ((ranges + uniform()) / batch * timestep_count).long()
        noisy = schedule.add_noise(clean, noise, timesteps)
        target = schedule.get_velocity(clean, noise, timesteps)
        with torch.autocast(device, torch.bfloat16):
            context = text_encoder(prompts)[0]
            predicted = unet(noisy, timesteps, context).sample
        return (weight * (predicted.float() - target).square()).mean()

    return train_networks(
        nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}),
        loss_of,
        folder=folder,
        steps=steps,
        learning_rate=learning_rate,
        batch=batch,
        minutes=minutes,
    )


def focus_weight(focus: tuple[float, float, float, float], shape: torch.Size) -> torch.Tensor:
    """Return the weight (h, w) of each latent's error, 1 on average.

    Weights do not move the minimum of a squared error; but a nose is 2 % of an image, and its part
    of the gradient would drown in the noise of the rest.
    """
    left, top, right, bottom = focus
    height, width = shape
    weight = torch.ones(height, width)
    rows = slice(round(top * height), round(bottom * height))
    weight[rows, round(left * width) : round(right * width)] = _FOCUS_WEIGHT
    return weight / weight.mean()


def save_pipeline(vae: Any, tokenizer: Any, networks: Any, folder: Path) -> None:
    """Write the trained parts as an ordinary Stable Diffusion folder, in float16.

    Only the text encoder stays float32: transformers loads networks in the precision of their file,
    diffusers in float32, and a pipeline of both would not run.
    """
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler = DDIMScheduler(**SCHEDULE, set_alpha_to_one=False, steps_offset=1)
    parts: dict[str, Any] = {"vae": vae, "tokenizer": tokenizer, "scheduler": scheduler, **networks}
    unused: dict[str, Any] = {"safety_checker": None, "feature_extractor": None}
    pipeline = StableDiffusionPipeline(**parts, **unused, requires_safety_checker=False)
    pipeline.to(torch.float16).save_pretrained(folder)
    networks["text_encoder"].float().save_pretrained(folder / "text_encoder")
    for config in folder.glob("*/config.json"):
        _forget_origin(config)


def _forget_origin(config: Path) -> None:
    """Remove the path that a network was loaded from."""
    settings = json.loads(config.read_text())
    if settings.pop("_name_or_path", None):
        config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
