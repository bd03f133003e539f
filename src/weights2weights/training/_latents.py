"""Latents of subjects and of their class: encoded once, kept on disk, found again by content."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .._files import make_folder, remove, write_atomic
from ..bases import Base
from ..errors import W2WError
from ..generation import GUIDANCE, STEPS, generate
from ..subjects import Images, Subject, read_images
from ._chance import mix
from ._recipe import DreamBoothConfig

# The number of class images in one pass, fixed so that they do not depend on the free memory.
_CLASS_PICTURES_AT_ONCE = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Latents:
    """Encoded images of one or more subjects, or of the class.

    Attributes:
        mean: of the VAE's posterior, "n c h w".
        std: of the same, or None where the mean alone is wanted.
        mask: how much each latent pixel counts, "n h w", or None if all count alike.
        digest: of the images and masks.
        captions: of each image, "" for none; () if none has one.
    """

    mean: Tensor
    std: Tensor | None
    mask: Tensor | None
    digest: str = ""
    captions: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Latents":
        """Return the same on another device."""
        moved = (None if x is None else x.to(device) for x in (self.mean, self.std, self.mask))
        return replace(self, **dict(zip(("mean", "std", "mask"), moved, strict=True)))

    def select(
        self, index: Tensor, timesteps: Tensor, noise: Tensor, posterior: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return latents, noise, timesteps and masks of the images named by an index."""
        latents = self.mean[index]
        if self.std is not None:
            latents = latents + self.std[index] * posterior
        if self.mask is not None:
            return latents, noise, timesteps, self.mask[index]
        ones = latents.new_ones(1).expand(*index.shape, *latents.shape[-2:])
        return latents, noise, timesteps, ones


def concatenate(parts: Sequence[Latents]) -> Latents:
    """Lay latents one behind the other; where only some have masks, the others count in full."""
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


def default_cache() -> Path:
    """Return the folder for what can be made again: $W2W_CACHE, or weights2weights in ~/.cache."""
    if folder := os.environ.get("W2W_CACHE"):
        return Path(folder)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "weights2weights"


class Cache:
    """A folder of tensors by key. Losing it costs time and nothing else, nor does a full disk."""

    def __init__(self, folder: Path):
        self.folder = folder

    def load(self, key: str) -> dict[str, Tensor] | None:
        """Return what is kept under a key, or None if nothing is or it is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self._path(key).read_bytes())
        except (OSError, SafetensorError):
            return None

    def save(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under a key; where that fails, a line in the log says so."""
        from safetensors.torch import save

        path = self._path(key)
        try:
            make_folder(path.parent)
            write_atomic(path, [save({k: v.contiguous().cpu() for k, v in tensors.items()})])
        except W2WError as error:
            _log.warning("not cached: %s", error)

    def forget(self, key: str) -> None:
        """Delete what is kept under a key."""
        remove(self._path(key))

    def find_or_make(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return what is kept under a key, or make and keep it."""
        found = self.load(key)
        if found is None:
            found = make()
            self.save(key, found)
        return found

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def cache_key(kind: str, *facts: object) -> str:
    """Return a key for what depends on some JSON facts."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return f"{kind}/{digest}"


def subject_latents(
    base: Base, recipe: DreamBoothConfig, subject: Subject, cache: Cache
) -> Latents:
    """Read and encode the images of a subject, or find them encoded.

    Raises:
        W2WError: as `subjects.read_images`.
    """
    return _encoded(base, recipe, read_images(subject, base.size), cache)


def class_latents(base: Base, recipe: DreamBoothConfig, cache: Cache, progress: bool) -> Latents:
    """Let the base draw its own images of the class and encode them, or find them."""
    numbers = [recipe.num_class_images, recipe.seed, STEPS, GUIDANCE]
    key = cache_key("class", base.hash, str(base.dtype), recipe.class_prompt, *numbers)

    def draw() -> dict[str, Tensor]:
        seeds = [mix(recipe.seed, "class image", i) for i in range(recipe.num_class_images)]
        drawn = generate(
            base,
            prompts=recipe.class_prompt,
            seeds=seeds,
            batch_size=_CLASS_PICTURES_AT_ONCE,
            progress=progress,
        )
        return {"images": drawn[0, 0]}

    pixels = cache.find_or_make(key, draw)["images"]
    digest = hashlib.sha256(pixels.numpy().data).hexdigest()
    return _encoded(base, recipe, Images(pixels, None, digest), cache)


def _encoded(base: Base, recipe: DreamBoothConfig, images: Images, cache: Cache) -> Latents:
    def encode() -> dict[str, Tensor]:
        mean, std = base.encode_moments(images.pixels)
        moments = {"mean": mean} if recipe.latents == "mean" else {"mean": mean, "std": std}
        if images.masks is not None:
            masks = F.interpolate(images.masks[:, None], mean.shape[-2:], mode="area")
            moments["mask"] = masks[:, 0]
        return moments

    key = cache_key("latents", base.hash, images.digest, recipe.latents)
    moments = cache.find_or_make(key, encode)
    captions = images.captions if any(images.captions) else ()
    found = Latents(
        moments["mean"], moments.get("std"), moments.get("mask"), images.digest, captions
    )
    return found.to(torch.device("cpu"))
