"""Edits scored as in the paper's Table 1: same prompt and seed, before and after."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..directions import Direction, edit
from ..errors import InputError
from ..metrics.attributes import SEEN, edit_success, others_kept
from ..metrics.confidence import Estimate, estimate
from ..space import WeightSpace
from .setting import Scored, Setting

Scores = dict[str, Float[Tensor, "k p s"]]
"""Measure → its value for every image."""


@dataclass(frozen=True, eq=False)
class Edit:
    """Images of edited models, and whether each was moved towards the label or away from it."""

    add: Bool[Tensor, " k"]
    after: Scored


def edit_towards_missing(
    setting: Setting,
    points: Float[Tensor, "k m"],
    before: Scored,
    direction: Direction,
    strength: float,
    prompts: Sequence[str],
    seeds: Sequence[int],
    **options: Any,
) -> Edit:
    """Add a label to the models that do not show it and remove it from those that do.

    Args:
        setting: setting of the models.
        points: coefficients of the models.
        before: images of the models.
        direction: its name is the label.
        strength: in standard deviations of the training models.
        prompts: of the images after the edit.
        seeds: likewise.
        **options: of `generation.generate`.
    """
    add = lacking(setting.attribute(before, direction.name))
    weights = setting.space.to_weights(edited(points, {direction: strength}, add))
    return Edit(add, setting.generate(weights, prompts, seeds, **options))


def lacking(before: Float[Tensor, "k p s"]) -> Bool[Tensor, " k"]:
    """Return which models do not show a label in most of their images."""
    return (before > SEEN).float().flatten(1).mean(1) < 0.5


def edited(
    coefficients: Float[Tensor, "k m"],
    changes: Mapping[Direction, float],
    add: Bool[Tensor, " k"],
) -> Float[Tensor, "k m"]:
    """Edit each model by the changes where `add` is true, and by their opposite elsewhere."""
    there = edit(coefficients, changes)
    return torch.where(add[:, None], there, 2 * coefficients - there)


def score_edit(
    setting: Setting,
    before: Scored,
    after: Scored,
    label: str,
    add: Bool[Tensor, " k"],
    also_edited: Collection[str] = (),
) -> Scores:
    """Compare every image after an edit with that of the same prompt and seed before it.

    Args:
        setting: setting of the models.
        before: images of the models.
        after: images of the edited models.
        label: label that was edited.
        add: for each model whether it should gain the label, or lose it.
        also_edited: other labels that were edited, and need not be kept.

    Returns:
        `success`, `id_score` and `others_kept`; NaN where the image before the edit already showed
        the wanted state.
    """
    was, now = setting.attribute(before, label), setting.attribute(after, label)
    success = edit_success(now, add[:, None, None], was)
    attributes = before.attributes, after.attributes, setting.scorer.label_names
    scores = {
        "success": success,
        "id_score": (before.identity * after.identity).sum(-1),
        "others_kept": others_kept(*attributes, {label, *also_edited}),
    }
    return {name: score.masked_fill(success.isnan(), torch.nan) for name, score in scores.items()}


def summarise(edits: Sequence[Mapping[str, Float[Tensor, "k p s"]]]) -> dict[str, Estimate | None]:
    """Return the mean of every score over several edits of the same models, with its interval."""
    return {name: estimate(torch.stack([each[name] for each in edits], 1)) for name in edits[0]}


def known_labels(space: WeightSpace, wanted: Collection[str]) -> list[str]:
    """Return the wanted labels that some models of a space have and others do not."""
    table = space.labels
    return [name for name in wanted if name in table and len(set(table[name].dropna())) > 1]


def require_labels(space: WeightSpace, wanted: Collection[str], least: int = 1) -> list[str]:
    """Return `known_labels`, or raise if there are too few.

    Raises:
        W2WError: there are fewer than `least` of them.
    """
    names = known_labels(space, wanted)
    if len(names) < least:
        asked = ", ".join(list(wanted)[:8]) + (", …" if len(wanted) > 8 else "")
        raise InputError(
            f"the space has {len(names) or 'no'} labels among {asked}: expected at least {least}"
            " that some of its models have and others do not; fit it to labelled models"
        )
    return names
