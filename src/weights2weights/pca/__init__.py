"""Standardised PCA of a matrix that is too large to hold: N weight vectors of d parameters each.

The matrix is streamed; the leading eigenvectors of its correlation matrix C = ZᵀZ / (N − 1) are
found exactly if one side is small, else by a block Krylov method with thick restarts. docs/maths.md
derives the method, the error bound and what is guaranteed.
"""

from ._blocks import Blocks, TensorBlocks
from ._fit import PCA, fit_pca
from ._krylov import variance_bound
from ._statistics import ColumnStatistics, column_statistics

__all__ = [
    "PCA",
    "Blocks",
    "ColumnStatistics",
    "TensorBlocks",
    "column_statistics",
    "fit_pca",
    "variance_bound",
]
