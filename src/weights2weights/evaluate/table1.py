"""Table 1: edits of held-out people by prompting, by text sliders and by directions of the space.

Also, for every labelled attribute, how often the wanted change is seen at 1, 2 and 3 standard
deviations and what else changes (section 4.3), and whether four edits at once persist over seeds
and prompts (Figs. 6 and 15).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..directions import edit
from ..layout import WeightLayout
from ..merging import merge_weights
from ..metrics.attributes import SEEN
from ..sheets import image_grid
from ..sliders import PAPER, RECIPES, Concept, train_sliders
from ._edits import (
    EXTRA_SEEDS,
    MEASURES,
    PAPER_ATTRIBUTES,
    Unedited,
    direction,
    edited,
    judge_edit,
    required_labels,
    same_labels,
    successes,
    summarise,
)
from ._estimates import estimate, mean
from ._keep import digest_of_fields
from ._plots import COLORS, plot
from ._report import Estimate, Result, Sheet, Table
from ._setting import Seen, Setting

COMPOSED = ("Eyeglasses", "Dark_Skin", "Chubby", "Wearing_Hat")

ENOUGH = 0.8
"""Share of images with the wanted change from which a strength is enough."""

ALONE_SEEDS = 2
"""So many of the composed edits' seeds, to see what each of them does without the others."""

PERSISTING = 0.8
"""How often a composed edit must be seen, as a share of how often it is seen alone."""

QUICK = {
    "people": 6,
    "seeds": 1,
    "each_people": 4,
    "composed_people": 2,
    "slider_steps": 100,
    "composed_seeds": 4,
}

Judged = dict[str, Float[Tensor, "k p s"]]


def table1(
    setting: Setting,
    *,
    people: int = 100,
    prompts: int = 2,
    seeds: int = 1,
    strengths: Sequence[float] = (1.0, 2.0, 3.0),
    scales: Sequence[float] = (1.0, 2.0, 3.0),
    slider_steps: int | None = None,
    each_people: int = 100,
    composed_people: int = 40,
    composed_seeds: int = 8,
    attributes: Sequence[str] = PAPER_ATTRIBUTES,
    composed: Sequence[str] = COMPOSED,
) -> Result:
    """Compare three ways to edit held-out people, then measure every attribute of the space.

    Every model is moved towards what its images lack, or away from what they show. For sliders
    and directions the table takes the weakest of their strengths that succeeds in 80 % of images,
    over all attributes together; else the strongest.

    Args:
        setting: with held-out people.
        people: for the comparison.
        prompts: of the comparison.
        seeds: of all but the composed edits.
        strengths: of directions, in standard deviations of the training models.
        scales: of sliders.
        slider_steps: of their training; None takes the recipe's.
        each_people: for the figures of every attribute.
        composed_people: for four edits at once.
        composed_seeds: for them; times four prompts.
        attributes: of the comparison.
        composed: the edits that are made at once.
    """
    labels, all_labels, at_once = (
        required_labels(setting.space, wanted)
        for wanted in (attributes, setting.scorer.label_names, composed)
    )
    compared = _compare(setting, people, prompts, seeds, strengths, scales, slider_steps, labels)
    every = _every_attribute(setting, each_people, seeds, strengths, all_labels)
    together = _composed(setting, composed_people, composed_seeds, max(strengths), at_once)
    figures = {"comparison": compared.figures, **every.figures, "composed": together.figures}
    return Result(
        "table1",
        "Table 1: edits of held-out people",
        "ID score for prompting, sliders and w2w: gender 0.39, 0.33, 0.45; chubby 0.29, 0.33, 0.45;"
        " narrow eyes 0.52, 0.53, 0.72. LPIPS: 0.30, 0.39, 0.31; 0.41, 0.38, 0.36; 0.32, 0.30,"
        " 0.19. CLIP score of the edit: 1.98, 3.50, 4.13; 1.12, 2.21, 2.16; 0.17, 0.01, 0.59. w2w"
        " keeps the person best, and up to four edits compose and persist over seeds and prompts.",
        {**compared.checks, **every.checks, **together.checks},
        figures,
        [*compared.tables, *every.tables, *together.tables],
        [*compared.images, *every.images, *together.images],
        "The perceptual distance is over the features of this world's scorer and is no LPIPS; the"
        " gain is the change of the attribute reader's logit, for which CLIP stands in the paper."
        " An image that shows the wanted state before the edit counts in no row and no check; the"
        " shares of composed edits over all images and by prompt (`seen`, `by_prompt` among the"
        " figures) count every image. Tied labels cannot all stay: a bald man has no wavy hair."
        " Where prompting is ahead: this base learned from captions that say these very words.",
    )


