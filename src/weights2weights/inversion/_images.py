"""The images of an inversion, encoded once, and their denoising loss."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ..bases import Base
from ..errors import InputError
from ._samples import Samples


class TargetImages:
    """The images of K subjects, on the device.

    Args:
        base: encodes the images and predicts the noise.
        pixels: the images.
        masks: loss weight of each pixel, from 0 to 1, or None if all count alike.
        owners: for each image the number of its subject, 0 to K − 1.
        prompt: of all images.
        sampled: sample the VAE posterior instead of using its mean.
    """

    def __init__(
        self,
        base: Base,
        pixels: UInt8[Tensor, "n h w 3"],
        masks: Float[Tensor, "n h w"] | None,
        owners: Sequence[int],
        prompt: str,
        sampled: bool,
    ):
        self.base = base
        self.mean, std = base.encode_moments(pixels)
        self.std = std if sampled else None
        self.mask = None
        if masks is not None:
            sides = self.mean.shape[-2:]
            self.mask = F.interpolate(masks[:, None], sides, mode="area")[:, 0].to(base.device)
        self.text = base.encode_prompts([prompt])
        of_each = torch.tensor(owners)
        counts = torch.bincount(of_each)
        # The images of each subject one after the other, whatever order they came in.
        self.order = of_each.argsort(stable=True).to(base.device)
        self.count = counts.to(base.device)
        self.start = (counts.cumsum(0) - counts).to(base.device)

    def __len__(self) -> int:
        return len(self.count)

    def losses(self, rows: Int[Tensor, "k"], samples: Samples) -> Float[Tensor, "k s"]:
        """Return the denoising loss of every sample of some subjects, through the adapted UNet."""
        device, K = self.base.device, len(rows)
        turns = samples.turns.to(device) % self.count[rows, None]
        index = self.order[self.start[rows, None] + turns].flatten()
        noise = samples.noise
        timesteps, added, posterior = (
            tensor.to(device).repeat(K, *[1] * (tensor.ndim - 1))
            for tensor in (noise.timesteps, noise.noise, noise.posterior)
        )
        latents = self.mean[index]
        if self.std is not None:
            latents = latents + self.std[index] * posterior
        mask = None if self.mask is None else self.mask[index]
        text = self.text.expand(len(index), -1, -1)
        return self.base.denoising_loss(latents, added, timesteps, text, mask=mask).view(K, -1)


def check_owners(subjects: Sequence[int] | None, images: int) -> list[int]:
    """Return the number of each image's subject.

    Raises:
        InputError: not one number for each image, or not numbered 0, 1, 2, …
    """
    owners = list(range(images)) if subjects is None else [int(one) for one in subjects]
    if len(owners) != images or set(owners) != set(range(len(set(owners)))):
        raise InputError(
            f"subjects {owners[:8]} for {images} images: expected one number for each, from 0 on"
            " without gaps"
        )
    return owners
