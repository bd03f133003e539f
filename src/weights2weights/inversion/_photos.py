"""Photos as the search sees them: encoded once, with masks, each belonging to a subject."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..bases import Base
from ..errors import InputError
from ._chance import Chance


class Photos:
    """The photos of K subjects, on the device, and their denoising loss."""

    def __init__(
        self,
        base: Base,
        images: Any,
        masks: Float[Tensor, "n h w"] | None,
        subjects: Sequence[int],
        prompt: str,
        sampled: bool,
    ):
        self.base = base
        self.mean, std = base.encode_moments(images)
        self.std = std if sampled else None
        self.mask = None
        if masks is not None:
            sides = self.mean.shape[-2:]
            shrunk = F.interpolate(masks[:, None].float(), sides, mode="area")
            self.mask = shrunk[:, 0].to(base.device)
        self.text = base.encode_prompts([prompt])
        owners = torch.tensor(subjects)
        self.count = torch.bincount(owners)
        self.start = self.count.cumsum(0) - self.count
        # the photos of each subject one after the other, whatever the order they came in
        self.order = owners.argsort(stable=True)

    def __len__(self) -> int:
        return len(self.count)

    def losses(self, rows: Int[Tensor, "k"], chance: Chance) -> Float[Tensor, "k s"]:
        """Return the denoising loss of every sample of some subjects, through the adapted UNet."""
        turn = chance.turn % self.count[rows, None]
        index = self.order[self.start[rows, None] + turn].flatten().to(self.base.device)
        K = len(rows)
        timesteps, noise, posterior = (
            tensor.to(self.base.device).repeat(K, *[1] * (tensor.ndim - 1))
            for tensor in (chance.timesteps, chance.noise, chance.posterior)
        )
        latents = self.mean[index]
        if self.std is not None:
            latents = latents + self.std[index] * posterior
        mask = None if self.mask is None else self.mask[index]
        text = self.text.expand(len(index), -1, -1)
        return self.base.denoising_loss(latents, noise, timesteps, text, mask=mask).view(K, -1)


def check_photos(
    base: Base, images: Any, masks: Tensor | None, subjects: Sequence[int] | None
) -> tuple[Tensor, list[int]]:
    """Return the photos as uint8 "n h w 3" and the number of each one's subject.

    Raises:
        W2WError: photos of another kind or size, masks of another shape, empty or out of range,
            subjects that are not numbered 0, 1, 2, …
    """
    images = torch.as_tensor(images)
    size = base.size
    if images.shape[1:] != (size, size, 3) or not len(images) or images.dtype != torch.uint8:
        raise InputError(
            f"photos of {images.dtype} and shape {list(images.shape)}: expected uint8 of"
            f" [n, {size}, {size}, 3]; `subjects.square` crops and resizes"
        )
    if masks is not None:
        _check_masks(masks, images)
    owners = list(range(len(images))) if subjects is None else [int(one) for one in subjects]
    if len(owners) != len(images) or set(owners) != set(range(len(set(owners)))):
        raise InputError(
            f"subjects {owners[:8]} for {len(images)} photos: expected one number for each, from 0"
            " on without gaps"
        )
    return images, owners


def _check_masks(masks: Tensor, images: Tensor) -> None:
    if masks.shape != images.shape[:3]:
        raise InputError(
            f"masks of shape {list(masks.shape)}: expected {list(images.shape[:3])}, one for each"
            " photo and of its size"
        )
    if not (masks.isfinite().all() and masks.min() >= 0 and masks.max() <= 1):
        raise InputError("masks with values outside 0 to 1: expected how much each pixel counts")
    empty = (masks.flatten(1).amax(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise InputError(f"the mask of photo {empty[0]} is empty: expected 1 where the subject is")
