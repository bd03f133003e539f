"""Bootstrap intervals: scipy's for independent values, and what clusters change."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from weights2weights.errors import W2WError
from weights2weights.metrics import confidence
from weights2weights.metrics.confidence import mean_interval


def skewed(count: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=count)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_of_independent_values_is_scipys(level):
    values = skewed()
    ours = mean_interval(values, level=level, resamples=2000, seed=3)
    theirs = bootstrap(
        (values,), np.mean, confidence_level=level, method="BCa", n_resamples=2000, rng=3
    )
    assert ours.mean == pytest.approx(values.mean())
    np.testing.assert_allclose([ours.low, ours.high], theirs.confidence_interval, rtol=1e-9)


def test_copies_within_a_cluster_do_not_narrow_the_interval():
    values, names = skewed(), np.arange(40)
    alone = mean_interval(values, names)
    copied = mean_interval(np.repeat(values, 8), np.repeat(names, 8))
    naive = mean_interval(np.repeat(values, 8))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), rel=1e-12)
    assert (copied.count, copied.clusters) == (320, 40)
    assert naive.high - naive.low < 0.5 * (copied.high - copied.low)


def test_clusters_of_different_sizes_weigh_by_their_counts():
    values = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert mean_interval(values, ["a", "a", "a", "b"]).mean == 0.25


def test_coverage_is_the_level():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        subjects = generator.normal(size=30)
        values = np.repeat(subjects, 4) + generator.normal(size=120)
        names = np.repeat(np.arange(30), 4)
        interval = mean_interval(values, names, level=0.9, resamples=400)
        hits += interval.low <= 0 <= interval.high
    assert 0.83 <= hits / 300 <= 0.95


def test_result_depends_on_the_seed_alone(monkeypatch):
    values = skewed()
    whole = mean_interval(values, seed=3)
    monkeypatch.setattr(confidence, "_DRAWS_AT_ONCE", 40 * 7)
    assert mean_interval(values, seed=3) == whole
    assert mean_interval(values, seed=4) != whole


def test_nan_is_left_out_and_counted():
    values = skewed()
    with_gaps = np.concatenate([values, [np.nan, np.nan]])
    interval = mean_interval(with_gaps)
    assert interval.missing == 2 and interval.count == 40
    assert interval.mean == mean_interval(values).mean


def test_one_cluster_has_a_mean_but_no_interval():
    interval = mean_interval([1.0, 2.0], ["a", "a"])
    assert interval.mean == 1.5 and str(interval) == "1.500"
    assert json.loads(json.dumps(interval.to_dict()))["low"] is None


def test_interval_of_equal_values_is_a_point():
    interval = mean_interval([0.5] * 10)
    assert (interval.low, interval.high) == (0.5, 0.5)
    assert str(interval) == "0.500 [0.500, 0.500]"


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        ([], {}, "at least one number"),
        ([float("nan")], {}, "at least one number"),
        ([1.0, 2.0], {"clusters": ["a"]}, "expected one each"),
        ([1.0, 2.0], {"level": 95.0}, "between 0 and 1"),
        ([1.0, 2.0], {"resamples": 0}, "at least 1"),
    ],
)
def test_invalid_arguments_are_errors(values, changes, message):
    with pytest.raises(W2WError, match=message):
        mean_interval(values, **changes)
