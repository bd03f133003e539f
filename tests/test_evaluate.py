"""What is measured of a space, the scores of edits, and what reports may say."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from click.testing import CliRunner
from scipy import stats

import tiny_setting
from weights2weights import cli
from weights2weights.bases import load_base
from weights2weights.directions import Direction
from weights2weights.errors import W2WError
from weights2weights.evaluate.edits import edited, known_labels, lacking, require_labels
from weights2weights.evaluate.measures import MEASURES, components, directions, entanglement
from weights2weights.evaluate.page import figure, render
from weights2weights.evaluate.provenance import measured_on
from weights2weights.evaluate.samples import ks_distance, mean_correlation, report_samples
from weights2weights.evaluate.setting import Setting
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.metrics.confidence import estimate
from weights2weights.sampling import sample
from weights2weights.space import WeightSpace

LAYOUT = WeightLayout((LoRAModule("attn1.to_q", 20, 20),), 1, 27.0)
MODELS, COMPONENTS = 400, 20
NAMES = [str(row) for row in range(MODELS)]


@pytest.fixture(scope="module")
def space() -> WeightSpace:
    """Twenty independent Gaussian components of decreasing variance, and labels of two of them."""
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.randn(MODELS, COMPONENTS, generator=generator)
    labels = pandas.DataFrame({"Male": coefficients[:, 0] > 0, "Young": coefficients[:, 1] > 1})
    coefficients = coefficients * torch.arange(COMPONENTS, 0, -1) + 0.5
    bare = WeightSpace(LAYOUT, torch.zeros(40), torch.ones(40), torch.eye(40)[:COMPONENTS])
    return bare.with_models(coefficients, NAMES, labels=labels.set_axis(NAMES))


@pytest.fixture(scope="module")
def setting(tiny_base):
    return tiny_setting.setting(tiny_base)


# Samples.


def test_report_looks_up_a_limited_number_of_training_models(space, monkeypatch):
    looked = []

    def neighbours(self, points, count):
        looked.append(len(points))
        return original(self, points, count)

    original = WeightSpace.neighbours
    monkeypatch.setattr(WeightSpace, "neighbours", neighbours)
    monkeypatch.setattr("weights2weights.evaluate.samples._NEIGHBOUR_ROWS", 250)
    report_samples(space, sample(space, 3))
    assert looked == [3, 200]


def test_report_finds_gaussians_gaussian_and_independent(space):
    report = report_samples(space, sample(space, 500, seed=2))
    assert (report.samples, report.models, report.components) == (500, MODELS, COMPONENTS)
    assert report.ks_distance == pytest.approx(report.ks_expected, rel=0.25)
    assert report.correlation == pytest.approx(report.correlation_expected, rel=0.25)
    assert report.rank_correlation == pytest.approx(report.correlation_expected, rel=0.3)
    assert report.skewness < 0.3
    assert report.kurtosis < 0.5
    assert report.mean_error < 6
    assert report.std_ratio == pytest.approx(1, abs=0.1)
    assert report.nearest == pytest.approx(report.training_nearest, abs=0.05)
    assert report.nearest_largest < 1


def test_report_detects_what_is_not_gaussian_not_independent_or_a_copy(space):
    coefficients = space.coefficients.clone()
    coefficients[:, 1] = coefficients[:, 0].abs()  # no correlation, and yet not independent
    coefficients[:, 2] = coefficients[:, 0]
    coefficients[:, 3] = torch.tensor([-1.0, 1.0]).repeat(MODELS // 2)
    bad = space.with_models(coefficients[:, :4], NAMES)
    report = report_samples(bad, torch.nn.functional.pad(coefficients[:3, :4] * 2, (0, 16)))
    assert report.ks_distance > 2 * report.ks_expected
    assert report.correlation > 2 * report.correlation_expected
    assert report.rank_correlation > 5 * report.correlation_expected
    assert report.nearest_largest == pytest.approx(1, abs=1e-5)


def test_report_compares_only_the_sampled_components(space):
    report = report_samples(space, sample(space, 1, components=7))
    assert report.components == 7
    assert math.isnan(report.std_ratio)
    with pytest.raises(W2WError, match="0 samples and 400 training models"):
        report_samples(space, torch.empty(0, COMPONENTS))


def test_distances_and_correlations_are_those_of_scipy():
    columns = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    expected = [stats.kstest(column, "norm").statistic for column in columns.T.numpy()]
    np.testing.assert_allclose(ks_distance(columns), expected, rtol=1e-5)
    correlation = np.abs(np.corrcoef(columns.T.numpy()))
    assert mean_correlation(columns) == pytest.approx((correlation.sum() - 3) / 6, rel=1e-5)
    assert mean_correlation(columns[:, :1]) == 0


# The other measures.


def test_components_capture_ever_more_variance_up_to_all(space):
    space = replace(space, metadata={"captured_variance": 0.8})
    found = components(space)
    counts, shares = zip(*found["curve"], strict=True)
    assert counts == (1, 2, 5, 10, 20)
    assert list(shares) == sorted(shares)
    assert shares[-1] == pytest.approx(found["captured_variance"]) == pytest.approx(0.8)
    variances = space.coefficients.var(0)
    assert shares[2] == pytest.approx(0.8 * float(variances[:5].sum() / variances.sum()), rel=1e-5)
    unknown = components(replace(space, metadata={}))
    assert unknown["captured_variance"] is None or math.isnan(unknown["captured_variance"])
    assert unknown["curve"][-1] == [20, pytest.approx(1.0)]


def test_directions_report_their_held_out_auc(space):
    found = directions(space)
    assert set(found["labels"]) == {"Male", "Young"}
    assert found["mean_auc"] > 0.9
    male = found["labels"]["Male"]
    assert male["with"] + male["without"] == MODELS
    assert male["with"] == int(space.labels["Male"].sum())
    unlabelled = space.with_models(space.coefficients, space.names)
    with pytest.raises(W2WError, match="no labels"):
        directions(unlabelled)


def test_labels_of_independent_components_hardly_entangle(space):
    found = entanglement(space)
    assert found["mean_absolute_cosine"] < 0.3
    ((first, second, cosine),) = found["pairs"]
    assert (first, second) == ("Male", "Young")
    assert abs(cosine) == pytest.approx(found["mean_absolute_cosine"])
    assert 0 < found["random"] < 0.5


@pytest.mark.parametrize("measure", MEASURES)
def test_command_prints_and_writes_every_measure(measure, setting, tmp_path):
    setting.space.save_pretrained(tmp_path / "space")
    args = [measure, "--space", tmp_path / "space", "--out", tmp_path / "out", "--json"]
    result = CliRunner().invoke(cli.main, ["evaluate", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts == json.loads((tmp_path / "out" / f"{measure}.json").read_text())
    assert facts["measure"] == measure
    assert facts["space_hash"] == setting.space.hash
    assert set(MEASURES[measure](setting.space)) <= set(facts)


def test_command_refuses_unknown_measures():
    result = CliRunner().invoke(cli.main, ["evaluate", "beauty"])
    assert result.exit_code == 2
    assert "'beauty' is not one of" in result.stderr


# What reports may say.


def test_only_the_embedded_base_and_space_are_called_drawings(setting):
    base = load_base("people")
    shipped = WeightSpace.from_pretrained("people")
    assert "no real person is shown" in measured_on(base, shipped, "people", 0)["statement"]
    other_base = measured_on(setting.base, shipped, "people", 0)["statement"]
    other_space = measured_on(base, setting.space, "people", 0)["statement"]
    named_alike = replace(setting.base, id="people")
    pretender = measured_on(named_alike, setting.space, "people", 0)["statement"]
    for statement in (other_base, other_space, pretender):
        assert "drawn" not in statement and "photograph" not in statement
        assert "person" not in statement
    assert setting.base.id in other_base


def test_page_formats_figures_and_escapes_texts():
    assert figure(0.00001) == "1.0e-05"
    assert figure(float("nan")) == "–"
    assert figure({"mean": 12.34, "low": 1.0, "high": 20.0}) == "12.3"
    context = dict.fromkeys(
        ("base", "base_hash", "dtype", "space", "space_hash", "seed", "machine", "version"), "<b>"
    )
    assert "<b>" not in render("base.html", context=context | {"statement": "<script>"})


# Edits and estimates.


def test_edits_go_towards_what_is_missing(setting):
    found = Direction("Male", torch.tensor([0.0, 1.0]), std=2.0)
    add = torch.tensor([True, False])
    moved = edited(torch.ones(2, 3), {found: 1.5}, add)
    assert moved.tolist() == [[1, 4, 1], [1, -2, 1]]
    assert lacking(torch.tensor([[[0.2, 0.3]], [[0.9, 0.8]]])).tolist() == [True, False]


def test_labels_that_all_or_no_models_have_are_left_out(setting):
    labels = setting.space.labels.copy()
    labels["Male"], labels["Young"] = True, False
    space = replace(setting.space, labels=labels)
    assert known_labels(space, ["Male", "Young", "Bald", "Nothing"]) == ["Bald"]
    with pytest.raises(W2WError, match="1 labels among Male, Bald: expected at least 2"):
        require_labels(space, ["Male", "Bald"], 2)


def test_interval_counts_people_not_images():
    """Copies of a person's images do not narrow the interval."""
    values = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    once, often = estimate(values), estimate(values.repeat(1, 50))
    assert once is not None and often is not None
    assert often["clusters"] == once["clusters"] == 20
    assert often["low"] == pytest.approx(once["low"], abs=1e-6)
    assert estimate(torch.full((3, 2), torch.nan)) is None


def test_space_of_another_base_is_refused(setting, tmp_path):
    other = replace(setting.space, base_hash="0123456789abcdef")
    other.save_pretrained(tmp_path)
    with pytest.raises(W2WError, match="made for another base"):
        Setting.open(setting.base, str(tmp_path))
