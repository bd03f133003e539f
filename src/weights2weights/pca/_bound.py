"""The a-posteriori bound on the variance that a subspace misses."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def variance_bound(
    values: Float[Tensor, " l"],
    residual_gram: Float[Tensor, "l l"],
    components: int,
    rest: float,
) -> float:
    """Bound how much more variance any `components` directions could hold than the Ritz vectors.

    Args:
        values: Ritz values θ of l ≥ `components` orthonormal Ritz vectors, falling.
        residual_gram: RᵀR of their residuals R = C V − V diag(θ).
        components: m.
        rest: ε, the largest eigenvalue of C in the complement of the Ritz vectors, or an estimate.

    Returns:
        A bound on Σ_{i ≤ m} (λ_i − θ_i), in units of variance; infinite if `rest` is.

    Source: see the package's text.
    """
    if not math.isfinite(rest):
        return math.inf
    leading = values[:components]
    best = torch.full_like(leading, math.inf)
    # every t > ε gives a bound on every λ_i; one of these is near the best for each i
    for step in range(33):
        gap = float(values[0]) * 2.0 ** (-step / 2)
        lifted = torch.linalg.eigvalsh(torch.diag(values) + residual_gram / gap).flip(0)
        best = torch.minimum(best, lifted[:components].clamp(min=rest + gap))
    return max(float((best - leading).sum()), 0.0)
