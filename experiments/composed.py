"""Figures 6 and 15: four edits at once, over seeds and prompts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from weights2weights.directions import Direction, edit, find_directions
from weights2weights.evaluate.edits import edit_towards_missing, require_labels
from weights2weights.metrics.attributes import SEEN, edit_success
from weights2weights.sheets import image_grid

from .edits import ENOUGH, MEASURES, Originals, summarise
from .estimates import Estimate, estimate, mean
from .result import Check, Result, Sheet, Table
from .setting import ExperimentSetting, Scored

QUICK = {"people": 2, "seeds": 4}

COMPOSED = ("Eyeglasses", "Dark_Skin", "Chubby", "Wearing_Hat")

ALONE_SEEDS = 2
"""Seeds of the images in which each of the edits is made alone."""

PERSISTING = 0.8
"""Required success rate of a composed edit, as a share of its success rate alone."""

SHOWN = ("success", "id_score", "others_kept")


def composed(
    setting: ExperimentSetting,
    *,
    people: int = 40,
    prompts: int = 4,
    seeds: int = 8,
    strength: float = 3.0,
    attributes: Sequence[str] = COMPOSED,
) -> Result:
    """Make four edits at once, each towards what the person lacks.

    Args:
        setting: with held-out people.
        people: number of people.
        prompts: prompts of the images.
        seeds: seeds of the images.
        strength: of the edits, in standard deviations.
        attributes: edited attributes.
    """
    names = require_labels(setting.space, attributes)
    texts = setting.prompts[:prompts]
    weights = setting.people.first(people).weights
    start = Originals.generate(setting, weights, texts, list(range(seeds)))
    directions = find_directions(setting.space, names)
    add = {name: start.lacking(name) for name in names}
    points = _edit_all(start.points, directions, add, strength)
    after = setting.generate(setting.space.to_weights(points), texts, start.seeds)
    scores = {name: start.score(after, name, add[name], names) for name in names}
    alone = {name: _alone(start, directions[name], strength) for name in names}
    # of the same images as alone
    together = {name: estimate(scores[name]["success"][..., :ALONE_SEEDS]) for name in names}
    each = {name: summarise([values]) for name, values in scores.items()}
    overall = summarise(list(scores.values()))
    rows = [[_words(name), alone[name], *(each[name][m] for m in SHOWN)] for name in names]
    rows.append(["all", None, *(overall[m] for m in SHOWN)])
    return Result(
        "composed",
        "Figures 6 and 15: edits composed",
        "up to four edits compose, and persist over seeds and prompts.",
        _checks(each, together, alone),
        {
            "people": len(points),
            "strength": strength,
            **_wanted_states(setting, after, add, texts),
            "each": each,
            "alone": alone,
            "with_the_others": together,
            "together": overall,
        },
        [
            Table(
                f"{len(names)} edits of {len(points)} people at once, {strength:g} standard"
                f" deviations, {len(texts)} prompts × {seeds} seeds; alone over the first"
                f" {ALONE_SEEDS} seeds",
                ["edit", f"{MEASURES['success']} alone", *(MEASURES[m] for m in SHOWN)],
                rows,
            )
        ],
        [_sheet(names, texts, start.before, after)],
        "Images that showed the wanted state before the edit are left out; `seen` and `by_prompt`"
        " among the figures count every image.",
    )


def _edit_all(
    points: Float[Tensor, "k m"],
    directions: Mapping[str, Direction],
    add: Mapping[str, Bool[Tensor, " k"]],
    strength: float,
) -> Float[Tensor, "k m"]:
    """Edit each point by all directions, each towards what its person lacks."""
    return torch.stack(
        [
            edit(
                point,
                {found: strength if add[n][i] else -strength for n, found in directions.items()},
            )
            for i, point in enumerate(points)
        ]
    )


def _alone(start: Originals, direction: Direction, strength: float) -> Estimate | None:
    """Return the success rate of one of the edits without the others."""
    setting, seeds = start.setting, start.seeds[:ALONE_SEEDS]
    made = edit_towards_missing(
        setting, start.points, start.before, direction, strength, start.prompts, seeds
    )
    was = setting.attribute(start.before, direction.name)[..., :ALONE_SEEDS]
    now = setting.attribute(made.after, direction.name)
    return estimate(edit_success(now, made.add[:, None, None], was))


def _wanted_states(
    setting: ExperimentSetting,
    after: Scored,
    add: Mapping[str, Bool[Tensor, " k"]],
    texts: Sequence[str],
) -> dict[str, Any]:
    """Return how often the wanted states show, also where they showed before."""
    shown = torch.stack([setting.attribute(after, name) > SEEN for name in add], -1)
    towards = torch.stack(list(add.values()), -1)[:, None, None]
    right = (shown == towards).float()
    return {
        "seen": estimate(right),
        "by_prompt": {text: estimate(right[:, i]) for i, text in enumerate(texts)},
    }


def _checks(
    each: Mapping[str, Mapping[str, Any]],
    together: Mapping[str, Estimate | None],
    alone: Mapping[str, Estimate | None],
) -> list[Check]:
    success = {name: mean(figures["success"]) for name, figures in each.items()}
    shares = {name: mean(together[name]) / max(mean(alone[name]), 1e-9) for name in each}
    return [
        Check(
            "The success rate of each edit is 80 % over seeds and prompts",
            all(value >= ENOUGH for value in success.values()),
            success,
        ),
        Check(
            "The success rate of each edit is at least 0.8 of its success rate alone",
            all(mean(together[n]) >= PERSISTING * mean(alone[n]) for n in each),
            shares,
        ),
    ]


def _sheet(names: Sequence[str], texts: Sequence[str], before: Scored, after: Scored) -> Sheet:
    images = torch.stack([before.images[:3, :, 0], after.images[:3, :, 0]], 1).flatten(0, 1)
    rows = ["before", "after"] * min(3, len(before.images))
    columns = [text.split(", ")[-1] for text in texts]
    edits = ", ".join(_words(name).lower() for name in names)
    caption = f"{edits}, each towards what the person lacks; one person in two rows."
    return Sheet("composed", image_grid(images, rows, columns), caption, 420)


def _words(name: str) -> str:
    return name.replace("_", " ")
