"""The world's image autoencoder: a small AutoencoderKL whose latents have mean 0 and std 1.

The latent channels of a small autoencoder come out uneven (standard deviations from 0.4 to 3.7 were
measured), which makes them hard to learn for a denoiser. After training, the normalisation is
folded into the two 1×1 convolutions that diffusers has around the latents, so that every reader of
the folder gets normalised latents with `scaling_factor` 1.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from weights2weights.worlds.scorers import as_signal

from .training import train_networks

_KL_WEIGHT = 3e-4  # per latent element; small, so that sharpness decides


def build_autoencoder(
    size: int, channels: tuple[int, ...] = (16, 32, 64, 96), latent_channels: int = 8
) -> Any:
    """Return an untrained AutoencoderKL; every level but the first halves the image's side.

    A factor of 8 with 8 latent channels makes a denoiser for 128 pixels as cheap as one for 64
    pixels with a factor of 4.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(channels)
    shape: dict[str, Any] = {  # diffusers' annotations take one-element tuples only
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return AutoencoderKL(
        sample_size=size,
        latent_channels=latent_channels,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        **shape,
    )


def train_autoencoder(
    images: np.ndarray,
    folder: Path,
    *,
    device: str = "cpu",
    steps: int = 8000,
    batch: int = 16,
    learning_rate: float = 2e-3,
    minutes: float = float("inf"),
) -> Any:
    """Train on uint8 images (n, size, size, 3) and return the model with normalised latents.

    The loss is L1 (crisp edges) plus squared error (no outliers) plus a small KL term.

    Raises:
        TimeIsUp: after `minutes`; the next call continues.
    """
    torch.manual_seed(0)
    vae = build_autoencoder(images.shape[1]).to(device)

    def loss_of(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(images), (batch,), generator=generator, device=device)
        signal = as_signal(images[chosen.cpu().numpy()], device)
        with torch.autocast(device, torch.bfloat16):
            posterior = vae.encode(signal).latent_dist
            decoded = vae.decode(posterior.sample(generator=generator)).sample
        error = decoded.float() - signal
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        return error.abs().mean() + 2 * error.square().mean() + _KL_WEIGHT * kl

    vae = train_networks(
        nn.ModuleDict({"vae": vae}),
        loss_of,
        folder=folder,
        steps=steps,
        learning_rate=learning_rate,
        batch=batch,
        minutes=minutes,
        weight_decay=1e-4,
    )["vae"]
    normalise_latents(vae, encode(vae, images[:4096], device))
    return vae


@torch.no_grad()
def encode(vae: Any, images: np.ndarray, device: str, batch: int = 128) -> torch.Tensor:
    """Return the mean latents (n, c, h, w) of uint8 images, float32 on the CPU."""
    parts = []
    for start in range(0, len(images), batch):
        with torch.autocast(device, torch.bfloat16):
            posterior = vae.encode(as_signal(images[start : start + batch], device)).latent_dist
        parts.append(posterior.mean.float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode(vae: Any, latents: torch.Tensor, device: str, batch: int = 64) -> np.ndarray:
    """Return the uint8 images (n, size, size, 3) of latents."""
    parts = []
    for some in latents.split(batch):
        with torch.autocast(device, torch.bfloat16):
            signal = vae.decode(some.to(device)).sample
        pixels = (signal.float().clamp(-1, 1) * 127.5 + 127.5).round().byte()
        parts.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def normalise_latents(vae: Any, latents: torch.Tensor) -> None:
    """Fold mean and std of each latent channel into the convolutions around the latents.

    `quant_conv` outputs mean and log-variance, so the mean's rows are shifted and scaled and the
    log-variance's bias decreases by 2 log(std); `post_quant_conv` undoes it before decoding.
    """
    mean = latents.mean((0, 2, 3)).to(vae.device)
    std = latents.std((0, 2, 3)).to(vae.device)
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[channels:] -= 2 * std.log()
    post.bias += F.conv2d(mean[None, :, None, None], post.weight)[0, :, 0, 0]
    post.weight *= std[None, :, None, None]


def psnr(images: np.ndarray, decoded: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB, averaged over uint8 images."""
    error = (images.astype(np.float64) - decoded).reshape(len(images), -1)
    return float(np.mean(10 * np.log10(255**2 / np.maximum(np.mean(error**2, 1), 1e-12))))
