"""Coordinates of the search: from z to coefficients, weights, and how likely a model is."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..layout import WeightLayout
from ..space import WeightSpace
from ._recipe import InversionConfig


class Coordinates:
    """What z means: c = spread^whitening · z, and w = c @ components · std + mean.

    Attributes:
        layout: of the weights.
        components: j, how many coefficients are sought.
    """

    layout: WeightLayout
    components: int

    def __init__(self, space: WeightSpace, recipe: InversionConfig, device: torch.device):
        self.layout = space.layout
        self.components = recipe.sought(len(space))
        self._rows = space.components[: self.components].to(device).float()
        self._std, self._mean = space.std.to(device), space.mean.to(device)
        self._scale = torch.ones(self.components, device=device)
        self._prior_weight = recipe.prior_weight
        if recipe.whitening or recipe.prior_weight:
            center, spread = _center_and_spread(space, self.components)
            self._center, self._spread = center.to(device), spread.to(device)
            self._scale = self._spread**recipe.whitening

    def coefficients(self, z: Float[Tensor, "k j"]) -> Float[Tensor, "k j"]:
        """Return the coefficients of points."""
        return z * self._scale

    def weights(self, z: Float[Tensor, "k j"]) -> Float[Tensor, "k d"]:
        """Return the weights of all layers: one product, through which gradients flow back."""
        return (self.coefficients(z) @ self._rows) * self._std + self._mean

    def prior(self, z: Float[Tensor, "k j"]) -> Float[Tensor, "k"]:
        """Return prior_weight · ½ Σ ((c − center) / spread)²: unlikely models cost more."""
        if not self._prior_weight:
            return z.new_zeros(len(z))
        deviations = (self.coefficients(z) - self._center) / self._spread
        return self._prior_weight / 2 * deviations.square().sum(1)


def _center_and_spread(space: WeightSpace, components: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the training models along the first components.

    A published space knows them for its first 1,000 components only; the others get the last known
    spread, which is an upper bound since variances fall, around 0.
    """
    known = min(space.coefficients.shape[1], components)
    if len(space.names) < 2 or not known or not space.coefficient_std.max() > 0:
        raise InputError(
            "this space does not know how its training models spread: expected some for whitening"
            " or a prior; take the recipe paper, which needs neither"
        )
    center, spread = torch.zeros(components), torch.empty(components)
    center[:known], spread[:known] = space.coefficient_mean[:known], space.coefficient_std[:known]
    spread[known:] = spread[known - 1]
    return center, spread.clamp(min=1e-4 * float(spread.max()))
