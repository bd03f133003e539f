"""From labels, sets of models or scores to a direction."""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..space import WeightSpace
from . import _fit
from ._direction import Direction, padded
from ._fit import METHODS, Method, Problem

if TYPE_CHECKING:
    from ..bases import Base

Kept = str | Direction


def find_direction(
    space: WeightSpace,
    label: Any,
    *,
    name: str | None = None,
    components: int | None = None,
    method: Method = "effect",
    penalty: float | None = None,
    keep: Sequence[Kept] = (),
    folds: int = 5,
    seed: int = 0,
) -> Direction:
    """Find the direction of a label among the training models of a space.

    Args:
        space: with its training models.
        label: a column of the space's labels by name; or values for the training models as a pandas
            Series or mapping by model name, or as a sequence in the order of `space.names`. Values
            among 0 and 1 or −1 and 1 are a label, any others numbers to be predicted. Models whose
            value is missing (NaN, None) are left out.
        name: of the direction; default: that of the label. Values of your own stand in the place of
            a label of the space that has this name.
        components: use the first this many of those that are known. Default: for effect and ridge
            as many as half the labelled models, at most 1,000; for others the number among 1, 2, 5,
            10, 20, … up to there that predicts held-out models best.
        method: see the package's text. For the effect, a model that lacks one of the other labels
            counts as the mean; labels that overlap, such as no beard and goatee, leave each other
            what they do not share.
        penalty: of ridge and logistic regression, in units of the labelled models' variance,
            summed over the components used, divided by the number of models. Default: 11 for
            ridge, 0.02 for logistic. Of effect, in units of a label's variance. Default: 0.5.
        keep: labels by name, or directions, which the edit must leave alone: they are removed from
            the normal jointly, so that its cosine to each of them is 0. Named ones are found with
            the same settings. An effect leaves other labels alone already, but for its penalty.
        folds: for cross-validation; fewer if a class has fewer models.
        seed: of the deal to folds; same seed, same direction.

    Returns:
        the direction, with its figures for held-out models. These come from folds that had no part
        in the choice of settings; kept directions are those of all models.

    Raises:
        W2WError: no such label, one that all models have or that none has, values that are not
            numbers, more components than are known, nothing left besides what is kept.

    Source: Dravid et al. 2024, arXiv:2406.09413, sections 3.3 and 4.1.
    """
    options: Any = {"components": components, "method": method, "penalty": penalty}
    options |= {"folds": folds, "seed": seed}
    found, targets, binary = _targets(space, label)
    kept = [
        one if isinstance(one, Direction) else find_direction(space, one, **options) for one in keep
    ]
    own = {found} if isinstance(label, str) else {found, name}
    others = _other_labels(space, own) if method == "effect" else None
    rows = space.coefficients
    return _find(space, name or found, rows, targets, binary, kept, others, **options)


def find_directions(
    space: WeightSpace,
    names: Sequence[str] | None = None,
    *,
    labels: Any = None,
    keep: Sequence[Kept] = (),
    **options: Any,
) -> dict[str, Direction]:
    """Find the directions of several labels.

    Args:
        space: with its training models.
        names: of labels; default: all.
        labels: a table indexed by model name, in place of the space's own: effects are then those
            beside the other labels of this table.
        keep: as in `find_direction`; a label does not keep itself.
        options: any of `find_direction`.

    Returns:
        label → direction, in the order of the names.

    Raises:
        W2WError: as `find_direction`, for any of the labels.
    """
    if labels is not None:
        space = replace(space, labels=labels)
    kept = [
        one if isinstance(one, Direction) else find_direction(space, one, **options) for one in keep
    ]
    return {
        name: find_direction(space, name, keep=[one for one in kept if one.name != name], **options)
        for name in (space.labels.columns if names is None else names)
    }


def direction_between(
    space: WeightSpace,
    first: Float[Tensor, "a m"],
    second: Float[Tensor, "b m"],
    name: str,
    *,
    method: Method = "mean_difference",
    components: int | None = None,
    penalty: float | None = None,
    keep: Sequence[Kept] = (),
    folds: int = 5,
    seed: int = 0,
) -> Direction:
    """Find the direction that leads from a first set of models to a second.

    For attributes that nobody labelled: show some models of either kind.

    Args:
        space: of the models; its training models say how strong a standard deviation is.
        first: coefficients of models without the attribute.
        second: coefficients of models with it.
        name: of the direction.
        method: the difference of means by default, since sets picked by hand are small.
        components: as in `find_direction`, as are the others.
        penalty: of ridge and logistic regression.
        keep: labels or directions to leave alone.
        folds: for cross-validation.
        seed: of the deal to folds.

    Raises:
        W2WError: an empty set; else as `find_direction`.
    """
    if not len(first) or not len(second):
        raise InputError(
            f"sets of {len(first)} and {len(second)} models for {name!r}: expected some in both"
        )
    targets = torch.cat([-torch.ones(len(first)), torch.ones(len(second))]).double()
    options: Any = {"components": components, "method": method, "penalty": penalty}
    options |= {"folds": folds, "seed": seed}
    kept = _find_kept(space, keep, folds, seed)
    return _find(space, name, torch.cat([first, second]), targets, True, kept, None, **options)


