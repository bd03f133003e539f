"""`fit_pca` and its result."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .._device import usable_device
from ..errors import InputError
from ._blocks import Blocks
from ._krylov import KrylovSearch
from ._linear import eigen, panels, resolved
from ._matrix import StandardisedMatrix, nonzero
from ._statistics import column_statistics


@dataclass(frozen=True)
class PCA:
    """The m leading principal components of standardised columns.

    Attributes:
        mean: float32 column means.
        std: float32 unbiased standard deviations; 1 where a column is constant.
        components: float32, orthonormal rows, by falling variance.
        variances: float32, of the training rows along each component: eigenvalues of C.
        total_variance: number of columns that are not constant, as each has variance 1.
        captured_variance: fraction of the total that the components hold.
        error_bound: no other m directions hold more than `captured_variance + error_bound`.
        rows: N.
        passes: how often the matrix was read, including the pass for the statistics.
    """

    mean: Float[Tensor, " d"]
    std: Float[Tensor, " d"]
    components: Float[Tensor, "m d"]
    variances: Float[Tensor, " m"]
    total_variance: float
    captured_variance: float
    error_bound: float
    rows: int
    passes: int


def fit_pca(
    blocks: Blocks,
    components: int,
    *,
    oversampling: int | None = None,
    tolerance: float = 1e-3,
    max_passes: int = 16,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    search_dtype: torch.dtype | None = None,
    progress: bool = False,
) -> PCA:
    """Find the leading principal components of standardised columns; see docs/maths.md.

    Costs 4·N·d·(m + oversampling) operations in each of typically five or six passes.

    Args:
        blocks: the matrix, any floating dtype; it is read once per pass.
        components: m, how many are wanted.
        oversampling: further directions, which speed up convergence; default: m / 10, at least 10.
        tolerance: stop when `error_bound` is at most this fraction of the captured variance.
        max_passes: stop then in any case; at least 4.
        generator: of the random start, on the CPU; default: seed 0.
        device: where the products are computed.
        search_dtype: of the searching passes; default: bfloat16 for large matrices where the
            device multiplies it natively, else float32.
        progress: show a bar per pass on stderr.

    Raises:
        InputError: fewer than one component or two rows, no column with variance, NaN or infinite
            values, blocks that change between passes, a device that is absent or lacks float64.

    Example:
        >>> rows = torch.randn(100, 8) @ torch.randn(8, 30) + 5
        >>> pca = fit_pca(TensorBlocks(rows), 8)
        >>> round(pca.captured_variance, 4), pca.components.shape
        (1.0, torch.Size([8, 30]))

    Source: Dravid et al. 2024, arXiv:2406.09413, section 3.2 (standardise, then PCA).
    """
    if components < 1:
        raise InputError(f"components is {components}, expected at least 1")
    if max_passes < 4:
        raise InputError(f"max_passes is {max_passes}, expected at least 4")
    device = usable_device(device, torch.float64)
    statistics = column_statistics(blocks, progress)
    if statistics.rows < 2:
        raise InputError("a single model has no variance; a space needs at least two models")
    matrix = StandardisedMatrix(blocks, statistics, device, progress)
    if not matrix.rank:
        raise InputError(f"all {statistics.rows} rows are equal; a space needs models that differ")
    wanted = min(components, matrix.rank)
    oversampling = max(10, wanted // 10) if oversampling is None else oversampling
    width = min(wanted + oversampling, matrix.rank)
    if matrix.is_small(width):
        variances, directions = _solve_exactly(matrix, wanted)
        bound = 0.0
    else:
        dtype = search_dtype or matrix.search_dtype()
        search = KrylovSearch(matrix, wanted, width, tolerance, max_passes, dtype)
        variances, directions, bound = search.run(generator or torch.Generator().manual_seed(0))
    directions = directions.float().cpu().mul_(statistics.std > 0)  # exactly 0 where constant
    directions *= _signs(directions)[:, None]
    return PCA(
        mean=statistics.mean.float(),
        std=nonzero(statistics.std).float(),
        components=directions,
        variances=variances.float().cpu(),
        total_variance=matrix.total_variance,
        captured_variance=min(float(variances.sum()) / matrix.total_variance, 1.0),
        error_bound=bound / matrix.total_variance,
        rows=statistics.rows,
        passes=matrix.passes,
    )


def _solve_exactly(matrix: StandardisedMatrix, components: int) -> tuple[Tensor, Tensor]:
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


def _signs(components: Tensor) -> Tensor:
    """Return ±1 per row so that the first of its (nearly) largest entries becomes positive."""
    magnitudes = components.abs()
    first = (magnitudes >= 0.999 * magnitudes.amax(1, keepdim=True)).to(torch.uint8).argmax(1)
    return components.gather(1, first[:, None])[:, 0].sign()
