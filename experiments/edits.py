"""Edits of held-out people with all that the paper's tables say about them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from weights2weights.directions import Direction
from weights2weights.evaluate import edits
from weights2weights.evaluate.edits import Scores, edit_towards_missing
from weights2weights.evaluate.setting import Scored
from weights2weights.metrics.attributes import SEEN, logit, others_kept
from weights2weights.metrics.perceptual import ScorerDistance

from .estimates import Estimate, estimate, mean
from .setting import ExperimentSetting

MEASURES = {
    "success": "success rate",
    "id_score": "ID score",
    "id_share": "ID score relative to same person",
    "others_kept": "other attributes kept",
    "untied_kept": "other attributes kept, without tied ones",
    "distance": "perceptual distance",
    "alignment": "change of the reader's logit",
}
"""The figures of `summarise`, with their names in tables."""

PAPER_ATTRIBUTES = ("Male", "Chubby", "Narrow_Eyes")
"""Attributes of the paper's Table 1: gender, chubby, narrow eyes."""

EXTRA_SEEDS = (9001, 9002, 9003)
"""Seeds of the images that show how similar two images of one model are."""

ENOUGH = 0.8
"""Success rate from which a strength counts as enough."""


@dataclass(frozen=True, eq=False)
class Edit(edits.Edit):
    """An edit and its scores.

    Attributes:
        scores: see `score_edit`.
    """

    scores: Scores


@dataclass(frozen=True, eq=False)
class Originals:
    """Models projected into the space and their images, to which edits are compared.

    Attributes:
        setting: setting of the models.
        prompts: prompts of the images, before and after.
        seeds: seeds of the images, before and after.
        points: coefficients of the models.
        weights: the weights that the coefficients stand for.
        before: images of the models.
        level: `same_person_level` of each model.
    """

    setting: ExperimentSetting
    prompts: Sequence[str]
    seeds: Sequence[int]
    points: Float[Tensor, "k m"]
    weights: Float[Tensor, "k d"]
    before: Scored
    level: Float[Tensor, " k"]

    @classmethod
    def generate(
        cls,
        setting: ExperimentSetting,
        weights: Float[Tensor, "k d"],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> "Originals":
        """Project models into the space and generate their images."""
        points = setting.space.project(weights)
        projected = setting.space.to_weights(points)
        before = setting.generate(projected, prompts, seeds)
        level = same_person_level(setting, projected, prompts, before)
        return cls(setting, prompts, seeds, points, projected, before, level)

    def lacking(self, label: str) -> Bool[Tensor, " k"]:
        """Return which models should gain a label; the others should lose it."""
        return edits.lacking(self.setting.attribute(self.before, label))

    def edit(self, direction: Direction, strength: float, **options: Any) -> Edit:
        """Move every model along a direction towards what it lacks, and score the images.

        Args:
            direction: its name is the label.
            strength: in standard deviations of the training models.
            **options: options of `generation.generate`, for the images after the edit.
        """
        made = edit_towards_missing(
            self.setting,
            self.points,
            self.before,
            direction,
            strength,
            self.prompts,
            self.seeds,
            **options,
        )
        return Edit(made.add, made.after, self.score(made.after, direction.name, made.add))

    def score(
        self,
        after: Scored,
        label: str,
        add: Bool[Tensor, " k"],
        also_edited: Collection[str] = (),
    ) -> Scores:
        """Score an edit of these models; see `score_edit`."""
        return score_edit(self.setting, self.before, after, label, add, also_edited, self.level)


def score_edit(
    setting: ExperimentSetting,
    before: Scored,
    after: Scored,
    label: str,
    add: Bool[Tensor, " k"],
    also_edited: Collection[str] = (),
    level: Float[Tensor, " k"] | None = None,
) -> Scores:
    """Compare every image after an edit with that of the same prompt and seed before it.

    Args:
        setting: setting of the models.
        before: images of the models.
        after: images of the edited models.
        label: label that was edited.
        add: for each model whether it should gain the label, or lose it.
        also_edited: other labels that were edited, and need not be kept.
        level: `same_person_level` of each model; None takes that of the images before.

    Returns:
        the `MEASURES` of a single image and `level`, the ID score of two images of one person; NaN
        where the image before the edit already showed the wanted state.
    """
    scores = edits.score_edit(setting, before, after, label, add, also_edited)
    was, now = setting.attribute(before, label), setting.attribute(after, label)
    level = same_person(before) if level is None else level
    asked = {label, *also_edited}
    tied = set().union(*(setting.world.tied[name] for name in asked)) & set(
        setting.scorer.label_names
    )
    attributes = before.attributes, after.attributes, setting.scorer.label_names
    flat = (side.images.flatten(0, 2).numpy() for side in (before, after))
    values = {
        **scores,
        "level": level[:, None, None].expand_as(was),
        "untied_kept": others_kept(*attributes, asked, tied - asked),
        "distance": ScorerDistance(setting.scorer).distance(*flat).view_as(was),
        "alignment": (logit(now) - logit(was)) * torch.where(add[:, None, None], 1.0, -1.0),
    }
    undefined = scores["success"].isnan()
    return {name: value.masked_fill(undefined, torch.nan) for name, value in values.items()}


def same_person(scored: Scored) -> Float[Tensor, " k"]:
    """Return the mean ID score of two images of each model; NaN if there is only one image."""
    one = scored.identity.flatten(1, 2)
    if one.shape[1] < 2:
        return torch.full((len(one),), torch.nan)
    first, second = torch.triu_indices(one.shape[1], one.shape[1], 1)
    return (one[:, first] * one[:, second]).sum(-1).mean(1)


def same_labels(scored: Scored) -> Float[Tensor, " k"]:
    """Return the mean share of labels on which two images of each model agree."""
    labels = scored.attributes.flatten(1, 2) > SEEN
    first, second = torch.triu_indices(labels.shape[1], labels.shape[1], 1)
    return (labels[:, first] == labels[:, second]).float().mean((1, 2))


def same_person_level(
    setting: ExperimentSetting,
    weights: Float[Tensor, "k d"],
    prompts: Sequence[str],
    before: Scored,
) -> Float[Tensor, " k"]:
    """Return `same_person`, over other seeds if there is only one image of each model."""
    if before.identity[0, ..., 0].numel() > 1:
        return same_person(before)
    return same_person(setting.generate(weights, prompts, EXTRA_SEEDS))


def summarise(scores: Sequence[Scores]) -> dict[str, Estimate | None]:
    """Return the mean of every measure over several edits of the same models, with intervals."""
    together = {name: torch.stack([values[name] for values in scores], 1) for name in scores[0]}
    together["id_share"] = ratio_of_means(together["id_score"], together["level"])
    return {name: estimate(together[name]) for name in MEASURES}


def ratio_of_means(
    values: Float[Tensor, "*batch"], levels: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Return numbers whose mean is the ratio of two means, with the ratio's standard error.

    Linearised: R + (x - R y) / mean(y) with R = mean(x) / mean(y), so that the interval of a mean
    serves a ratio too. A mean of ratios would be dominated by the smallest y.
    """
    level = levels.nanmean()
    ratio = values.nanmean() / level
    return ratio + (values - ratio * levels) / level


def enough(curve: Mapping[float, Mapping[str, Any]]) -> float:
    """Return the weakest strength with a success rate of `ENOUGH`, otherwise the strongest."""
    succeeding = [s for s in sorted(curve) if mean(curve[s]["success"]) >= ENOUGH]
    return succeeding[0] if succeeding else max(curve)
