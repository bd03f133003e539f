"""Latents of subjects and of their class: encoded once, cached on disk by content."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .._cache import Cache, cache_key
from .._noise import Noise, derive_seed
from ..bases import Base
from ..generation import generate
from ..subjects import Subject, read_images
from ._config import DreamBoothConfig

_CLASS_IMAGES_AT_ONCE = 16  # fixed, so that they do not depend on the free memory
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Latents:
    """Encoded images of one or more subjects, or of the class.

    Attributes:
        mean: of the VAE posterior, "n c h w".
        std: of the VAE posterior, or None if only the mean is used.
        mask: loss weight of each latent pixel, "n h w", or None if all count alike.
        digest: of the images and masks, or of what the class images are generated from.
        captions: of each image, "" for none; () if no image has one.
    """

    mean: Tensor
    std: Tensor | None = None
    mask: Tensor | None = None
    digest: str = ""
    captions: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Latents":
        """Return the same latents on another device."""
        tensors = {name: getattr(self, name) for name in ("mean", "std", "mask")}
        return replace(self, **{k: x if x is None else x.to(device) for k, x in tensors.items()})

    def select(self, index: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return latents, noise, timesteps and masks of images, with the shape of `index` first."""
        latents = self.mean[index]
        timesteps, added, posterior = (
            x.to(index.device).expand(*index.shape, *x.shape[1:])
            for x in (noise.timesteps, noise.noise, noise.posterior)
        )
        if self.std is not None:
            latents = latents + self.std[index] * posterior
        if self.mask is not None:
            return latents, added, timesteps, self.mask[index]
        ones = latents.new_ones(1).expand(*index.shape, *latents.shape[-2:])
        return latents, added, timesteps, ones


def concatenate(parts: Sequence[Latents]) -> Latents:
    """Concatenate latents; where only some have masks, the others count in full."""
    stds = [part.std for part in parts if part.std is not None]
    masks = [torch.ones_like(p.mean[:, 0]) if p.mask is None else p.mask for p in parts]
    captions = [caption for p in parts for caption in p.captions or [""] * len(p.mean)]
    return Latents(
        torch.cat([part.mean for part in parts]),
        torch.cat(stds) if stds else None,
        torch.cat(masks) if any(part.mask is not None for part in parts) else None,
        captions=tuple(captions) if any(captions) else (),
    )


def encode(base: Base, pixels: Tensor, masks: Tensor | None, sampled: bool) -> dict[str, Tensor]:
    """Return the mean, mask and, if the posterior is to be sampled, std of `Latents`."""
    mean, std = base.encode_moments(pixels)
    encoded = {"mean": mean, "std": std} if sampled else {"mean": mean}
    if masks is not None:
        encoded["mask"] = F.interpolate(masks[:, None], mean.shape[-2:], mode="area")[:, 0]
    return encoded


def subject_latents(
    base: Base, config: DreamBoothConfig, subject: Subject, cache: Cache
) -> Latents:
    """Read and encode a subject's images, or load their latents; fails as `read_images` does."""
    images, sampled = read_images(subject, base.size), config.latents == "sample"
    key = cache_key("latents", base.hash, images.digest, config.latents)
    captions = images.captions if any(images.captions) else ()
    made = cache.find_or_make(key, lambda: encode(base, images.pixels, images.masks, sampled))
    return Latents(**made, digest=images.digest, captions=captions).to(_CPU)


def class_latents(base: Base, config: DreamBoothConfig, cache: Cache, progress: bool) -> Latents:
    """Generate and encode the class images, or load their latents from the cache."""
    prompt, sampled = config.class_prompt, config.latents == "sample"
    seeds = [derive_seed(config.seed, "class image", i) for i in range(config.num_class_images)]

    def make() -> dict[str, Tensor]:
        size = _CLASS_IMAGES_AT_ONCE
        drawn = generate(base, prompts=prompt, seeds=seeds, batch_size=size, progress=progress)
        return encode(base, drawn[0, 0], None, sampled)

    sampling = (base.family.steps, base.family.guidance, base.size)
    inputs = (base.hash, str(base.dtype), prompt, seeds, *sampling, config.latents)
    key = cache_key("class", *inputs)
    return Latents(**cache.find_or_make(key, make), digest=key, captions=()).to(_CPU)
