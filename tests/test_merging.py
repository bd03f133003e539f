"""Merging: the update of the sum is the sum of the updates; points of one space do not merge."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from weights2weights.adapter import adapt
from weights2weights.errors import W2WError
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.merging import cosine, interpolate, merge, merge_weights
from weights2weights.models import Model, load_model, save_model
from weights2weights.space import WeightSpace

QUERY, VALUE, OUT = (
    LoRAModule(f"up.attn1.{name}", width, 5) for name, width in (("q", 4), ("v", 7), ("o", 3))
)


def weights_for(layout: WeightLayout, seed: int) -> torch.Tensor:
    return torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(seed))


def dense(weights: torch.Tensor, layout: WeightLayout) -> dict[str, torch.Tensor]:
    """(alpha / rank) · B · A of every layer, by the names of its tensors."""
    tensors = layout.unflatten(weights.double())
    return {
        module.name: layout.scale
        * tensors[f"base_model.model.{module.name}.lora_B.weight"]
        @ tensors[f"base_model.model.{module.name}.lora_A.weight"]
        for module in layout.modules
    }


layouts = st.builds(
    WeightLayout,
    st.sets(st.sampled_from([QUERY, VALUE, OUT]), min_size=1).map(tuple),
    st.integers(1, 4),
    st.sampled_from([0.5, 1.0, 8.0, 27.0]),
)


@settings(max_examples=60)
@given(layouts, layouts, st.floats(-3, 3), st.integers(0, 100))
def test_the_merged_update_is_the_sum_of_both(first, second, weight, seed):
    ours, theirs = weights_for(first, seed), weights_for(second, seed + 1)
    layout, merged = merge_weights(first, ours, second, theirs, weight=weight)
    assert layout.rank == first.rank + second.rank
    assert {*layout.modules} == {*first.modules, *second.modules}
    assert layout.scale == pytest.approx(first.scale)
    a, b, total = dense(ours, first), dense(theirs, second), dense(merged, layout)
    for name, update in total.items():
        expected = a.get(name, torch.zeros(())) + weight * b.get(name, torch.zeros(()))
        torch.testing.assert_close(update, expected.expand_as(update), rtol=1e-5, atol=1e-5)


@settings(max_examples=30)
@given(layouts, layouts, st.integers(0, 100))
def test_cosine_is_that_of_the_dense_updates(first, second, seed):
    ours, theirs = weights_for(first, seed), weights_for(second, seed + 1)
    a, b = dense(ours, first), dense(theirs, second)
    product = sum(float((a[name] * b[name]).sum()) for name in a.keys() & b.keys())
    norms = [math.sqrt(sum(float(u.square().sum()) for u in part.values())) for part in (a, b)]
    expected = product / (norms[0] * norms[1])
    assert cosine(first, ours, second, theirs) == pytest.approx(expected, abs=1e-9)
    assert cosine(first, ours, first, ours) == pytest.approx(1)
    assert cosine(first, ours, second, torch.zeros(second.num_parameters)) == 0


def test_the_numbers_of_the_first_stand_unchanged():
    layout = WeightLayout((QUERY, VALUE), 2, 27.0, "someone/base")
    style = WeightLayout((OUT,), 1, 8.0, "")
    ours = weights_for(layout, 0)
    whole, merged = merge_weights(layout, ours, style, weights_for(style, 1))
    assert whole.base == "someone/base"
    tensors, before = whole.unflatten(merged), layout.unflatten(ours)
    for key, tensor in before.items():
        kept = tensors[key][:2] if "lora_A" in key else tensors[key][:, :2]
        assert torch.equal(kept, tensor)


def test_a_merged_lora_draws_what_both_add():
    """In a network: the output with the sum is that with both layers' updates on the weights."""
    network = tiny.unet()
    subject = WeightLayout.from_denoiser(network)
    style = WeightLayout.from_denoiser(network, targets=("to_k", "to_q"), rank=3, alpha=6.0)
    ours, theirs = 0.05 * weights_for(subject, 0), 0.3 * weights_for(style, 1)
    layout, merged = merge_weights(subject, ours, style, theirs, weight=0.7)
    inputs = tiny.unet_inputs(2)
    with torch.no_grad(), adapt(network, layout, merged[None]):
        together = network(*inputs).sample
    for name, update in dense(ours, subject).items():
        network.get_submodule(name).weight += update.float()
    for name, update in dense(theirs, style).items():
        network.get_submodule(name).weight += 0.7 * update.float()
    with torch.no_grad():
        torch.testing.assert_close(together, network(*inputs).sample, rtol=1e-4, atol=1e-4)