def direction_from_scores(
    space: WeightSpace,
    coefficients: Float[Tensor, "n m"],
    scores: Float[Tensor, " s"],
    name: str,
    *,
    method: Method = "ridge",
    components: int | None = None,
    penalty: float | None = None,
    keep: Sequence[Kept] = (),
    folds: int = 5,
    seed: int = 0,
) -> Direction:
    """Find the direction along which a score of models grows.

    For attributes that nobody labelled but that a program can see in images; see `score_models`.

    Args:
        space: of the models; its training models say how strong a standard deviation is.
        coefficients: of the models that were scored: training models, samples, inversions.
        scores: of each; NaN leaves a model out.
        name: of the direction.
        method: ridge by default, since scores are few and noisy.
        components: as in `find_direction`, as are the others.
        penalty: of ridge regression.
        keep: labels or directions to leave alone.
        folds: for cross-validation.
        seed: of the deal to folds.

    Raises:
        W2WError: another number of scores than of models; scores that are all equal; else as
            `find_direction`.
    """
    if len(scores) != len(coefficients):
        raise InputError(
            f"{len(scores)} scores for {len(coefficients)} models of {name!r}: expected one each"
        )
    options: Any = {"components": components, "method": method, "penalty": penalty}
    options |= {"folds": folds, "seed": seed}
    kept = _find_kept(space, keep, folds, seed)
    return _find(space, name, coefficients, scores.double().cpu(), False, kept, None, **options)


def score_models(
    base: "Base",
    space: WeightSpace,
    coefficients: Float[Tensor, "n m"],
    scorer: Callable[[np.ndarray], Any],
    prompts: Sequence[str],
    seeds: Sequence[int],
    **options: Any,
) -> Float[Tensor, " n"]:
    """Draw every model and give the mean of what a scorer says of its images.

    The scorer is any function: the similarity of CLIP to "a person with freckles" less that to "a
    person", or in a drawn world one column of the attribute reader.

    Args:
        base: that the space's models personalise.
        space: of the models.
        coefficients: of the models to score.
        scorer: uint8 images (n, h, w, 3) → n numbers.
        prompts: to draw each model with.
        seeds: to draw each prompt with; the same for all models, so that they compare.
        options: any of `generate`.

    Returns:
        float64 mean scores.

    Raises:
        W2WError: the scorer gives another number of scores than it got images; as `generate`.
    """
    from ..generation import generate

    scores = []
    for row in coefficients.split(1):
        images = generate(base, row, space=space, prompts=prompts, seeds=seeds, **options)
        images = images.flatten(0, 2).numpy()
        given = torch.as_tensor(scorer(images)).double().cpu()
        if given.shape != (len(images),):
            raise InputError(
                f"a scorer gave scores of shape {list(given.shape)} for {len(images)} images:"
                " expected one number each"
            )
        scores.append(given.mean())
    return torch.stack(scores) if scores else torch.zeros(0, dtype=torch.float64)


def _find_kept(space: WeightSpace, keep: Sequence[Kept], folds: int, seed: int) -> list[Direction]:
    """Find the directions of labels to keep, as the labels' own defaults would."""
    return [
        one if isinstance(one, Direction) else find_direction(space, one, folds=folds, seed=seed)
        for one in keep
    ]


