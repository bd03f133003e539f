"""Edits judged as in the paper's Table 1: same prompt and seed, before and after."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..directions import Direction, Method, edit, find_direction
from ..errors import InputError
from ..metrics.attributes import SEEN, edit_success, logit, others_kept
from ..metrics.perceptual import ScorerDistance
from ..space import WeightSpace
from ._estimates import estimate
from ._report import Estimate
from ._setting import Seen, Setting

MEASURES = {
    "success": "wanted change seen",
    "id_score": "ID score",
    "id_share": "ID score, share of same-person level",
    "others_kept": "other labels kept",
    "untied_kept": "other labels kept, apart from tied ones",
    "distance": "perceptual distance",
    "alignment": "gain of the reader's logit",
}
"""What `summarise` gives → what it is called in a table."""

PAPER_ATTRIBUTES = ("Male", "Chubby", "Narrow_Eyes")
"""Of the paper's Table 1: gender, chubby, narrow eyes."""

EXTRA_SEEDS = (9001, 9002, 9003)
"""Of images that say how alike two images of one model are, where a model has only one."""

# Forgotten with their space: some spaces are gigabytes.
_found: WeakKeyDictionary[WeightSpace, dict[tuple[str, int | None, Method], Direction]]
_found = WeakKeyDictionary()


def direction(
    space: WeightSpace, label: str, components: int | None = None, method: Method = "effect"
) -> Direction:
    """Find the direction of a label, once."""
    known = _found.setdefault(space, {})
    key = label, components, method
    if key not in known:
        known[key] = find_direction(space, label, components=components, method=method)
    return known[key]


def labels_of(space: WeightSpace, wanted: Collection[str]) -> list[str]:
    """Return those of the wanted labels that some models of a space have, and others have not."""
    table = space.labels
    return [name for name in wanted if name in table and len(set(table[name].dropna())) > 1]


def required_labels(space: WeightSpace, wanted: Collection[str], least: int = 1) -> list[str]:
    """Do as `labels_of`, for what cannot do without labels.

    Raises:
        W2WError: fewer than `least` of them.
    """
    names = labels_of(space, wanted)
    if len(names) < least:
        asked = ", ".join(list(wanted)[:8]) + (", …" if len(wanted) > 8 else "")
        raise InputError(
            f"the space has {len(names) or 'no'} labels among {asked}: expected {least} or more"
            " that some of its models have and others have not; fit it to models with labels"
        )
    return names


def lacking(before: Float[Tensor, "k p s"]) -> Bool[Tensor, " k"]:
    """Say which models do not show a label in most images: those that shall get it."""
    return (before > SEEN).float().flatten(1).mean(1) < 0.5


def edited(
    coefficients: Float[Tensor, "k m"],
    changes: Sequence[tuple[Direction, float]],
    add: Bool[Tensor, " k"],
) -> Float[Tensor, "k m"]:
    """Edit every model towards the changes where `add` says so, else away from them."""
    there = edit(coefficients, dict(changes))
    return torch.where(add[:, None], there, 2 * coefficients - there)


@dataclass(frozen=True, eq=False)
class Edit:
    """An edit of one label.

    Attributes:
        add: for each model whether it was moved towards the label, or away from it.
        after: images of the edited models.
        judged: see `judge_edit`.
    """

    add: Bool[Tensor, " k"]
    after: Seen
    judged: dict[str, Float[Tensor, "k p s"]]


