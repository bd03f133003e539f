"""The experiments measure what they say, resume, and make one page; all on the tiny base."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import tiny_setting
from experiments import figure8, held_out, runner
from experiments.__main__ import main
from experiments.cache import Cache, digest
from experiments.edits import (
    EXTRA_SEEDS,
    Originals,
    enough,
    ratio_of_means,
    same_labels,
    same_person,
    same_person_level,
    score_edit,
    summarise,
)
from experiments.estimates import above_zero, estimate, rises
from experiments.figure8 import agreements, cover_half, invert_colours, pixelate
from experiments.figure9 import entanglement, figure9, separable
from experiments.figure34 import scene_difference
from experiments.held_out import HELD_OUT, train_held_out
from experiments.images import colourfulness, sketch, write_images
from experiments.result import Check, Result, Sheet, Stored, Table, read_result, write_result
from experiments.runner import EXPERIMENTS, run
from experiments.subspace import draw_subset, subspace
from experiments.table1 import at_success, slider_layout
from weights2weights import training
from weights2weights.directions import Direction
from weights2weights.errors import W2WError
from weights2weights.evaluate.setting import Scored
from weights2weights.metrics.entanglement import random_cosine
from weights2weights.space import WeightSpace
from weights2weights.subjects import find_subjects
from weights2weights.worlds import load_world

FEWEST = {
    "table1": {
        "people": 3,
        "prompts": 1,
        "seeds": 2,
        "strengths": (1.0, 3.0),
        "scales": (1.0,),
        "slider_steps": 1,
    },
    "attributes": {"people": 2, "strengths": (1.0, 3.0)},
    "composed": {"people": 2, "prompts": 2, "seeds": 1},
    "table2": {"people": 2, "prompts": 1, "seeds": 1, "paper_preset": False, "shown": 2},
    "figure4": {"samples": 3, "prompts": 1},
    "figure8": {"people": 3, "seeds": 2, "steps": 2, "shown": 2},
    "figure9": {"resamplings": 2},
    "figure10": {"sizes": [5, 40], "people": 2, "resamplings": 2, "prompts": 1, "seeds": 1},
    "figure26-27": {"samples": 20, "shown": 3},
    "figure28": {"people": 3, "components": [2, 12]},
    "figure30": {"people": 2, "components": [2, 12], "prompts": 1, "seeds": 1, "shown": 2},
    "figure31": {"people": 2, "components": 2, "directions": 2, "steps": 3},
    "figure33": {"people": 3, "images": 2},
    "figure34": {"people": 3, "timesteps": (1000, 500)},
}


@pytest.fixture(scope="module")
def setting(tiny_base):
    return tiny_setting.setting(tiny_base)


@pytest.fixture
def few(monkeypatch):
    """Run all experiments with the fewest images, as if that were --quick."""
    monkeypatch.setattr(runner, "_options", lambda name, quick: FEWEST[name])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_figures_tables_and_images(name, setting, few, tmp_path, monkeypatch):
    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "cache"))
    (stored,) = run([name], setting, tmp_path, quick=True, log=lambda text: None)
    facts = json.loads((tmp_path / f"{name}.json").read_text())
    assert facts == stored.facts
    assert facts["experiment"] == name
    assert facts["quick"] is True
    assert facts["base"] == setting.base.id
    assert facts["space"] == "tiny"
    assert facts["seconds"] > 0
    assert facts["checks"]
    for check in facts["checks"]:
        assert set(check) == {"statement", "holds", "value"}
        assert isinstance(check["holds"], bool)
        assert "here" not in check["statement"], "statements are the same in every run"
    assert facts["figures"]
    for table in facts["tables"]:
        assert table["rows"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert facts["images"] or name == "attributes"
    for image in facts["images"]:
        assert (tmp_path / image["file"]).read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text()
    assert facts["title"] in page
    assert "A first look with few images" in page
    assert "photograph" not in page, "the tiny base is not the embedded one"
    assert facts["statement"] in page


# What the figures mean.


def space_with(correlation: float, models: int = 400) -> WeightSpace:
    """A space with two labels that go together, each carried by a component of its own."""
    from weights2weights.layout import LoRAModule, WeightLayout

    rng = np.random.default_rng(0)
    layout = WeightLayout((LoRAModule("to_q", 8, 8),), 1, 1.0, "")
    first = rng.integers(0, 2, models)
    same = rng.uniform(size=models) < (1 + correlation) / 2
    second = np.where(same, first, 1 - first)
    coefficients = rng.normal(size=(models, 8)).astype(np.float32)
    coefficients[:, 0] += 6 * first
    coefficients[:, 1] += 6 * second
    names = tuple(f"{i:04d}" for i in range(models))
    labels = pandas.DataFrame({"Male": first, "Young": second}, index=list(names))
    return WeightSpace(
        layout,
        torch.zeros(16),
        torch.ones(16),
        torch.eye(16)[:8],
        torch.from_numpy(coefficients),
        names,
        labels,
    )


def test_entanglement_falls_with_the_number_of_models():
    space = space_with(0.0)
    few = [
        entanglement(space, draw_subset(space, 12, i, 0), ["Male", "Young"], [])["mean"]
        for i in range(8)
    ]
    known = [value for value in few if value is not None]
    many = entanglement(space, torch.arange(400), ["Male", "Young"], [])["mean"]
    assert many < 0.1 < sum(known) / len(known)


def test_least_squares_undoes_correlated_labels_that_few_models_cannot():
    space = space_with(0.8)
    labels = {name: torch.tensor(space.labels[name].to_numpy(float)) for name in ("Male", "Young")}
    every, names = torch.arange(400), ["Male", "Young"]
    found = entanglement(space, every, names, [("Male", "Young")], method="least_squares")
    difference = space.coefficients[labels["Male"] == 1].mean(0) - space.coefficients[
        labels["Male"] == 0
    ].mean(0)
    assert difference[1] / difference[0] > 0.7, "the means alone would mix both"
    assert found["mean"] < 0.5
    assert found["pairs"] == {"Male and Young": pytest.approx(found["mean"])}
    assert found["attributes"] == 2
    assert random_cosine(8) <= found["random"] <= random_cosine(1)


def test_figure9_says_when_entanglement_does_not_fall(setting):
    space = space_with(0.0)
    judged = replace(setting, space=space, scorer=tiny_setting.Judge(("Male", "Young")))
    falls = figure9(judged, sizes=[20, 400], resamplings=6)
    assert next(iter(falls.checks)).holds is True
    grows = figure9(judged, sizes=[400, 20], resamplings=6)
    assert next(iter(grows.checks)).holds is False
    single = figure9(judged, sizes=[400], resamplings=6)
    assert not any(check.holds for check in single.checks), (
        "nothing falls where there is one number"
    )


def test_figure9_compares_the_same_attributes_at_every_size(setting):
    """A label that some of the smallest sets lack would change what the mean is of."""
    space = space_with(0.0)
    labels = space.labels.assign(Bald=(np.arange(400) < 4).astype(float), Smiling=1.0)
    labels.loc[labels.index[:390], "Smiling"] = np.nan
    labels.loc[labels.index[395:], "Smiling"] = 0.0
    space = replace(space, labels=labels)
    everybody, few = torch.arange(400), torch.arange(20, 60)
    names = ["Male", "Young", "Bald", "Smiling"]
    assert separable(space, names, [everybody]) == names
    assert separable(space, names, [everybody, few]) == ["Male", "Young"]
    judged = replace(setting, space=space, scorer=tiny_setting.Judge(tuple(names)))
    found = figure9(judged, sizes=[20, 400], resamplings=6)
    assert found.figures["names"] == ["Male", "Young"]
    assert found.figures["pairs"]["Young and Bald"][-1] is not None
    assert "the 2 attributes, of 4," in found.note


def test_subspace_of_all_models_is_the_space(setting):
    space = setting.space
    whole = subspace(space, torch.arange(len(space.names)))
    assert (whole.components @ whole.components.T - torch.eye(len(whole))).abs().max() < 1e-5
    again = whole.to_weights(whole.coefficients)
    assert (again - space.to_weights(space.coefficients)).abs().max() < 1e-4
    assert whole.captured_variance == pytest.approx(space.captured_variance)


def test_subspace_of_some_models_holds_these_and_not_the_others(setting):
    space, rows = setting.space, torch.tensor([0, 3, 5, 9])
    some = subspace(space, rows)
    assert len(some) == 3
    assert some.names == tuple(space.names[i] for i in rows)
    weights = space.to_weights(space.coefficients)
    assert some.relative_residual(weights[rows]).max() < 1e-2
    assert some.relative_residual(weights[[1, 2]]).min() > 0.1
    assert (some.coefficients - some.project(weights[rows])).abs().max() < 1e-3
    with pytest.raises(W2WError, match="at least two"):
        subspace(space, torch.tensor([0]))


def test_subsets_depend_on_seed_size_and_resampling(setting):
    drawn = {
        tuple(draw_subset(setting.space, 10, resampling, seed).tolist())
        for resampling in range(3)
        for seed in range(3)
    }
    assert len(drawn) == 9
    assert all(len(set(rows)) == 10 for rows in drawn)


def test_judged_edit_counts_the_wanted_change_only(setting):
    """White images become black ones: whatever the judge sees, both ways are told apart."""
    white = torch.full((2, 1, 1, 16, 16, 3), 255, dtype=torch.uint8)
    before, after = setting.score(white), setting.score(torch.zeros_like(white))
    label = setting.scorer.label_names[0]
    now = float(setting.attribute(after, label)[0, 0, 0]) > 0.5
    add = torch.tensor([now, not now])
    judged = score_edit(setting, before, after, label, add)
    assert judged["success"][0].item() == 1
    assert all(judged[name][1].isnan().all() for name in judged), "it was there before"
    assert judged["alignment"][0].item() > 0
    assert judged["distance"][0].item() > 0
    unchanged = score_edit(setting, before, before, label, add)
    assert unchanged["success"][0].item() == 0
    assert unchanged["id_score"][0].item() == pytest.approx(1, abs=1e-5)
    assert unchanged["others_kept"][0].item() == 1
    assert unchanged["distance"][0].item() == pytest.approx(0, abs=1e-6)
    assert same_person(before).isnan().all(), "one image has no other to be like"
    level = torch.tensor([0.5, 0.5])
    shares = summarise([score_edit(setting, before, before, label, add, level=level)])
    assert shares["id_share"]["mean"] == pytest.approx(2)


def test_same_person_level_is_of_other_seeds_where_there_is_one_image(setting):
    weights = setting.people.weights[:2]
    one, two = (setting.generate(weights, ["a"], seeds, steps=1) for seeds in ([0], [0, 1]))
    assert torch.equal(same_person_level(setting, weights, ["a"], two), same_person(two))
    more = same_person(setting.generate(weights, ["a"], EXTRA_SEEDS))
    assert torch.equal(same_person_level(setting, weights, ["a"], one), more)


def test_labels_by_chance_are_those_that_two_images_of_one_model_share():
    probabilities = torch.tensor([[[0.9, 0.1], [0.8, 0.2], [0.7, 0.9]], [[0.1, 0.1]] * 3])
    seen = Scored(torch.zeros(2, 1, 3, 1, 1, 3, dtype=torch.uint8), *[probabilities[:, None]] * 2)
    torch.testing.assert_close(same_labels(seen), torch.tensor([4 / 6, 1.0]))


def test_edit_of_nothing_leaves_what_was_drawn_before(setting):
    label = setting.scorer.label_names[0]
    start = Originals.generate(setting, setting.people.weights[:2], ["a"], [0, 1])
    assert torch.equal(start.weights, setting.space.to_weights(start.points))
    assert torch.equal(start.level, same_person(start.before))
    found = Direction(label, torch.tensor([0.0, 1.0]), std=2.0)
    still = start.edit(found, 0.0)
    assert torch.equal(still.add, start.lacking(label))
    assert torch.equal(still.after.images, start.before.images)
    moved = start.edit(found, 3.0)
    judged = score_edit(setting, start.before, moved.after, label, moved.add, level=start.level)
    for name, values in judged.items():
        torch.testing.assert_close(moved.scores[name], values, equal_nan=True)
    assert moved.scores["distance"].nan_to_num().max() > 0


def test_share_is_the_ratio_of_means_and_as_sure(setting):
    generator = torch.Generator().manual_seed(0)
    levels = 0.5 + torch.rand(30, 4, generator=generator)
    values = 0.6 * levels
    values[3], levels[3] = torch.nan, torch.nan
    found = estimate(ratio_of_means(values, levels))
    assert found["mean"] == pytest.approx(0.6, abs=1e-5)
    assert found["high"] - found["low"] < 1e-5, "all the spread was in the levels"
    levels[0] = 1e-6
    assert estimate(ratio_of_means(values, levels))["mean"] == pytest.approx(
        float(values.nanmean() / levels.nanmean())
    )


def test_checks_of_trends_are_not_trivial():
    assert rises([1.0, 2.0, 3.0])
    assert not rises([1.0, 1.0, 2.0]) and not rises([1.0]) and not rises([1.0, float("nan")])
    assert above_zero(estimate(torch.tensor([1.0, 1.1, 0.9])))
    for values in ([0.0, 0.0], [1.0], [-1.0, 1.2, 0.1]):
        assert not above_zero(estimate(torch.tensor(values)))
    assert not above_zero(None)


def test_scene_is_what_lies_outside_of_the_face(setting):
    dark = setting.score(torch.zeros(1, 1, 1, 16, 16, 3, dtype=torch.uint8))
    left, top, right, bottom = (round(16 * share) for share in load_world("people").focus)
    face = dark.images.clone()
    face[..., top:bottom, left:right, :] = 255
    assert scene_difference(setting, dark, setting.score(face)).item() == 0
    assert scene_difference(setting, dark, setting.score(~face)).item() == pytest.approx(255)


def test_sketches_have_no_colour_and_keep_lines():
    pixels = load_world("people").draw(
        load_world("people").subject(7, 0), load_world("people").image(7, 0, 0), 64
    )
    drawn = sketch(pixels)
    both = torch.from_numpy(np.stack([pixels, drawn]))
    colour = colourfulness(both)
    assert colour[0] > 30
    assert colour[1] == 0
    assert drawn.std() > 10


def test_distortions_leave_what_they_say():
    world = load_world("people")
    pixels = world.draw(world.subject(7, 0), world.image(7, 0, 0), 64)
    assert (invert_colours(invert_colours(pixels)) == pixels).all()
    blocks = pixelate(pixels).reshape(16, 4, 16, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert abs(pixelate(pixels).mean() - pixels.mean()) < 0.5
    odd = pixels[:60, :60]
    assert pixelate(odd).shape == odd.shape
    assert (pixelate(odd)[:3, :3] == pixelate(odd)[0, 0]).all(), "4 px do not fit 17 times, 3 do"
    covered = cover_half(pixels)
    assert (covered[:, :32] == pixels[:, :32]).all()
    assert (covered[:, 32:] == 128).all()


def test_agreement_is_beside_that_with_the_others():
    """Three people who differ in every label but one: seen as they are, and not as the others."""
    truth = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]], dtype=torch.bool)
    seen = truth.float()[:, None, None].expand(3, 1, 2, 4)
    right, chance = agreements(seen, truth)
    assert right.shape == (3, 2) and (right == 1).all()
    assert chance.tolist() == [0.5, 0.5, 0.5]


def test_sliders_are_of_the_scale_of_their_recipe(setting):
    layout = slider_layout(setting)
    assert layout.scale == 1
    assert replace(layout, alpha=setting.layout.alpha) == setting.layout


def test_weakest_strength_that_is_enough():
    curve = {s: {"success": {"mean": m}} for s, m in ((1.0, 0.5), (2.0, 0.85), (3.0, 0.9))}
    assert enough(curve) == 2.0
    assert enough({1.0: curve[1.0]}) == 1.0


def test_measures_at_a_success_lie_between_the_strengths_around_it():
    values = {
        1.0: {"success": 0.4, "id_score": 0.9, "distance": 0.1, "alignment": 2, "others_kept": 1},
        2.0: {"success": 0.8, "id_score": 0.7, "distance": 0.3, "alignment": 4, "others_kept": 0.9},
    }
    curve = {s: {m: {"mean": v} for m, v in each.items()} for s, each in values.items()}
    half = at_success(curve, 0.6)
    assert half == pytest.approx(
        {"success": 0.6, "id_score": 0.8, "distance": 0.2, "alignment": 3, "others_kept": 0.95}
    )
    assert at_success(curve, 0.2)["id_score"] == pytest.approx(0.95)  # half of strength 1
    assert at_success(curve, 0.8) == pytest.approx(values[2.0])
    assert set(at_success(curve, 0.9).values()) == {None}


# Keeping and going on.


def test_equal_inputs_are_not_measured_again(setting, tmp_path, monkeypatch):
    said, measured = [], []

    def figure9(setting, **options):
        measured.append(options)
        image = Sheet("a", Image.new("RGB", (4, 4)), "nothing")
        return Result("figure9", "title", "paper", [Check("so", True)], {"x": 1.0}, [], [image])

    module = SimpleNamespace(QUICK={"resamplings": 2}, figure9=figure9)
    monkeypatch.setattr(runner, "_module", lambda name: module)

    def measure(setting, **options):
        run(["figure9"], setting, tmp_path, log=said.append, **options)

    measure(setting)
    measure(setting)
    assert measured == [{}]
    assert said[-1] == "figure9: already done"
    other = replace(setting, seed=1)
    measure(other)
    measure(other, quick=True)
    assert measured == [{}, {}, {"resamplings": 2}]
    next(tmp_path.glob("*.png")).unlink()
    measure(other, quick=True)
    assert len(measured) == 4


def test_cache_is_keyed_by_what_parts_depend_on(tmp_path):
    cache, calls = Cache(tmp_path / "parts"), []

    def compute():
        calls.append(1)
        return {"a": torch.arange(3)}

    for inputs in ({"x": 1}, {"x": 1}, {"x": 2}):
        assert cache.tensors(inputs, compute)["a"].tolist() == [0, 1, 2]
    assert len(calls) == 2
    for path in (tmp_path / "parts").iterdir():
        path.write_bytes(b"damaged")
    assert cache.tensors({"x": 1}, compute)["a"].tolist() == [0, 1, 2]
    assert len(calls) == 3
    assert cache.json({"y": 1}, lambda: [1]) == cache.json({"y": 1}, lambda: [2]) == [1]
    assert Cache(None).json({"y": 1}, lambda: [2]) == [2]


def test_generated_images_are_cached(setting, tmp_path, monkeypatch):
    kept = replace(setting, cache=Cache(tmp_path))
    first = kept.generate(kept.people.weights[:1], ["a"], [0], steps=2)
    monkeypatch.setattr("weights2weights.evaluate.setting.generate", None)
    again = kept.generate(kept.people.weights[:1], ["a"], [0], steps=2)
    assert torch.equal(first.images, again.images)
    with pytest.raises(TypeError):
        kept.generate(kept.people.weights[:1], ["a"], [1], steps=2)


def test_digest_tells_values_apart():
    values = [torch.zeros(2), torch.zeros(1, 2), torch.ones(2), "a", ["a"], [["a"]], {"a": 1}, None]
    assert len({digest(value) for value in values}) == len(values)


def test_results_survive_the_disk(tmp_path):
    image = Sheet("a", Image.new("RGB", (4, 4)), "see", 3)
    figures = {"x": float("nan"), "y": torch.ones(2)}
    result = Result("figure4", "t", "p", [], figures, [Table("c", ["a"], [[1]])], [image])
    write_result(tmp_path, result, {"seconds": 1.0})
    stored = read_result(tmp_path, "figure4")
    assert stored is not None
    assert stored.facts["figures"] == {"x": None, "y": [1.0, 1.0]}
    assert read_result(tmp_path, "figure9") is None
    (tmp_path / "figure4.json").write_text("{")
    assert read_result(tmp_path, "figure4") is None


def test_inputs_are_all_that_figures_depend_on(setting):
    space, held_out = setting.space, setting.held_out
    flipped = 1 - space.labels.astype(float)
    other_labels = held_out.labels.iloc[::-1].set_axis(held_out.labels.index)
    half = replace(setting.base, dtype=torch.bfloat16)
    changed = [
        replace(setting, base=half),
        replace(setting, space=replace(space, labels=flipped)),
        replace(setting, held_out=None),
        replace(setting, held_out=replace(held_out, labels=other_labels)),
        replace(setting, recipe=replace(setting.recipe, learning_rate=1e-5)),
        replace(setting, inversion=replace(setting.inversion, lr_end_factor=0.5)),
        replace(setting, seed=1),
        replace(setting, scorer_hash="other"),
    ]
    assert len({digest(one.inputs) for one in [setting, *changed]}) == len(changed) + 1
    assert digest(replace(setting).inputs) == digest(setting.inputs)


def test_what_is_measured_is_part_of_the_inputs_but_not_of_drawings(setting, tmp_path, monkeypatch):
    kept = replace(setting, cache=Cache(tmp_path))
    first, before = kept.generate(kept.people.weights[:1], ["a"], [0], steps=2), kept.inputs
    monkeypatch.setattr("experiments.setting.MEASURED", 1_000)
    later = replace(kept)
    assert digest(later.inputs) != digest(before)
    monkeypatch.setattr("weights2weights.evaluate.setting.generate", None)
    again = later.generate(later.people.weights[:1], ["a"], [0], steps=2)
    assert torch.equal(first.images, again.images)


def test_page_shows_what_was_measured_on_one_base_space_dtype_and_seed(
    setting, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        runner, "_measure", lambda name, setting, out, quick: written(setting, name)
    )

    def written(setting, name):
        result = Result(name, f"Title of {name}", "p")
        return write_result(tmp_path, result, {**setting.measured_on(), "seconds": 1.0})

    run(["figure4"], setting, tmp_path, log=lambda text: None)
    run(["figure9"], replace(setting, seed=1), tmp_path, log=lambda text: None)
    page = (tmp_path / "report.html").read_text()
    assert "Title of figure9" in page
    assert "Title of figure4" not in page
    half = replace(setting, seed=1, base=replace(setting.base, dtype=torch.bfloat16))
    run(["figure26-27"], half, tmp_path, log=lambda text: None)
    page = (tmp_path / "report.html").read_text()
    assert "Title of figure26-27" in page and "bfloat16)" in page
    assert "Title of figure9" not in page


def test_experiments_on_the_space_alone_do_not_depend_on_people(setting, tmp_path, monkeypatch):
    seen = []
    stored = Stored({"seconds": 0.0}, tmp_path)
    monkeypatch.setattr(
        runner, "_measure", lambda name, setting, *rest: seen.append(setting.held_out) or stored
    )
    run(["figure9", "figure8"], setting, tmp_path, log=lambda text: None)
    assert seen == [None, setting.held_out]


def test_models_are_trained_in_the_layout_of_the_space(setting, tmp_path):
    """A recipe of another rank and alpha gives way, so that drawings mean what they say."""
    wide = replace(setting, recipe=replace(setting.recipe, rank=2, alpha=5.0))
    names = list(setting.held_out.names[:2])
    write_images(setting, names, 2, tmp_path / "subjects")
    found = find_subjects(tmp_path / "subjects")
    dataset = wide.train(found, tmp_path / "weights", cache=tmp_path / "cache")
    assert not setting.layout.difference(dataset.layout)


def test_what_could_not_be_learned_is_tried_again(setting, tmp_path):
    names = list(setting.held_out.names[:2])
    write_images(setting, names, 2, tmp_path / "subjects")
    found = find_subjects(tmp_path / "subjects")
    image = tmp_path / "subjects" / names[1] / "000.png"
    whole = image.read_bytes()
    image.write_bytes(b"damaged")
    with pytest.raises(W2WError, match=rf"{names[1]} could not be trained"):
        setting.train(found, tmp_path / "weights", cache=tmp_path / "cache")
    image.write_bytes(whole)
    dataset = setting.train(found, tmp_path / "weights", cache=tmp_path / "cache")
    assert not dataset.failed
    assert set(dataset.names) == set(names)


def test_held_out_people_are_unseen_and_at_least_two(setting, tmp_path):
    with pytest.raises(W2WError, match="1 models"):
        _ = replace(setting, held_out=setting.held_out.first(1)).people
    with pytest.raises(W2WError, match="1 models"):
        train_held_out(setting, tmp_path, 1)
    names = (f"people-{HELD_OUT}-00001", *setting.space.names[1:])
    known = replace(setting.space, names=names, labels=setting.space.labels.set_axis(names))
    with pytest.raises(W2WError, match=r"fitted to 1 .* people-950-00001"):
        train_held_out(replace(setting, space=known), tmp_path, 2)
    assert not list(tmp_path.iterdir())


def test_held_out_people_are_drawn_once(setting, tmp_path, monkeypatch):
    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "cache"))
    quick = replace(setting, recipe=replace(setting.recipe, steps=1))
    first = train_held_out(quick, tmp_path / "held-out", 2)
    assert first.names == (f"people-{HELD_OUT}-00000", f"people-{HELD_OUT}-00001")
    assert not first.labels.isna().any(axis=None)
    monkeypatch.setattr(held_out, "write_subjects", None)
    again = train_held_out(quick, tmp_path / "held-out", 2)
    assert torch.equal(again.weights, first.weights)
    next((tmp_path / "held-out" / "subjects").glob("*/*.txt")).unlink()
    with pytest.raises(TypeError):
        train_held_out(quick, tmp_path / "held-out", 2)


def test_unknown_experiment_is_an_error(setting, tmp_path):
    with pytest.raises(W2WError, match="no experiment 'table3'"):
        run(["table3"], setting, tmp_path)


def test_missing_held_out_people_are_an_error(setting, tmp_path):
    with pytest.raises(W2WError, match="--held-out"):
        run(["figure30"], replace(setting, held_out=None), tmp_path, log=lambda text: None)


@pytest.mark.parametrize(
    "name",
    ["table1", "attributes", "composed", "table2", "figure9", "figure28", "figure31", "figure34"],
)
def test_missing_labels_are_an_error_before_any_work(name, setting, tmp_path, monkeypatch):
    monkeypatch.setattr(type(setting), "generate", None)
    space = setting.space.with_models(setting.space.coefficients, setting.space.names)
    with pytest.raises(W2WError, match="no labels among"):
        run([name], replace(setting, space=space), tmp_path, log=lambda text: None)


def test_figure8_takes_the_labels_that_are_known(setting):
    labels = setting.people.labels.astype(float)
    labels.loc[labels.index[0], ["Male", "Young"]] = np.nan
    known = figure8._known_labels(setting, replace(setting.people, labels=labels))
    assert {"Male", "Young"} & set(known) == set()
    assert len(known) == len(setting.scorer.label_names) - 2
    with pytest.raises(W2WError, match="no label is known"):
        figure8._known_labels(setting, replace(setting.people, labels=labels[["Male"]]))


# python -m experiments


def test_program_trains_held_out_people_for_the_experiments_that_need_some(
    setting, tiny_base, few, tmp_path, monkeypatch
):
    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "cache"))
    recipe = setting.recipe
    monkeypatch.setitem(training.PRESETS, "people", recipe)
    setting.space.save_pretrained(tmp_path / "space")

    def run(*args):
        where = ["--base", tiny_base, "--space", tmp_path / "space", "--out", tmp_path / "out"]
        args = [*args, *where, "--quick", "--device", "cpu"]
        result = CliRunner().invoke(main, [*map(str, args)], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr

    run("figure9", "figure26-27")
    assert not (tmp_path / "out" / "held-out").exists()
    run("figure31", "figure9", "--people", 3)
    people = tmp_path / "out" / "held-out" / "subjects"
    assert len([path for path in people.iterdir() if path.is_dir()]) == 3
    page = (tmp_path / "out" / "report.html").read_text()
    for name in ("figure9", "figure26-27", "figure31"):
        stored = read_result(tmp_path / "out", name)
        assert stored is not None and stored.facts["title"] in page


def test_program_reports_wrong_arguments_before_work(tmp_path):
    def run(*args):
        return CliRunner().invoke(main, [*map(str, args)])

    for names in (["table9"], ["all", "table9"]):
        result = run(*names, "--out", tmp_path)
        assert result.exit_code == 2
        assert "'table9' is not one of" in result.stderr
    assert run("all", "--out", tmp_path, "--held-out", tmp_path, "--people", 3).exit_code == 2
    assert run("all").exit_code == 2


def test_stored_results_of_the_repository_have_the_form_of_new_ones():
    folder = Path(runner.__file__).parent / "results"
    for name in EXPERIMENTS:
        facts = json.loads((folder / f"{name}.json").read_text())
        assert facts["experiment"] == name
        assert all(set(check) == {"statement", "holds", "value"} for check in facts["checks"])
