"""The items measure what they say, resume, and make one page; all on the tiny base."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import tiny_setting
from weights2weights import cli
from weights2weights.errors import W2WError
from weights2weights.evaluate import (
    ITEMS,
    Result,
    Sheet,
    Stored,
    Table,
    evaluate,
    figure8,
    train_held_out,
)
from weights2weights.evaluate import _items as items
from weights2weights.evaluate._edits import (
    EXTRA_SEEDS,
    Unedited,
    edited,
    judge_edit,
    labels_of,
    lacking,
    ratio_of_means,
    same_labels,
    same_person,
    same_person_level,
    summarise,
)
from weights2weights.evaluate._estimates import above_zero, estimate, rises
from weights2weights.evaluate._images import colourfulness, sketch
from weights2weights.evaluate._keep import Keep, digest
from weights2weights.evaluate._report import read_result, write_result
from weights2weights.evaluate._setting import HELD_OUT, Seen, subject_of
from weights2weights.evaluate._subspace import draw_subset, subspace
from weights2weights.evaluate.figure8 import agreements, cover_half, invert_colours, pixelate
from weights2weights.evaluate.figure9 import entanglement, figure9, told_apart
from weights2weights.evaluate.figure34 import scene_difference
from weights2weights.evaluate.table1 import at_success, enough, slider_layout
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
        "each_people": 2,
        "composed_people": 2,
        "composed_seeds": 1,
    },
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
    """Let all items run with the fewest images, as if that were --quick."""
    monkeypatch.setattr(items, "_options", lambda name, quick: FEWEST[name])


@pytest.mark.parametrize("name", ITEMS)
def test_every_item_gives_figures_tables_and_images(name, setting, few, tmp_path, monkeypatch):
    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "cache"))
    (stored,) = evaluate([name], setting, tmp_path, quick=True, say=lambda text: None)
    facts = json.loads((tmp_path / f"{name}.json").read_text())
    assert facts == stored.facts
    assert facts["item"] == name
    assert facts["quick"] is True
    assert facts["base"] == setting.base.id
    assert facts["space"] == "tiny"
    assert facts["seconds"] > 0
    assert facts["checks"] and all(isinstance(holds, bool) for holds in facts["checks"].values())
    assert facts["figures"]
    for table in facts["tables"]:
        assert table["rows"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert facts["images"]
    for image in facts["images"]:
        assert (tmp_path / image["file"]).read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text()
    assert facts["title"] in page
    assert "A first look with few images" in page
    assert "no photograph" in page


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
    assert next(iter(falls.checks.values())) is True
    grows = figure9(judged, sizes=[400, 20], resamplings=6)
    assert next(iter(grows.checks.values())) is False
    single = figure9(judged, sizes=[400], resamplings=6)
    assert not any(single.checks.values()), "nothing falls where there is one number"


def test_figure9_compares_the_same_attributes_at_every_size(setting):
    """A label that some of the smallest sets lack would change what the mean is of."""
    space = space_with(0.0)
    labels = space.labels.assign(Bald=(np.arange(400) < 4).astype(float), Smiling=1.0)
    labels.loc[labels.index[:390], "Smiling"] = np.nan
    labels.loc[labels.index[395:], "Smiling"] = 0.0
    space = replace(space, labels=labels)
    everybody, few = torch.arange(400), torch.arange(20, 60)
    names = ["Male", "Young", "Bald", "Smiling"]
    assert told_apart(space, names, [everybody]) == names
    assert told_apart(space, names, [everybody, few]) == ["Male", "Young"]
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


def test_edits_go_towards_what_is_lacking(setting):
    from weights2weights.directions import Direction

    found = Direction("Male", torch.tensor([0.0, 1.0]), std=2.0)
    add = torch.tensor([True, False])
    moved = edited(torch.ones(2, 3), [(found, 1.5)], add)
    assert moved.tolist() == [[1, 4, 1], [1, -2, 1]]
    assert lacking(torch.tensor([[[0.2, 0.3]], [[0.9, 0.8]]])).tolist() == [True, False]


def test_judged_edit_counts_the_wanted_change_only(setting):
    """White images become black ones: whatever the judge sees, both ways are told apart."""
    white = torch.full((2, 1, 1, 16, 16, 3), 255, dtype=torch.uint8)
    before, after = setting.look(white), setting.look(torch.zeros_like(white))
    label = setting.scorer.label_names[0]
    now = float(setting.sees(after, label)[0, 0, 0]) > 0.5
    add = torch.tensor([now, not now])
    judged = judge_edit(setting, before, after, label, add)
    assert judged["success"][0].item() == 1
    assert all(judged[name][1].isnan().all() for name in judged), "it was there before"
    assert judged["alignment"][0].item() > 0
    assert judged["distance"][0].item() > 0
    unchanged = judge_edit(setting, before, before, label, add)
    assert unchanged["success"][0].item() == 0
    assert unchanged["id_score"][0].item() == pytest.approx(1, abs=1e-5)
    assert unchanged["others_kept"][0].item() == 1
    assert unchanged["distance"][0].item() == pytest.approx(0, abs=1e-6)
    assert same_person(before).isnan().all(), "one image has no other to be like"
    level = torch.tensor([0.5, 0.5])
    shares = summarise([judge_edit(setting, before, before, label, add, level=level)])
    assert shares["id_share"]["mean"] == pytest.approx(2)


def test_same_person_level_is_of_other_seeds_where_there_is_one_image(setting):
    weights = setting.people.weights[:2]
    one, two = (setting.draw(weights, ["a"], seeds, steps=1) for seeds in ([0], [0, 1]))
    assert torch.equal(same_person_level(setting, weights, ["a"], two), same_person(two))
    more = same_person(setting.draw(weights, ["a"], EXTRA_SEEDS))
    assert torch.equal(same_person_level(setting, weights, ["a"], one), more)


def test_labels_by_chance_are_those_that_two_images_of_one_model_share():
    probabilities = torch.tensor([[[0.9, 0.1], [0.8, 0.2], [0.7, 0.9]], [[0.1, 0.1]] * 3])
    seen = Seen(torch.zeros(2, 1, 3, 1, 1, 3, dtype=torch.uint8), *[probabilities[:, None]] * 2)
    torch.testing.assert_close(same_labels(seen), torch.tensor([4 / 6, 1.0]))


def test_edit_of_nothing_leaves_what_was_drawn_before(setting):
    label = setting.scorer.label_names[0]
    start = Unedited.draw(setting, setting.people.weights[:2], ["a"], [0, 1])
    assert torch.equal(start.weights, setting.space.to_weights(start.points))
    assert torch.equal(start.level, same_person(start.before))
    still = start.edit(label, 0.0)
    assert torch.equal(still.add, start.lacking(label))
    assert torch.equal(still.after.images, start.before.images)
    moved = start.edit(label, 3.0)
    judged = judge_edit(setting, start.before, moved.after, label, moved.add, level=start.level)
    for name, values in judged.items():
        torch.testing.assert_close(moved.judged[name], values, equal_nan=True)
    assert moved.judged["distance"].nan_to_num().max() > 0


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


def test_labels_that_all_or_no_models_have_are_left_out(setting):
    labels = setting.space.labels.copy()
    labels["Male"], labels["Young"] = True, False
    space = replace(setting.space, labels=labels)
    assert labels_of(space, ["Male", "Young", "Bald", "Nothing"]) == ["Bald"]


def test_scene_is_what_lies_outside_of_the_face(setting):
    dark = setting.look(torch.zeros(1, 1, 1, 16, 16, 3, dtype=torch.uint8))
    left, top, right, bottom = (round(16 * share) for share in load_world("people").focus)
    face = dark.images.clone()
    face[..., top:bottom, left:right, :] = 255
    assert scene_difference(setting, dark, setting.look(face)).item() == 0
    assert scene_difference(setting, dark, setting.look(~face)).item() == pytest.approx(255)


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


def test_interval_counts_people_not_images():
    """Copies of a person's images make a mean no surer."""
    values = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    once, often = estimate(values), estimate(values.repeat(1, 50))
    assert once is not None and often is not None
    assert often["clusters"] == once["clusters"] == 20
    assert often["low"] == pytest.approx(once["low"], abs=1e-6)
    assert estimate(torch.full((3, 2), torch.nan)) is None


