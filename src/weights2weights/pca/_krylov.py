"""The block Krylov search with thick restarts."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ._linear import combine, eigen, gram, orthonormal, reject, resolved
from ._matrix import StandardisedMatrix

_DEPTH = 4  # Krylov blocks kept between two float32 products; a fifth gained less than it cost


@dataclass(frozen=True)
class KrylovSearch:
    """The search for the leading `components` directions; see `fit_pca` for the settings."""

    matrix: StandardisedMatrix
    components: int
    width: int  # rows of one Krylov block, l ≥ m
    tolerance: float
    max_passes: int
    dtype: torch.dtype  # of the passes that only search

    def run(self, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
        """Return variances, components and the bound on the missed variance."""
        block = torch.randn(self.width, self.matrix.columns, generator=generator)
        block = block.to(self.matrix.device, self.dtype).mul_(self.matrix.varies)
        block = orthonormal(self.matrix.product(block))
        basis: list[Tensor] = []
        projected = torch.zeros(0, 0, dtype=torch.float64, device=self.matrix.device)
        while True:
            projected, coupling = self._expand(basis, projected, block)
            values, vectors = eigen(projected)
            rest = _first_left_out(values, vectors, coupling, self.width)
            found = orthonormal(combine(basis, vectors[:, : self.width]))
            basis.clear()

            image = self.matrix.product(found)
            values, rotation = eigen(gram(found, image))
            found, image = combine([found], rotation), combine([image], rotation)
            image -= values.float()[:, None] * found  # the residual
            bound = self._bound(values, gram(image, image), rest)
            captured = float(values[: self.components].sum())
            if bound <= self.tolerance * captured or self.matrix.passes + 2 >= self.max_passes:
                keep = resolved(values, self.components, precision=1e-7)
                return values[:keep], found[:keep], bound
            basis, projected = [found.to(self.dtype)], torch.diag(values)
            block = _next_block(image, basis)
            del found, image

    def _expand(
        self, basis: list[Tensor], projected: Tensor, block: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Grow a Krylov basis, in place, until another block promises less than the tolerance.

        Given basis · C · basisᵀ and the orthonormal block that joins next, return C in the longer
        basis, and the Gram matrix of the part of C · (last block) outside it.
        """
        leading = projected.diagonal()[: self.components]
        history = [float(leading.sum())] if len(leading) else []
        while True:
            basis.append(block.to(self.dtype))
            del block
            image = self.matrix.product(basis[-1])
            image, coefficients = reject(image, basis)
            projected = _border(projected, coefficients)
            history.append(float(torch.linalg.eigvalsh(projected)[-self.components :].sum()))
            room = len(basis) < _DEPTH and self.matrix.passes + 1 < self.max_passes
            if not room or _expected_gain(history) < self.tolerance / 2:
                return projected, gram(image, image)
            block = _next_block(image, basis)
            del image

    def _bound(self, values: Tensor, residual_gram: Tensor, rest: float) -> float:
        """Bound the variance missed by the Ritz vectors, in units of variance."""
        # what was left out may not have shown itself yet, but the last direction kept has
        rest = max(rest, float(values[-1])) if self.width < self.matrix.rank else 0.0
        missed = variance_bound(values, residual_gram, self.components, rest)
        captured = float(values[: self.components].sum())
        return max(min(missed, self.matrix.total_variance - captured), 0.0)


def variance_bound(
    values: Float[Tensor, " l"], residual_gram: Float[Tensor, "l l"], components: int, rest: float
) -> float:
    """Bound how much more variance any `components` directions could hold than the Ritz vectors.

    Args:
        values: Ritz values θ of l ≥ `components` orthonormal Ritz vectors, falling.
        residual_gram: RᵀR of their residuals R = C V − V diag(θ).
        components: m.
        rest: ε, the largest eigenvalue of C in the complement of the Ritz vectors, or an estimate.

    Returns:
        A bound on Σ_{i ≤ m} (λ_i − θ_i), in units of variance; infinite if `rest` is.

    Source: docs/maths.md.
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


def _first_left_out(values: Tensor, vectors: Tensor, coupling: Tensor, width: int) -> float:
    """Estimate, from above, the largest eigenvalue that the first `width` Ritz vectors leave."""
    if len(values) <= width:
        return math.inf
    last = vectors[-len(coupling) :, width]
    return float(values[width] + (last @ coupling @ last).clamp(min=0).sqrt())


def _expected_gain(history: list[float]) -> float:
    """Estimate the relative gain of further blocks: gains fall about geometrically."""
    gains = [later - earlier for earlier, later in pairwise(history)]
    if not gains:
        return math.inf
    ratio = min(max(gains[-1] / gains[-2], 0.0), 0.9) if len(gains) > 1 and gains[-2] > 0 else 0.8
    return gains[-1] / history[-1] * ratio / (1 - ratio)


def _next_block(rows: Tensor, basis: list[Tensor]) -> Tensor:
    """Return an orthonormal basis of rows that were rejected once: twice is enough (Parlett)."""
    return orthonormal(reject(orthonormal(rows), basis)[0])


def _border(matrix: Tensor, columns: Tensor) -> Tensor:
    """Return a symmetric matrix extended by the given last columns."""
    old, new = len(matrix), len(columns)
    result = columns.new_zeros(new, new)
    result[:old, :old] = matrix
    result[:, old:] = columns
    result[old:, :old] = columns[:old].mT
    return result