# The comparison.


Curve = dict[float, dict[str, Any]]
"""For each strength what `summarise` gives."""

SHOWN = ("id_score", "distance", "alignment", "success", "others_kept")


def _compare(
    setting: Setting,
    people: int,
    prompts: int,
    seeds: int,
    strengths: Sequence[float],
    scales: Sequence[float],
    slider_steps: int | None,
    names: Sequence[str],
) -> Result:
    noises, texts = list(range(seeds)), setting.prompts[:prompts]
    start = Unedited.draw(setting, setting.people.first(people).weights, texts, noises)
    sliders = _sliders(setting, names, slider_steps)
    after: dict[str, dict[str, dict[float, Seen]]] = {}
    judged: dict[str, dict[str, dict[float, Judged]]] = {}
    for name, slider in zip(names, sliders, strict=True):
        after[name], judged[name] = _by_every_method(start, name, slider, strengths, scales)
    curves: dict[str, Curve] = {
        method: {
            strength: summarise([judged[name][method][strength] for name in names])
            for strength in judged[names[0]][method]
        }
        for method in ("prompting", "sliders", "w2w")
    }
    chosen = {method: enough(curve) for method, curve in curves.items()}
    at_chosen = {method: curve[chosen[method]] for method, curve in curves.items()}
    equal = {
        method: at_success(curve, mean(curves["prompting"][1.0]["success"]))
        for method, curve in curves.items()
    }
    figures = {
        "people": len(start.weights),
        "strengths": chosen,
        "mean": {method: _text_keys(curve) for method, curve in curves.items()},
        "at_success_of_prompting": equal,
        "attributes": {
            name: {
                method: _text_keys({s: summarise([values]) for s, values in by_strength.items()})
                for method, by_strength in judged[name].items()
            }
            for name in names
        },
    }
    rows = [
        [
            f"{name.replace('_', ' ')}, {method}",
            *(summarise([judged[name][method][chosen[method]]])[m] for m in SHOWN),
        ]
        for name in names
        for method in curves
    ]
    rows += [[f"all, {method}", *(at_chosen[method][m] for m in SHOWN)] for method in curves]
    told = ", ".join(f"{method} {chosen[method]:g}" for method in ("sliders", "w2w"))
    columns = ["edit", *(MEASURES[m] for m in SHOWN)]
    title = f"{len(start.weights)} people, {prompts} prompts, seeds: {seeds}; strengths: {told}"
    level = [[method, *(values[m] for m in SHOWN)] for method, values in equal.items()]
    sheets = [
        _sheet(name, start.before, {m: after[name][m][chosen[m]] for m in curves}) for name in names
    ]
    return Result(
        "comparison",
        "",
        "",
        _checks(
            {m: {k: mean(v[m]) for k, v in at_chosen.items()} for m in SHOWN},
            {m: {k: v[m] for k, v in equal.items()} for m in SHOWN},
        ),
        figures,
        [
            Table(title, columns, rows),
            Table("The same at the success of prompting, between two strengths", columns, level),
        ],
        [_curves(curves), *sheets],
    )


def _by_every_method(
    start: Unedited,
    name: str,
    slider: Float[Tensor, " d"],
    strengths: Sequence[float],
    scales: Sequence[float],
) -> tuple[dict[str, dict[float, Seen]], dict[str, dict[float, Judged]]]:
    """Edit one attribute by every method at each of its strengths: images, and how they are."""
    setting, add = start.setting, start.lacking(name)
    ours = {strength: start.edit(name, strength) for strength in strengths}
    after = {
        "prompting": {1.0: _prompted(start, name, add)},
        "sliders": {scale: _slid(start, slider, add, scale) for scale in scales},
    }
    judged = {
        method: {
            strength: judge_edit(setting, start.before, seen, name, add, level=start.level)
            for strength, seen in by_strength.items()
        }
        for method, by_strength in after.items()
    }
    after["w2w"] = {strength: each.after for strength, each in ours.items()}
    judged["w2w"] = {strength: each.judged for strength, each in ours.items()}
    return after, judged


