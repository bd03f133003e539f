"""Bootstrap intervals: scipy's where it has them, and what clusters change."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from weights2weights.errors import W2WError
from weights2weights.metrics import confidence
from weights2weights.metrics.confidence import bca_shares, mean_interval


def skewed(count: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=count)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bca_equals_scipys_on_the_same_resamples(level):
    values = skewed()
    theirs = bootstrap(
        (values,), np.mean, confidence_level=level, method="BCa", n_resamples=2000, rng=0
    )
    without_one = (values.sum() - values) / (len(values) - 1)
    shares = np.array([(1 - level) / 2, (1 + level) / 2])
    resampled = theirs.bootstrap_distribution
    ours = np.quantile(resampled, bca_shares(values.mean(), resampled, without_one, shares))
    np.testing.assert_allclose(ours, theirs.confidence_interval, rtol=1e-12)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_agree_with_scipys_up_to_chance(method):
    values = skewed()
    ours = mean_interval(values, method=method, resamples=40_000)
    name = {"bca": "BCa", "percentile": "percentile"}[method]
    theirs = bootstrap((values,), np.mean, method=name, n_resamples=40_000, rng=1)
    assert ours.mean == pytest.approx(values.mean())
    np.testing.assert_allclose([ours.low, ours.high], theirs.confidence_interval, atol=0.01)


def test_resampled_means_spread_like_the_standard_error():
    values = skewed(200)
    resampled = confidence.resampled_means(values, np.ones(200), 20_000, seed=0)
    assert resampled.mean() == pytest.approx(values.mean(), abs=0.003)
    assert resampled.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.03)


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


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        subjects = generator.normal(size=30)
        values = np.repeat(subjects, 4) + generator.normal(size=120)
        names = np.repeat(np.arange(30), 4)
        interval = mean_interval(values, names, level=0.9, resamples=400)
        hits += interval.low <= 0 <= interval.high
    assert 0.83 <= hits / 300 <= 0.95


def test_result_depends_on_the_seed_and_not_on_the_blocks(monkeypatch):
    values = skewed()
    whole = mean_interval(values, seed=3)
    monkeypatch.setattr(confidence, "_NUMBERS_AT_ONCE", 40 * 7)
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


def test_equal_values_give_an_interval_of_no_width():
    interval = mean_interval([0.5] * 10)
    assert (interval.low, interval.high) == (0.5, 0.5)
    assert str(interval) == "0.500 [0.500, 0.500]"


def test_all_resamples_on_one_side_are_not_corrected():
    shares = np.array([0.025, 0.975])
    np.testing.assert_array_equal(bca_shares(5.0, np.ones(10), np.arange(3.0), shares), shares)


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
def test_arguments_that_make_no_sense_are_told(values, changes, message):
    with pytest.raises(W2WError, match=message):
        mean_interval(values, **changes)
