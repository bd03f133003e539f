"""Standardised PCA of a matrix that is too large to hold: N weight vectors of d numbers each.

The matrix X (one model per row) comes as a stream of row blocks that can be read again and again.
Every column is standardised, z = (x − mean) / std, and the m leading eigenvectors of the
correlation matrix C = ZᵀZ / (N − 1) are sought. Neither Z nor C is ever formed.

How it works
    1. One pass gives mean and unbiased std of every column: two-pass sums within small groups of
       rows, merged in float64 (Chan, Golub and LeVeque 1979).
    2. If one side of the matrix is small, the eigenproblem of that side is solved exactly, in
       float64, in one more pass.
    3. Otherwise a block Krylov method: from l = m + oversampling random directions Q, each pass
       reads every block once and computes C Q = Zᵀ(Z Q) / (N − 1) for a new orthonormal block Q.
       The l best Ritz vectors of all blocks together are then multiplied once more, in float32,
       and everything that is reported comes from this last product. If the bound below is not yet
       small enough, the residual of that product is the next block (a thick restart).
       Memory: d × l numbers for each of about six blocks, of which all but two may be bfloat16;
       N does not enter.

Reduced precision
    Where the processor multiplies bfloat16 matrices natively, large problems use it in the passes
    that only *search* for the subspace: rounding there tilts it by some 1e-3, which costs a
    relative 1e-6 of captured variance. It cannot do harm unseen, because variances, components and
    error bound are measured afterwards in float32 on the subspace that is returned.

Error bound
    Let θ be the Ritz values and R = C V − V diag(θ) the residual of the l Ritz vectors V of the
    last product, and ε the largest eigenvalue of C restricted to the complement of V. By the
    inertia of the Schur complement of C − tI, every eigenvalue of C satisfies
    λ_i ≤ max(t, λ_i(diag(θ) + RᵀR / (t − ε))) for every t > ε. With the best t for each i, the sum
    over i ≤ m bounds how much more variance *any* m directions could capture. All of it is computed
    but ε, which is estimated by the first Ritz value that was left out plus the norm of its
    residual, or by θ_l if larger; that estimate is the bound's one assumption. A flat tail, in
    which many subspaces are about equally good, has a looser bound than one with a gap.

Written down
    * A column without variance (std below float32's resolution of its mean) counts as constant: its
      std is set to 1 and every component is 0 there.
    * N < m, or a rank below m: as many components come back as there are directions of variance
      (at most N − 1). Ask `len(pca.components)`.
    * N = 1, NaN or infinite numbers: a `W2WError`, which names the rows.
    * A duplicate row counts as often as it occurs.
    * Row order and block size do not matter beyond rounding; same seed, same result.
    * Signs: of the entries of a component within 0.1 % of its largest magnitude, the first is
      positive.

Sources: block Krylov, Musco and Musco 2015, arXiv:1504.05477; thick restart, Wu and Simon 2000;
inertia of a Schur complement, Haynsworth 1968.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from .errors import InputError

EXACT_SIDE = 4096
"""A matrix whose shorter side is at most this long is decomposed exactly if it fits."""

EXACT_NUMBERS = 2**28
"""... and it fits if it has at most this many numbers (1 GiB in float32)."""

_GROUP_NUMBERS = 2**21  # whose statistics are taken together, in float32
_STEP_NUMBERS = 2**19  # standardised together: they stay in the cache
_HEIGHT = 1024  # rows multiplied together
_PANEL = 4096  # columns of one panel in sums over d
_DEPTH = 4  # Krylov blocks kept between two float32 products; a fifth gained less than it cost
_LOW_PRECISION_NUMBERS = 2**29  # below this many numbers, bfloat16 saves nothing worth having


@runtime_checkable
class Blocks(Protocol):
    """A matrix as a stream of row blocks, which may be iterated any number of times.

    Attributes:
        rows: N, the sum of the blocks' heights.
        columns: d, the width of every block.
    """

    @property
    def rows(self) -> int: ...  # noqa: D102

    @property
    def columns(self) -> int: ...  # noqa: D102

    def __iter__(self) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class TensorBlocks:
    """A matrix in memory as `Blocks`.

    Attributes:
        matrix: any floating dtype, one row per model.
        rows_per_block: height of every block but the last.
    """

    matrix: Float[Tensor, "n d"]
    rows_per_block: int = 1024

    @property
    def rows(self) -> int:
        """Number of rows, N."""
        return len(self.matrix)

    @property
    def columns(self) -> int:
        """Number of columns, d."""
        return self.matrix.shape[1]

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.matrix.split(self.rows_per_block)


@dataclass(frozen=True)
class ChainedBlocks:
    """Several matrices of equal width, one below the other."""

    parts: tuple[Blocks, ...]

    def __post_init__(self):
        widths = {part.columns for part in self.parts}
        if len(widths) != 1:
            raise InputError(
                f"blocks of {' and '.join(map(str, sorted(widths)))} columns cannot be joined; "
                "all models of a space need the same layout"
            )

    @property
    def rows(self) -> int:
        """Number of rows of all parts together."""
        return sum(part.rows for part in self.parts)

    @property
    def columns(self) -> int:
        """Number of columns, the same in every part."""
        return self.parts[0].columns

    def __iter__(self) -> Iterator[Tensor]:
        for part in self.parts:
            yield from part


@dataclass(frozen=True)
class ColumnStatistics:
    """Mean and scatter of every column; two of them merge into that of both.

    Attributes:
        rows: number of rows seen.
        mean: float64.
        scatter: float64, sum of squared deviations from the mean.
    """

    rows: int
    mean: Float[Tensor, " d"]
    scatter: Float[Tensor, " d"]

    def merge(self, other: "ColumnStatistics") -> "ColumnStatistics":
        """Return the statistics of both sets of rows together (Chan, Golub and LeVeque 1979)."""
        rows = self.rows + other.rows
        shift = other.mean - self.mean
        return ColumnStatistics(
            rows,
            self.mean + shift * (other.rows / rows),
            self.scatter + other.scatter + shift**2 * (self.rows * other.rows / rows),
        )

    @property
    def std(self) -> Float[Tensor, " d"]:
        """Unbiased standard deviation, float64; exactly 0 where a column is constant."""
        std = (self.scatter / max(self.rows - 1, 1)).sqrt()
        return torch.where(std > 2.0**-24 * self.mean.abs(), std, 0.0)

    def scale(self, groups: Int[Tensor, " d"] | None = None) -> Float[Tensor, " d"]:
        """Return what columns are divided by: their std, or the rms std of their group.

        float64; exactly 0 where a column is constant, which counts in no group.
        """
        std = self.std
        if groups is None:
            return std
        varies = (std > 0).double()
        squares = torch.bincount(groups, std.square())
        shared = (squares / torch.bincount(groups, varies).clamp(min=1)).sqrt()[groups]
        return torch.where(std > 0, shared, 0.0)


@dataclass(frozen=True)
class PCA:
    """The m leading principal components of standardised columns.

    Attributes:
        mean: float32 column means.
        std: float32 unbiased standard deviations, or those of groups; 1 where a column is constant.
        components: float32, orthonormal rows, by falling variance.
        variances: float32, variance of the training rows along each component (the eigenvalues of
            the correlation matrix).
        total_variance: number of columns that are not constant, as each has variance 1, in groups
            on average.
        captured_variance: fraction of the total that the components hold, measured in float32.
        error_bound: no other m directions hold more than `captured_variance + error_bound`; see
            the module's text for the one assumption. 0 if the solution is exact.
        rows: N.
        passes: how often the matrix was read, statistics included.
        statistics: of the columns in float64, with which `update` goes on.
        groups: of columns that share one std, which `update` keeps; None if each has its own.
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
    statistics: ColumnStatistics = field(repr=False)
    groups: Int[Tensor, " d"] | None = field(default=None, repr=False)

    def update(self, new: Blocks, old: Blocks, components: int | None = None, **options) -> "PCA":
        """Let further models join: a warm start in place of a fit from scratch.

        Column statistics are merged, so only the new rows are read for them, and the search begins
        at the present components (carried over to the new standardisation), so it is mostly over
        after one or two blocks. The result has the same error bound as a fresh fit. Where the old
        rows are lost, their reconstruction from coefficients can stand in for `old`: the bound then
        speaks of that stand-in.

        Args:
            new: the rows that join.
            old: the rows of this fit.
            components: m; default: as many as now.
            options: any of `fit_pca` but `start`, `statistics` and `groups`.

        Raises:
            W2WError: widths differ, `old` is not of the height of this fit, or as in `fit_pca`.
        """
        if old.rows != self.rows:
            raise InputError(
                f"{old.rows} old rows were given, but this PCA was fitted to {self.rows}; "
                "give the rows of that fit as `old` and only the others as `new`"
            )
        joined = ChainedBlocks((old, new))
        statistics = self.statistics.merge(column_statistics(new, options.get("progress", False)))
        # a direction v of z = (x − mean) / std is v · std in x
        start = self.components * (self.std / _nonzero(statistics.scale(self.groups))).float()
        components = len(self.components) if components is None else components
        known = {"start": start, "statistics": statistics, "groups": self.groups}
        return fit_pca(joined, components, **known, **options)


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
    start: Float[Tensor, "k d"] | None = None,
    statistics: ColumnStatistics | None = None,
    groups: Int[Tensor, " d"] | None = None,
    progress: bool = False,
) -> PCA:
    """Find the leading principal components of standardised columns.

    Costs 4·N·d·(m + oversampling) operations per pass, typically five or six passes, besides one
    for the statistics. See the module's text for the method, the bound and the special cases.

    Args:
        blocks: the matrix, any floating dtype; it is read once per pass.
        components: m, how many are wanted.
        oversampling: further directions carried along, which speed up convergence; default:
            a tenth of m, at least 10.
        tolerance: stop when `error_bound` is at most this fraction of the captured variance.
        max_passes: stop then in any case; the bound tells how far it came. At least 4.
        generator: of the random start, on the CPU; default: seed 0.
        device: where the products are computed.
        search_dtype: of the searching passes; default: bfloat16 for large matrices where the
            device multiplies it natively, else float32.
        start: directions in standardised columns to begin from, if some are known.
        statistics: of the columns, if known; otherwise a pass finds them.
        groups: a small number for every column: those of one number are divided by one std, their
            root mean square, so that a column that varies more counts more. Default: each by its
            own, as in the paper.
        progress: show a bar per pass on stderr.

    Returns:
        A `PCA` whose tensors lie on the CPU.

    Raises:
        W2WError: fewer than one component or two rows, no column with variance, NaN or infinite
            numbers (their rows are named), blocks that change between passes.

    Example:
        >>> rows = torch.randn(100, 8) @ torch.randn(8, 30) + 5
        >>> pca = fit_pca(TensorBlocks(rows), 8)
        >>> round(pca.captured_variance, 4), pca.components.shape
        (1.0, torch.Size([8, 30]))

    Source: Dravid et al. 2024, arXiv:2406.09413, section 3.2 (standardise, then PCA).
    """
    if components < 1:
        raise InputError(f"{components} components were asked for, expected at least 1")
    if max_passes < 4:
        raise InputError(f"max_passes is {max_passes}, expected at least 4")
    passes = 0 if statistics else 1
    statistics = statistics or column_statistics(blocks, progress)
    if statistics.rows < 2:
        raise InputError("one model has no spread; a space needs at least two models")
    total = int((statistics.std > 0).sum())
    if not total:
        raise InputError(f"all {statistics.rows} rows are equal; a space needs models that differ")
    rank = min(statistics.rows - 1, total)
    wanted = min(components, rank)
    width = min(wanted + (max(10, wanted // 10) if oversampling is None else oversampling), rank)

    scale = statistics.scale(groups)
    matrix = _Standardised(blocks, statistics, scale, torch.device(device), progress, passes)
    if matrix.is_small(width):
        variances, directions = _exact(matrix, wanted)
        bound = 0.0
    else:
        search = _Search(
            matrix, wanted, width, tolerance, max_passes, search_dtype or matrix.search_dtype()
        )
        generator = generator or torch.Generator().manual_seed(0)
        variances, directions, bound = search.run(start, generator)
    directions = directions.float().cpu().mul_(statistics.std > 0)  # exactly 0 where constant
    directions *= _signs(directions)[:, None]
    return PCA(
        mean=statistics.mean.float(),
        std=_nonzero(scale).float(),
        components=directions,
        variances=variances.float().cpu(),
        total_variance=float(total),
        captured_variance=min(float(variances.sum()) / total, 1.0),
        error_bound=bound / total,
        rows=statistics.rows,
        passes=matrix.passes,
        statistics=statistics,
        groups=groups,
    )


def column_statistics(blocks: Blocks, progress: bool = False) -> ColumnStatistics:
    """Return mean and scatter of every column in one pass, in float64, stable for any offset.

    Raises:
        W2WError: a number is NaN or infinite; the message names the rows.
    """
    statistics, bad = None, []
    for group in _groups(
        _checked(blocks, "statistics" if progress else None), _group_rows(blocks.columns)
    ):
        first = 0 if statistics is None else statistics.rows
        part = _group_statistics(group)
        if not part.scatter.sum().isfinite():
            finite = group.isfinite().all(1)
            bad += [first + int(row) for row in (~finite).nonzero()] or [first]
            # keep counting rows; the sums are of no use any more
            part = ColumnStatistics(len(group), *torch.zeros(2, blocks.columns).double())
        statistics = part if statistics is None else statistics.merge(part)
    if bad:
        names = ", ".join(map(str, bad[:8])) + (", …" if len(bad) > 8 else "")
        raise InputError(
            f"{len(bad)} of {blocks.rows} rows hold NaN, infinite or huge numbers (row {names}, "
            "counted from 0); leave those models out"
        )
    if statistics is None:
        raise InputError("there are no rows; a space needs at least two models")
    return statistics


def _group_statistics(rows: Tensor) -> ColumnStatistics:
    rows = rows if rows.dtype == torch.float64 else rows.float()
    centre = rows.mean(0)
    deviations = rows - centre
    remainder = deviations.sum(0).double() / len(rows)  # what rounding left of the mean
    scatter = deviations.square_().sum(0).double() - remainder**2 * len(rows)
    return ColumnStatistics(len(rows), centre.double() + remainder, scatter.clamp(min=0))


def _checked(blocks: Blocks, title: str | None = None) -> Iterator[Tensor]:
    """Return the blocks, all of the promised width and in sum of the promised height."""
    rows = 0
    with tqdm(total=blocks.rows, desc=title, unit="row", disable=title is None) as bar:
        for block in blocks:
            if block.ndim != 2 or block.shape[1] != blocks.columns:
                raise InputError(
                    f"a block has shape {tuple(block.shape)}, expected (rows, {blocks.columns})"
                )
            rows += len(block)
            yield block
            bar.update(len(block))
    if rows != blocks.rows:
        raise InputError(
            f"the blocks had {rows} rows in this pass, expected {blocks.rows}; "
            "nothing may be added to the matrix while it is decomposed"
        )


def _group_rows(columns: int) -> int:
    return min(max(_GROUP_NUMBERS // columns, 16), 256)


def _groups(blocks: Iterator[Tensor], height: int) -> Iterator[Tensor]:
    """Cut a stream anew into groups of equal height, so that its blocks leave no trace."""
    rest: list[Tensor] = []
    for block in blocks:
        while missing := height - sum(map(len, rest)):
            if len(block) < missing:
                break
            yield torch.cat([*rest, block[:missing]]) if rest else block[:missing]
            block, rest = block[missing:], []
        if len(block):
            rest.append(block.clone())  # the next block may overwrite this one
    if rest:
        yield torch.cat(rest)


def _nonzero(std: Tensor) -> Tensor:
    return torch.where(std > 0, std, 1.0)


def _signs(components: Tensor) -> Tensor:
    """Return ±1 per row so that the first of its (nearly) largest entries becomes positive."""
    magnitudes = components.abs()
    first = (magnitudes >= 0.999 * magnitudes.amax(1, keepdim=True)).to(torch.uint8).argmax(1)
    return components.gather(1, first[:, None])[:, 0].sign()


class _Standardised:
    """The matrix Z of standardised columns, known only by what it does to other matrices."""

    def __init__(
        self,
        blocks: Blocks,
        statistics: ColumnStatistics,
        scale: Tensor,
        device: torch.device,
        progress: bool,
        passes: int,
    ):
        self.blocks = blocks
        self.rows, self.columns = statistics.rows, blocks.columns
        self.device = device
        self.step = max(_STEP_NUMBERS // self.columns, 1) if device.type == "cpu" else _HEIGHT
        self.mean = statistics.mean.to(device)
        self.mean_single = self.mean.float()
        # a constant column vanishes
        self.inverse_std = torch.where(scale > 0, 1 / _nonzero(scale), 0.0).float().to(device)
        self.varies = (scale > 0).to(device)
        self.rank = min(self.rows - 1, int((scale > 0).sum()))
        self.total_variance = float((scale > 0).sum())
        self.progress = progress
        self.passes = passes

    def search_dtype(self) -> torch.dtype:
        large = self.rows * self.columns >= _LOW_PRECISION_NUMBERS
        return torch.bfloat16 if large and _multiplies_bfloat16(self.device) else torch.float32

    def is_small(self, width: int) -> bool:
        side, numbers = min(self.rows, self.columns), self.rows * self.columns
        fits = numbers <= EXACT_NUMBERS or self.columns <= EXACT_SIDE or self.rows <= 2 * width
        return side <= 64 or (side <= EXACT_SIDE and fits)

    def row_blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """Return standardised blocks of equal height, however the stream is cut.

        Each block overwrites the one before.
        """
        self.passes += 1
        height = max(min(_HEIGHT, self.rows), 1)
        buffer = torch.empty(height, self.columns, dtype=dtype, device=self.device)
        filled = 0
        for block in _checked(self.blocks, f"pass {self.passes}" if self.progress else None):
            while len(block):
                group = block[: min(self.step, height - filled)]
                block = block[len(group) :]
                self.standardise(group, buffer[filled : filled + len(group)])
                filled += len(group)
                if filled == height:
                    yield buffer
                    filled = 0
        if filled:
            yield buffer[:filled]

    def standardise(self, rows: Tensor, out: Tensor) -> None:
        rows = rows.to(self.device)
        mean = self.mean if rows.dtype == torch.float64 else self.mean_single
        out.copy_((rows - mean).mul_(self.inverse_std))

    def product(self, directions: Tensor) -> Tensor:
        """Return C Q, one row per direction, float32: one pass, in the dtype of `directions`."""
        result = torch.zeros(directions.shape, device=self.device)
        for rows in self.row_blocks(directions.dtype):
            scores = (rows @ directions.mT).mT.contiguous()
            if rows.dtype == torch.float32:
                result.addmm_(scores, rows)
            else:  # a panel of the product is added up in float32 while it is in the cache
                for panel in _panels(self.columns):
                    result[:, panel] += scores @ rows[:, panel]
        return result.div_(self.rows - 1)


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def _panels(columns: int) -> Iterator[slice]:
    return (slice(start, start + _PANEL) for start in range(0, columns, _PANEL))


def _gram(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ rightᵀ in float64: float32 products over panels of columns, float64 sums."""
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
    for panel in _panels(left.shape[1]):
        total += left[:, panel].float() @ right[:, panel].float().mT
    return total


def _combine(basis: list[Tensor], weights: Tensor) -> Tensor:
    """Return weightsᵀ @ the stacked basis blocks, float32."""
    result = torch.empty(weights.shape[1], basis[0].shape[1], device=weights.device)
    weights = weights.float().mT
    for panel in _panels(result.shape[1]):
        result[:, panel] = weights @ torch.cat([block[:, panel].float() for block in basis])
    return result


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors (columns) by falling eigenvalue."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return values.flip(0), vectors.flip(1)


def _orthonormal(rows: Tensor) -> Tensor:
    return torch.linalg.qr(rows.mT)[0].mT.contiguous()


def _exact(matrix: _Standardised, components: int) -> tuple[Tensor, Tensor]:
    """Return variances and components from the Gram matrix of the shorter side, in float64."""
    scale = matrix.rows - 1
    if matrix.columns <= matrix.rows:
        gram = torch.zeros(
            matrix.columns, matrix.columns, dtype=torch.float64, device=matrix.device
        )
        for rows in matrix.row_blocks(torch.float64):
            gram.addmm_(rows.mT, rows)
        values, vectors = _eigen(gram / scale)
        keep = _resolved(values, components)
        return values[:keep], vectors[:, :keep].mT
    everything = torch.cat([rows.clone() for rows in matrix.row_blocks(torch.float32)])
    gram = torch.zeros(matrix.rows, matrix.rows, dtype=torch.float64, device=matrix.device)
    for panel in _panels(matrix.columns):
        part = everything[:, panel].double()
        gram.addmm_(part, part.mT)
    values, vectors = _eigen(gram / scale)
    keep = _resolved(values, components)
    weights = (vectors[:, :keep] / (values[:keep] * scale).sqrt()).mT
    directions = torch.empty(keep, matrix.columns, device=matrix.device)
    for panel in _panels(matrix.columns):
        directions[:, panel] = (weights @ everything[:, panel].double()).float()
    return values[:keep], directions


def _resolved(values: Tensor, components: int, precision: float = 1e-10) -> int:
    """Count the leading eigenvalues that stand out from rounding, `components` at most."""
    return max(int((values[:components] > precision * values[0]).sum()), 1)


@dataclass(frozen=True)
class _Search:
    """The block Krylov search for the leading `components` directions among `width`."""

    matrix: _Standardised
    components: int
    width: int
    tolerance: float
    max_passes: int
    dtype: torch.dtype

    def run(self, start: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
        """Return variances, components and the bound on the missed variance."""
        block = self.first_block(start, generator)
        basis: list[Tensor] = []
        projected = torch.zeros(0, 0, dtype=torch.float64, device=self.matrix.device)
        while True:
            projected, coupling = self.expand(basis, projected, block)
            values, vectors = _eigen(projected)
            rest = _first_left_out(values, vectors, coupling, self.width)
            found = _orthonormal(_combine(basis, vectors[:, : self.width]))
            basis.clear()

            image = self.matrix.product(found)
            values, rotation = _eigen(_gram(found, image))
            found, image = _combine([found], rotation), _combine([image], rotation)
            image -= values.float()[:, None] * found  # the residual
            bound = self.bound(values, _gram(image, image), rest)
            captured = float(values[: self.components].sum())
            if bound <= self.tolerance * captured or self.matrix.passes + 2 >= self.max_passes:
                keep = _resolved(values, self.components, precision=1e-7)
                return values[:keep], found[:keep], bound
            basis, projected = [found.to(self.dtype)], torch.diag(values)
            block = _next_block(image, basis)
            del found, image

    def first_block(self, start: Tensor | None, generator: torch.Generator) -> Tensor:
        """Return orthonormal rows: the known directions, or C times random ones."""
        matrix = self.matrix
        block = torch.randn(self.width, matrix.columns, generator=generator)
        if start is None:
            block = matrix.product(block.to(matrix.device, self.dtype).mul_(matrix.varies))
            return _orthonormal(block)
        block[: len(start)] = start[: self.width]
        block[len(start) :] /= math.sqrt(matrix.columns)  # about as long as the others
        return _orthonormal(block.to(matrix.device).mul_(matrix.varies))

    def expand(
        self, basis: list[Tensor], projected: Tensor, block: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Let a Krylov basis grow, in place, until more promises less than the tolerance.

        Args:
            basis: blocks of orthonormal rows, l × d each.
            projected: basis · C · basisᵀ in float64.
            block: orthonormal rows, orthogonal to the basis, that join next.

        Returns:
            C in the longer basis, and the Gram matrix of what C makes of the last block outside it.
        """
        leading = projected.diagonal()[: self.components]
        history = [float(leading.sum())] if len(leading) else []
        while True:
            basis.append(block.to(self.dtype))
            del block
            image = self.matrix.product(basis[-1])
            image, coefficients = _reject(image, basis)
            projected = _border(projected, coefficients)
            history.append(float(torch.linalg.eigvalsh(projected)[-self.components :].sum()))
            room = len(basis) < _DEPTH and self.matrix.passes + 1 < self.max_passes
            if not room or _will_gain(history) < self.tolerance / 2:
                return projected, _gram(image, image)
            block = _next_block(image, basis)
            del image

    def bound(self, values: Tensor, residual_gram: Tensor, rest: float) -> float:
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


def _will_gain(history: list[float]) -> float:
    """Estimate what further blocks would add, relative: the gains fall about geometrically."""
    gains = [later - earlier for earlier, later in pairwise(history)]
    if not gains:
        return math.inf
    ratio = min(max(gains[-1] / gains[-2], 0.0), 0.9) if len(gains) > 1 and gains[-2] > 0 else 0.8
    return gains[-1] / history[-1] * ratio / (1 - ratio)


def _reject(rows: Tensor, basis: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Take the basis out of the rows, in place, and give them and their coefficients in it."""
    coefficients = torch.cat([_gram(block, rows) for block in basis])
    weights = coefficients.float().mT
    for panel in _panels(rows.shape[1]):
        rows[:, panel] -= weights @ torch.cat([block[:, panel].float() for block in basis])
    return rows, coefficients


def _next_block(rows: Tensor, basis: list[Tensor]) -> Tensor:
    """Return an orthonormal basis of rows that were rejected once: twice is enough (Parlett)."""
    return _orthonormal(_reject(_orthonormal(rows), basis)[0])


def _border(matrix: Tensor, columns: Tensor) -> Tensor:
    """Return a symmetric matrix grown by the given last columns."""
    old, new = len(matrix), len(columns)
    result = columns.new_zeros(new, new)
    result[:old, :old] = matrix
    result[:, old:] = columns
    result[old:, :old] = columns[:old].mT
    return result


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

    Source: see the module's text.
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
