"""The maths: linear fits of a target on coefficients from moments, and their held-out figures.

A fit on the models outside some folds needs only their covariances. These are sums over models, so
each (fold, class) is read once, however many fits follow; and the Cholesky factor of the first j
components is a corner of that of all, so one factor serves every j.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..metrics.verification import roc_auc

Method = Literal["effect", "least_squares", "ridge", "logistic", "mean_difference"]
METHODS: tuple[Method, ...] = ("effect", "least_squares", "ridge", "logistic", "mean_difference")

MOST_COMPONENTS = 1000
"""The paper's number: its Fig. 28 shows 100 too coarse and 10,000 entangled."""

EFFECT_PENALTY = 0.5
"""In units of a label's variance. Next to nothing separates labels wholly, but edits of equal
strength show less; a very large one leads to the difference of the classes. In the people space,
edits that show as often as those along ridge regression leave more of the other labels, and of the
person."""

RIDGE_PENALTY = 11.0
"""In units of the variance, summed over components, divided by the number of models: a unit that
more components hardly change, and that shrinks with more models as their noise does. In the people
space it tells held-out models apart better than least squares with the best number of components,
and its directions are less entangled. A smaller one tells them apart a little better still; but the
larger it is, the nearer a direction comes to the difference of the classes, and the more an edit
shows at equal strength."""

LOGISTIC_PENALTY = 2e-2
"""Enough for a finite normal where the classes can be separated without error."""

_PENALTIES = {"effect": EFFECT_PENALTY, "ridge": RIDGE_PENALTY, "logistic": LOGISTIC_PENALTY}

# Relative to the mean variance: more components than models then give the shortest solution.
_JITTER = 1e-11
_NEWTON_STEPS = 50


Remover = Callable[[Tensor], Tensor]
"""Takes what must be kept out of a slope."""


class Setting(NamedTuple):
    """What cross-validation chooses: how many components, which penalty."""

    components: int
    penalty: float


class Line(NamedTuple):
    """A prediction: rows @ slope + intercept."""

    slope: Float[Tensor, " j"]
    intercept: float


def moments_of(rows: Float[Tensor, "n k"], targets: Float[Tensor, " n"]) -> Float[Tensor, "z z"]:
    """Return ZᵀZ for the rows z = (x, y, 1): all sums that a fit needs, which add up and scale."""
    whole = torch.cat([rows, targets[:, None], torch.ones(len(rows), 1, dtype=rows.dtype)], 1)
    return whole.mT @ whole


def covariances(
    moments: Float[Tensor, "z z"],
) -> tuple[Float[Tensor, "k k"], Float[Tensor, " k"]]:
    """Return the covariance of the rows, and theirs with the target."""
    moments = moments / moments[-1, -1]
    mean, target = moments[-1, :-2], moments[-1, -2]
    return moments[:-2, :-2] - mean[:, None] * mean, moments[:-2, -2] - mean * target


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows with targets, in folds; both classes of a label weigh the same.

    Attributes:
        rows: float64 coefficients of the models that have a target.
        targets: ±1 for a label, else numbers.
        binary: whether the targets are a label.
        folds: the fold of every row.
        width: how many of the first components fits may use.
        others: the other labels of every row, 0 or 1 or numbers, beside which an effect is.
    """

    rows: Float[Tensor, "n k"]
    targets: Float[Tensor, " n"]
    binary: bool
    folds: Int[Tensor, " n"]
    width: int
    others: Float[Tensor, "n a"]
    _parts: dict[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)

    @property
    def classes(self) -> Int[Tensor, " n"]:
        """The class of every row; numbers are all of one."""
        return class_of(self.targets, self.binary)

    @property
    def count(self) -> int:
        """How many folds there are; 1 if nothing can be held out."""
        return int(self.folds.max()) + 1

    def weights(self, without: Sequence[int] = ()) -> Float[Tensor, " n"]:
        """Return every row's weight: equal classes, 1 in total, left-out folds to 0."""
        inside = ~torch.isin(self.folds, torch.tensor(without, dtype=torch.long))
        weights = torch.zeros(len(self.rows), dtype=torch.float64)
        classes = self.classes
        present = classes.unique()
        for number in present:
            chosen = inside & (classes == number)
            weights[chosen] = 1 / (len(present) * int(chosen.sum()))
        return weights

    def moments(self, without: Sequence[int] = ()) -> Float[Tensor, "z z"]:
        """Return the moments of the rows outside some folds under those weights."""
        total = torch.zeros(self.width + 2, self.width + 2, dtype=torch.float64)
        for number in self.classes.unique().tolist():
            parts = [self._part(f, number) for f in range(self.count) if f not in without]
            of_class = torch.stack(parts).sum(0)
            total += of_class / of_class[-1, -1]
        return total

    def _part(self, fold: int, number: int) -> Tensor:
        if (fold, number) not in self._parts:
            chosen = (self.folds == fold) & (self.classes == number)
            rows = self.rows[chosen, : self.width]
            self._parts[fold, number] = moments_of(rows, self.targets[chosen])
        return self._parts[fold, number]


