"""Seeded randomness: every draw is a function of (seed, purpose, step) and of nothing else.

No random stream runs on from one step to the next, so a subject sees the same noise whoever shares
its batch, and a run that resumes from a checkpoint needs no generator state.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .bases import Base
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


class Noise(NamedTuple):
    """The random numbers of n training samples."""

    turns: Tensor  # number of each sample, counted over the whole run
    timesteps: Tensor
    noise: Tensor  # to add and to predict
    posterior: Tensor  # standard normal, for sampling the VAE posterior

    def split(self, size: int) -> Iterator["Noise"]:
        """Yield the samples in parts of at most `size`."""
        return map(Noise._make, zip(*(tensor.split(size) for tensor in self), strict=True))


def draw_noise(
    base: Base,
    random: torch.Generator,
    turns: Tensor,
    positions: Float[Tensor, "n"],
    timestep_range: tuple[float, float] = (0.0, 1.0),
) -> Noise:
    """Draw the noise of n samples.

    Their timesteps lie at `positions`, as `fractions` returns them, in `timestep_range`: 0 is the
    clean image, 1 pure noise.
    """
    (low, high), count = timestep_range, base.num_timesteps
    positions = low + (high - low) * base.process.quantile(positions)
    timesteps = (positions * count).long().clamp(max=count - 1)
    noise, posterior = torch.randn(2, len(turns), *base.latent_shape, generator=random)
    return Noise(turns, timesteps, noise, posterior)


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
    rounds = -(-length // items)
    orders = [torch.randperm(items, generator=generator(*key, "round", i)) for i in range(rounds)]
    return torch.cat(orders)[:length]


def initial_weights(layout: WeightLayout, seed: int) -> Float[Tensor, "d"]:
    """Return an untrained LoRA as PEFT initialises it: A uniform in ±1/√in, B zero."""
    random = generator(seed, "initial A")
    weights = torch.zeros(layout.num_parameters)
    for module, A, _ in layout.slices():
        bound = module.in_features**-0.5
        weights[A].uniform_(-bound, bound, generator=random)
    return weights
