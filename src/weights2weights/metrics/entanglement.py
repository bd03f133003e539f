"""How strongly attribute directions are entangled: their cosines (the paper's figure 9)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError


def mean_absolute_cosine(cosines: Float[Tensor, "a a"]) -> float:
    """Return the mean absolute cosine between different directions; 0 if they are orthogonal.

    Args:
        cosines: cosines between all pairs, as returned by `directions.cosines`.

    Raises:
        InputError: fewer than two directions.
    """
    if len(cosines) < 2:
        raise InputError(f"{len(cosines)} direction; expected at least two to compare")
    first, second = torch.triu_indices(len(cosines), len(cosines), 1)
    return float(cosines[first, second].double().abs().mean())


def random_cosine(components: int) -> float:
    """Return the mean absolute cosine of random directions, the baseline of entanglement.

    Γ(k/2) / (√π Γ((k+1)/2)) for k components, approximately √(2/(πk)).

    Example:
        >>> round(random_cosine(100), 3), round((2 / math.pi / 100) ** 0.5, 3)
        (0.08, 0.08)
    """
    log = math.lgamma(components / 2) - math.lgamma((components + 1) / 2)
    return math.exp(log) / math.sqrt(math.pi)
