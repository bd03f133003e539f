"""The forward process: how images become noisy, what is predicted, and the way back.

`Diffusion` is that of SD and SDXL, `Flow` that of SD 3 and FLUX.1. Both have the same methods.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def add_noise(
    latents: Float[Tensor, "n c h w"],
    noise: Float[Tensor, "n c h w"],
    alpha_bar: Float[Tensor, "n"],
) -> Float[Tensor, "n c h w"]:
    """Return √ᾱ · x + √(1 - ᾱ) · ε: noisy latents (Ho et al. 2020, eq. 4)."""
    signal, sigma = _amplitudes(alpha_bar)
    return signal * latents + sigma * noise


def noise_target(
    latents: Float[Tensor, "n c h w"],
    noise: Float[Tensor, "n c h w"],
    alpha_bar: Float[Tensor, "n"],
    prediction_type: str,
) -> Float[Tensor, "n c h w"]:
    """Return what the denoiser should predict: ε, or the velocity √ᾱ · ε - √(1 - ᾱ) · x.

    Source: Salimans and Ho 2022, arXiv:2202.00512, appendix D.
    """
    if prediction_type == "epsilon":
        return noise
    signal, sigma = _amplitudes(alpha_bar)
    return signal * noise - sigma * latents


def _amplitudes(alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    alpha_bar = alpha_bar.view(-1, 1, 1, 1)
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


@dataclass(frozen=True)
class Diffusion:
    """Denoising diffusion with a variance-preserving schedule.

    Attributes:
        settings: of the base's own scheduler.
        levels: ᾱ of every timestep, float32.
    """

    settings: dict[str, Any]
    levels: Float[Tensor, "timesteps"]

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Diffusion":
        """Return the process that a scheduler's settings describe."""
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        scheduler: Any = DDIMScheduler.from_config(settings)
        return cls(settings, scheduler.alphas_cumprod)

    def to(self, device: torch.device) -> "Diffusion":
        """Return the same process with its levels on a device."""
        return replace(self, levels=self.levels.to(device))

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts: "epsilon" or "v_prediction"."""
        return self.settings.get("prediction_type", "epsilon")

    def quantile(self, positions: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Return where in the schedule uniform numbers from 0 to 1 lie: training is uniform."""
        return positions

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Int[Tensor, "n"]) -> Tensor:
        """Return noisy latents."""
        return add_noise(latents, noise, self.levels[timesteps])

    def target(self, latents: Tensor, noise: Tensor, timesteps: Int[Tensor, "n"]) -> Tensor:
        """Return what the denoiser should predict."""
        return noise_target(latents, noise, self.levels[timesteps], self.prediction_type)

    def times(self, timesteps: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        """Return what the denoiser reads as time."""
        return timesteps

    def weight(self, timesteps: Int[Tensor, "n"]) -> Float[Tensor, "n"] | float:
        """Return the factor of every sample's squared error."""
        return 1.0

    def sampler(self, steps: int, tokens: int) -> Any:
        """Return deterministic DDIM, ready for a number of steps."""
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        # Latents have no range to be clipped to, whatever another scheduler's settings leave open.
        scheduler: Any = DDIMScheduler.from_config(self.settings, clip_sample=False)
        scheduler.set_timesteps(steps)
        return scheduler


@dataclass(frozen=True)
class Flow:
    """Flow matching: z = (1 - σ) · x + σ · ε, and the denoiser predicts ε - x.

    Attributes:
        settings: of the base's own scheduler.
        levels: σ of every timestep, float32, rising; a static time shift is in it, a dynamic one,
            which depends on the image's size, only in the sampler, as in diffusers' scripts.
        sd3: as diffusers trains and samples SD 3: timesteps from a logit-normal density, the error
            that of the clean image, σ² times the velocity's, and Euler's steps from the largest
            level to the smallest. Else as FLUX.1: uniform, the velocity's, and from 1 to 1/steps.

    Source: Esser et al. 2024, arXiv:2403.03206; train_dreambooth_lora_sd3.py and …_flux.py of
    diffusers' examples/dreambooth.
    """

    settings: dict[str, Any]
    levels: Float[Tensor, "timesteps"]
    sd3: bool = False

    @classmethod
    def of(cls, settings: dict[str, Any], sd3: bool = False) -> "Flow":
        """Return the process that a scheduler's settings describe."""
        return cls(settings, _flow_scheduler(settings).sigmas.flip(0), sd3)

    def to(self, device: torch.device) -> "Flow":
        """Return the same process with its levels on a device."""
        return replace(self, levels=self.levels.to(device))

    def quantile(self, positions: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Return where in the schedule uniform numbers from 0 to 1 lie."""
        return torch.special.ndtri(positions).sigmoid() if self.sd3 else positions

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Int[Tensor, "n"]) -> Tensor:
        """Return noisy latents."""
        sigma = self.levels[timesteps].view(-1, 1, 1, 1)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Int[Tensor, "n"]) -> Tensor:
        """Return what the denoiser should predict."""
        return noise - latents

    def times(self, timesteps: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Return what the denoiser reads as time: σ times the number of timesteps."""
        return self.levels[timesteps] * len(self.levels)

    def weight(self, timesteps: Int[Tensor, "n"]) -> Float[Tensor, "n"] | float:
        """Return the factor of every sample's squared error."""
        return self.levels[timesteps].square() if self.sd3 else 1.0

    def sampler(self, steps: int, tokens: int) -> Any:
        """Return Euler's method, ready for a number of steps and the tokens of an image."""
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        scheduler, options = _flow_scheduler(self.settings), {}
        if scheduler.config.use_dynamic_shifting:
            names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
            options["mu"] = calculate_shift(tokens, *(scheduler.config[name] for name in names))
        if not self.sd3:
            options["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(steps, **options)
        return scheduler


def _flow_scheduler(settings: dict[str, Any]) -> Any:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    return FlowMatchEulerDiscreteScheduler.from_config(settings)