def class_of(targets: Float[Tensor, " n"], binary: bool) -> Int[Tensor, " n"]:
    """Return 0 or 1 for a label's targets ±1, and 0 for numbers."""
    return (targets > 0).long() if binary else torch.zeros(len(targets), dtype=torch.long)


def deal(classes: Int[Tensor, " n"], count: int, seed: int) -> Int[Tensor, " n"]:
    """Deal rows to folds of nearly equal size, each with its share of every class."""
    generator = torch.Generator().manual_seed(seed)
    folds = torch.empty(len(classes), dtype=torch.long)
    dealt = 0
    for number in classes.unique():
        rows = (classes == number).nonzero()[:, 0]
        order = rows[torch.randperm(len(rows), generator=generator)]
        folds[order] = (dealt + torch.arange(len(rows))) % count
        dealt += len(rows)
    return folds


def settings_for(
    width: int, components: int | None, method: Method, penalty: float | None
) -> list[Setting]:
    """Return what cross-validation may choose from: 1, 2, 5, 10, 20, … components, and all.

    Ridge regression takes all: what few components are to least squares, the penalty is to it. So
    does the effect: means of many components are no harder to know than means of few.
    """
    if penalty is None:
        penalty = _PENALTIES.get(method, 0.0)
    if components is not None or method in ("effect", "ridge"):
        return [Setting(components or width, penalty)]
    series = (digit * 10**power for power in range(4) for digit in (1, 2, 5))
    return [Setting(j, penalty) for j in (*(j for j in series if j < width), width)]


def fit(
    problem: Problem,
    settings: Sequence[Setting],
    method: Method,
    without: Sequence[int] = (),
    remove: Remover | None = None,
) -> list[Line]:
    """Fit the rows outside some folds, once for each setting.

    Slopes are freed from what must be kept, and scaled to predict the target best.
    """
    found = slopes(problem, settings, method, without)
    found = found if remove is None else [remove(slope) for slope in found]
    longest = max(map(len, found))
    table = torch.stack([torch.nn.functional.pad(s, (0, longest - len(s))) for s in found], 1)
    projections = problem.rows[:, :longest] @ table
    weights = problem.weights(without)
    return [
        _calibrated(slope, along, problem.targets, weights)
        for slope, along in zip(found, projections.T, strict=True)
    ]


def slopes(
    problem: Problem, settings: Sequence[Setting], method: Method, without: Sequence[int] = ()
) -> list[Tensor]:
    """Return the slopes of a method, of any length, with nothing removed yet."""
    if method == "effect":
        return [effect(problem, setting, without) for setting in settings]
    if method == "logistic":
        return [logistic(problem, setting, without) for setting in settings]
    count = int((problem.weights(without) > 0).sum())
    return linear(problem.moments(without), count, settings, method)


