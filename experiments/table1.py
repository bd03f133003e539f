"""Table 1: edits of held-out people by prompting, by text sliders and by directions of the space.

Every model is moved towards what its images lack, or away from what they show. Sliders and
directions are compared at the weakest strength with a success rate of 80 % over all attributes
together, or at the strongest; and once more at the success rate of prompting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from weights2weights.directions import find_directions
from weights2weights.errors import InputError
from weights2weights.evaluate.edits import require_labels
from weights2weights.layout import WeightLayout
from weights2weights.merging import merge_weights
from weights2weights.sheets import image_grid
from weights2weights.worlds.people.image import SUBJECT

from .cache import digest_of_fields
from .edits import MEASURES, PAPER_ATTRIBUTES, Edit, Originals, enough, summarise
from .estimates import mean
from .plots import COLORS, plot
from .result import Check, Result, Sheet, Table
from .setting import ExperimentSetting, Scored
from .sliders import PAPER, RECIPES, Concept, train_sliders

QUICK = {"people": 6, "seeds": 1, "slider_steps": 100}

METHODS = ("prompting", "sliders", "w2w")
SHOWN = ("id_score", "distance", "alignment", "success", "others_kept")

Curve = dict[float, dict[str, Any]]
"""Strength → the figures of `summarise`."""


def table1(
    setting: ExperimentSetting,
    *,
    people: int = 100,
    prompts: int = 2,
    seeds: int = 1,
    strengths: Sequence[float] = (1.0, 2.0, 3.0),
    scales: Sequence[float] = (1.0, 2.0, 3.0),
    slider_steps: int | None = None,
    attributes: Sequence[str] = PAPER_ATTRIBUTES,
) -> Result:
    """Compare three ways to edit held-out people.

    Args:
        setting: with held-out people.
        people: number of people.
        prompts: prompts of the images.
        seeds: seeds of the images.
        strengths: of directions, in standard deviations of the training models.
        scales: of sliders.
        slider_steps: training steps of sliders; None takes the configuration's.
        attributes: edited attributes.
    """
    names = require_labels(setting.space, attributes)
    texts, noises = setting.prompts[:prompts], list(range(seeds))
    weights = setting.people.first(people).weights
    start = Originals.generate(setting, weights, texts, noises)
    directions = find_directions(setting.space, names)
    sliders = _sliders(setting, names, slider_steps)
    edits = {
        name: {
            "prompting": {1.0: _prompted(start, name)},
            "sliders": {scale: _slid(start, name, slider, scale) for scale in scales},
            "w2w": {strength: start.edit(directions[name], strength) for strength in strengths},
        }
        for name, slider in zip(names, sliders, strict=True)
    }
    compared = _compare(edits)
    told = ", ".join(f"{method} {compared.chosen[method]:g}" for method in ("sliders", "w2w"))
    columns = ["edit", *(MEASURES[m] for m in SHOWN)]
    title = f"{len(start.weights)} people, {prompts} prompts, seeds: {seeds}; strengths: {told}"
    equal_rows = [
        [method, *(values[m] for m in SHOWN)] for method, values in compared.equal.items()
    ]
    sheets = [
        _sheet(name, start.before, {m: edits[name][m][compared.chosen[m]] for m in METHODS})
        for name in names
    ]
    return Result(
        "table1",
        "Table 1: edits of held-out people",
        "ID score for prompting, sliders and w2w: gender 0.39, 0.33, 0.45; chubby 0.29, 0.33, 0.45;"
        " narrow eyes 0.52, 0.53, 0.72. LPIPS: 0.30, 0.39, 0.31; 0.41, 0.38, 0.36; 0.32, 0.30,"
        " 0.19. CLIP score of the edit: 1.98, 3.50, 4.13; 1.12, 2.21, 2.16; 0.17, 0.01, 0.59."
        " w2w preserves identity best.",
        compared.checks(),
        {"people": len(start.weights), **compared.figures()},
        [
            Table(title, columns, compared.rows()),
            Table("At the success rate of prompting, interpolated", columns, equal_rows),
        ],
        [_curves(compared.curves), *sheets],
        "The perceptual distance is computed from the features of this world's scorer and is not"
        " LPIPS; the change of the attribute reader's logit takes the place of the CLIP score."
        " Images that showed the wanted state before the edit are left out. Where prompting is"
        " ahead: this base was trained on captions with these very words.",
    )


@dataclass(frozen=True)
class _Comparison:
    """Figures of the three methods.

    Attributes:
        edits: attribute → method → strength → edit.
        curves: method → strength → figures over all attributes.
        chosen: method → strength at which the methods are compared.
        equal: method → figures at the success rate of prompting.
    """

    edits: Mapping[str, Mapping[str, Mapping[float, Edit]]]
    curves: dict[str, Curve]
    chosen: dict[str, float]
    equal: dict[str, dict[str, float | None]]

    def figures(self) -> dict[str, Any]:
        attributes = {
            name: {
                method: {f"{s:g}": summarise([edit.scores]) for s, edit in by_strength.items()}
                for method, by_strength in by_method.items()
            }
            for name, by_method in self.edits.items()
        }
        means = {
            method: {f"{s:g}": figures for s, figures in curve.items()}
            for method, curve in self.curves.items()
        }
        return {
            "strengths": self.chosen,
            "mean": means,
            "at_success_of_prompting": self.equal,
            "attributes": attributes,
        }

    def rows(self) -> list[list[Any]]:
        rows: list[list[Any]] = []
        for name, by_method in self.edits.items():
            for method in METHODS:
                figures = summarise([by_method[method][self.chosen[method]].scores])
                rows.append([f"{_words(name)}, {method}", *(figures[m] for m in SHOWN)])
        for method in METHODS:
            figures = self.curves[method][self.chosen[method]]
            rows.append([f"all, {method}", *(figures[m] for m in SHOWN)])
        return rows

    def checks(self) -> list[Check]:
        at_chosen = {
            m: {method: mean(self.curves[method][self.chosen[method]][m]) for method in METHODS}
            for m in SHOWN
        }
        at_equal = {m: {method: self.equal[method][m] for method in METHODS} for m in SHOWN}
        return comparison_checks(at_chosen, at_equal)


def _compare(edits: Mapping[str, Mapping[str, Mapping[float, Edit]]]) -> _Comparison:
    strengths = {method: list(next(iter(edits.values()))[method]) for method in METHODS}
    curves: dict[str, Curve] = {
        method: {
            strength: summarise([each[method][strength].scores for each in edits.values()])
            for strength in strengths[method]
        }
        for method in METHODS
    }
    chosen = {method: enough(curve) for method, curve in curves.items()}
    target = mean(curves["prompting"][1.0]["success"])
    equal = {method: at_success(curve, target) for method, curve in curves.items()}
    return _Comparison(edits, curves, chosen, equal)


def comparison_checks(
    chosen: Mapping[str, Mapping[str, float]], equal: Mapping[str, Mapping[str, float | None]]
) -> list[Check]:
    """Return where w2w is ahead: measure → method → mean, at chosen strengths, at equal success."""

    def best(measure: str) -> bool:
        means = chosen[measure]
        return means["w2w"] > max(value for method, value in means.items() if method != "w2w")

    least = chosen["distance"]["w2w"] < min(
        value for method, value in chosen["distance"].items() if method != "w2w"
    )
    statements = {
        "w2w preserves identity better than sliders and prompting (ID score)": (
            best("id_score"),
            chosen["id_score"],
        ),
        "w2w changes the image least (perceptual distance)": (least, chosen["distance"]),
        "w2w makes the change most visible (change of the reader's logit)": (
            best("alignment"),
            chosen["alignment"],
        ),
        "w2w preserves other attributes best": (best("others_kept"), chosen["others_kept"]),
        "At the success rate of prompting, w2w preserves identity best (ID score)": (
            _leads(equal["id_score"]),
            equal["id_score"],
        ),
        "At the success rate of prompting, w2w preserves other attributes best": (
            _leads(equal["others_kept"]),
            equal["others_kept"],
        ),
    }
    return [Check(text, holds, dict(value)) for text, (holds, value) in statements.items()]


def _leads(values: Mapping[str, float | None]) -> bool:
    """Return whether w2w reaches the success rate and is ahead of the methods that do."""
    others = [value for method, value in values.items() if method != "w2w" and value is not None]
    ours = values["w2w"]
    return ours is not None and bool(others) and ours > max(others)


def at_success(curve: Mapping[float, Mapping[str, Any]], success: float) -> dict[str, float | None]:
    """Return every measure where a curve reaches a success rate.

    Interpolates linearly between the two neighbouring strengths; strength 0 changes nothing. None
    if no strength succeeds as often.
    """
    nothing = {"success": 0.0, "id_score": 1.0, "distance": 0.0, "alignment": 0.0}
    nothing["others_kept"] = 1.0
    points = [nothing] + [{m: mean(curve[s][m]) for m in SHOWN} for s in sorted(curve)]
    for low, high in pairwise(points):
        if low["success"] < success <= high["success"]:
            share = (success - low["success"]) / (high["success"] - low["success"])
            return {m: low[m] + share * (high[m] - low[m]) for m in SHOWN}
    return dict.fromkeys(SHOWN)


# The baselines.


def slider_layout(setting: ExperimentSetting) -> WeightLayout:
    """Return the layout of sliders: the models' layers and rank, at alpha = rank.

    Their learning rates are meant for updates B · A as they are. A model's alpha of 27 would make
    steps 27 times as large and the baseline unfair.
    """
    return replace(setting.layout, alpha=float(setting.layout.rank))


def _sliders(
    setting: ExperimentSetting, names: Sequence[str], steps: int | None
) -> Float[Tensor, "a d"]:
    """Train a slider for every attribute, or take the cached ones."""
    prompts = [setting.world.attribute_prompts[name] for name in names]
    recipe = RECIPES.get(setting.base.id, PAPER)
    recipe = recipe if steps is None else replace(recipe, steps=steps)
    inputs = {
        "sliders": [list(pair) for pair in prompts],
        "slider_recipe": digest_of_fields(recipe),
        "slider_layout": slider_layout(setting).hash,
        **setting.inputs,
    }

    def train() -> dict[str, Tensor]:
        target = setting.recipe.class_prompt
        concepts = [Concept(positive, negative, target) for positive, negative in prompts]
        layout, bar = slider_layout(setting), setting.progress
        learned = train_sliders(
            setting.base, layout, concepts, recipe, seed=setting.seed, progress=bar
        )
        return {"weights": learned}

    return setting.cache.tensors(inputs, train)["weights"]


def _slid(start: Originals, name: str, slider: Float[Tensor, " d"], scale: float) -> Edit:
    """Merge models with a slider, in the direction that each needs."""
    setting, add = start.setting, start.lacking(name)
    layout: WeightLayout = setting.layout
    rows = []
    for row, towards in zip(start.weights, add.tolist(), strict=True):
        weight = scale if towards else -scale
        layout, merged = merge_weights(
            setting.layout, row, slider_layout(setting), slider, weight=weight
        )
        rows.append(merged)
    weights = torch.stack(rows).float()
    after = setting.generate(weights, start.prompts, start.seeds, layout=layout)
    return Edit(add, after, start.score(after, name, add))


def _prompted(start: Originals, name: str) -> Edit:
    """Prompt models for the attribute, or for its opposite."""
    add = start.lacking(name)
    after = start.setting.score(_prompted_images(start, name, add))
    return Edit(add, after, start.score(after, name, add))


def _prompted_images(start: Originals, name: str, add: Bool[Tensor, " k"]) -> Tensor:
    setting, images = start.setting, torch.zeros_like(start.before.images)
    for towards, text in zip((True, False), setting.world.attribute_prompts[name], strict=True):
        chosen = add == towards
        if chosen.any():
            texts = [edit_prompt(prompt, text) for prompt in start.prompts]
            generated = setting.generate(start.weights[chosen], texts, start.seeds)
            images[chosen] = generated.images
    return images


def edit_prompt(prompt: str, wanted: str) -> str:
    """Ask for an attribute of the subject in words: editing by prompt, the simplest baseline.

    Args:
        prompt: a prompt that contains `SUBJECT`; the rest of it stays.
        wanted: one of the prompts in `ATTRIBUTE_PROMPTS`.

    Raises:
        InputError: the prompt does not name the subject.

    Example:
        >>> edit_prompt("a photo of sks person, at night", "a photo of a bald person")
        'a photo of a bald sks person, at night'
        >>> edit_prompt("a photo of sks person, at night", "a photo of a person with glasses")
        'a photo of sks person with glasses, at night'
        >>> edit_prompt("a photo of sks person, at night", "a photo of a man")
        'a photo of sks man, at night'
    """
    if SUBJECT not in prompt:
        raise InputError(f"prompt {prompt!r} does not name the subject; expected {SUBJECT!r} in it")
    identifier, noun = SUBJECT.split()
    described = wanted.removeprefix("a photo of ")
    if noun not in described:
        asked = f"{identifier} {described.removeprefix('a ')}"
    elif described.startswith(f"a {noun}"):
        asked = described.replace(f"a {noun}", SUBJECT, 1)
    else:
        asked = described.replace(noun, SUBJECT, 1)
    return prompt.replace(SUBJECT, asked)


# What the page shows.


def _curves(curves: Mapping[str, Curve]) -> Sheet:
    with plot(1, 2, size=(9.0, 3.6)) as p:
        for axes, measure in zip(p.axes, ("id_score", "others_kept"), strict=True):
            for color, (method, curve) in zip(COLORS, curves.items(), strict=False):
                points = [(mean(e["success"]), mean(e[measure])) for e in curve.values()]
                axes.plot(*zip(*points, strict=True), marker="o", color=color, label=method)
            axes.set_xlabel(MEASURES["success"])
            axes.set_ylabel(MEASURES[measure])
        p.axes[0].legend()
    caption = (
        "The cost of an edit: success rate against ID score (left) and against the other attributes"
        " kept (right). Further right and higher is better; strength grows along each line."
    )
    return Sheet("cost", p.image, caption, 560)


def _sheet(name: str, before: Scored, edits: Mapping[str, Edit], shown: int = 5) -> Sheet:
    images = [before.images, *(edit.after.images for edit in edits.values())]
    table = torch.stack([each[:shown, 0, 0] for each in images], 1)
    caption = f"{_words(name)}: one person per row, same prompt and seed."
    return Sheet(name.lower(), image_grid(table, (), ["before", *edits]), caption, 420)


def _words(name: str) -> str:
    return name.replace("_", " ")
