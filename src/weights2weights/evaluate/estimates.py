"""Means over subjects with their bootstrap intervals, as reports hold them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..metrics.confidence import mean_interval

Estimate = dict[str, Any]
"""A mean with its interval, as `metrics.confidence.Interval.to_dict` returns it."""


def estimate(values: Tensor, clusters: Sequence[Any] | None = None) -> Estimate | None:
    """Return the mean of values and its bootstrap interval.

    Args:
        values: one row per subject, of any shape; NaN is left out.
        clusters: the cluster that each row belongs to; None treats every row as its own.

    Returns:
        the interval as JSON values; None if no value is left.
    """
    flat = values.double().reshape(len(values), -1)
    if not flat.isfinite().any():
        return None
    rows = list(range(len(flat))) if clusters is None else list(clusters)
    repeated = [row for row in rows for _ in range(flat.shape[1])]
    return mean_interval(flat.flatten().numpy(), repeated, resamples=2000).to_dict()


def mean(figure: Estimate | None) -> float:
    """Return the mean of an estimate; NaN if there is none."""
    return float("nan") if figure is None else float(figure["mean"])
