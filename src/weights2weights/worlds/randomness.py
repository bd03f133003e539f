"""The random draws that subjects and their images are made of."""

import numpy as np


def chance(rng: np.random.Generator, probability: float) -> bool:
    """Return true with the given probability."""
    return bool(rng.uniform() < probability)


def pick(rng: np.random.Generator, among: tuple[str, ...], p: list[float] | None = None) -> str:
    """Return one of several words, with equal or given probabilities."""
    return str(rng.choice(among, p=p))


def normal(rng: np.random.Generator, std: float = 1.0) -> float:
    """Return a normal number, clipped to ± two standard deviations."""
    return float(np.clip(rng.normal(), -2, 2) * std)


def high_or_low(rng: np.random.Generator, high: bool) -> float:
    """Return a number from 0.7 to 1, or one from 0 to 0.35: labels need the gap to be visible."""
    return float(rng.uniform(0.7, 1.0) if high else rng.uniform(0.0, 0.35))
