"""Stage 6: a point becomes a LoRA for other programs."""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...adapter import adapt
from ...exports import save_lora
from ...generation import initial_noise
from ...worlds import shipped
from ..setting import Setting
from ._stage import Demo, Stage


def export(run: Demo, point: Float[Tensor, " m"]) -> Stage:
    """Write the model as a LoRA for diffusers, and compare its output there with ours."""
    setting = run.setting
    weights = setting.space.to_weights(point)
    path = save_lora(run.out / "photo-lora.safetensors", weights, layout=setting.layout)
    figures: dict[str, Any] = {
        "file": path.name,
        "path": path.as_posix(),
        "bytes": path.stat().st_size,
        "base": diffusers_source(setting),
        "prompt": run.prompts[-1],
        "max_abs_difference": None,
    }
    if find_spec("peft") is None:
        figures["not_compared"] = "diffusers needs peft to load LoRAs, and it is not installed"
    else:
        figures["max_abs_difference"] = difference_to_diffusers(setting, weights)
    return Stage(figures)


def difference_to_diffusers(setting: Setting, weights: Float[Tensor, " d"]) -> float:
    """Return the largest difference between the outputs of our denoiser and diffusers'.

    The LoRA is loaded from a file into a `StableDiffusionPipeline`, whose UNet then denoises the
    same latents as ours.
    """
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    base = setting.base
    latents = torch.cat([initial_noise(base, seed) for seed in range(2)])
    timesteps = torch.tensor([250, 750])
    text = base.encode_prompts([setting.recipe.instance_prompt] * 2).cpu()
    pipeline: Any = StableDiffusionPipeline.from_pretrained(diffusers_source(setting))
    with tempfile.TemporaryDirectory() as folder:
        path = save_lora(Path(folder) / "lora.safetensors", weights, layout=setting.layout)
        pipeline.load_lora_weights(path.parent, weight_name=path.name)
    device = base.device
    with torch.no_grad():
        theirs = pipeline.unet(latents, timesteps, encoder_hidden_states=text).sample
        with adapt(base.unet, setting.layout, weights[None].to(device)):
            ours = base.denoise(latents.to(device), timesteps.to(device), text.to(device)).cpu()
    return float((ours - theirs).abs().max())


def diffusers_source(setting: Setting) -> str:
    """Return the base as diffusers loads it: a folder or a hub id."""
    embedded = setting.base.id == setting.world.name
    return shipped(setting.world.name, "base").as_posix() if embedded else setting.base.id
