"""Directions: the classifiers against scikit-learn's, what is kept, honest figures, edits."""

import math
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score

from weights2weights.directions import (
    METHODS,
    Direction,
    _fit,
    cosines,
    direction_between,
    direction_from_scores,
    edit,
    find_direction,
    find_directions,
)
from weights2weights.errors import W2WError
from weights2weights.inversion import Inversion
from weights2weights.layout import LoRAModule, WeightLayout
from weights2weights.models import Model
from weights2weights.space import WeightSpace

LAYOUT = WeightLayout((LoRAModule("up.attn1.to_q", 30, 20),), 1, 27.0, "someone/base")
MODELS, COMPONENTS = 300, 30
NAMES = [f"p{row}" for row in range(MODELS)]


def normals(count: int, width: int = COMPONENTS, seed: int = 5) -> torch.Tensor:
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).double()
    return torch.nn.functional.normalize(rows, dim=1)


@pytest.fixture(scope="module")
def space() -> WeightSpace:
    """Components of falling spread; Male and Beard go together, Bald is rare, Age is a number."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(4, 0.5, COMPONENTS)
    coefficients = torch.randn(MODELS, COMPONENTS, generator=generator) * spread
    noise = torch.randn(MODELS, 4, generator=generator)
    true = normals(4).float()
    scores = coefficients @ true.T + noise
    scores[:, 1] += 2 * scores[:, 0]
    labels = pandas.DataFrame(
        {
            "Male": (scores[:, 0] > 0).numpy(),
            "Beard": (scores[:, 1] > 1).numpy(),
            "Bald": (scores[:, 2] > 3).numpy(),
            "Age": 40 + 10 * scores[:, 3].numpy(),
            "All": True,
        },
        index=NAMES,
    )
    components, _ = torch.linalg.qr(torch.randn(50, COMPONENTS, generator=generator))
    mean, std = torch.randn(2, 50, generator=generator)
    bare = WeightSpace(LAYOUT, mean, std.abs() + 0.1, components.T.contiguous())
    return bare.with_models(coefficients, NAMES, labels)


def truth(space: WeightSpace, label: str) -> np.ndarray:
    return space.labels[label].to_numpy(dtype=bool)


def points(space: WeightSpace, width: int = COMPONENTS) -> np.ndarray:
    return space.coefficients[:, :width].double().numpy()


def balanced(y: np.ndarray) -> np.ndarray:
    return np.where(y, 1 / y.sum(), 1 / (~y).sum())


def unit(slope: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ravel(slope) / np.linalg.norm(slope))


@pytest.mark.parametrize("label", ["Male", "Bald"])
@pytest.mark.parametrize("width", [3, COMPONENTS])
def test_least_squares_is_the_formula_of_the_paper(space, label, width):
    y = truth(space, label)
    authors = np.linalg.pinv(points(space, width)) @ (2.0 * y - 1)
    found = find_direction(space, label, components=width, method="least_squares")
    torch.testing.assert_close(found.normal, unit(authors), rtol=0, atol=1e-8)
    assert (found.positives, found.negatives) == (y.sum(), (~y).sum())
    assert found.method == "least_squares"


@pytest.mark.parametrize(("method", "penalty"), [("effect", 0.5), ("ridge", 11.0)])
def test_defaults(space, method, penalty):
    assert find_direction(space, "Bald").method == "effect"
    plain = find_direction(space, "Bald", method=method)
    assert plain.method == method and len(plain.normal) == COMPONENTS
    asked = find_direction(space, "Bald", method=method, penalty=penalty, components=COMPONENTS)
    assert torch.equal(plain.normal, asked.normal)


@pytest.mark.parametrize("label", ["Male", "Age"])
def test_effect_is_the_multiple_regression_of_scikit_learn(space, label):
    table = space.labels.astype(float)
    table.loc[NAMES[:40], "Bald"] = np.nan  # counts as the mean
    y = truth(space, "Male")
    weights = balanced(y) / 2 if label == "Male" else np.full(MODELS, 1 / MODELS)
    labels = table.fillna(table.mean()).drop(columns="All").to_numpy()
    center = weights @ labels
    labels = (labels - center) / np.sqrt(weights @ (labels - center) ** 2)
    peer = Ridge(0.1).fit(labels, points(space), weights)
    column = list(table.columns).index(label)
    found = find_direction(replace(space, labels=table), label, penalty=0.1)
    torch.testing.assert_close(found.normal, unit(peer.coef_[:, column]), rtol=0, atol=1e-8)


def test_effect_with_another_label_that_few_or_no_models_have(space):
    table = space.labels.assign(
        Nobody=math.nan, Age=space.labels["Age"].where(space.labels["Male"])
    )
    found = find_direction(replace(space, labels=table), "Bald")
    assert found.normal.isfinite().all()
    assert found.auc == pytest.approx(find_direction(space, "Bald").auc, abs=0.02)


def test_effect_is_beside_labels_of_training_models_alone(space):
    rows, scores = space.coefficients, torch.arange(MODELS).double()
    with pytest.raises(W2WError, match="use another method, such as mean_difference"):
        direction_between(space, rows[:20], rows[20:50], "Bald", method="effect")
    with pytest.raises(W2WError, match="use another method, such as mean_difference"):
        direction_from_scores(space, rows, scores, "Bald", method="effect")


def test_effect_changes_a_label_and_leaves_those_that_go_with_it():
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(4000, generator=generator) > 0
    second = first ^ (torch.rand(4000, generator=generator) < 0.1)  # nine in ten are alike
    true = normals(2).float()
    rows = torch.randn(4000, COMPONENTS, generator=generator)
    rows += torch.stack([first, second], 1).float() @ (2 * true)
    names = [f"m{i}" for i in range(4000)]
    labels = pandas.DataFrame({"A": first.numpy(), "B": second.numpy()}, index=names)
    bare = WeightSpace(LAYOUT, torch.zeros(50), torch.ones(50), torch.eye(50)[:COMPONENTS])
    both = bare.with_models(rows, names, labels)
    along = {
        method: float(
            find_direction(both, "A", method=method, penalty=1e-3).normal.float() @ true[0]
        )
        for method in ("effect", "mean_difference")
    }
    assert along["effect"] > 0.99
    assert along["mean_difference"] < 0.85
    alone = both.with_models(rows, names, labels[["A"]])
    difference = find_direction(both, "A", method="mean_difference").normal
    torch.testing.assert_close(find_direction(alone, "A").normal, difference)


def test_components_along_which_nothing_varies_change_no_penalty(space):
    wider = replace(
        space,
        components=torch.cat([space.components, torch.zeros(3, space.num_parameters)]),
        coefficients=torch.cat([space.coefficients, torch.zeros(len(space.names), 3)], 1),
    )
    normal = find_direction(wider, "Bald", components=COMPONENTS + 3, method="ridge").normal
    plain = find_direction(space, "Bald", components=COMPONENTS, method="ridge").normal
    torch.testing.assert_close(normal[:COMPONENTS], plain)


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_ridge_is_that_of_scikit_learn(space, penalty):
    y = truth(space, "Bald")
    x, weights = points(space), balanced(y) / 2
    variance = (weights @ x**2 - (weights @ x) ** 2).sum()
    peer = Ridge(penalty * variance / len(x)).fit(x, 2.0 * y - 1, weights)
    found = find_direction(space, "Bald", components=30, method="ridge", penalty=penalty)
    torch.testing.assert_close(found.normal, unit(peer.coef_), rtol=0, atol=1e-8)


def test_mean_difference_and_the_limit_of_ridge(space):
    y = truth(space, "Bald")
    difference = unit(points(space)[y].mean(0) - points(space)[~y].mean(0))
    found = find_direction(space, "Bald", components=30, method="mean_difference")
    torch.testing.assert_close(found.normal, difference)
    ridge = find_direction(space, "Bald", components=30, method="ridge", penalty=1e6)
    torch.testing.assert_close(ridge.normal, difference, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_held_out_auc_is_that_of_the_folds(space, method):
    y = truth(space, "Bald")
    classes = torch.from_numpy(y).long()
    folds = _fit.assign_folds(classes, 5, seed=3).numpy()
    for number in range(5):  # a fifth of each class, give or take one
        assert abs((y[folds == number]).sum() - y.sum() / 5) <= 1
    found = find_direction(space, "Bald", components=12, method=method, penalty=0.1, seed=3)
    aucs = []
    for number in range(5):
        inside = folds != number
        part = space.with_models(
            space.coefficients[torch.from_numpy(inside)],
            np.array(NAMES)[inside].tolist(),
            space.labels[inside],
        )
        normal = find_direction(part, "Bald", components=12, method=method, penalty=0.1).normal
        held = points(space, 12)[~inside] @ normal.numpy()
        aucs.append(roc_auc_score(y[~inside], held))
    assert found.auc == pytest.approx(np.mean(aucs), abs=1e-9)
    assert found.r2 is None


def test_numbers_have_r2(space):
    y = space.labels["Age"].to_numpy(dtype=float)
    found = find_direction(space, "Age", components=30, method="least_squares")
    peer = LinearRegression().fit(points(space), y)
    torch.testing.assert_close(found.normal, unit(peer.coef_), rtol=0, atol=1e-8)
    folds = _fit.assign_folds(torch.zeros(MODELS, dtype=torch.long), 5, seed=0).numpy()
    predicted, plain = np.zeros(MODELS), np.zeros(MODELS)
    for number in range(5):
        held = folds == number
        fold = LinearRegression().fit(points(space)[~held], y[~held])
        predicted[held], plain[held] = fold.predict(points(space)[held]), y[~held].mean()
    expected = 1 - ((y - predicted) ** 2).sum() / ((y - plain) ** 2).sum()
    assert found.r2 == pytest.approx(expected, abs=1e-8)
    assert found.r2 == pytest.approx(r2_score(y, predicted), abs=0.01)
    assert found.auc is None
    assert (found.positives, found.negatives) == (MODELS, 0)


def test_same_seed_same_direction(space):
    first, again = find_direction(space, "Bald"), find_direction(space, "Bald")
    assert torch.equal(first.normal, again.normal)
    assert first.auc == again.auc
    assert find_direction(space, "Bald", seed=1).auc != first.auc


def test_leaves_the_global_generator_alone(space):
    before = torch.get_rng_state()
    find_direction(space, "Bald")
    assert torch.equal(torch.get_rng_state(), before)


def test_strength_counts_standard_deviations(space):
    found = find_direction(space, "Male")
    along = points(space, len(found.normal)) @ found.normal.numpy()
    assert found.std == pytest.approx(along.std(ddof=1))
    assert found.range[1] == pytest.approx((along.max() - along.mean()) / along.std(ddof=1))
    assert found.range[0] == pytest.approx((along.min() - along.mean()) / along.std(ddof=1))
    shift = found.shift(2, COMPONENTS)
    moved = float(shift[: len(found.normal)] @ found.normal)
    assert moved == pytest.approx(2 * found.std, rel=1e-6)
    assert float(found.normal.norm()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_points_towards_the_label(space, method):
    for label in ("Male", "Beard", "Bald"):
        found = find_direction(space, label, method=method)
        y = truth(space, label)
        along = points(space, len(found.normal)) @ found.normal.numpy()
        assert along[y].mean() > along[~y].mean()
        opposite = find_direction(space, pandas.Series(~y, NAMES), method=method)
        torch.testing.assert_close(opposite.normal, -found.normal, rtol=0, atol=1e-7)


# What is kept.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("components", [None, 12])
def test_kept_attributes_are_removed_jointly(space, method, components):
    options = {"method": method, "components": components}
    kept = find_directions(space, ["Beard", "Bald"], **options)
    found = find_direction(space, "Male", keep=["Beard", "Bald"], **options)
    assert found.kept == ("Beard", "Bald")
    cosine = cosines([found, *kept.values()])
    assert cosine[0, 1:].abs().max() < 1e-12
    assert abs(cosine[1, 2]) > 1e-3  # they are not orthogonal: in turn would not do
    free = find_direction(space, "Male", **options)
    assert cosines([found, free])[0, 1] > 0.1
    assert abs(cosines([free, kept["Beard"]])[0, 1]) > 0.1
    # the order does not matter, nor whether names or directions are given, nor one given twice
    for keep in (["Bald", "Beard"], list(kept.values()), ["Beard", "Bald", kept["Beard"]]):
        again = find_direction(space, "Male", keep=keep, **options)
        torch.testing.assert_close(again.normal, found.normal, rtol=0, atol=1e-9)


def test_scale_and_figures_are_those_of_the_freed_normal(space):
    free = find_direction(space, "Beard", components=30)
    found = find_direction(space, "Beard", components=30, keep=["Male"])
    along = points(space) @ found.normal.numpy()
    assert found.std == pytest.approx(along.std(ddof=1))
    assert found.auc < free.auc  # what Male told of Beard is gone


@settings(max_examples=40)
@given(st.integers(1, 8), st.integers(0, 10_000), st.floats(1e-9, 1.0))
def test_removal_holds_for_any_normals_however_alike(count, seed, apart):
    """Also when the kept are nearly one direction, and the one to free is nearly theirs."""
    kept = normals(1, 20, seed) + apart * normals(count, 20, seed + 1)
    kept = torch.nn.functional.normalize(kept, dim=1)
    slope = kept[0] + 0.1 * normals(1, 20, seed + 2)[0]
    left = _fit.remover(list(kept))(slope)
    assert (kept @ torch.nn.functional.normalize(left, dim=0)).abs().max() < 1e-6


def test_nothing_left_is_told(space):
    with pytest.raises(W2WError, match="cannot be kept and changed"):
        find_direction(space, "Male", keep="Male")
    kept = find_direction(space, "Male")
    with pytest.raises(W2WError, match="nothing of 'Male' is left after removing Male"):
        find_direction(space, "Male", keep=kept)
    found = find_directions(space, ["Male", "Beard"], keep=["Male"])
    assert (found["Male"].kept, found["Beard"].kept) == ((), ("Male",))


def test_kept_of_another_space_is_refused(space):
    other = replace(find_direction(space, "Male"), space="0123456789abcdef")
    with pytest.raises(W2WError, match="'Male' is a direction of space 0123456789abcdef"):
        find_direction(space, "Beard", keep=[other])


# Labels of any kind.


def test_own_labels_in_any_form(space):
    y = truth(space, "Bald")
    expected = find_direction(space, "Bald")
    forms = {
        "series": pandas.Series(np.where(y, 1, -1), NAMES, name="Bald"),
        "shuffled": pandas.Series(y, NAMES).sample(frac=1, random_state=0),
        "mapping": dict(zip(NAMES, y.tolist(), strict=True)),
        "list": y.tolist(),
        "array": y.astype(int),
        "tensor": torch.from_numpy(y),
    }
    for label in forms.values():
        found = find_direction(space, label, name="Bald")
        assert torch.equal(found.normal, expected.normal)
        assert (found.name, found.auc) == ("Bald", expected.auc)
    table = pandas.DataFrame({"Hairless": y.astype(int)}, index=NAMES)
    # such a table takes the place of the space's, and what it does not hold is no other label
    alone = find_directions(space, labels=table)["Hairless"].normal
    torch.testing.assert_close(
        alone, find_direction(space, "Bald", method="mean_difference").normal
    )
    named = find_direction(space, "Bald", name="Male")
    assert torch.equal(named.normal, expected.normal) and named.name == "Male"


def test_missing_labels_are_left_out(space):
    y = space.labels["Bald"].astype("boolean")
    known = np.arange(MODELS) % 3 > 0
    some = find_direction(space, y.mask(~known), components=9)
    part = space.with_models(
        space.coefficients[torch.from_numpy(known)],
        np.array(NAMES)[known].tolist(),
        space.labels[known],
    )
    alone = find_direction(part, "Bald", components=9)
    torch.testing.assert_close(some.normal, alone.normal)
    assert some.auc == alone.auc
    assert some.positives + some.negatives == known.sum()
    # a standard deviation is that of all training models all the same
    assert some.std != alone.std
    assert math.isfinite(find_direction(space, [math.nan, None, *y.tolist()[2:]]).std)


def test_labels_that_cannot_be_used(space):
    with pytest.raises(W2WError, match=r"'All' has one class only \(300 models, all have it\)"):
        find_direction(space, "All")
    with pytest.raises(W2WError, match=r"'label' has one class only \(300 models, none has it\)"):
        find_direction(space, [0] * MODELS)
    with pytest.raises(W2WError, match=r"one class only \(300 models, all have 7\)"):
        find_direction(space, [7] * MODELS)
    with pytest.raises(W2WError, match="known for no model"):
        find_direction(space, [None] * MODELS)
    with pytest.raises(W2WError, match="no label 'Bold' in this space: did you mean Bald"):
        find_direction(space, "Bold")
    with pytest.raises(W2WError, match="3 values: expected one for each of the 300"):
        find_direction(space, [0, 1, 0])
    with pytest.raises(W2WError, match="holds text"):
        find_direction(space, ["red", "blue"] * (MODELS // 2))
    with pytest.raises(W2WError, match="31 components: expected 1 to 30"):
        find_direction(space, "Bald", components=31)
    with pytest.raises(W2WError, match="penalty -1"):
        find_direction(space, "Bald", method="ridge", penalty=-1.0)
    with pytest.raises(W2WError, match="1 folds"):
        find_direction(space, "Bald", folds=1)
    bare = WeightSpace(space.layout, space.mean, space.std, space.components)
    with pytest.raises(W2WError, match="no training models"):
        find_direction(bare, "Bald")
    with pytest.raises(W2WError, match="this space holds no labels"):
        find_direction(bare.with_models(space.coefficients, NAMES), "Bald")


@pytest.mark.parametrize("rare", [1, 2, 3])
def test_very_rare_labels_have_what_figures_they_can(space, rare):
    y = np.arange(MODELS) < rare
    found = find_direction(space, y.tolist())
    assert (found.positives, found.negatives) == (rare, MODELS - rare)
    assert (found.auc is None) == (rare == 1)


def test_more_components_than_models_give_the_shortest_slope(space):
    y = space.labels["Male"].astype("boolean").mask(np.arange(MODELS) >= 20)
    found = find_direction(space, y, components=30, method="least_squares")
    x = points(space)[:20]
    t = 2.0 * truth(space, "Male")[:20] - 1
    torch.testing.assert_close(found.normal, unit(np.linalg.pinv(x) @ t), rtol=0, atol=1e-4)


# Attributes that nobody labelled.


def test_direction_between_sets(space):
    y = torch.from_numpy(truth(space, "Male"))
    first, second = space.coefficients[~y][:40], space.coefficients[y][:40]
    found = direction_between(space, first, second, "unnamed", components=30)
    difference = unit((second.double().mean(0) - first.double().mean(0)).numpy())
    torch.testing.assert_close(found.normal, difference)
    assert (found.positives, found.negatives) == (40, 40)
    assert found.auc > 0.8
    # its unit is that of the training models, not of the sets
    assert found.std == pytest.approx(float((space.coefficients.double() @ difference).std()))
    freed = direction_between(space, first, second, "unnamed", keep=["Beard"])
    assert cosines([freed, find_direction(space, "Beard")])[0, 1].abs() < 1e-12
    with pytest.raises(W2WError, match="sets of 0 and 40 models"):
        direction_between(space, first[:0], second, "unnamed")
    with pytest.raises(W2WError, match=r"over 20 components, of which 8 are known .* components=8"):
        kept = find_direction(space, "Beard", components=20)
        direction_between(space, first[:, :8], second[:, :8], "unnamed", keep=[kept])


def test_direction_from_scores(space):
    true = normals(1, seed=8)[0]
    drawn = torch.randn(200, COMPONENTS, generator=torch.Generator().manual_seed(2))
    scores = drawn.double() @ true + 0.1
    options = {"method": "least_squares"}
    found = direction_from_scores(space, drawn, scores.float(), "freckles", **options)
    assert found.normal @ true > 0.999
    assert found.r2 > 0.99
    scores[:50] = math.nan
    assert direction_from_scores(space, drawn, scores, "freckles").positives == 150
    with pytest.raises(W2WError, match="3 scores for 200 models"):
        direction_from_scores(space, drawn, scores[:3], "freckles")


# Edits.


STRENGTHS = (2, -1.5, 0.7, 3)


def test_edits_add_up(space):
    found = find_directions(space, ["Male", "Beard", "Bald", "Age"])
    strengths = dict(zip(found.values(), STRENGTHS, strict=True))
    many = torch.randn(2, 5, COMPONENTS, generator=torch.Generator().manual_seed(3))
    edited = edit(many, strengths)
    assert edited.shape == many.shape
    in_turn = many
    for direction, strength in strengths.items():
        in_turn = edit(in_turn, {direction: strength})
    torch.testing.assert_close(in_turn, edited, rtol=0, atol=1e-5)
    undone = edit(edited, {direction: -strength for direction, strength in strengths.items()})
    torch.testing.assert_close(undone, many, rtol=0, atol=1e-5)
    assert torch.equal(edit(many, {}), many)
    assert torch.equal(edit(many[1, 2], strengths), edited[1, 2])
    assert edit(many.half(), strengths).dtype == torch.float16
    array = edit(many.numpy(), strengths)
    assert isinstance(array, np.ndarray) and np.array_equal(array, edited.numpy())


def test_an_edit_moves_along_its_normal_and_leaves_the_kept_alone(space):
    kept = find_direction(space, "Beard")
    male = find_direction(space, "Male", keep=[kept])
    before = space.coefficients[:4].double()
    after = edit(before, {male: 3})

    def along(direction, points):
        return points[:, : len(direction.normal)] @ direction.normal

    moved = along(male, after) - along(male, before)
    torch.testing.assert_close(moved, torch.full((4,), 3 * male.std, dtype=torch.float64))
    torch.testing.assert_close(along(kept, after), along(kept, before), rtol=0, atol=1e-9)


def test_edited_weights_keep_their_residual(space):
    weights = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(4))
    assert space.relative_residual(weights).min() > 0.3
    strengths = {find_direction(space, "Male"): 2.0, find_direction(space, "Age"): -1.0}
    edited = edit(weights, strengths, space=space)
    by_hand = space.to_weights(edit(space.project(weights), strengths)) + space.residual(weights)
    torch.testing.assert_close(edited, by_hand, rtol=0, atol=2e-5)
    torch.testing.assert_close(space.residual(edited), space.residual(weights), rtol=0, atol=2e-5)
    assert torch.equal(edit(weights, {}, space=space), weights)
    points = torch.zeros(2, COMPONENTS)
    assert torch.equal(edit(points, strengths, space=space), edit(points, strengths))


def test_models_are_edited_as_models(space):
    male = find_direction(space, "Male")
    point = space.model(torch.ones(COMPONENTS), {"verb": "sample"})
    (edited,) = edit([point], {male: 2})
    torch.testing.assert_close(edited.coefficients, edit(torch.ones(COMPONENTS), {male: 2}))
    assert (edited.weights, edited.space) == (None, space.hash)
    assert edited.origin["set"] == {"Male": 2.0}
    assert edited.origin["model"] == {"verb": "sample"}
    weights = torch.randn(50, generator=torch.Generator().manual_seed(4))
    lora = Model(space.layout, weights=weights)
    with pytest.raises(W2WError, match="needs space="):
        edit(lora, {male: 2})
    edited = edit(lora, {male: 2}, space=space)
    torch.testing.assert_close(edited.weights, edit(weights, {male: 2}, space=space))
    expected = edit(space.project(weights), {male: 2})
    torch.testing.assert_close(edited.coefficients, expected)


def test_a_result_of_an_inversion_is_edited_as_its_points(space):
    male, points = find_direction(space, "Male"), torch.ones(2, COMPONENTS)
    steps, images = torch.zeros(2).long(), torch.zeros(2, 8, 8, 3).byte()
    found = Inversion(points, *torch.zeros(2, 2), steps, images, seconds=0.0)
    assert torch.equal(edit(found, {male: 2}), edit(points, {male: 2}))


def test_edits_that_do_not_fit(space):
    male = find_direction(space, "Male", components=30)
    with pytest.raises(W2WError, match="on 30 components, the model has 29"):
        edit(torch.zeros(29), {male: 1})
    with pytest.raises(W2WError, match="strength nan of 'Male'"):
        edit(torch.zeros(30), {male: math.nan})
    with pytest.raises(W2WError, match=r"expected a last axis of 30, .* or of 50"):
        edit(torch.zeros(49), {male: 1}, space=space)
    with pytest.raises(W2WError, match=r"'Bald' is a str; .* space.direction\('Bald'\) finds one"):
        edit(torch.zeros(30), {"Bald": 2.0})
    with pytest.raises(W2WError, match="space 'people' is a name"):
        edit(torch.zeros(30), {male: 2.0}, space="people")
    with pytest.raises(W2WError, match="int64: expected floats"):
        edit(torch.zeros(30, dtype=torch.long), {male: 2.0})
    elsewhere = replace(male, space="0123456789abcdef")
    with pytest.raises(W2WError, match="directions of the spaces"):
        edit(torch.zeros(50), {elsewhere: 1}, space=space)
    with pytest.raises(W2WError, match="directions of the spaces"):
        edit(torch.zeros(30), {elsewhere: 1, male: 1})
    with pytest.raises(W2WError, match="has length 2: expected 1"):
        Direction("x", torch.tensor([2.0]), 1.0)
    with pytest.raises(W2WError, match=r"standard deviation 0\.0"):
        Direction("x", torch.tensor([1.0]), 0.0)


def test_a_notebook_shows_the_figures(space):
    found = find_direction(space, "Male", name="<Male>")
    page = found._repr_html_()
    assert "&lt;Male&gt;" in page and f"{found.auc:.3f}" in page


def test_methods_of_a_space_are_the_functions(space):
    options = {"method": "ridge", "components": 9, "seed": 2}
    by_method = space.direction("Bald", keep=["Male"], **options)
    by_function = find_direction(space, "Bald", keep=["Male"], **options)
    assert torch.equal(by_method.normal, by_function.normal)
    several = space.directions(["Bald", "Male"], keep=["Male"], **options)
    assert torch.equal(several["Bald"].normal, by_function.normal)
    assert several["Male"].kept == ()


def test_cosines_are_the_entanglement(space):
    found = find_directions(space, ["Male", "Beard", "Bald"])
    matrix = cosines(found)
    assert matrix.dtype == torch.float64
    torch.testing.assert_close(matrix.diagonal(), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(matrix, matrix.T)
    assert matrix[0, 1] > abs(matrix[0, 2])  # a beard goes with being male
    assert torch.equal(cosines(list(found.values())), matrix)
    assert cosines([]).shape == (0, 0)
