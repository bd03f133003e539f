"""Seeded randomness: every draw is a function of (seed, purpose, step) and of nothing else.

No random stream runs on from one step to the next; each draw has a generator of its own, derived by
hashing what it is for. So a subject sees the same noise whoever shares its batch, and a run that
resumes from a checkpoint needs no generator state.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .layout import WeightLayout

_GOLDEN = (5**0.5 - 1) / 2

Key = tuple[str | int, ...]
"""What a draw is for: a seed and some words and counters, such as (0, "subject", 17)."""


def derive_seed(*key: str | int) -> int:
    """Return a 63-bit seed that depends on every part of the key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: str | int) -> torch.Generator:
    """Return a CPU generator for one draw."""
    return torch.Generator().manual_seed(derive_seed(*key))


@dataclass(frozen=True)
class Noise:
    """The random numbers of some training samples.

    Attributes:
        timesteps: diffusion timestep of each sample.
        noise: the noise to add and to predict.
        posterior: standard normal noise for sampling the VAE posterior.
    """

    timesteps: Int[Tensor, "n"]
    noise: Float[Tensor, "n c h w"]
    posterior: Float[Tensor, "n c h w"]

    def split(self, size: int) -> Iterator["Noise"]:
        """Yield the samples in parts of at most `size`."""
        parts = (self.timesteps, self.noise, self.posterior)
        for some in zip(*(tensor.split(size) for tensor in parts), strict=True):
            yield Noise(*some)


def draw_noise(
    random: torch.Generator,
    shape: tuple[int, int, int],
    positions: Float[Tensor, "n"],
    num_timesteps: int,
    timestep_range: tuple[float, float] = (0.0, 1.0),
) -> Noise:
    """Draw the noise of n samples.

    Args:
        random: generator of this draw.
        shape: of a latent, (c, h, w).
        positions: of the timesteps in `timestep_range`, from 0 to 1, as `fractions` returns them.
        num_timesteps: of the noise schedule.
        timestep_range: the part of the schedule to use: 0 is the clean image, 1 pure noise.
    """
    low, high = timestep_range
    timesteps = (low + (high - low) * positions) * num_timesteps
    noise = torch.randn(2, len(positions), *shape, generator=random)
    return Noise(timesteps.long().clamp(max=num_timesteps - 1), noise[0], noise[1])


def fractions(
    random: torch.Generator, turns: Tensor, evenly: Key | None = None
) -> Float[Tensor, "n"]:
    """Return where in the noise schedule some samples lie, from 0 to below 1.

    Args:
        random: draws them independently.
        turns: the samples' numbers, counted over the whole run.
        evenly: None, or the key of a golden-ratio sequence with a random start, which covers 0 to 1
            evenly over the run. Since the ratio is irrational, it is even on every arithmetic
            progression of turns too, so on each of several images that are shown in rotation.
    """
    # Drawn in either case, so that the noise that follows does not depend on the choice.
    independent = torch.rand(len(turns), generator=random, dtype=torch.float64)
    if evenly is None:
        return independent
    start = torch.rand(1, generator=generator(*evenly), dtype=torch.float64)
    return (start + _GOLDEN * turns) % 1


def shuffled_rounds(key: Key, items: int, length: int) -> Int[Tensor, "length"]:
    """Return which item comes when: all of them in shuffled rounds, one round after another."""
    rounds = [
        torch.randperm(items, generator=generator(*key, "round", i))
        for i in range(-(-length // items))
    ]
    return torch.cat(rounds)[:length]


def initial_weights(layout: WeightLayout, seed: int) -> Float[Tensor, "d"]:
    """Return an untrained LoRA as PEFT initialises it: A uniform in ±1/√in, B zero."""
    random = generator(seed, "initial A")
    weights = torch.zeros(layout.num_parameters)
    for module, A, _ in layout.slices():
        bound = module.in_features**-0.5
        weights[A].uniform_(-bound, bound, generator=random)
    return weights