def _checks(
    chosen: Mapping[str, Mapping[str, float]], equal: Mapping[str, Mapping[str, float | None]]
) -> dict[str, bool]:
    """Say where w2w is ahead: measure → method → mean, at chosen strengths, at equal success."""
    return {
        "w2w keeps the person better than sliders and prompting (ID score)": (
            chosen["id_score"]["w2w"] > max(_without(chosen["id_score"]))
        ),
        "w2w changes the image least (perceptual distance)": (
            chosen["distance"]["w2w"] < min(_without(chosen["distance"]))
        ),
        "w2w makes the change best seen (gain)": (
            chosen["alignment"]["w2w"] > max(_without(chosen["alignment"]))
        ),
        "w2w keeps other attributes best": (
            chosen["others_kept"]["w2w"] > max(_without(chosen["others_kept"]))
        ),
        "At the success of prompting, w2w keeps the person best (ID score)": (
            _leads(equal["id_score"])
        ),
        "At the success of prompting, w2w keeps other attributes best": (
            _leads(equal["others_kept"])
        ),
    }


def _leads(values: Mapping[str, float | None]) -> bool:
    """Say whether w2w is ahead of those that succeed as often, if it does so itself."""
    others = [value for method, value in values.items() if method != "w2w" and value is not None]
    ours = values["w2w"]
    return ours is not None and bool(others) and ours > max(others)


def at_success(curve: Mapping[float, Mapping[str, Any]], success: float) -> dict[str, float | None]:
    """Return every measure where a curve succeeds in a given share of images.

    Between the two strengths around it, by straight lines; 0 changes nothing. None if no strength
    succeeds as often.
    """
    nothing = {"success": 0.0, "id_score": 1.0, "distance": 0.0, "alignment": 0.0}
    nothing["others_kept"] = 1.0
    points = [nothing] + [{m: mean(curve[s][m]) for m in SHOWN} for s in sorted(curve)]
    for low, high in pairwise(points):
        if low["success"] < success <= high["success"]:
            share = (success - low["success"]) / (high["success"] - low["success"])
            return {m: low[m] + share * (high[m] - low[m]) for m in SHOWN}
    return dict.fromkeys(SHOWN)


def enough(curve: Mapping[float, Mapping[str, Any]]) -> float:
    """Return the weakest strength whose edits succeed in `ENOUGH` of images, else the strongest."""
    succeeding = [s for s in sorted(curve) if mean(curve[s]["success"]) >= ENOUGH]
    return succeeding[0] if succeeding else max(curve)


def _without(means: Mapping[str, float]) -> list[float]:
    return [value for method, value in means.items() if method != "w2w"]


def _text_keys(values: Mapping[float, Any]) -> dict[str, Any]:
    return {f"{strength:g}": value for strength, value in values.items()}


def slider_layout(setting: Setting) -> WeightLayout:
    """Return the layout of sliders: the models' layers and rank, at the sliders' scale.

    Their learning rates are for updates of B · A as they are. A model's alpha of 27 would make
    steps 27 times as large, and no baseline of what comes out.
    """
    return replace(setting.layout, alpha=float(setting.layout.rank))


def _sliders(setting: Setting, names: Sequence[str], steps: int | None) -> Float[Tensor, "a d"]:
    """Train a slider for every attribute, once."""
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
        concepts = [
            Concept(positive, negative, setting.recipe.class_prompt)
            for positive, negative in prompts
        ]
        learned = train_sliders(
            setting.base,
            slider_layout(setting),
            concepts,
            recipe,
            seed=setting.seed,
            progress=setting.progress,
        )
        return {"weights": learned}

    return setting.keep.tensors(inputs, train)["weights"]


def _slid(
    start: Unedited, slider: Float[Tensor, " d"], add: Bool[Tensor, " k"], scale: float
) -> Seen:
    """Draw models beside a slider, in the direction that each needs."""
    setting = start.setting
    layout: WeightLayout = setting.layout
    rows = []
    for row, towards in zip(start.weights, add.tolist(), strict=True):
        sign = 1.0 if towards else -1.0
        layout, merged = merge_weights(
            setting.layout, row, slider_layout(setting), slider, weight=sign * scale
        )
        rows.append(merged)
    return setting.draw(torch.stack(rows).float(), start.prompts, start.seeds, layout=layout)


