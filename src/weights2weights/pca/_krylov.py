"""The block Krylov search with thick restarts."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ._bound import variance_bound
from ._linear import combine, eigen, gram, orthonormal, reject, resolved
from ._matrix import StandardisedMatrix

_DEPTH = 4  # Krylov blocks kept between two float32 products; a fifth gained less than it cost


@dataclass(frozen=True)
class KrylovSearch:
    """The search for the leading `components` directions with `width` of them carried along.

    Attributes:
        matrix: the standardised matrix.
        components: m.
        width: l ≥ m, rows of one Krylov block.
        tolerance: stop when the bound is at most this fraction of the captured variance.
        max_passes: stop then in any case.
        dtype: of the passes that only search.
    """

    matrix: StandardisedMatrix
    components: int
    width: int
    tolerance: float
    max_passes: int
    dtype: torch.dtype

    def run(self, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
        """Return variances, components and the bound on the missed variance."""
        block = self._first_block(generator)
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

    def _first_block(self, generator: torch.Generator) -> Tensor:
        """Return orthonormal rows that span C times random directions."""
        matrix = self.matrix
        block = torch.randn(self.width, matrix.columns, generator=generator)
        block = matrix.product(block.to(matrix.device, self.dtype).mul_(matrix.varies))
        return orthonormal(block)

    def _expand(
        self, basis: list[Tensor], projected: Tensor, block: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Grow a Krylov basis, in place, until another block promises less than the tolerance.

        Args:
            basis: blocks of orthonormal rows, l × d each.
            projected: basis · C · basisᵀ in float64.
            block: orthonormal rows, orthogonal to the basis, that join next.

        Returns:
            C in the longer basis, and the Gram matrix of the part of C · (last block) outside it.
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