# Keeping and going on.


def test_equal_inputs_are_not_measured_again(setting, tmp_path, monkeypatch):
    said, measured = [], []

    def figure9(setting, **options):
        measured.append(options)
        image = Sheet("a", Image.new("RGB", (4, 4)), "nothing")
        return Result("figure9", "title", "paper", {"so": True}, {"x": 1.0}, [], [image])

    module = SimpleNamespace(QUICK={"resamplings": 2}, figure9=figure9)
    monkeypatch.setattr(items, "_module", lambda name: module)

    def run(setting, **options):
        evaluate(["figure9"], setting, tmp_path, say=said.append, **options)

    run(setting)
    run(setting)
    assert measured == [{}]
    assert said[-1] == "figure9: there already"
    other = replace(setting, seed=1)
    run(other)
    run(other, quick=True)
    assert measured == [{}, {}, {"resamplings": 2}]
    next(tmp_path.glob("*.png")).unlink()
    run(other, quick=True)
    assert len(measured) == 4


def test_parts_are_kept_by_what_they_depend_on(tmp_path):
    keep, calls = Keep(tmp_path / "parts"), []

    def compute():
        calls.append(1)
        return {"a": torch.arange(3)}

    for inputs in ({"x": 1}, {"x": 1}, {"x": 2}):
        assert keep.tensors(inputs, compute)["a"].tolist() == [0, 1, 2]
    assert len(calls) == 2
    for path in (tmp_path / "parts").iterdir():
        path.write_bytes(b"damaged")
    assert keep.tensors({"x": 1}, compute)["a"].tolist() == [0, 1, 2]
    assert len(calls) == 3
    assert (
        keep.num_parameters({"y": 1}, lambda: [1])
        == keep.num_parameters({"y": 1}, lambda: [2])
        == [1]
    )
    assert Keep(None).num_parameters({"y": 1}, lambda: [2]) == [2]


