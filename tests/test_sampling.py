"""Sampling: seeds, truncation and spread."""

import dataclasses
import inspect
import math

import pytest
import torch

from weights2weights.errors import W2WError
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.sampling import sample, sampling_of
from weights2weights.space import WeightSpace

LAYOUT = WeightLayout((LoRAModule("attn1.to_q", 20, 20),), 1, 27.0)
MODELS, COMPONENTS = 400, 20
NAMES = [str(row) for row in range(MODELS)]


@pytest.fixture(scope="module")
def space() -> WeightSpace:
    """Twenty independent Gaussian components of falling spread."""
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.randn(MODELS, COMPONENTS, generator=generator)
    coefficients = coefficients * torch.arange(COMPONENTS, 0, -1) + 0.5
    bare = WeightSpace(LAYOUT, torch.zeros(40), torch.ones(40), torch.eye(40)[:COMPONENTS])
    return bare.with_models(coefficients, NAMES)


def test_rows_depend_on_seed_and_number_alone(space):
    ten = sample(space, 10, seed=3)
    assert ten.shape == (10, COMPONENTS)
    assert torch.equal(sample(space, 4, seed=3), ten[:4])
    assert torch.equal(sample(space, 3, seed=3, first=7), ten[7:])
    assert not torch.equal(sample(space, 10, seed=4), ten)
    # a row of one seed is no row of another
    assert not torch.isclose(sample(space, 1, seed=4), ten).all(1).any()


def test_a_space_may_say_how_to_sample(space):
    said = dataclasses.replace(space, metadata={"sampling": {"components": 5, "scale": 2.0}})
    assert sampling_of(space) == (COMPONENTS, 1.0) and sampling_of(said) == (5, 2.0)
    wide = sample(space, 3, seed=3, components=5, scale=2.0)
    assert torch.equal(sample(said, 3, seed=3), wide)
    plain = sample(said, 3, seed=3, components=COMPONENTS, scale=1.0)
    assert torch.equal(plain, sample(space, 3, seed=3))
    for nonsense in (3, {"scale": "wide"}, {"components": None}):
        with pytest.raises(W2WError, match="pass both yourself"):
            sample(dataclasses.replace(space, metadata={"sampling": nonsense}), 1)


def test_leaves_the_global_generator_alone(space):
    before = torch.get_rng_state()
    sample(space, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_golden_values(space):
    """The bits of a seed are a promise to whoever noted it down."""
    unit = space.with_models(torch.tensor([[-1.0], [1.0]]).repeat(200, 20), NAMES)
    row = sample(unit, 1, seed=7)[0, :4] / unit.coefficient_std[:4]
    assert row.tolist() == pytest.approx([-0.22823, -1.092134, 1.180389, 1.266266], abs=1e-5)


def test_follows_mean_and_spread_of_the_training_models(space):
    many = sample(space, 4000, seed=1)
    error = space.coefficient_std / math.sqrt(4000)
    assert ((many.mean(0) - space.coefficient_mean).abs() < 5 * error).all()
    torch.testing.assert_close(many.std(0), space.coefficient_std, rtol=0.06, atol=0)
    narrow = sample(space, 50, seed=1, scale=0.5)
    torch.testing.assert_close(
        narrow - space.coefficient_mean, (many[:50] - space.coefficient_mean) / 2
    )
    assert torch.equal(sample(space, 1, scale=0.0)[0], space.coefficient_mean)


def test_truncation_keeps_the_first_components(space):
    whole, few = sample(space, 5), sample(space, 5, components=7)
    assert torch.equal(few[:, :7], whole[:, :7])
    assert not few[:, 7:].any()


def test_components_without_known_spread_stay_at_the_mean(space):
    imported = space.with_models(space.coefficients[:, :5], NAMES)
    drawn = sample(imported, 3)
    assert drawn.shape == (3, COMPONENTS)
    assert not drawn[:, 5:].any()
    with pytest.raises(W2WError, match="6 components: expected 1 to 5"):
        sample(imported, 1, components=6)


def test_impossible_settings(space):
    for settings in ({"count": -1}, {"seed": -1}, {"scale": -1.0}, {"scale": math.inf}):
        with pytest.raises(W2WError, match="expected none negative"):
            sample(space, **{"count": 1, **settings})
    with pytest.raises(W2WError, match=r"count 2\.5.*: expected integers"):
        inspect.unwrap(sample)(space, 2.5)
    alone = space.with_models(torch.empty(0, 0), [])
    with pytest.raises(W2WError, match="no training models"):
        sample(alone, 1)
