"""From labels, sets of models or scores to a direction."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..labels import tidy_labels
from ..protocols import Space
from . import _fit
from ._direction import Direction
from ._fit import MOST_COMPONENTS, FitOptions, Problem
from ._targets import Target, label_values, target_of

if TYPE_CHECKING:
    import pandas

Keep = str | Direction | Sequence[str | Direction]


def find_direction(
    space: Space, label: Any, *, name: str | None = None, keep: Keep = (), **options: Any
) -> Direction:
    """Find the direction of a label among the training models of a space.

    Args:
        space: the space, with its training models.
        label: name of a column of the space's labels; or values for the training models, as a
            pandas Series or mapping by model name, or a sequence in the order of `space.names`.
            Values among 0 and 1 or −1 and 1 are a label, any others numbers to predict. Models
            whose value is missing (NaN, None) are left out.
        name: name of the direction; default: that of the label. Values of your own replace the
            space's label of this name.
        keep: labels or directions that the edit must leave alone: they are removed from the normal
            jointly, so that its cosine to each of them is 0. Labels are found with the same
            options. An effect already leaves other labels alone, up to its penalty.
        options: see `FitOptions`.

    Returns:
        the direction, with its figures on held-out models; kept directions are those of all models.

    Raises:
        InputError: no such label, a label that all models have or that none has, values that are
            not numeric, more components than are known, nothing left after removing what is kept.

    Source: Dravid et al. 2024, arXiv:2406.09413, sections 3.3 and 4.1.
    """
    training = _Training(space, space.labels, FitOptions(**options), keep)
    if isinstance(label, str) and label in training.keep:
        raise InputError(f"{label!r}: a label cannot be kept and changed")
    return training.direction(label, training.kept, name)


def find_directions(
    space: Space,
    names: Sequence[str] | None = None,
    *,
    labels: "pandas.DataFrame | None" = None,
    keep: Keep = (),
    **options: Any,
) -> dict[str, Direction]:
    """Find the directions of several labels, by label.

    Args:
        space: the space, with its training models.
        names: names of labels; default: all.
        labels: a table indexed by model name, used in place of the space's labels: an effect then
            holds the other labels of this table fixed.
        keep: see `find_direction`; a label does not keep itself.
        options: see `FitOptions`.

    Raises:
        InputError: as `find_direction`, for any of the labels.
    """
    table = space.labels if labels is None else tidy_labels(labels, space.names)
    training = _Training(space, table, FitOptions(**options), keep)
    return {
        name: training.direction(name, [one for one in training.kept if one.name != name])
        for name in (table.columns if names is None else names)
    }


def direction_between(
    space: Space,
    first: Float[Tensor, "a m"],
    second: Float[Tensor, "b m"],
    name: str,
    *,
    keep: Keep = (),
    **options: Any,
) -> Direction:
    """Find the direction from a first set of models to a second, for attributes without labels.

    Args:
        space: the space; its training models define the unit of strengths.
        first: points of models without the attribute.
        second: points of models with it.
        name: name of the direction.
        keep: labels or directions to leave alone.
        options: see `FitOptions`; default method: "mean_difference", since such sets are small.

    Raises:
        InputError: an empty set; else as `find_direction`.
    """
    if not len(first) or not len(second):
        raise InputError(
            f"sets of {len(first)} and {len(second)} models for {name!r}: expected some in both"
        )
    values = torch.cat([-torch.ones(len(first)), torch.ones(len(second))]).double()
    target = Target(name, values, binary=True)
    options = {"method": "mean_difference", **options}
    return _elsewhere(space, torch.cat([first, second]), target, keep, FitOptions(**options))


def direction_from_scores(
    space: Space,
    points: Float[Tensor, "n m"],
    scores: Float[Tensor, " s"],
    name: str,
    *,
    keep: Keep = (),
    **options: Any,
) -> Direction:
    """Find the direction along which a score of models grows; see `score_models`.

    Args:
        space: the space; its training models define the unit of strengths.
        points: the models that were scored: training models, samples, inversions.
        scores: one per model; NaN leaves a model out.
        name: name of the direction.
        keep: labels or directions to leave alone.
        options: see `FitOptions`; default method: "ridge", since scores are few and noisy.

    Raises:
        InputError: the numbers of scores and models differ, or all scores are equal; else as
            `find_direction`.
    """
    if len(scores) != len(points):
        raise InputError(
            f"{len(scores)} scores for {len(points)} models of {name!r}: expected one each"
        )
    known = scores.isfinite().cpu()
    target = Target(name, scores.double().cpu()[known], binary=False)
    options = {"method": "ridge", **options}
    return _elsewhere(space, points[known.to(points.device)], target, keep, FitOptions(**options))


class _Training:
    """The training models of a space, prepared once for any number of labels."""

    def __init__(
        self, space: Space, labels: "pandas.DataFrame", options: FitOptions, keep: Keep
    ) -> None:
        self.space, self.labels, self.options = space, labels, options
        self.keep = [keep] if isinstance(keep, str | Direction) else list(keep)
        given = [one for one in self.keep if isinstance(one, Direction)]
        self.rows = _rows_of(space, space.coefficients, options, given)
        self.values = label_values(labels)
        self.kept = [
            one if isinstance(one, Direction) else self.direction(one, ()) for one in self.keep
        ]

    def direction(
        self, label: Any, kept: Sequence[Direction], name: str | None = None
    ) -> Direction:
        target = target_of(self.labels, label)
        own = {target.name} if isinstance(label, str) else {target.name, name}
        others = [i for i, column in enumerate(self.labels.columns) if column not in own]
        values = self.values[:, others if self.options.method == "effect" else []]
        problem = Problem(
            self.rows, target._replace(name=name or target.name), values, self.options
        )
        return _solve(problem, kept, self.space, self.rows)


def _elsewhere(
    space: Space, points: Tensor, target: Target, keep: Keep, options: FitOptions
) -> Direction:
    """Find a direction from any models; labels to keep are found as they would be by default."""
    if options.method == "effect":
        raise InputError(
            f"the effect of {target.name!r} needs other labels to hold fixed, which only training"
            " models have; use another method, such as mean_difference"
        )
    defaults = FitOptions(folds=options.folds, seed=options.seed)
    kept = _Training(space, space.labels, defaults, keep).kept if keep else []
    rows = _rows_of(space, points, options, kept)
    problem = Problem(rows, target, torch.zeros(len(rows), 0).double(), options)
    return _solve(problem, kept, space, space.coefficients)


def _rows_of(
    space: Space, points: Tensor, options: FitOptions, kept: Sequence[Direction]
) -> Float[Tensor, "n j"]:
    """Return the coefficients that fits may use, in float64, for any number of labels."""
    if len(space.names) < 2:
        raise InputError(
            "this space holds no training models; directions need them for labels and their unit"
        )
    most = min(points.shape[1], space.coefficients.shape[1])
    if options.components is not None and not 1 <= options.components <= most:
        raise InputError(f"{options.components} components: expected 1 to {most}, which are known")
    reach = max((len(one.normal) for one in kept), default=0)
    if reach > most:
        raise InputError(
            f"what is kept reaches over {reach} components, of which {most} are known of the"
            f" models; find it with components={most}"
        )
    if foreign := [one for one in kept if one.space not in ("", space.hash)]:
        raise InputError(
            f"{foreign[0].name!r} is a direction of space {foreign[0].space}, not of {space.hash};"
            " find it in the same space"
        )
    rows = points[:, : max(reach, options.components or min(MOST_COMPONENTS, most))].double().cpu()
    # centring changes no slope and keeps sums of squares small; the paper's method does not centre
    return rows if options.method == "least_squares" else rows - rows.mean(0)


def _solve(
    problem: Problem, kept: Sequence[Direction], space: Space, training: Tensor
) -> Direction:
    """Fit, validate and scale a direction."""
    name, targets, names = problem.name, problem.targets, tuple(one.name for one in kept)
    remove = _fit.remover([one.normal for one in kept])
    whole = _fit.slope_of(problem)
    slope = remove(whole)
    if not float(slope.norm()) > 1e-9 * float(whole.norm()):
        why = f"after removing {', '.join(names)}" if names else "in the coefficients"
        raise InputError(f"nothing of {name!r} is left {why}; keep other labels")
    normal = slope / slope.norm()
    auc, r2 = _fit.held_out_figures(problem, remove)
    along = training[:, : len(normal)].double().cpu() @ normal
    along, std = along - along.mean(), float(along.std())
    positives = int((targets > 0).sum()) if problem.binary else len(targets)
    return Direction(
        name=name,
        normal=normal,
        std=std,
        range=(float(along.min() / std), float(along.max() / std)),
        auc=auc,
        r2=r2,
        positives=positives,
        negatives=len(targets) - positives,
        kept=names,
        method=problem.options.method,
        space=space.hash,
    )