def test_drawings_are_kept(setting, tmp_path, monkeypatch):
    from weights2weights.evaluate import _setting

    kept = replace(setting, keep=Keep(tmp_path))
    first = kept.draw(kept.people.weights[:1], ["a"], [0], steps=2)
    monkeypatch.setattr(_setting, "generate", None)
    again = kept.draw(kept.people.weights[:1], ["a"], [0], steps=2)
    assert torch.equal(first.images, again.images)
    with pytest.raises(TypeError):
        kept.draw(kept.people.weights[:1], ["a"], [1], steps=2)


def test_digest_tells_values_apart():
    values = [torch.zeros(2), torch.zeros(1, 2), torch.ones(2), "a", ["a"], [["a"]], {"a": 1}, None]
    assert len({digest(value) for value in values}) == len(values)


def test_results_survive_the_disk(tmp_path):
    image = Sheet("a", Image.new("RGB", (4, 4)), "see", 3)
    figures = {"x": float("nan"), "y": torch.ones(2)}
    result = Result("figure4", "t", "p", {}, figures, [Table("c", ["a"], [[1]])], [image])
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
    from weights2weights.evaluate import _setting

    kept = replace(setting, keep=Keep(tmp_path))
    first, before = kept.draw(kept.people.weights[:1], ["a"], [0], steps=2), kept.inputs
    monkeypatch.setattr(_setting, "MEASURED", _setting.MEASURED + 1)
    later = replace(kept)
    assert digest(later.inputs) != digest(before)
    monkeypatch.setattr(_setting, "generate", None)
    again = later.draw(later.people.weights[:1], ["a"], [0], steps=2)
    assert torch.equal(first.images, again.images)


def test_page_shows_what_was_measured_on_one_base_space_dtype_and_seed(
    setting, tmp_path, monkeypatch
):
    monkeypatch.setattr(items, "_measure", lambda name, setting, out, quick: written(setting, name))

    def written(setting, name):
        result = Result(name, f"Title of {name}", "p")
        return write_result(tmp_path, result, {**setting.context(), "seconds": 1.0})

    evaluate(["figure4"], setting, tmp_path, say=lambda text: None)
    evaluate(["figure9"], replace(setting, seed=1), tmp_path, say=lambda text: None)
    page = (tmp_path / "report.html").read_text()
    assert "Title of figure9" in page
    assert "Title of figure4" not in page
    half = replace(setting, seed=1, base=replace(setting.base, dtype=torch.bfloat16))
    evaluate(["figure26-27"], half, tmp_path, say=lambda text: None)
    page = (tmp_path / "report.html").read_text()
    assert "Title of figure26-27" in page and "numbers: bfloat16" in page
    assert "Title of figure9" not in page


def test_items_of_the_space_alone_do_not_depend_on_people(setting, tmp_path, monkeypatch):
    seen = []
    stored = Stored({"seconds": 0.0}, tmp_path)
    monkeypatch.setattr(
        items, "_measure", lambda name, setting, *rest: seen.append(setting.held_out) or stored
    )
    evaluate(["figure9", "figure8"], setting, tmp_path, say=lambda text: None)
    assert seen == [None, setting.held_out]


def test_models_are_learned_in_the_layout_of_the_space(setting, tmp_path):
    """A recipe of another rank and alpha gives way, so that drawings mean what they say."""
    wide = replace(setting, recipe=replace(setting.recipe, rank=2, alpha=5.0))
    names = list(setting.held_out.names[:2])
    setting.write_images(names, 2, tmp_path / "subjects")
    found = find_subjects(tmp_path / "subjects")
    dataset = wide.learn(found, tmp_path / "weights", cache=tmp_path / "cache")
    assert not setting.layout.difference(dataset.layout)


