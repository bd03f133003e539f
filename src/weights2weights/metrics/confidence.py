"""Bootstrap intervals of means that respect that images of one subject are alike.

Resampling images one by one would give intervals that are too narrow, so whole clusters are
resampled: a resampled mean is the ratio of the drawn clusters' sums and counts (Field and Welsh
2007, Bootstrapping clustered data). Intervals are BCa (Efron 1987), by `scipy.stats.bootstrap`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError

_DRAWS_AT_ONCE = 2**22  # resampled clusters in memory, 32 MB

Estimate = dict[str, Any]
"""An `Interval` as JSON values, as reports hold it."""


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: mean of all values that are not NaN.
        low: lower end of the interval; NaN if there are fewer than two clusters.
        high: upper end.
        level: coverage, such as 0.95.
        count: number of values.
        clusters: number of independent clusters.
        missing: number of NaN values that were left out (no face found, say).
    """

    mean: float
    low: float
    high: float
    level: float
    count: int
    clusters: int
    missing: int

    def __str__(self) -> str:
        """Return "0.643 [0.630, 0.655]"."""
        ends = "" if np.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.mean:.3f}{ends}"

    def to_dict(self) -> Estimate:
        """Return the fields as JSON values, with None for unknown ends."""
        return asdict(self) | ({"low": None, "high": None} if np.isnan(self.low) else {})


def mean_interval(
    values: Float[Tensor, " n"] | Float[np.ndarray, " n"] | Sequence[float],
    clusters: Sequence[Any] | np.ndarray | Tensor | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return a mean with its BCa bootstrap interval over clusters.

    Args:
        values: one number per image; NaN is left out and counted.
        clusters: the cluster of each value (a subject's name); None treats all as independent.
        level: coverage of the interval.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Raises:
        InputError: no number among the values, not one cluster per value, a level outside (0, 1),
            or no resamples.
    """
    numbers = np.asarray(values, dtype=np.float64)
    names = np.arange(len(numbers)) if clusters is None else np.asarray(clusters)
    known = ~np.isnan(numbers)
    if numbers.ndim != 1 or not known.any():
        raise InputError(f"values {numbers.shape}: expected a vector with at least one number")
    if names.shape != numbers.shape:
        raise InputError(f"{names.shape} clusters for {numbers.shape} values: expected one each")
    if not 0 < level < 1 or resamples < 1:
        raise InputError(
            f"level {level}, {resamples} resamples: expected a level between 0 and 1, such as 0.95,"
            " and at least 1 resample"
        )
    kept = numbers[known]
    _, place = np.unique(names[known], return_inverse=True)
    sums, counts = np.bincount(place, kept), np.bincount(place).astype(np.float64)
    low, high = _bootstrap(sums, counts, level, resamples, seed)
    missing = int((~known).sum())
    return Interval(float(kept.mean()), low, high, level, len(kept), len(sums), missing)


def _bootstrap(
    sums: np.ndarray, counts: np.ndarray, level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the BCa interval of the ratio of sums and counts."""
    from scipy.stats import bootstrap

    if len(sums) < 2:
        return float("nan"), float("nan")
    means = sums / counts
    if np.ptp(means) <= 1e-12 * np.abs(means).max():  # BCa is undefined, the interval is a point
        return float(means[0]), float(means[0])
    found = bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        method="BCa",
        confidence_level=level,
        n_resamples=resamples,
        batch=max(1, _DRAWS_AT_ONCE // len(sums)),
        rng=seed,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def estimate(values: Tensor, clusters: Sequence[Any] | None = None) -> Estimate | None:
    """Return the mean of values and its interval over subjects; None if all values are NaN.

    Args:
        values: one row per subject, of any shape; NaN is left out.
        clusters: the cluster that each row belongs to; None treats every row as its own.
    """
    flat = values.double().reshape(len(values), -1).numpy()
    if not np.isfinite(flat).any():
        return None
    rows = np.repeat(np.arange(len(flat)) if clusters is None else clusters, flat.shape[1])
    return mean_interval(flat.ravel(), rows, resamples=2000).to_dict()
