"""The exact solution, for a matrix with one short side."""

import torch
from torch import Tensor

from ._linear import eigen, panels, resolved
from ._matrix import StandardisedMatrix


def solve_exactly(matrix: StandardisedMatrix, components: int) -> tuple[Tensor, Tensor]:
    """Return variances and components from the Gram matrix of the shorter side, in float64."""
    if matrix.columns <= matrix.rows:
        return _from_columns(matrix, components)
    return _from_rows(matrix, components)


def _from_columns(matrix: StandardisedMatrix, components: int) -> tuple[Tensor, Tensor]:
    side = matrix.columns
    gram = torch.zeros(side, side, dtype=torch.float64, device=matrix.device)
    for rows in matrix.row_blocks(torch.float64):
        gram.addmm_(rows.mT, rows)
    values, vectors = eigen(gram / (matrix.rows - 1))
    keep = resolved(values, components)
    return values[:keep], vectors[:, :keep].mT


def _from_rows(matrix: StandardisedMatrix, components: int) -> tuple[Tensor, Tensor]:
    scale = matrix.rows - 1
    everything = torch.cat([rows.clone() for rows in matrix.row_blocks(torch.float32)])
    gram = torch.zeros(matrix.rows, matrix.rows, dtype=torch.float64, device=matrix.device)
    for panel in panels(matrix.columns):
        part = everything[:, panel].double()
        gram.addmm_(part, part.mT)
    values, vectors = eigen(gram / scale)
    keep = resolved(values, components)
    weights = (vectors[:, :keep] / (values[:keep] * scale).sqrt()).mT
    directions = torch.empty(keep, matrix.columns, device=matrix.device)
    for panel in panels(matrix.columns):
        directions[:, panel] = (weights @ everything[:, panel].double()).float()
    return values[:keep], directions
