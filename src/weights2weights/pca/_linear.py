"""Linear algebra on wide blocks: short rows of directions, each of d values."""

from collections.abc import Iterator

import torch
from torch import Tensor

_PANEL = 4096  # columns of one panel in sums over d


def panels(columns: int) -> Iterator[slice]:
    """Cut the columns into panels that stay in the cache."""
    return (slice(start, start + _PANEL) for start in range(0, columns, _PANEL))


def gram(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ rightᵀ in float64: float32 products over panels of columns, float64 sums."""
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
    for panel in panels(left.shape[1]):
        total += left[:, panel].float() @ right[:, panel].float().mT
    return total


def combine(basis: list[Tensor], weights: Tensor) -> Tensor:
    """Return weightsᵀ @ the stacked basis blocks, float32."""
    result = torch.empty(weights.shape[1], basis[0].shape[1], device=weights.device)
    weights = weights.float().mT
    for panel in panels(result.shape[1]):
        result[:, panel] = weights @ torch.cat([block[:, panel].float() for block in basis])
    return result


def reject(rows: Tensor, basis: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Remove the basis from the rows, in place; return the rows and their coefficients in it."""
    coefficients = torch.cat([gram(block, rows) for block in basis])
    weights = coefficients.float().mT
    for panel in panels(rows.shape[1]):
        rows[:, panel] -= weights @ torch.cat([block[:, panel].float() for block in basis])
    return rows, coefficients


def eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors (columns) by falling eigenvalue."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return values.flip(0), vectors.flip(1)


def orthonormal(rows: Tensor) -> Tensor:
    """Return an orthonormal basis of the span of the rows."""
    return torch.linalg.qr(rows.mT)[0].mT.contiguous()


def resolved(values: Tensor, components: int, precision: float = 1e-10) -> int:
    """Count the leading eigenvalues above rounding error, at most `components`."""
    return max(int((values[:components] > precision * values[0]).sum()), 1)