def test_what_does_not_fit():
    layout = WeightLayout((QUERY,), 1, 1.0)
    wider = WeightLayout((LoRAModule(QUERY.name, 9, 5),), 1, 1.0)
    ours = weights_for(layout, 0)
    with pytest.raises(W2WError, match=r"up\.attn1.q maps 4 to 5 features in one and 9 to 5"):
        merge_weights(layout, ours, wider, weights_for(wider, 0))
    with pytest.raises(W2WError, match=r"up\.attn1.q maps 4 to 5"):
        cosine(layout, ours, wider, weights_for(wider, 0))
    with pytest.raises(W2WError, match=r"shape \[8\]: expected \[9\]"):
        merge_weights(layout, ours[:8], layout, ours)
    with pytest.raises(W2WError, match="weight nan"):
        merge_weights(layout, ours, layout, ours, weight=math.nan)


# Models.

LAYOUT = WeightLayout((QUERY, VALUE), 1, 27.0)


@pytest.fixture
def space() -> WeightSpace:
    d = LAYOUT.num_parameters
    return WeightSpace(LAYOUT, torch.ones(d), torch.full((d,), 2.0), torch.eye(d)[:4])


def test_a_point_merges_with_a_lora_of_another_kind(space, tmp_path):
    point = space.model(torch.arange(4.0), {"verb": "sample"})
    style = WeightLayout((OUT,), 2, 2.0)
    lora = Model(style, weights=weights_for(style, 1), origin={"file": "pencil.safetensors"})
    merged = merge(point, lora, weight=0.8, space=space)
    ours = space.to_weights(point.coefficients)
    layout, expected = merge_weights(LAYOUT, ours, style, lora.weights, weight=0.8)
    assert torch.equal(merged.weights, expected)
    assert merged.coefficients is None
    assert merged.layout == layout
    assert merged.origin == {
        "verb": "merge",
        "first": {"verb": "sample"},
        "second": {"file": "pencil.safetensors"},
        "weight": 0.8,
        "cosine": 0.0,  # they have no layer in common
    }
    again = load_model(save_model(tmp_path / "m.safetensors", merged))
    assert torch.equal(again.weights, merged.weights)
    with pytest.raises(W2WError, match="needs to become weights"):
        merge(point, lora)


def test_points_of_one_space_only_interpolate_and_only_when_asked(space):
    first, second = space.model(torch.zeros(4), {"a": 1}), space.model(torch.ones(3), {"b": 2})
    with pytest.raises(W2WError, match=f"points of space {space.hash}, .* only interpolate"):
        merge(first, second, space=space)
    middle = interpolate(first, second, 0.25)
    assert middle.coefficients.tolist() == [0.25, 0.25, 0.25, 0]
    assert middle.space == space.hash
    assert middle.origin == {
        "verb": "interpolate",
        "first": {"a": 1},
        "second": {"b": 2},
        "share": 0.25,
    }
    lora = Model(LAYOUT, weights=space.to_weights(torch.full((4,), 2.0)))
    with pytest.raises(W2WError, match="not points of one space"):
        interpolate(first, lora)
    projected = interpolate(first, lora, 0.5, space=space)
    torch.testing.assert_close(projected.coefficients, torch.ones(4))


def test_interpolation_begins_and_ends_at_its_points(space):
    a, b = torch.arange(4.0), torch.ones(4)
    for share, expected in ((0.0, a), (1.0, b), (2.0, 2 * b - a)):
        assert torch.equal(interpolate(a, b, share, space=space).coefficients, expected)
    with pytest.raises(W2WError, match="share inf"):
        interpolate(a, b, math.inf, space=space)


def test_models_of_two_bases_do_not_merge(space):
    first = Model(LAYOUT, weights=weights_for(LAYOUT, 0), base_hash="aaaa")
    second = Model(LAYOUT, weights=weights_for(LAYOUT, 1), base_hash="bbbb")
    with pytest.raises(W2WError, match=r"second model was made for another base \(hash bbbb\)"):
        merge(first, second)
    with pytest.raises(W2WError, match=r"\(hash bbbb\): expected aaaa"):
        interpolate(first, second, space=replace(space, base_hash=""))
    with pytest.raises(W2WError, match=r"\(hash aaaa\): expected cccc"):
        interpolate(first, first, space=replace(space, base_hash="cccc"))
