"""A space of updates behind the verbs of every space."""

import pytest
import torch

from test_updates import MODULES, dense, strangers
from weights2weights import (
    edit,
    generate,
    interpolate,
    invert,
    load_base,
    load_model,
    merge,
    save_lora,
    save_model,
)
from weights2weights.errors import InputError
from weights2weights.formats import load_lora
from weights2weights.models import Model
from weights2weights.space import UpdateSpace, WeightSpace, fit_updates, verify_space
from weights2weights.updates import update_of


def labels_of(updates):
    return {update.name: {"even": int(update.name[-1]) % 2 == 0} for update in updates}


@pytest.fixture
def updates():
    return strangers(24)


@pytest.fixture
def space(updates):
    return fit_updates(updates, labels=labels_of(updates), rank=20)


def units(updates):
    rows = torch.stack([dense(update) for update in updates])
    return rows / rows.norm(dim=1, keepdim=True)


def test_coefficients_are_those_of_a_pca_of_the_unit_updates(space, updates):
    rows = units(updates)
    centred = rows - rows.mean(0)
    values = torch.linalg.svdvals(centred)[: len(space)]
    assert torch.allclose(space.coefficients.norm(dim=0).double(), values, rtol=1e-4, atol=1e-5)
    found = space.coefficients.double() @ space.coefficients.mT.double()
    assert torch.allclose(found, centred @ centred.mT, atol=1e-5)
    assert space.captured_variance == pytest.approx(1) and space.metadata["of"] == "updates"


def test_projecting_a_training_lora_gives_its_coefficients(space, updates):
    assert torch.allclose(space.project_updates(updates), space.coefficients, atol=1e-5)
    doubled = strangers(24)[3]
    model = Model(doubled.layout, weights=2 * vector(doubled))  # B and A doubled: another norm
    assert torch.allclose(space.coefficients_of(model), space.coefficients[3], atol=1e-5)


def vector(update):
    parts = [f.flatten() for m in update.layout.modules for f in update.factors[m.name]]
    return torch.cat(parts)


def test_points_become_loras_whose_projection_is_the_point_again(space):
    points = space.sample(3, seed=1)
    weights = space.to_weights(points)
    assert weights.shape == (3, space.num_parameters)
    rows = torch.stack([dense(update_of(space.layout, row)) for row in weights])
    expected = space.mixtures(points) @ torch.stack([dense(u) for u in space.updates])
    assert torch.allclose(rows, expected, rtol=1e-4, atol=1e-4)
    scale = rows.norm(dim=1, keepdim=True).float() / space.norm
    again = space.project(weights)
    mean = space.project_updates([update_of(space.layout, space.to_weights(torch.zeros(1, 1))[0])])
    # projecting divides by the norm first, so a point comes back on the ray through the origin
    assert torch.allclose(again * scale - points, mean * (scale - 1), atol=0.05)
    layout, _, kept = space.to_lora(points, rank=2)
    assert layout.rank == 2 and (kept < 1).all() and (kept > 0).all()


def test_what_is_outside_is_measured(space):
    inside, other = space.to_weights(space.coefficients[:2]), strangers(2, seed=9)
    assert (space.relative_residual(inside) < 0.05).all()
    model = Model(other[1].layout, weights=vector(other[1]))
    assert float(space.coefficients_of(model).norm()) < 1


def test_a_space_of_updates_is_saved_shared_and_verified(space, tmp_path):
    folder = space.save_pretrained(tmp_path / "space")
    again = WeightSpace.from_pretrained(folder)
    assert isinstance(again, UpdateSpace) and again.hash == space.hash
    points = space.sample(2, seed=0)
    assert torch.allclose(again.to_weights(points), space.to_weights(points), atol=1e-5)
    assert [u.layout.alpha for u in again.updates] == [u.layout.alpha for u in space.updates]
    assert verify_space(folder) == []
    small = WeightSpace.from_pretrained(
        space.save_pretrained(tmp_path / "half", dtype=torch.float16)
    )
    assert small.hash == space.hash
    data = bytearray((folder / "updates.safetensors").read_bytes())
    data[-1] ^= 0xFF
    (folder / "updates.safetensors").write_bytes(data)
    assert verify_space(folder) == ["updates.safetensors has changed since it was saved"]
    (folder / "updates.safetensors").write_bytes(data[:-9])
    with pytest.raises(InputError, match=r"updates.safetensors .*again"):
        WeightSpace.from_pretrained(folder)


def test_the_same_files_in_any_order_give_the_same_models(updates, space):
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0)).tolist()
    other = fit_updates([updates[i] for i in order], rank=20)
    similar = [
        abs(torch.cosine_similarity(a, b, dim=0))
        for a, b in zip(space.coefficients[order].mT, other.coefficients.mT, strict=True)
    ]
    assert min(similar[:10]) > 0.999


