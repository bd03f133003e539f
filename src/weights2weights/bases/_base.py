"""The base itself: prompts to embeddings, images to latents and back, and the loss.

`Base.denoising_loss` is the loss of DreamBooth, of inversion and of concept sliders alike. Its
parts, `add_noise` and `noise_target`, are the formulas of the forward process as pure functions.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ..errors import InputError
from ..layout import PAPER_ALPHA, PAPER_TARGETS, WeightLayout

_CACHED_PROMPTS = 2048
# The VAE works on this many pixels at once, 32 images of 64 px or 4 of 512 px (about 2 GB with
# Stable Diffusion's); larger batches are no faster.
_VAE_PIXELS = 2**20
_VAE_PICTURES = 32

_log = logging.getLogger(__name__)
_encoding = RLock()  # every call reorders the cache of prompts


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen latent diffusion model and the few things one does with it.

    Attributes:
        id: how it was asked for: "people", a folder, a hub id.
        hash: 16 hex characters over the values of all weights and the settings that give a LoRA
            its meaning (noise schedule, prediction type, scale of the latents). The same weights
            stored as float16 or float32, here or there, have the same hash.
        unet: the denoiser; its weights are in `dtype`.
        vae: between images and latents; weights float32.
        text_encoder: CLIP's; weights float32.
        tokenizer: of `text_encoder`.
        scheduler_config: the base's own scheduler settings, as in its folder.
        device: where the networks are.
        dtype: in which the UNet computes and the VAE decodes. Anything but float32 runs under
            autocast; latents, embeddings and losses stay float32.
        alphas_cumprod: ᾱ of every timestep, float32 on `device`.
    """

    id: str
    hash: str
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    alphas_cumprod: Float[Tensor, "timesteps"]
    _prompts: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def prediction_type(self) -> str:
        """What the UNet predicts: "epsilon" or "v_prediction"."""
        return self.scheduler_config.get("prediction_type", "epsilon")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latent of one image."""
        side = self.unet.config.sample_size
        return self.unet.config.in_channels, side, side

    @property
    def size(self) -> int:
        """Side of the base's images in pixels."""
        return self.unet.config.sample_size * self._factor

    @property
    def _factor(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def layout(
        self,
        rank: int = 1,
        alpha: float = PAPER_ALPHA,
        targets: Sequence[str] = PAPER_TARGETS,
    ) -> WeightLayout:
        """Return the layout of LoRAs on this base; the defaults are the paper's."""
        return WeightLayout.from_denoiser(
            self.unet, targets=tuple(targets), rank=rank, alpha=alpha, base=self.id
        )

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in `dtype` inside; nothing changes for float32."""
        reduced = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype if reduced else None, enabled=reduced):
            yield

    @contextmanager
    def gradient_checkpointing(self, enabled: bool = True) -> Iterator[None]:
        """Recompute activations in backward passes inside; enter it before `adapt`."""
        if not enabled:
            yield
            return
        self.unet.enable_gradient_checkpointing()
        try:
            yield
        finally:
            self.unet.disable_gradient_checkpointing()

    def encode_prompts(self, prompts: Sequence[str]) -> Float[Tensor, "n tokens width"]:
        """Return the text encoder's last hidden states, on `device`; repeated prompts are cached.

        Every prompt is encoded by itself, so that its numbers never depend, to the last bit, on
        what else was asked. What exceeds the tokenizer's length is cut off, with a line in the log.
        """
        with _encoding, torch.no_grad():
            encoded = []
            for prompt in prompts:
                known = self._prompts.pop(prompt, None)
                encoded.append(self._encode_prompt(prompt) if known is None else known)
                self._prompts[prompt] = encoded[-1]  # asked last, forgotten last
            while len(self._prompts) > _CACHED_PROMPTS:
                del self._prompts[next(iter(self._prompts))]
            return torch.stack(encoded)

    def _encode_prompt(self, prompt: str) -> Tensor:
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(prompt).input_ids
        if len(tokens) > length:
            kept = self.tokenizer.decode(tokens[:length], skip_special_tokens=True)
            _log.warning(
                "prompt of %d tokens, this base reads %d; kept: %r", len(tokens), length, kept
            )
        padded = self.tokenizer(
            prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return self.text_encoder(padded.input_ids.to(self.device))[0][0]

    def encode_images(self, images: Any) -> Float[Tensor, "n c h w"]:
        """Return the latents of images, scaled as the UNet expects them: the posterior's mean.

        Args:
            images: uint8 "n h w 3" (torch or NumPy) or a sequence of PIL images of one size, both
                sides multiples of the VAE's factor (8 for Stable Diffusion).

        Returns:
            float32 latents on `device`.

        Raises:
            InputError: images of another kind, shape or size.
        """
        return self.encode_moments(images)[0]

    @torch.no_grad()
    def encode_moments(
        self, images: Any
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
        """Return mean and standard deviation of the VAE's posterior, scaled for the UNet.

        Always float32: images are encoded once and used for thousands of steps. Arguments and
        failures as for `encode_images`.
        """
        pixels = _as_pixels(images, self._factor)
        shift, scale = self._latent_scale()
        means, stds = [], []
        for part in pixels.split(_vae_batch(pixels.shape[1] * pixels.shape[2])):
            # contiguous: else all convolutions run channels-last, half as fast on CPUs
            signal = part.to(self.device).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
            posterior = self.vae.encode(signal).latent_dist
            means.append((posterior.mean - shift) * scale)
            stds.append(posterior.std * scale)
        return torch.cat(means), torch.cat(stds)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n height width 3"]:
        """Return the images of latents, on the CPU."""
        shift, scale = self._latent_scale()
        pixels = latents.shape[2] * latents.shape[3] * self._factor**2
        images = []
        with self.autocast():
            for part in latents.to(self.device).float().split(_vae_batch(pixels)):
                decoded = self.vae.decode(part / scale + shift).sample.float()
                levels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round()
                images.append(levels.to(torch.uint8).permute(0, 2, 3, 1).cpu())
        return torch.cat(images)

    def denoise(
        self,
        noisy: Float[Tensor, "n c h w"],
        timesteps: Int[Tensor, "n"],
        prompts: Float[Tensor, "n tokens width"],
    ) -> Float[Tensor, "n c h w"]:
        """Return the UNet's prediction in float32; what it means, `prediction_type` says."""
        with self.autocast():
            return self.unet(noisy, timesteps, prompts, return_dict=False)[0].float()

    def denoising_loss(
        self,
        latents: Float[Tensor, "n c h w"],
        noise: Float[Tensor, "n c h w"],
        timesteps: Int[Tensor, "n"],
        prompts: Float[Tensor, "n tokens width"],
        *,
        mask: Float[Tensor, "n h w"] | None = None,
    ) -> Float[Tensor, "n"]:
        """Return the denoising loss of every sample: the mean squared error of the prediction.

        Equation 1 of the paper for "epsilon"; for "v_prediction" the error is that of the velocity.
        Gradients flow to whatever adapts the UNet.

        Args:
            latents: clean latents, scaled as `encode_images` gives them.
            noise: standard normal.
            timesteps: from 0 (clean) up to, not including, the length of `alphas_cumprod`.
            prompts: as `encode_prompts` gives them.
            mask: how much each latent pixel counts, at least 0. The error is the weighted mean, so
                the size of the masked area and the scale of the mask do not matter.
        """
        alpha_bar = self.alphas_cumprod[timesteps]
        target = noise_target(latents, noise, alpha_bar, self.prediction_type)
        prediction = self.denoise(add_noise(latents, noise, alpha_bar), timesteps, prompts)
        error = (prediction - target).square().mean(1)
        if mask is None:
            return error.mean((1, 2))
        return (error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1e-6)

    def _latent_scale(self) -> tuple[Tensor | float, Tensor | float]:
        """Return (shift, scale) of normalised = (vae's latents - shift) · scale."""
        config = self.vae.config
        scale = config.scaling_factor
        if config.latents_mean is None or config.latents_std is None:
            return config.shift_factor or 0.0, scale
        mean, std = (
            torch.tensor(values, device=self.device).view(1, -1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, scale / std


def add_noise(
    latents: Float[Tensor, "n c h w"],
    noise: Float[Tensor, "n c h w"],
    alpha_bar: Float[Tensor, "n"],
) -> Float[Tensor, "n c h w"]:
    """Return √ᾱ · x + √(1 - ᾱ) · ε: latents on their way to noise (Ho et al. 2020, eq. 4)."""
    signal, spread = _amplitudes(alpha_bar)
    return signal * latents + spread * noise


def noise_target(
    latents: Float[Tensor, "n c h w"],
    noise: Float[Tensor, "n c h w"],
    alpha_bar: Float[Tensor, "n"],
    prediction_type: str,
) -> Float[Tensor, "n c h w"]:
    """Return what the UNet should predict: ε, or the velocity √ᾱ · ε - √(1 - ᾱ) · x.

    Source of the velocity: Salimans and Ho 2022, arXiv:2202.00512, appendix D.
    """
    if prediction_type == "epsilon":
        return noise
    signal, spread = _amplitudes(alpha_bar)
    return signal * noise - spread * latents


def _amplitudes(alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    alpha_bar = alpha_bar.view(-1, 1, 1, 1)
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def _as_pixels(images: Any, factor: int) -> UInt8[Tensor, "n h w 3"]:
    if not isinstance(images, Tensor):
        if not isinstance(images, np.ndarray):
            rows = [np.asarray(image.convert("RGB")) for image in images]
            if not rows or len({row.shape for row in rows}) > 1:
                sizes = sorted({f"{row.shape[1]}×{row.shape[0]}" for row in rows})
                raise InputError(
                    f"images of {', '.join(sizes) or 'no size'}: expected one or more of one size"
                )
            images = np.stack(rows)
        images = torch.from_numpy(np.ascontiguousarray(images))
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
        raise InputError(
            f"images came as {images.dtype} of shape {tuple(images.shape)}: expected uint8 of"
            " shape (n, height, width, 3)"
        )
    height, width = images.shape[1:3]
    if not len(images) or not height or not width or height % factor or width % factor:
        raise InputError(
            f"{len(images)} images of {width}×{height} px: expected at least one, and sides that"
            f" are multiples of {factor}"
        )
    return images


def _vae_batch(pixels: int) -> int:
    return max(1, min(_VAE_PICTURES, _VAE_PIXELS // pixels))