def effect(problem: Problem, setting: Setting, without: Sequence[int] = ()) -> Tensor:
    """Return the change of mean coefficients that goes with the target while other labels stay.

    A row of the ridge regression of coefficients X on all labels Y, both centred, labels of unit
    variance: (YᵀY / n + penalty)⁻¹ YᵀX / n. It says how models differ, which the normal of a
    classifier does not: that says how best to tell them apart.

    Source: Haufe et al. 2014, "On the interpretation of weight vectors of linear models in
    multivariate neuroimaging", for the difference between the two.
    """
    weights = problem.weights(without)
    labels = torch.cat([problem.targets[:, None], problem.others], 1)
    labels = labels - weights @ labels
    spreads = (weights @ labels.square()).sqrt()
    labels = labels / torch.where(spreads > 0, spreads, 1.0)
    eye = torch.eye(labels.shape[1], dtype=torch.float64)
    shares = torch.linalg.solve(
        labels.mT @ (weights[:, None] * labels) + setting.penalty * eye, eye[0]
    )
    return (weights * (labels @ shares)) @ problem.rows[:, : setting.components]


def _calibrated(slope: Tensor, along: Tensor, targets: Tensor, weights: Tensor) -> Line:
    """Regress the targets on the projections."""
    center, mean = float(weights @ along), float(weights @ targets)
    deviations = along - center
    variance = float(weights @ deviations.square())
    factor = float((weights * deviations) @ targets) / variance if variance > 0 else 0.0
    return Line(factor * slope, mean - factor * center)


def linear(
    moments: Float[Tensor, "z z"], count: int, settings: Sequence[Setting], method: Method
) -> list[Tensor]:
    """Return the slopes of least squares or ridge regression, or the difference of class means.

    The moments are of `count` models.
    """
    covariance, along = covariances(moments)
    if method == "mean_difference":
        return [along[: setting.components] for setting in settings]
    total = float(covariance.diagonal().sum()) or 1.0
    eye = torch.eye(len(along), dtype=torch.float64)
    factors = {}
    for penalty in {setting.penalty if method == "ridge" else 0.0 for setting in settings}:
        added = (penalty / count + _JITTER / len(along)) * total
        factor = torch.linalg.cholesky(covariance + added * eye)
        half = torch.linalg.solve_triangular(factor, along[:, None], upper=False)
        factors[penalty] = factor, half
    found = []
    for j, penalty in settings:
        factor, half = factors[penalty if method == "ridge" else 0.0]
        slope = torch.linalg.solve_triangular(factor[:j, :j].mT, half[:j], upper=True)
        found.append(slope[:, 0])
    return found


def logistic(problem: Problem, setting: Setting, without: Sequence[int] = ()) -> Tensor:
    """Return the slope of penalised logistic regression by Newton's method with halved steps.

    Least: the weighted mean of log(1 + exp(−y f(x))) + ½ penalty · v / n · |slope|², v the variance
    of the n models, summed over components.
    """
    weights, j = problem.weights(without), setting.components
    used = weights > 0
    weights, targets = weights[used], problem.targets[used]
    rows = torch.nn.functional.pad(problem.rows[used, :j], (0, 1), value=1.0)
    means = weights @ rows[:, :j]
    variance = float((weights @ rows[:, :j].square() - means.square()).sum())
    penalties = torch.full((j + 1,), setting.penalty * variance / len(rows), dtype=torch.float64)
    penalties[j] = 0  # the intercept is free

    def loss(beta: Tensor) -> float:
        fit = torch.nn.functional.softplus(-targets * (rows @ beta))
        return float(weights @ fit + (penalties * beta.square()).sum() / 2)

    beta = torch.zeros(j + 1, dtype=torch.float64)
    value = loss(beta)
    for _ in range(_NEWTON_STEPS):
        wrong = torch.sigmoid(-targets * (rows @ beta))
        gradient = penalties * beta - rows.mT @ (weights * targets * wrong)
        curvature = rows.mT @ (rows * (weights * wrong * (1 - wrong))[:, None])
        curvature += torch.diag(penalties + 1e-12 * max(variance, 1e-30))
        step = torch.linalg.solve(curvature, gradient)
        size, decrease = 1.0, float(gradient @ step)
        while (lower := loss(beta - size * step)) > value - 1e-4 * size * decrease and size > 1e-8:
            size /= 2
        if lower >= value:
            break
        beta, value = beta - size * step, lower
        if decrease < 1e-16:
            break
    return beta[:j]