def _prompted(start: Unedited, name: str, add: Bool[Tensor, " k"]) -> Seen:
    """Draw models whose prompts ask for the attribute, or for its opposite."""
    setting, images = start.setting, None
    for towards, text in zip((True, False), setting.world.attribute_prompts[name], strict=True):
        chosen = add == towards
        if not chosen.any():
            continue
        texts = [setting.world.edit_prompt(prompt, text) for prompt in start.prompts]
        drawn = setting.draw(start.weights[chosen], texts, start.seeds).images
        if images is None:
            images = drawn.new_zeros(len(start.weights), *drawn.shape[1:])
        images[chosen] = drawn
    assert images is not None  # every model is in one of the halves
    return setting.look(images)


def _curves(curves: Mapping[str, Mapping[float, Mapping[str, Any]]]) -> Sheet:
    with plot(1, 2, size=(9.0, 3.6)) as p:
        for axes, measure in zip(p.axes, ("id_score", "others_kept"), strict=True):
            for color, (method, curve) in zip(COLORS, curves.items(), strict=False):
                points = [(mean(e["success"]), mean(e[measure])) for e in curve.values()]
                axes.plot(*zip(*points, strict=True), marker="o", color=color, label=method)
            axes.set_xlabel(MEASURES["success"])
            axes.set_ylabel(MEASURES[measure])
        p.axes[0].legend()
    caption = (
        "What an edit costs: success, and how much of the person (left) and of the other attributes"
        " (right) stays. Further right and higher is better; along a line the strength grows."
    )
    return Sheet("cost", p.image, caption, 560)


def _sheet(name: str, before: Seen, after: Mapping[str, Seen], shown: int = 5) -> Sheet:
    images = [before.images, *(seen.images for seen in after.values())]
    table = torch.stack([each[:shown, 0, 0] for each in images], 1)
    caption = f"{name.replace('_', ' ')}: each row one person, one prompt and seed."
    return Sheet(name.lower(), image_grid(table, (), ["before", *after]), caption, 420)


# Every attribute.


def _every_attribute(
    setting: Setting, people: int, seeds: int, strengths: Sequence[float], names: Sequence[str]
) -> Result:
    chosen = setting.people.first(people)
    start = Unedited.draw(setting, chosen.weights, setting.prompts[:1], list(range(seeds)))
    figures: dict[str, Any] = {
        name: {
            "auc": direction(setting.space, name).auc,
            "strengths": {f"{a:g}": summarise([start.edit(name, a).judged]) for a in strengths},
        }
        for name in names
    }
    # what chance alone changes, beside which to see what an edit does
    redrawn = setting.draw(start.weights, start.prompts, EXTRA_SEEDS)
    chance = estimate(same_labels(redrawn))
    best = {name: best_strength(figures[name]["strengths"]) for name in names}
    shown = ("success", "id_share", "others_kept", "untied_kept")
    rows = [
        [
            name.replace("_", " "),
            figures[name]["auc"],
            best[name],
            *(figures[name]["strengths"][best[name]][m] for m in shown),
        ]
        for name in names
    ]
    rows.append(["no edit, another seed", None, None, None, None, chance, None])
    aucs = [figures[name]["auc"] for name in names if figures[name]["auc"] is not None]
    at_best = [figures[name]["strengths"][best[name]] for name in names]
    succeeding = sum(mean(values["success"]) >= ENOUGH for values in at_best)
    checks = {
        f"The wanted change is seen in 80 % of images for 15 attributes (here {succeeding})": (
            succeeding >= 15
        ),
        "ID score to the unedited image is 0.6 of the same-person level, on average": (
            average([mean(values["id_share"]) for values in at_best]) >= 0.6
        ),
        "90 % of the other labels stay, on average": (
            average([mean(values["others_kept"]) for values in at_best]) >= 0.9
        ),
        "90 % of the labels that are not tied to the edited one stay, on average": (
            average([mean(values["untied_kept"]) for values in at_best]) >= 0.9
        ),
        "Held-out AUC of the directions is 0.9 on average": average(aucs) >= 0.9,
    }
    caption = (
        f"Every attribute of {len(chosen)} people, at the weakest strength that succeeds in 80 % of"
        " images, else the strongest"
    )
    columns = ["attribute", "held-out AUC", "strength", *(MEASURES[m] for m in shown)]
    every = {"attributes": figures, "others_kept_by_chance": chance}
    return Result("every", "", "", checks, every, [Table(caption, columns, rows)])


