"""The maths: linear fits of a target on coefficients, computed from moments.

A fit on the models outside some folds needs only their covariances. These are sums over models, so
each (fold, class) is read once, however many fits follow. A row holds the coefficients of a model
with a target, ±1 for a label or a number; a slope is what a fit returns, a normal before scaling.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from ..errors import InputError
from ..metrics.verification import roc_auc
from ._targets import Target, require_usable

Method = Literal["effect", "ridge", "least_squares", "mean_difference"]
METHODS: tuple[Method, ...] = get_args(Method)

MOST_COMPONENTS = 1000
"""The paper's number: its Fig. 28 shows 100 too coarse and 10,000 entangled."""

EFFECT_PENALTY = 0.5
"""In units of a label's variance. Near zero, labels are separated completely but edits of equal
strength show less."""

RIDGE_PENALTY = 11.0
"""In units of the variance summed over components, divided by the number of models, it suits any
number of both. A smaller one classifies slightly better; a larger one is closer to the class means,
and edits show more."""

# Relative to the mean variance; with more components than models this gives the shortest solution.
_JITTER = 1e-11

Remover = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FitOptions:
    """How a direction is found.

    Attributes:
        components: number of leading components to use; default: half the number of labelled
            models, at most 1,000.
        method: see docs/maths.md. For the effect, models that lack one of the other labels
            count as its mean.
        penalty: for ridge regression, in units of the labelled models' variance, summed over the
            components used, divided by the number of models (default 11); for the effect, in units
            of a label's variance (default 0.5).
        folds: folds of cross-validation; fewer if a class has fewer models.
        seed: seed of the assignment to folds; same seed, same direction.
    """

    components: int | None = None
    method: Method = "effect"
    penalty: float | None = None
    folds: int = 5
    seed: int = 0

    def __post_init__(self):
        if self.method not in METHODS:
            raise InputError(f"method {self.method!r}: expected one of {', '.join(METHODS)}")
        if self.penalty is not None and not 0 < self.penalty < float("inf"):
            raise InputError(f"penalty {self.penalty}: expected a positive number")
        if self.folds < 2:
            raise InputError(f"{self.folds} folds: expected at least 2")


