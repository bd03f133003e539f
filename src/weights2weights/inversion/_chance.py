"""All that chance decides in an inversion, as functions of (seed, what for, step) alone.

All photos meet the same noise, so what becomes of one depends neither on its company nor on its
place among them.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bases import Base
from ._recipe import InversionConfig

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Chance:
    """What chance decides for some samples of every photo.

    Attributes:
        timesteps: of the noise.
        noise: that is added, and is to be predicted.
        posterior: with which the VAE's posterior is drawn from.
        turn: numbers that count up; a subject with p images shows number turn modulo p of them.
    """

    timesteps: Int[Tensor, "s"]
    noise: Float[Tensor, "s c h w"]
    posterior: Float[Tensor, "s c h w"]
    turn: Int[Tensor, "s"]

    def split(self, size: int) -> Iterator["Chance"]:
        """Return the samples in parts of at most `size`."""
        parts = (self.timesteps, self.noise, self.posterior, self.turn)
        for some in zip(*(tensor.split(size) for tensor in parts), strict=True):
            yield Chance(*some)


def draw_step(base: Base, recipe: InversionConfig, seed: int, step: int) -> Chance:
    """Draw the samples of one step, counted from 0."""
    generator = _generator(seed, "step", step)
    copies = 2 if recipe.antithetic else 1
    s = recipe.samples_per_step // copies
    turn = step * s + torch.arange(s)
    shares = torch.rand(s, generator=generator, dtype=torch.float64)
    if recipe.timesteps == "even":
        # Jointly even with `turn modulo p`, because the ratio is irrational.
        first = torch.rand(1, generator=_generator(seed, "first"), dtype=torch.float64)
        shares = (first + _GOLDEN * turn) % 1
    noise = torch.randn(2, s, *base.latent_shape, generator=generator)
    chance = Chance(_timesteps(base, recipe, shares), noise[0], noise[1], turn)
    return _with_negatives(chance) if recipe.antithetic else chance


def draw_held_out(base: Base, recipe: InversionConfig, seed: int) -> Chance:
    """Draw the samples that no step uses, the same for every look, at evenly spaced timesteps."""
    count = recipe.held_out
    turn = torch.arange(count)
    noise = torch.randn(2, count, *base.latent_shape, generator=_generator(seed, "held out"))
    shares = (turn.double() + 0.5) / count
    # Shuffled, so that the images of one subject each meet all kinds of timesteps.
    shares = shares[torch.randperm(count, generator=_generator(seed, "held-out order"))]
    return Chance(_timesteps(base, recipe, shares), noise[0], noise[1], turn)


def _with_negatives(chance: Chance) -> Chance:
    return Chance(
        chance.timesteps.repeat(2),
        torch.cat([chance.noise, -chance.noise]),
        torch.cat([chance.posterior, -chance.posterior]),
        chance.turn.repeat(2),
    )


def _timesteps(base: Base, recipe: InversionConfig, shares: Tensor) -> Tensor:
    total = len(base.alphas_cumprod)
    shares = recipe.lowest + (recipe.highest - recipe.lowest) * shares
    return (shares * total).long().clamp(max=total - 1)


def _generator(seed: int, *what: str | int) -> torch.Generator:
    digest = hashlib.blake2b(repr(("inversion", seed, *what)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
