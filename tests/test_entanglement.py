"""The mean cosine between directions."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from weights2weights.errors import W2WError
from weights2weights.metrics.entanglement import mean_absolute_cosine


def cosines(count: int = 6) -> torch.Tensor:
    directions = np.random.default_rng(0).normal(size=(count, 20))
    return torch.from_numpy(cosine_similarity(directions)).float()


def test_mean_is_over_different_directions_only():
    table = cosines()
    off_diagonal = table[~torch.eye(6, dtype=torch.bool)]
    assert mean_absolute_cosine(table) == pytest.approx(float(off_diagonal.abs().mean()), abs=1e-7)
    assert mean_absolute_cosine(torch.eye(4)) == 0
    assert mean_absolute_cosine(-torch.ones(3, 3)) == 1


def test_random_directions_entangle_less_in_more_dimensions():
    def entanglement(dimensions: int) -> float:
        directions = torch.randn(40, dimensions, generator=torch.Generator().manual_seed(0))
        unit = torch.nn.functional.normalize(directions, dim=1)
        return mean_absolute_cosine(unit @ unit.T)

    # |cos| of random directions is sqrt(2 / (pi d)) on average
    assert entanglement(400) == pytest.approx((2 / (np.pi * 400)) ** 0.5, rel=0.05)
    assert entanglement(25) > 3 * entanglement(400)


def test_one_direction_is_an_error():
    with pytest.raises(W2WError, match="at least two"):
        mean_absolute_cosine(torch.ones(1, 1))
