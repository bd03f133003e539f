"""What estimates show: whether a mean is above zero, whether means rise."""

from collections.abc import Sequence
from itertools import pairwise

from weights2weights.metrics.confidence import Estimate as Estimate
from weights2weights.metrics.confidence import estimate as estimate


def mean(figure: Estimate | None) -> float:
    """Return the mean of an estimate; NaN if there is none."""
    return float("nan") if figure is None else float(figure["mean"])


def above_zero(figure: Estimate | None) -> bool:
    """Return whether the whole interval of a mean lies above 0."""
    return figure is not None and figure["low"] is not None and figure["low"] > 0


def rises(values: Sequence[float]) -> bool:
    """Return whether numbers rise from each to the next; a single one does not."""
    return len(values) > 1 and all(first < second for first, second in pairwise(values))


def average(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")