class Problem:
    """The rows that have a target, assigned to folds, and how to fit them."""

    def __init__(
        self,
        rows: Float[Tensor, "n k"],
        target: Target,
        others: Float[Tensor, "n a"],  # labels that an effect holds fixed
        options: FitOptions,
    ):
        known = require_usable(target)
        self.name, self.binary, self.options = target.name, target.binary, options
        self.rows = rows if bool(known.all()) else rows[known]
        self.targets, self.others = target.values[known], others[known]
        classes = classes_of(self.targets, self.binary)
        count = max(min(options.folds, int(classes.bincount().min())), 1)
        self.folds = assign_folds(classes, count, options.seed)  # all 0 if none can be held out
        most = max(1, min(MOST_COMPONENTS, rows.shape[1], len(self.targets) // 2))
        self.width = options.components or most
        # the paper's method does not weight classes
        self.classes = classes_of(self.targets, self.binary and options.method != "least_squares")
        self._parts: dict[tuple[int, int], Tensor] = {}

    @property
    def count(self) -> int:
        """Number of folds."""
        return int(self.folds.max()) + 1

    def weights(self, without: int | None = None) -> Float[Tensor, " n"]:
        """Return the weight of every row: equal per class, 1 in total, 0 in the left-out fold."""
        weights = torch.zeros(len(self.rows), dtype=torch.float64)
        classes, inside = self.classes, self.folds != (-1 if without is None else without)
        present = classes.unique()
        for number in present:
            chosen = inside & (classes == number)
            weights[chosen] = 1 / (len(present) * int(chosen.sum()))
        return weights

    def moments(self, without: int | None = None) -> Float[Tensor, "z z"]:
        """Return the moments of the rows outside a fold under those weights."""
        total = torch.zeros(self.width + 2, self.width + 2, dtype=torch.float64)
        for number in self.classes.unique().tolist():
            parts = [self._part(fold, number) for fold in range(self.count) if fold != without]
            of_class = torch.stack(parts).sum(0)
            total += of_class / of_class[-1, -1]
        return total / total[-1, -1]

    def _part(self, fold: int, number: int) -> Tensor:
        """Return ZᵀZ for the rows z = (x, y, 1) of one fold and class: all sums a fit needs."""
        if (fold, number) not in self._parts:
            chosen = (self.folds == fold) & (self.classes == number)
            rows, targets = self.rows[chosen, : self.width], self.targets[chosen]
            ones = torch.ones(len(rows), 1, dtype=rows.dtype)
            whole = torch.cat([rows, targets[:, None], ones], 1)
            self._parts[fold, number] = whole.mT @ whole
        return self._parts[fold, number]


def classes_of(targets: Float[Tensor, " n"], binary: bool) -> Int[Tensor, " n"]:
    """Return 0 or 1 for a label's targets ±1, and 0 for numbers."""
    return (targets > 0).long() if binary else torch.zeros(len(targets), dtype=torch.long)


def slope_of(problem: Problem, without: int | None = None) -> Float[Tensor, " j"]:
    """Fit the rows outside a fold; nothing is removed from the slope yet."""
    method, penalty = problem.options.method, problem.options.penalty
    if method == "effect":
        return effect(problem, EFFECT_PENALTY if penalty is None else penalty, without)
    moments = problem.moments(without)
    if method == "least_squares" and problem.binary:  # as the authors do: nothing is centred
        return ridge(moments[:-2, :-2], moments[:-2, -2], 0.0)
    mean, target = moments[-1, :-2], moments[-1, -2]
    covariance = moments[:-2, :-2] - mean[:, None] * mean
    along = moments[:-2, -2] - mean * target
    if method == "mean_difference":
        return along
    if method == "least_squares":
        return ridge(covariance, along, 0.0)
    count = int((problem.weights(without) > 0).sum())
    return ridge(covariance, along, (RIDGE_PENALTY if penalty is None else penalty) / count)


def effect(problem: Problem, penalty: float, without: int | None = None) -> Float[Tensor, " j"]:
    """Return the change of the mean coefficients with the target, other labels held fixed.

    One row of the ridge regression of coefficients X on all labels Y, both centred, labels scaled
    to unit variance: (YᵀY / n + penalty)⁻¹ YᵀX / n.

    Source: Haufe et al. 2014, "On the interpretation of weight vectors of linear models in
    multivariate neuroimaging", for how it differs from the normal of a classifier.
    """
    weights = problem.weights(without)
    labels = torch.cat([problem.targets[:, None], problem.others], 1)
    labels = labels - weights @ labels
    std = (weights @ labels.square()).sqrt()
    labels = labels / torch.where(std > 0, std, 1.0)
    eye = torch.eye(labels.shape[1], dtype=torch.float64)
    shares = torch.linalg.solve(labels.mT @ (weights[:, None] * labels) + penalty * eye, eye[0])
    return (weights * (labels @ shares)) @ problem.rows[:, : problem.width]


def ridge(
    covariance: Float[Tensor, "k k"], along: Float[Tensor, " k"], penalty: float
) -> Float[Tensor, " k"]:
    """Return (covariance + penalty · total variance)⁻¹ along; a penalty of 0 is least squares."""
    total = float(covariance.diagonal().sum()) or 1.0
    added = (penalty + _JITTER / len(along)) * total
    factor = torch.linalg.cholesky(covariance + added * torch.eye(len(along), dtype=torch.float64))
    return torch.cholesky_solve(along[:, None], factor)[:, 0]


def line_of(
    problem: Problem, remove: Remover, without: int | None = None
) -> tuple[Float[Tensor, " j"], float]:
    """Return slope, without what is kept, and intercept of the best prediction of the target."""
    slope = remove(slope_of(problem, without))
    along, weights = problem.rows[:, : len(slope)] @ slope, problem.weights(without)
    center, mean = float(weights @ along), float(weights @ problem.targets)
    deviations = along - center
    variance = float(weights @ deviations.square())
    factor = float((weights * deviations) @ problem.targets) / variance if variance > 0 else 0.0
    return factor * slope, mean - factor * center


def held_out_figures(problem: Problem, remove: Remover) -> tuple[float | None, float | None]:
    """Return (AUC, None) for a label and (None, R²) for numbers, on held-out folds.

    The AUC is the mean over folds. R² compares the squared errors of all held-out predictions with
    those of the mean of the models fitted to. Both are None where nothing can be held out.
    """
    if problem.count < 2:
        return None, None
    aucs, errors, plain = [], 0.0, 0.0
    for fold in range(problem.count):
        (slope, intercept), held = line_of(problem, remove, fold), problem.folds == fold
        predicted = problem.rows[held, : len(slope)] @ slope + intercept
        truth = problem.targets[held]
        if problem.binary:
            aucs.append(roc_auc(predicted, truth > 0))
        else:
            errors += float((truth - predicted).square().sum())
            plain += float((truth - problem.targets[~held].mean()).square().sum())
    if problem.binary:
        return sum(aucs) / len(aucs), None
    return None, 1 - errors / plain if plain > 0 else None


def assign_folds(classes: Int[Tensor, " n"], count: int, seed: int) -> Int[Tensor, " n"]:
    """Assign rows to folds of nearly equal size, each with its share of every class."""
    generator = torch.Generator().manual_seed(seed)
    folds = torch.empty(len(classes), dtype=torch.long)
    dealt = 0
    for number in classes.unique():
        rows = (classes == number).nonzero()[:, 0]
        order = rows[torch.randperm(len(rows), generator=generator)]
        folds[order] = (dealt + torch.arange(len(rows))) % count
        dealt += len(rows)
    return folds


def remover(kept: Sequence[Float[Tensor, " j"]]) -> Remover:
    """Return a function that removes all of the kept normals from a slope, jointly.

    In turn would not do: removing the second restores some of the first unless they are orthogonal.
    """
    basis, sizes, _ = torch.linalg.svd(padded(kept).mT, full_matrices=False)
    basis = basis[:, sizes > 1e-9 * sizes.max()] if len(sizes) else basis

    def remove(slope: Tensor) -> Tensor:
        longest = max(len(slope), len(basis))
        slope = pad(slope, (0, longest - len(slope)))
        span = pad(basis, (0, 0, 0, longest - len(basis)))
        for _ in range(2):  # twice, against rounding
            slope = slope - span @ (span.mT @ slope)
        return slope

    return remove


def padded(normals: Sequence[Float[Tensor, " j"]]) -> Float[Tensor, "a j"]:
    """Stack normals on different numbers of components, padded with zeros."""
    if not len(normals):
        return torch.zeros(0, 0, dtype=torch.float64)
    return torch.nn.utils.rnn.pad_sequence(list(normals), batch_first=True).double()