def choose(
    problem: Problem, settings: Sequence[Setting], method: Method, without: Sequence[int] = ()
) -> Setting:
    """Choose the setting that predicts held-out targets with the least squared error.

    Classes weigh the same. Each fold that is not left out already is predicted from the others.
    The error, unlike the AUC, still tells settings apart when all rank the held-out models without
    fault. Logistic regression gets the number of components that is best for least squares, which
    is a small part of the work, and what is kept has no part in the choice. With fewer than two
    folds to go by, the first setting.
    """
    inside = [fold for fold in range(problem.count) if fold not in without]
    if len(settings) == 1 or len(inside) < 2:
        return settings[0]
    cheap: Method = "least_squares" if method == "logistic" else method
    errors = torch.zeros(len(settings), dtype=torch.float64)
    for fold in inside:
        outside = tuple(f for f in range(problem.count) if f not in inside or f == fold)
        weights = problem.weights([f for f in range(problem.count) if f != fold])
        for i, line in enumerate(fit(problem, settings, cheap, outside)):
            errors[i] += weights @ (predict(line, problem.rows) - problem.targets).square()
    return settings[int(errors.argmin())]


def predict(line: Line, rows: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Return the predicted targets."""
    return rows[:, : len(line.slope)] @ line.slope + line.intercept


def judge(
    problem: Problem,
    settings: Sequence[Setting],
    method: Method,
    remove: Remover | None = None,
) -> tuple[float | None, float | None]:
    """Return (AUC, R²) on held-out folds, chosen and fitted without them; one of both is None.

    The AUC is the mean of the folds'. R² compares the squared errors of all held-out predictions
    with those of the mean of the models fitted to.
    """
    if problem.count < 2:
        return None, None
    aucs, errors, plain = [], 0.0, 0.0
    for fold in range(problem.count):
        setting = choose(problem, settings, method, (fold,))
        (line,) = fit(problem, [setting], method, (fold,), remove)
        held = problem.folds == fold
        predicted, truth = predict(line, problem.rows[held]), problem.targets[held]
        if problem.binary:
            aucs.append(roc_auc(predicted, truth > 0))
        else:
            mean = problem.targets[~held].mean()
            errors += float((truth - predicted).square().sum())
            plain += float((truth - mean).square().sum())
    if problem.binary:
        return sum(aucs) / len(aucs), None
    return None, 1 - errors / plain if plain > 0 else None


def remover(kept: Float[Tensor, "a j"]) -> Remover:
    """Return a function that takes all of the kept normals out of a slope, jointly.

    In turn would not do: taking out the second brings some of the first back unless they are
    orthogonal. An orthonormal basis of their span is removed, twice, against rounding.
    """
    basis, sizes, _ = torch.linalg.svd(kept.mT, full_matrices=False)
    basis = basis[:, sizes > 1e-9 * sizes.max()] if len(sizes) else basis

    def remove(slope: Tensor) -> Tensor:
        longest = max(len(slope), len(basis))
        pad = torch.nn.functional.pad
        slope = pad(slope, (0, longest - len(slope)))
        span = pad(basis, (0, 0, 0, longest - len(basis)))
        for _ in range(2):
            slope = slope - span @ (span.mT @ slope)
        return slope

    return remove
