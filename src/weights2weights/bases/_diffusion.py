"""The forward process as pure functions, whatever the base: noisy latents, and what to predict."""

from jaxtyping import Float
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
