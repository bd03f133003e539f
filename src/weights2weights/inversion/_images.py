"""The images of an inversion, encoded once, and their denoising loss."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from .._noise import Noise
from ..bases import Base
from ..errors import InputError
from ..training._latents import Latents, encode


class TargetImages:
    """The images of K subjects, on the device; the arguments are those of `invert`."""

    def __init__(
        self,
        base: Base,
        pixels: UInt8[Tensor, "n h w 3"],
        masks: Float[Tensor, "n h w"] | None,
        subjects: Sequence[int] | None,
        prompt: str,
        sampled: bool,
    ):
        owners = list(range(len(pixels))) if subjects is None else list(map(int, subjects))
        if len(owners) != len(pixels) or set(owners) != set(range(len(set(owners)))):
            raise InputError(
                f"subjects {owners[:8]} for {len(pixels)} images: expected one number for each,"
                " from 0 on without gaps"
            )
        self.base, self.owners = base, owners
        encoded = encode(base, pixels, masks, sampled)
        self.latents = Latents(**encoded, digest="", captions=()).to(base.device)
        self.text = base.encode_prompts([prompt])
        counts = torch.bincount(torch.tensor(owners))
        # The images of each subject one after the other, whatever order they came in.
        self.order = torch.tensor(owners).argsort(stable=True).to(base.device)
        self.count = counts.to(base.device)
        self.start = (counts.cumsum(0) - counts).to(base.device)

    def __len__(self) -> int:
        return len(self.count)

    def losses(self, rows: Int[Tensor, "k"], samples: Noise) -> Float[Tensor, "k s"]:
        """Return the denoising loss of every sample of some subjects, through the adapted UNet.

        A subject with p images shows image number turn modulo p.
        """
        turns = samples.turns.to(self.base.device) % self.count[rows, None]
        index = self.order[self.start[rows, None] + turns]
        latents, noise, timesteps, masks = (
            tensor.flatten(0, 1) for tensor in self.latents.select(index, samples)
        )
        mask = None if self.latents.mask is None else masks
        text = self.text.expand(len(latents))
        loss = self.base.denoising_loss(latents, noise, timesteps, text, mask=mask)
        return loss.view(len(rows), -1)
