"""The noise of an inversion, the same for all images: a function of (seed, step) alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from .._noise import Noise, draw_noise, fractions, generator
from ..bases import Base
from ._config import InversionConfig


@dataclass(frozen=True)
class Samples:
    """Noise, and which image of a subject it is added to.

    Attributes:
        noise: of s samples.
        turns: counts up; a subject with p images shows image number turn modulo p.
    """

    noise: Noise
    turns: Int[Tensor, "s"]

    def split(self, size: int) -> Iterator["Samples"]:
        """Yield the samples in parts of at most `size`."""
        for noise, turns in zip(self.noise.split(size), self.turns.split(size), strict=True):
            yield Samples(noise, turns)


def step_samples(base: Base, config: InversionConfig, seed: int, step: int) -> Samples:
    """Draw the samples of one step, counted from 0."""
    s = config.samples_per_step
    turns = step * s + torch.arange(s)
    random = generator("inversion", seed, "step", step)
    evenly = ("inversion", seed, "first") if config.timesteps == "even" else None
    return Samples(_draw(base, config, random, fractions(random, turns, evenly)), turns)


def held_out_samples(base: Base, config: InversionConfig, seed: int) -> Samples:
    """Draw the samples that every evaluation uses and no step, at evenly spaced timesteps."""
    count = config.eval_samples
    turns = torch.arange(count)
    # Shuffled, so that the images of one subject each get all kinds of timesteps.
    order = torch.randperm(count, generator=generator("inversion", seed, "held-out order"))
    positions = ((turns.double() + 0.5) / count)[order]
    return Samples(_draw(base, config, generator("inversion", seed, "held out"), positions), turns)


def _draw(base: Base, config: InversionConfig, random: torch.Generator, positions: Tensor) -> Noise:
    num_timesteps = len(base.alphas_cumprod)
    return draw_noise(random, base.latent_shape, positions, num_timesteps, config.timestep_range)
