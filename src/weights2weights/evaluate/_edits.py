"""Edits judged as in the paper's Table 1: same prompt and seed, before and after."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..directions import Direction, edit, find_direction
from ..metrics.alignment import logit
from ..metrics.attributes import SEEN, edit_success, others_kept
from ..metrics.perceptual import ScorerDistance
from ..space import WeightSpace
from ._report import Estimate
from ._setting import Seen, Setting, estimate

MEASURES = {
    "success": "wanted change seen",
    "id_score": "ID score",
    "id_share": "ID score, share of same-person level",
    "others_kept": "other labels kept",
    "untied_kept": "other labels kept, apart from tied ones",
    "distance": "perceptual distance",
    "alignment": "gain of the reader's logit",
}
"""What `judge_edit` measures → what it is called in a table."""


@lru_cache(maxsize=256)
def direction(space: WeightSpace, label: str, components: int | None = None) -> Direction:
    """Find the direction of a label, once."""
    return find_direction(space, label, components=components)


def labels_of(space: WeightSpace, wanted: Collection[str]) -> list[str]:
    """Give those of the wanted labels that some models of a space have, and others have not."""
    table = space.labels
    return [name for name in wanted if name in table and len(set(table[name].dropna())) > 1]


def lacking(before: Float[Tensor, "k p s"]) -> Bool[Tensor, " k"]:
    """Say which models do not show a label in most pictures: those that shall get it."""
    return (before > SEEN).float().flatten(1).mean(1) < 0.5


def edited(
    coefficients: Float[Tensor, "k m"],
    changes: Sequence[tuple[Direction, float]],
    add: Bool[Tensor, " k"],
) -> Float[Tensor, "k m"]:
    """Edit every model towards the changes where `add` says so, else away from them."""
    there = edit(coefficients, changes)
    return torch.where(add[:, None], there, 2 * coefficients - there)


def judge_edit(
    setting: Setting,
    before: Seen,
    after: Seen,
    label: str,
    add: Bool[Tensor, " k"],
    others: Collection[str] = (),
) -> dict[str, Float[Tensor, "k p s"]]:
    """Judge every picture after an edit beside that of the same prompt and seed before it.

    Args:
        setting: whose scorer judges.
        before: pictures of the models.
        after: pictures of the edited models.
        label: what was edited.
        add: for each model whether the label shall be there afterwards, or gone.
        others: labels that were edited as well, and so need not be kept.

    Returns:
        the `MEASURES`; NaN where a picture showed the wanted state before.
    """
    was, now = setting.sees(before, label), setting.sees(after, label)
    towards = add[:, None, None]
    success = torch.where(towards, edit_success(now, True, was), edit_success(now, False, was))
    id_score = (before.identity * after.identity).sum(-1)
    seen = before.attributes, after.attributes, setting.scorer.label_names
    tied = set().union(*(setting.world.tied[name] for name in (label, *others)))
    tied &= set(setting.scorer.label_names)
    judge = ScorerDistance(setting.scorer)
    flat = (side.pictures.flatten(0, 2).numpy() for side in (before, after))
    gain = (logit(now) - logit(was)) * torch.where(towards, 1.0, -1.0)
    values = {
        "success": success,
        "id_score": id_score,
        "id_share": id_score / same_person(before).clamp(min=1e-3)[:, None, None],
        "others_kept": others_kept(*seen, {label, *others}),
        "untied_kept": others_kept(*seen, {label, *others}, tied - {label, *others}),
        "distance": judge.distance(*flat).view_as(was),
        "alignment": gain,
    }
    return {name: value.masked_fill(success.isnan(), torch.nan) for name, value in values.items()}


def same_person(seen: Seen) -> Float[Tensor, " k"]:
    """Give for each model the mean ID score of two of its pictures; 1 if there is only one."""
    one = seen.identity.flatten(1, 2)
    if one.shape[1] < 2:
        return torch.ones(len(one))
    first, second = torch.triu_indices(one.shape[1], one.shape[1], 1)
    return (one[:, first] * one[:, second]).sum(-1).mean(1)


def summarise(
    judged: Sequence[Mapping[str, Float[Tensor, "k p s"]]],
) -> dict[str, Estimate | None]:
    """Give every measure's mean over several edits of the same models, with its interval."""
    together = {name: torch.stack([values[name] for values in judged], 1) for name in MEASURES}
    return {name: estimate(values) for name, values in together.items()}


def mean(figure: Any) -> float:
    """Give the mean of an estimate; NaN if there is none."""
    return float("nan") if figure is None else float(figure["mean"])