def best_strength(by_strength: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the strength that `enough` chooses, as it is spelled."""
    spelled = {float(strength): strength for strength in by_strength}
    return spelled[enough({number: by_strength[s] for number, s in spelled.items()})]


def average(values: Sequence[float]) -> float:
    """Return the mean of what is a number."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


# Four edits at once.


def _composed(
    setting: Setting, people: int, seeds: int, strength: float, names: Sequence[str]
) -> Result:
    space, noises, texts = setting.space, list(range(seeds)), setting.prompts[:4]
    start = Unedited.draw(setting, setting.people.first(people).weights, texts, noises)
    points, before = start.points, start.before
    add = {name: start.lacking(name) for name in names}
    moved = torch.stack(
        [
            edit(
                point,
                {direction(space, n): float(strength if add[n][i] else -strength) for n in names},
            )
            for i, point in enumerate(points)
        ]
    )
    after = setting.draw(space.to_weights(moved), texts, noises)
    judged = {
        name: judge_edit(setting, before, after, name, add[name], names, start.level)
        for name in names
    }
    alone = {name: _alone(start, name, strength, add[name]) for name in names}
    # of the same images as alone
    beside = {name: estimate(judged[name]["success"][..., :ALONE_SEEDS]) for name in names}
    wanted = torch.stack([setting.sees(after, n) > SEEN for n in names], -1)
    towards = torch.stack([add[n] for n in names], -1)[:, None, None]
    figures = {
        "people": len(points),
        "strength": strength,
        # of every image, also those that showed the wanted state before
        "seen": estimate((wanted == towards).float()),
        "each": {name: summarise([values]) for name, values in judged.items()},
        "alone": alone,
        "beside_the_others": beside,
        "together": summarise(list(judged.values())),
        "by_prompt": {
            text: estimate((wanted == towards).float()[:, i]) for i, text in enumerate(texts)
        },
    }
    shown = ("success", "id_score", "others_kept")
    rows = [
        [name.replace("_", " "), alone[name], *(values[m] for m in shown)]
        for name, values in figures["each"].items()
    ]
    rows.append(["all", None, *(figures["together"][m] for m in shown)])
    caption = (
        f"{len(names)} edits of {len(points)} people at once, at {strength:g} standard deviations,"
        f" over {len(texts)} prompts × {seeds} seeds, alone over the first {ALONE_SEEDS} seeds"
    )
    columns = ["edit", f"{MEASURES['success']} alone", *(MEASURES[m] for m in shown)]
    table = torch.stack([before.images[:3, :, 0], after.images[:3, :, 0]], 1).flatten(0, 1)
    rows_of_sheet = ["before", "after"] * min(3, len(points))
    sheet = Sheet(
        "composed",
        image_grid(table, rows_of_sheet, [text.split(", ")[-1] for text in texts]),
        f"{', '.join(_words(names))}, each towards what the person lacks; one person in two rows.",
        420,
    )
    return Result(
        "composed",
        "",
        "",
        {
            "Composed edits persist: each is seen in 80 % of images over seeds and prompts": (
                all(mean(values["success"]) >= ENOUGH for values in figures["each"].values())
            ),
            "Each composed edit is seen at least 0.8 times as often as it is alone": all(
                mean(beside[name]) >= PERSISTING * mean(alone[name]) for name in names
            ),
        },
        figures,
        [Table(caption, columns, rows)],
        [sheet],
    )


def _alone(start: Unedited, name: str, strength: float, add: Bool[Tensor, " k"]) -> Estimate | None:
    """Return how often one of the composed edits is seen without the others."""
    setting, seeds = start.setting, start.seeds[:ALONE_SEEDS]
    moved = edited(start.points, [(direction(setting.space, name), strength)], add)
    after = setting.draw(setting.space.to_weights(moved), start.prompts, seeds)
    was = setting.sees(start.before, name)[..., :ALONE_SEEDS]
    return estimate(successes(was, setting.sees(after, name), add))


def _words(names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ").lower() for name in names]