def test_what_could_not_be_learned_is_tried_again(setting, tmp_path):
    names = list(setting.held_out.names[:2])
    setting.write_images(names, 2, tmp_path / "subjects")
    found = find_subjects(tmp_path / "subjects")
    image = tmp_path / "subjects" / names[1] / "000.png"
    whole = image.read_bytes()
    image.write_bytes(b"damaged")
    with pytest.raises(W2WError, match=rf"{names[1]} could not be trained"):
        setting.learn(found, tmp_path / "weights", cache=tmp_path / "cache")
    image.write_bytes(whole)
    dataset = setting.learn(found, tmp_path / "weights", cache=tmp_path / "cache")
    assert not dataset.failed
    assert set(dataset.names) == set(names)


def test_held_out_people_are_strangers_and_more_than_one(setting, tmp_path):
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
    from weights2weights.evaluate import _setting

    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "cache"))
    quick = replace(setting, recipe=replace(setting.recipe, steps=1))
    first = train_held_out(quick, tmp_path / "held-out", 2)
    assert first.people.names == (f"people-{HELD_OUT}-00000", f"people-{HELD_OUT}-00001")
    assert not first.people.labels.isna().any(axis=None)
    monkeypatch.setattr(_setting, "write_subjects", None)
    again = train_held_out(quick, tmp_path / "held-out", 2)
    assert torch.equal(again.people.weights, first.people.weights)
    next((tmp_path / "held-out" / "subjects").glob("*/*.txt")).unlink()
    with pytest.raises(TypeError):
        train_held_out(quick, tmp_path / "held-out", 2)


def test_unknown_item_is_told(setting, tmp_path):
    with pytest.raises(W2WError, match="no item 'table3'"):
        evaluate(["table3"], setting, tmp_path)


def test_items_that_need_people_say_so(setting, tmp_path):
    with pytest.raises(W2WError, match="--held-out"):
        evaluate(["figure30"], replace(setting, held_out=None), tmp_path, say=lambda text: None)


@pytest.mark.parametrize(
    "name", ["table1", "table2", "figure9", "figure28", "figure31", "figure34"]
)
def test_items_that_need_labels_say_so_before_work(name, setting, tmp_path, monkeypatch):
    monkeypatch.setattr(type(setting), "draw", None)
    space = setting.space.with_models(setting.space.coefficients, setting.space.names)
    with pytest.raises(W2WError, match="no labels among"):
        evaluate([name], replace(setting, space=space), tmp_path, say=lambda text: None)


def test_figure8_takes_the_labels_that_are_known(setting):
    labels = setting.people.labels.astype(float)
    labels.loc[labels.index[0], ["Male", "Young"]] = np.nan
    known = figure8._known_labels(setting, replace(setting.people, labels=labels))
    assert {"Male", "Young"} & set(known) == set()
    assert len(known) == len(setting.scorer.label_names) - 2
    with pytest.raises(W2WError, match="no label is known"):
        figure8._known_labels(setting, replace(setting.people, labels=labels[["Male"]]))


def test_names_of_subjects():
    world = load_world("people")
    assert subject_of(world, "people-3-00012") == (1003, 12)
    with pytest.raises(W2WError, match="no drawn subject"):
        subject_of(world, "adam")


# w2w evaluate


def test_verb_runs_to_the_end(setting, tiny_base, few, tmp_path, monkeypatch):
    """Held-out people are trained for the items that need some, and for no others."""
    from weights2weights.evaluate import _setting

    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_setting, "default_config", lambda base: setting.recipe)
    setting.space.save_pretrained(tmp_path / "space")

    def run(*args):
        where = ["--base", tiny_base, "--space", tmp_path / "space", "--out", tmp_path / "out"]
        args = ["evaluate", *args, *where, "--quick", "--device", "cpu", "--json"]
        result = CliRunner().invoke(cli.main, [*map(str, args)], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)["items"]

    assert set(run("figure9", "figure26-27")) == {"figure9", "figure26-27"}
    assert not (tmp_path / "out" / "held-out").exists()
    told = run("figure31", "figure9", "--people", 3)
    assert told["figure31"]["base"] == str(tiny_base)
    assert "there already" not in json.dumps(told)
    people = tmp_path / "out" / "held-out" / "subjects"
    assert len([path for path in people.iterdir() if path.is_dir()]) == 3
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(told[name]["title"] in page for name in told)


def test_verb_tells_what_is_wrong_before_work(tmp_path):
    def run(*args):
        return CliRunner().invoke(cli.main, ["evaluate", *map(str, args)], prog_name="w2w")

    for items_given in (["table9"], ["all", "table9"]):
        result = run(*items_given, "--out", tmp_path)
        assert result.exit_code == 2
        assert "no item 'table9'" in result.stderr
    result = run("all", "--out", tmp_path, "--held-out", tmp_path, "--people", 3)
    assert result.exit_code == 2
    assert run("all").exit_code == 2
