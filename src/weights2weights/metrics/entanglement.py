"""How much attribute directions have to do with each other (the paper's figure 9)."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import W2WError

PAPER_PAIRS = (("Black_Hair", "Pale_Skin"), ("Young", "Bald"), ("Male", "No_Beard"))
"""The pairs of figure 9; CelebA labels the absence of a beard."""


def mean_absolute_cosine(cosines: Float[Tensor, "a a"]) -> float:
    """Give the mean absolute cosine between different directions: 0 where none entangle.

    Args:
        cosines: between all pairs, as `directions.cosines` gives them.

    Raises:
        W2WError: fewer than two directions.
    """
    if len(cosines) < 2:
        raise W2WError(f"{len(cosines)} direction: expected at least two to compare")
    first, second = torch.triu_indices(len(cosines), len(cosines), 1)
    return float(cosines[first, second].double().abs().mean())


def pair_cosines(
    cosines: Float[Tensor, "a a"],
    names: Sequence[str],
    pairs: Iterable[tuple[str, str]] = PAPER_PAIRS,
) -> dict[tuple[str, str], float]:
    """Give the cosines, with their signs, of pairs of directions by name.

    Raises:
        W2WError: no direction has such a name.
    """
    place = {name: i for i, name in enumerate(names)}
    chosen = list(pairs)
    if unknown := [name for pair in chosen for name in pair if name not in place]:
        raise W2WError(f"no direction is called {unknown[0]!r}: there are {', '.join(names)}")
    return {(a, b): float(cosines[place[a], place[b]]) for a, b in chosen}