def _find(
    space: WeightSpace,
    name: str,
    coefficients: Tensor,
    targets: Tensor,
    binary: bool,
    kept: Sequence[Direction],
    others: Tensor | None,
    *,
    components: int | None,
    method: Method,
    penalty: float | None,
    folds: int,
    seed: int,
) -> Direction:
    """Fit, judge and scale a direction; targets that are NaN are left out."""
    known = targets.isfinite()
    targets = targets[known]
    _check(name, targets, binary, method, penalty, folds)
    if others is None:
        if method == "effect":
            raise InputError(
                f"the effect of {name!r} is that beside other labels, which only training models"
                " have: expected another method, such as mean_difference"
            )
        others = torch.zeros(len(known), 0, dtype=torch.float64)
    if len(space.names) < 2:
        raise InputError("this space holds no training models: expected some to know their spread")
    most = min(coefficients.shape[1], space.coefficients.shape[1])
    width = components
    if width is None:
        width = max(1, min(_fit.MOST_COMPONENTS, most, len(targets) // 2))
    if not 1 <= width <= most:
        raise InputError(f"{width} components: expected 1 to {most}, which are known")
    classes = _fit.class_of(targets, binary)
    count = min(folds, int(classes.bincount().min()))
    normals = padded([_of_space(one, space).normal for one in kept])
    reach = max(width, normals.shape[1])
    if reach > most:
        raise InputError(
            f"what is kept reaches over {reach} components: expected at most {most}, which are"
            f" known of the models; find it with components={most}"
        )
    rows = coefficients[:, :reach][known.to(coefficients.device)].double().cpu()
    # the same shift for all changes no slope; it only keeps sums of squares small
    rows = rows - rows.mean(0)
    problem = Problem(
        rows=rows,
        targets=targets,
        binary=binary,
        folds=_fit.deal(classes, max(count, 1), seed),
        width=width,
        others=others[known],
    )
    settings = _fit.settings_for(width, components, method, penalty)
    chosen = _fit.choose(problem, settings, method)
    (whole,) = _fit.slopes(problem, [chosen], method)
    remove = _fit.remover(normals)
    slope = remove(whole)
    names = tuple(one.name for one in kept)
    if not float(slope.norm()) > 1e-9 * float(whole.norm()):
        what = f"besides {', '.join(names)}" if names else "in the coefficients"
        raise InputError(f"nothing {what} tells {name!r}: expected a direction of its own")
    normal = slope / slope.norm()
    auc, r2 = _fit.judge(problem, settings, method, remove)
    along = space.coefficients[:, : len(normal)].double() @ normal
    spread = float(along.std())
    positives = int((targets > 0).sum()) if binary else len(targets)
    return Direction(
        name=name,
        normal=normal,
        spread=spread,
        largest=float(along.max() - along.mean()) / spread if spread > 0 else 0.0,
        auc=auc,
        r2=r2,
        positives=positives,
        negatives=len(targets) - positives,
        kept=names,
        method=method,
        space=space.hash,
    )


def _targets(space: WeightSpace, label: Any) -> tuple[str, Tensor, bool]:
    """Return name, values in the order of the training models (NaN if missing), and whether ±1."""
    import pandas

    if not space.names:
        raise InputError("this space holds no training models: expected some with labels")
    if isinstance(label, str):
        if label not in space.labels.columns:
            raise InputError(_unknown(label, list(space.labels.columns)))
        column = space.labels[label]
    else:
        if isinstance(label, Tensor):
            label = label.detach().cpu().numpy()
        if not isinstance(label, pandas.Series | Mapping):
            if len(label) != len(space.names):
                raise InputError(
                    f"{len(label)} values: expected one for each of the {len(space.names)} training"
                    " models"
                )
            label = pandas.Series(list(label), index=list(space.names))
        series = label if isinstance(label, pandas.Series) else pandas.Series(dict(label))
        name = "label" if series.name is None else str(series.name)
        column = replace(space, labels=series.to_frame(name)).labels[name]
    binary = pandas.api.types.is_bool_dtype(column.dtype)
    values = torch.from_numpy(column.to_numpy(dtype=np.float64, na_value=np.nan).copy())
    return str(column.name), values * 2 - 1 if binary else values, binary


def _other_labels(space: WeightSpace, own: Collection[str | None]) -> Tensor:
    """Return all labels of the training models but some; missing values become the mean."""
    columns = [name for name in space.labels.columns if name not in own]
    table = space.labels[columns].to_numpy(dtype=np.float64, na_value=np.nan)
    values = torch.from_numpy(table.copy()).view(len(space.names), len(columns))
    values = values.where(values.isfinite(), torch.nan)
    return torch.where(values.isnan(), values.nanmean(0), values).nan_to_num()


def _unknown(label: str, labels: list[str]) -> str:
    if not labels:
        return f"label {label!r}: this space holds no labels; fit it with a table of some"
    near = difflib.get_close_matches(label, labels, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(labels)}"
    return f"there is no label {label!r} in this space: {hint}"


def _check(
    name: str, targets: Tensor, binary: bool, method: str, penalty: float | None, folds: int
) -> None:
    if method not in METHODS:
        raise InputError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    if method == "logistic" and not binary:
        raise InputError(
            f"{name!r} holds numbers, which logistic regression cannot predict: expected a label of"
            " two classes, or another method"
        )
    if penalty is not None and not 0 < penalty < float("inf"):
        raise InputError(f"penalty {penalty}: expected a number above 0")
    if folds < 2:
        raise InputError(f"{folds} folds: expected at least 2")
    if not len(targets):
        raise InputError(f"{name!r} is known for no model: expected values for some")
    if bool((targets == targets[0]).all()):
        what = {True: "all have it", False: "none has it"}[float(targets[0]) > 0]
        what = what if binary else f"all have {float(targets[0]):g}"
        raise InputError(
            f"{name!r} has one class only, of {len(targets)} models {what}: expected models of two"
            " kinds; give another label"
        )


def _of_space(direction: Direction, space: WeightSpace) -> Direction:
    if direction.space not in ("", space.hash):
        raise InputError(
            f"{direction.name!r} is a direction of space {direction.space}, not of {space.hash};"
            " find it in the same space"
        )
    return direction
