"""The change of coordinates between weights and coefficients, as pure functions."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

_CHUNK = 2**25  # values of the components that are converted to float32 at a time


def standardise(
    weights: Float[Tensor, "*batch d"], mean: Float[Tensor, " d"], std: Float[Tensor, " d"]
) -> Float[Tensor, "*batch d"]:
    """Return (w − mean) / std, float32 on the device of `mean`."""
    return (weights.to(mean.device).float() - mean) / std


def project(
    standard: Float[Tensor, "*batch d"], components: Float[Tensor, "m d"]
) -> Float[Tensor, "*batch m"]:
    """Return z @ componentsᵀ."""
    return torch.cat([standard @ part.mT for part in _parts(components)], dim=-1)


def combine(
    coefficients: Float[Tensor, "*batch m"], components: Float[Tensor, "m d"]
) -> Float[Tensor, "*batch d"]:
    """Return c @ components, float32 on the device of `components`."""
    points = coefficients.to(components.device).float()
    rows = points.new_zeros(*points.shape[:-1], components.shape[1])
    first = 0
    for part in _parts(components):
        rows = rows + points[..., first : first + len(part)] @ part
        first += len(part)
    return rows


def _parts(components: Tensor) -> Iterator[Tensor]:
    """Yield components in float32: all at once, or in parts if they have to be converted."""
    plain = components.dtype == torch.float32
    height = max(len(components) if plain else _CHUNK // components.shape[1], 1)
    return (part.float() for part in components.split(height))