@dataclass(frozen=True, eq=False)
class Unedited:
    """Models as the space holds them, and their images, beside which edits are judged.

    Attributes:
        setting: whose space holds the models, and whose scorer judges.
        prompts: of the images, before and after.
        seeds: of the images, before and after.
        points: coefficients of the models.
        weights: what these coefficients stand for.
        before: images of the models.
        level: of each model, from `same_person_level`.
    """

    setting: Setting
    prompts: Sequence[str]
    seeds: Sequence[int]
    points: Float[Tensor, "k m"]
    weights: Float[Tensor, "k d"]
    before: Seen
    level: Float[Tensor, " k"]

    @classmethod
    def draw(
        cls,
        setting: Setting,
        weights: Float[Tensor, "k d"],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> "Unedited":
        """Project models, which may lie outside of the space, and draw what it holds of them."""
        points = setting.space.project(weights)
        held = setting.space.to_weights(points)
        before = setting.draw(held, prompts, seeds)
        level = same_person_level(setting, held, prompts, before)
        return cls(setting, prompts, seeds, points, held, before, level)

    def lacking(self, label: str) -> Bool[Tensor, " k"]:
        """Say which models shall get a label; the others shall lose it."""
        return lacking(self.setting.sees(self.before, label))

    def edit(
        self, label: str, strength: float, found: Direction | None = None, **options: Any
    ) -> Edit:
        """Move every model along a label's direction towards what it lacks, draw it and judge.

        Args:
            label: to edit.
            strength: in standard deviations of the training models.
            found: the direction; None is that of `direction`.
            options: of `generation.generate`, for the images after the edit.
        """
        setting, add = self.setting, self.lacking(label)
        found = direction(setting.space, label) if found is None else found
        moved = setting.space.to_weights(edited(self.points, [(found, strength)], add))
        after = setting.draw(moved, self.prompts, self.seeds, **options)
        judged = judge_edit(setting, self.before, after, label, add, level=self.level)
        return Edit(add, after, judged)


def successes(
    was: Float[Tensor, "k p s"], now: Float[Tensor, "k p s"], add: Bool[Tensor, " k"]
) -> Float[Tensor, "k p s"]:
    """Do as `edit_success`, for models of which some shall get a label and the others lose it."""
    towards = add[:, None, None]
    return torch.where(towards, edit_success(now, True, was), edit_success(now, False, was))


def judge_edit(
    setting: Setting,
    before: Seen,
    after: Seen,
    label: str,
    add: Bool[Tensor, " k"],
    others: Collection[str] = (),
    level: Float[Tensor, " k"] | None = None,
) -> dict[str, Float[Tensor, "k p s"]]:
    """Judge every image after an edit beside that of the same prompt and seed before it.

    Args:
        setting: whose scorer judges.
        before: images of the models.
        after: images of the edited models.
        label: what was edited.
        add: for each model whether the label shall be there afterwards, or gone.
        others: labels that were edited as well, and so need not be kept.
        level: of each model, from `same_person_level`; None takes that of the images before.

    Returns:
        the `MEASURES` that a single image has, and `level`, what its ID score may reach; NaN
        where an image showed the wanted state before.
    """
    was, now = setting.sees(before, label), setting.sees(after, label)
    success = successes(was, now, add)
    id_score = (before.identity * after.identity).sum(-1)
    seen = before.attributes, after.attributes, setting.scorer.label_names
    tied = set().union(*(setting.world.tied[name] for name in (label, *others)))
    tied &= set(setting.scorer.label_names)
    judge = ScorerDistance(setting.scorer)
    flat = (side.images.flatten(0, 2).numpy() for side in (before, after))
    level = same_person(before) if level is None else level
    gain = (logit(now) - logit(was)) * torch.where(add[:, None, None], 1.0, -1.0)
    values = {
        "success": success,
        "id_score": id_score,
        "level": level[:, None, None].expand_as(id_score),
        "others_kept": others_kept(*seen, {label, *others}),
        "untied_kept": others_kept(*seen, {label, *others}, tied - {label, *others}),
        "distance": judge.distance(*flat).view_as(was),
        "alignment": gain,
    }
    return {name: value.masked_fill(success.isnan(), torch.nan) for name, value in values.items()}


def same_person(seen: Seen) -> Float[Tensor, " k"]:
    """Return for each model the mean ID score of two of its images; NaN if there is only one."""
    one = seen.identity.flatten(1, 2)
    if one.shape[1] < 2:
        return torch.full((len(one),), torch.nan)
    first, second = torch.triu_indices(one.shape[1], one.shape[1], 1)
    return (one[:, first] * one[:, second]).sum(-1).mean(1)


def same_labels(seen: Seen) -> Float[Tensor, " k"]:
    """Return for each model the share of labels in which two of its images agree, on average."""
    labels = seen.attributes.flatten(1, 2) > SEEN
    first, second = torch.triu_indices(labels.shape[1], labels.shape[1], 1)
    return (labels[:, first] == labels[:, second]).float().mean((1, 2))


def same_person_level(
    setting: Setting, weights: Float[Tensor, "k d"], prompts: Sequence[str], before: Seen
) -> Float[Tensor, " k"]:
    """Return what `same_person` does, of other seeds if there is but one image of each model."""
    if before.identity[0, ..., 0].numel() > 1:
        return same_person(before)
    return same_person(setting.draw(weights, prompts, EXTRA_SEEDS))


def summarise(
    judged: Sequence[Mapping[str, Float[Tensor, "k p s"]]],
) -> dict[str, Estimate | None]:
    """Return every measure's mean over several edits of the same models, with its interval."""
    together = {name: torch.stack([values[name] for values in judged], 1) for name in judged[0]}
    together["id_share"] = ratio_of_means(together["id_score"], together["level"])
    return {name: estimate(together[name]) for name in MEASURES}


def ratio_of_means(
    values: Float[Tensor, "*batch"], levels: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Return numbers whose mean is the ratio of two means, and whose spread is that of the ratio.

    Linearised: R + (x - R y) / mean(y) with R = mean(x) / mean(y), so that the interval of a mean
    serves a ratio too. A mean of ratios would be at the mercy of the smallest y.
    """
    level = levels.nanmean()
    ratio = values.nanmean() / level
    return ratio + (values - ratio * levels) / level
