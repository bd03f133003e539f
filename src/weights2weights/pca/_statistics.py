"""Mean and variance of every column, in one pass."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ._blocks import Blocks, checked, regroup

_GROUP_VALUES = 2**21  # whose statistics are taken together, in float32


@dataclass(frozen=True)
class ColumnStatistics:
    """Float64 mean and scatter, the sum of squared deviations, of every column of some rows."""

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


def column_statistics(blocks: Blocks, progress: bool = False) -> ColumnStatistics:
    """Compute mean and scatter of every column in one pass, stable for any offset.

    Raises:
        InputError: a value is NaN or infinite; the message names the rows.
    """
    statistics, bad = None, []
    stream = checked(blocks, "statistics" if progress else None)
    height = min(max(_GROUP_VALUES // blocks.columns, 16), 256)
    for group in regroup(stream, height):
        first = 0 if statistics is None else statistics.rows
        part = _group_statistics(group)
        if not part.scatter.sum().isfinite():
            finite = group.isfinite().all(1)
            bad += [first + int(row) for row in (~finite).nonzero()] or [first]
            # keep counting rows, though the sums are useless from here on
            part = ColumnStatistics(len(group), *torch.zeros(2, blocks.columns).double())
        statistics = part if statistics is None else statistics.merge(part)
    if bad:
        names = ", ".join(map(str, bad[:8])) + (", …" if len(bad) > 8 else "")
        raise InputError(
            f"{len(bad)} of {blocks.rows} rows hold NaN, infinite or huge values (row {names}, "
            "counted from 0); leave those models out"
        )
    if statistics is None:
        raise InputError("there are no rows; a space needs at least two models")
    return statistics


def _group_statistics(rows: Tensor) -> ColumnStatistics:
    rows = rows if rows.dtype == torch.float64 else rows.float()
    centre = rows.mean(0)
    deviations = rows - centre
    remainder = deviations.sum(0).double() / len(rows)  # rounding error of the mean
    scatter = deviations.square_().sum(0).double() - remainder**2 * len(rows)
    return ColumnStatistics(len(rows), centre.double() + remainder, scatter.clamp(min=0))
