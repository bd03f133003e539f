"""Coordinates of the search: from z to coefficients, weights, and the prior of a model."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..space import WeightSpace
from ._config import InversionConfig


class Coordinates:
    """The meaning of z: c = std^preconditioning · z, and w = c @ components · std + mean."""

    def __init__(self, space: WeightSpace, config: InversionConfig, device: torch.device):
        self.components = min(config.components, len(space))
        space = space.linear(self.components)
        self.layout = space.layout
        self._rows = space.components[: self.components].to(device).float()
        self._std, self._mean = space.std.to(device), space.mean.to(device)
        self._scale = torch.ones(self.components, device=device)
        self._prior_weight = config.prior_weight
        if config.preconditioning or config.prior_weight:
            mean, std = _distribution(space, self.components)
            self._prior_mean, self._prior_std = mean.to(device), std.to(device)
            self._scale = self._prior_std**config.preconditioning

    def coefficients(self, z: Float[Tensor, "k j"]) -> Float[Tensor, "k j"]:
        """Return the coefficients of z."""
        return z * self._scale

    def weights(self, z: Float[Tensor, "k j"]) -> Float[Tensor, "k d"]:
        """Return the weights of all layers: one product, through which gradients flow back."""
        return (self.coefficients(z) @ self._rows) * self._std + self._mean

    def prior(self, z: Float[Tensor, "k j"]) -> Float[Tensor, "k"]:
        """Return prior_weight · ½ Σ ((c − mean) / std)², the cost of an unlikely model."""
        if not self._prior_weight:
            return z.new_zeros(len(z))
        deviations = (self.coefficients(z) - self._prior_mean) / self._prior_std
        return self._prior_weight / 2 * deviations.square().sum(1)


def _distribution(space: WeightSpace, components: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the training models along the first components.

    A published space knows them for its first 1,000 components only; the others get mean 0 and the
    last known standard deviation, which is an upper bound since variances fall.
    """
    known = min(space.coefficients.shape[1], components)
    if len(space.names) < 2 or not known or not space.coefficient_std.max() > 0:
        raise InputError(
            "this space has no coefficients of its training models, which preconditioning and a"
            " prior need; use the preset paper, which needs neither"
        )
    mean, std = torch.zeros(components), torch.empty(components)
    mean[:known], std[:known] = space.coefficient_mean[:known], space.coefficient_std[:known]
    std[known:] = std[known - 1]
    return mean, std.clamp(min=1e-4 * float(std.max()))
