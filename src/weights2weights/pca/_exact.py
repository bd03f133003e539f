"""The exact solution, for a matrix with one short side."""

import torch
from torch import Tensor

from ._linear import eigen, panels, resolved
from ._matrix import StandardisedMatrix


def solve_exactly(matrix: StandardisedMatrix, components: int) -> tuple[Tensor, Tensor]:
    """Return variances and components from the Gram matrix of the shorter side, in float64."""
    tall, side = matrix.columns <= matrix.rows, min(matrix.rows, matrix.columns)
    scale = matrix.rows - 1
    gram = torch.zeros(side, side, dtype=torch.float64, device=matrix.device)
    if tall:
        for rows in matrix.row_blocks(torch.float64):
            gram.addmm_(rows.mT, rows)
    else:
        whole = torch.cat([rows.clone() for rows in matrix.row_blocks(torch.float32)])
        for panel in panels(matrix.columns):
            part = whole[:, panel].double()
            gram.addmm_(part, part.mT)
    values, vectors = eigen(gram / scale)
    keep = resolved(values, components)
    values, vectors = values[:keep], vectors[:, :keep]
    if tall:
        return values, vectors.mT
    weights = (vectors / (values * scale).sqrt()).mT
    directions = torch.empty(keep, matrix.columns, device=matrix.device)
    for panel in panels(matrix.columns):
        directions[:, panel] = (weights @ whole[:, panel].double()).float()
    return values, directions
