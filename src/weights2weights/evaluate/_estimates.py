"""Means in their intervals: how they come about, and what they say."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from ..metrics.confidence import mean_interval
from ._report import Estimate


def estimate(values: Tensor, clusters: Sequence[Any] | None = None) -> Estimate | None:
    """Return the mean of values, rows of which belong to one subject, in its bootstrap interval.

    Args:
        values: one row per subject, of any shape; NaN is left out.
        clusters: what each row belongs to; None takes every row for a subject of its own.

    Returns:
        the interval as JSON values; None if nothing is left.
    """
    flat = values.double().reshape(len(values), -1)
    if not flat.isfinite().any():
        return None
    rows = list(range(len(flat))) if clusters is None else list(clusters)
    repeated = [row for row in rows for _ in range(flat.shape[1])]
    return mean_interval(flat.flatten().numpy(), repeated, resamples=2000).to_dict()


def mean(figure: Any) -> float:
    """Return the mean of an estimate; NaN if there is none."""
    return float("nan") if figure is None else float(figure["mean"])


def above_zero(figure: Estimate | None) -> bool:
    """Say whether a mean is above 0 beyond chance: with the whole of its interval."""
    return figure is not None and figure["low"] is not None and figure["low"] > 0


def rises(values: Sequence[float]) -> bool:
    """Say whether numbers rise from each to the next; a single one does not."""
    return len(values) > 1 and all(first < second for first, second in pairwise(values))
