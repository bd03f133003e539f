"""Latents of subjects and of their class: encoded once, cached on disk by content."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .._cache import Cache, cache_key
from .._noise import Noise, derive_seed
from ..bases import Base
from ..generation import GUIDANCE, STEPS, generate
from ..subjects import Images, Subject, read_images
from ._config import DreamBoothConfig

# Class images per pass: fixed, so that they do not depend on the free memory.
_CLASS_IMAGES_AT_ONCE = 16


@dataclass(frozen=True)
class Latents:
    """Encoded images of one or more subjects, or of the class.

    Attributes:
        mean: of the VAE posterior, "n c h w".
        std: of the VAE posterior, or None if only the mean is used.
        mask: loss weight of each latent pixel, "n h w", or None if all count alike.
        digest: of the images and masks.
        captions: of each image, "" for none; () if no image has one.
    """

    mean: Tensor
    std: Tensor | None
    mask: Tensor | None
    digest: str = ""
    captions: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Latents":
        """Return the same latents on another device."""
        moved = (None if x is None else x.to(device) for x in (self.mean, self.std, self.mask))
        return replace(self, **dict(zip(("mean", "std", "mask"), moved, strict=True)))

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
    masks = None
    if any(part.mask is not None for part in parts):
        masks = torch.cat(
            [torch.ones_like(p.mean[:, 0]) if p.mask is None else p.mask for p in parts]
        )
    stds = [part.std for part in parts if part.std is not None]
    captions: tuple[str, ...] = ()
    if any(part.captions for part in parts):
        captions = tuple(c for p in parts for c in p.captions or ("",) * len(p.mean))
    mean, std = torch.cat([part.mean for part in parts]), torch.cat(stds) if stds else None
    return Latents(mean, std, masks, captions=captions)


def subject_latents(
    base: Base, config: DreamBoothConfig, subject: Subject, cache: Cache
) -> Latents:
    """Read and encode the images of a subject, or load them from the cache.

    Raises:
        InputError: as `subjects.read_images`.
    """
    return _encoded(base, config, read_images(subject, base.size), cache)


def class_latents(base: Base, config: DreamBoothConfig, cache: Cache, progress: bool) -> Latents:
    """Generate the class images with the base and encode them, or load them from the cache."""
    inputs = [config.class_prompt, config.num_class_images, config.seed, STEPS, GUIDANCE]
    key = cache_key("class", base.hash, str(base.dtype), *inputs)

    def draw() -> dict[str, Tensor]:
        count = config.num_class_images
        drawn = generate(
            base,
            prompts=config.class_prompt,
            seeds=[derive_seed(config.seed, "class image", i) for i in range(count)],
            batch_size=_CLASS_IMAGES_AT_ONCE,
            progress=progress,
        )
        return {"images": drawn[0, 0]}

    pixels = cache.find_or_make(key, draw)["images"]
    digest = hashlib.sha256(pixels.numpy().data).hexdigest()
    return _encoded(base, config, Images(pixels, None, digest), cache)


def _encoded(base: Base, config: DreamBoothConfig, images: Images, cache: Cache) -> Latents:
    def encode() -> dict[str, Tensor]:
        mean, std = base.encode_moments(images.pixels)
        moments = {"mean": mean} if config.latents == "mean" else {"mean": mean, "std": std}
        if images.masks is not None:
            masks = F.interpolate(images.masks[:, None], mean.shape[-2:], mode="area")
            moments["mask"] = masks[:, 0]
        return moments

    key = cache_key("latents", base.hash, images.digest, config.latents)
    moments = cache.find_or_make(key, encode)
    captions = images.captions if any(images.captions) else ()
    found = Latents(
        moments["mean"], moments.get("std"), moments.get("mask"), images.digest, captions
    )
    return found.to(torch.device("cpu"))