def test_verbs_of_spaces_work(space, updates, tmp_path):
    direction = space.direction("even", components=10)
    point = space.coefficients[:1]
    moved = edit(point, {direction: 2.0})
    along = (moved - point)[0, :10].double() @ direction.normal
    assert float(along) == pytest.approx(2 * direction.std, rel=1e-5)
    assert int(space.neighbours(space.coefficients[4], 1).indices[0]) == 4
    assert space.truncate(5).hash == space.hash
    assert space.with_rank(3).hash == space.hash and space.with_rank(3).layout.rank == 3
    path = save_lora(tmp_path / "lora.safetensors", moved[0], space=space, format="kohya")
    assert load_lora(path).layout.rank == 20
    file = save_model(tmp_path / "model.safetensors", space.model(moved[0], {}))
    assert torch.allclose(space.coefficients_of(load_model(file)), moved[0])


def test_editing_a_stranger_of_another_rank_adds_the_shift_to_its_update(space):
    stranger = strangers(3, seed=5)[1]
    direction = space.direction("even", components=10)
    model = Model(stranger.layout, weights=vector(stranger), name="stranger")
    moved = edit(model, {direction: 2.0}, space=space)
    assert moved.layout.rank == 20 and moved.weights is not None
    change = dense(update_of(moved.layout, moved.weights)) - dense(stranger)
    shift = direction.shift(2.0, len(space))
    expected = (shift @ space.components.double()) @ units(space.updates) * stranger.norm()
    assert torch.allclose(change, expected, rtol=1e-3, atol=1e-3)
    assert torch.allclose(
        moved.coefficients, space.coefficients_of(model) + shift.float(), atol=1e-5
    )


def test_the_linear_form_has_the_same_coordinates(space):
    linear = space.linear(6)
    points = space.sample(2, seed=3, components=6)
    ours = torch.stack([dense(update_of(space.layout, w)) for w in space.to_weights(points)])
    theirs = [dense(update_of(linear.layout, w)) for w in linear.to_weights(points[:, :6])]
    assert torch.allclose(ours, torch.stack(theirs), rtol=1e-4, atol=1e-4)


def test_too_few_or_identical_models_are_one_line(updates):
    for few, message in (([updates[0]], "at least two"), ([updates[0]] * 3, "all the same model")):
        with pytest.raises(InputError, match=message):
            fit_updates(few)
    pair = fit_updates(updates[:2])
    assert len(pair) == 1


def test_a_lora_of_another_base_is_refused(space):
    other = strangers(1, modules=(MODULES[0].__class__(MODULES[0].name, 8, 8),))[0]
    with pytest.raises(InputError, match="another base"):
        space.project_updates([other])


def test_merges_of_unlike_ranks_keep_what_is_asked():
    one, two = strangers(2, seed=4)
    models = [Model(update.layout, weights=vector(update)) for update in (one, two)]
    exact, small = merge(*models, weight=0.5), merge(*models, weight=0.5, rank=2)
    truth = dense(one) + 0.5 * dense(two)
    assert float((dense(update_of(exact.layout, exact.weights)) - truth).norm()) < 1e-3
    lost = (dense(update_of(small.layout, small.weights)) - truth).square().sum()
    assert small.layout.rank == 2 and "energy_kept" not in exact.origin
    kept = 1 - float(lost / truth.square().sum())
    assert small.origin["energy_kept"] == pytest.approx(kept, abs=1e-4) and kept < 1


def test_strangers_are_interpolated_as_points(space):
    one, two = strangers(2, seed=4)
    models = [Model(update.layout, weights=vector(update)) for update in (one, two)]
    between = interpolate(*models, 0.5, space=space)
    assert between.layout == space.layout
    points = space.project_updates([one, two])
    assert torch.allclose(between.coefficients, points.mean(0), atol=1e-6)


def test_images_are_inverted_over_whole_updates(tiny_base):
    base = load_base(tiny_base)
    modules = base.layout().modules
    updates = [
        update_of(
            layout := base.layout(rank=rank, alpha=1.0),
            torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(i)),
            f"{i}",
        )
        for i, rank in enumerate((1, 2, 3, 2))
    ]
    space = fit_updates(updates, rank=2)
    photo = torch.zeros(16, 16, 3, dtype=torch.uint8).numpy()
    found = invert(base, space, photo, preset="fast", steps=2, components=2, eval_every=0)
    assert found.points.shape == (1, 3) and found.points[0, :2].any() and len(modules) == 28
    assert generate(base, found, space=space, prompts="a", seeds=0, steps=2).shape[0] == 1
