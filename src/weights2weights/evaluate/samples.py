"""Whether samples of a space are new models, and its coefficients justify how they are drawn.

Drawing each coefficient from a Gaussian is justified if those of the training models are near
Gaussian (Fig. 26) and near independent (Fig. 27). Samples are new models if they are as far from
their nearest training model as training models are from each other (Fig. 4).

Source: Dravid et al. 2024, arXiv:2406.09413, sections 3.2 and 4.2.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..space import WeightSpace

_PAIRED_COMPONENTS = 1000  # components whose pairwise correlations are measured
_NEIGHBOUR_ROWS = 1000  # training models whose nearest neighbour is looked up


@dataclass(frozen=True)
class SampleReport:
    """How samples compare with the training models.

    Skewness, kurtosis and Kolmogorov-Smirnov distance are those of the training coefficients, as
    means over components; correlations are means over pairs of components, and cosines to the
    nearest training model means over models, with the largest beside them.
    """

    samples: int
    models: int  # training models
    components: int  # compared
    skewness: float  # absolute; 0 if Gaussian
    kurtosis: float  # absolute excess; 0 if Gaussian
    ks_distance: float  # to a Gaussian of the same mean and standard deviation
    ks_expected: float  # for Gaussian coefficients
    mean_error: float  # largest distance of the samples' mean to that of the models, in std errors
    std_ratio: float  # of the samples' to the training models' standard deviation
    correlation: float  # absolute, over the training models
    rank_correlation: float  # of ranks of magnitudes: dependence without correlation shows too
    correlation_expected: float  # both, for independent components
    nearest: float  # of the samples
    nearest_largest: float
    training_nearest: float  # of each training model to the other ones
    training_nearest_largest: float


def report_samples(space: WeightSpace, points: Float[Tensor, "n m"]) -> SampleReport:
    """Compare samples with the training models of a space: Figs. 4, 26 and 27 as numbers.

    Correlations are measured over the first 1,000 components, and nearest training models for at
    most 1,000 training models, evenly spaced, so that the cost stays moderate at any size.

    Args:
        space: a space with its training coefficients.
        points: samples of it. Trailing components that are 0 in all samples are left out.

    Raises:
        W2WError: there are no samples, or fewer than three training models.
    """
    models = len(space.names)
    if not len(points) or models < 3:
        raise InputError(
            f"{len(points)} samples and {models} training models: expected at least 1 and 3"
        )
    known = space.coefficients.shape[1]
    used = (points[:, :known] != 0).any(0)
    width = int(used.nonzero().max()) + 1 if used.any() else 1
    points = points[:, :width].float().cpu()
    training = space.coefficients[:, :width].float()
    std = training.std(0).clamp(min=1e-30)
    errors = (points.mean(0) - training.mean(0)).abs() / std
    standard = standardised(training)
    magnitudes = standard[:, :_PAIRED_COMPONENTS].abs()
    some = training[:: math.ceil(models / _NEIGHBOUR_ROWS)]
    nearest = space.neighbours(points, 1).similarities[:, 0]
    others = space.neighbours(some, 2).similarities[:, 1]
    return SampleReport(
        samples=len(points),
        models=models,
        components=width,
        skewness=float((standard**3).mean(0).abs().mean()),
        kurtosis=float(((standard**4).mean(0) - 3).abs().mean()),
        ks_distance=float(ks_distance(standard).mean()),
        # Mean of the Kolmogorov distribution with estimated mean and variance, Lilliefors 1967.
        ks_expected=0.63 / math.sqrt(models),
        mean_error=float(errors.max()) * math.sqrt(len(points)),
        std_ratio=float((points.std(0) / std).mean()) if len(points) > 1 else math.nan,
        correlation=mean_correlation(standard[:, :_PAIRED_COMPONENTS]),
        rank_correlation=mean_correlation(magnitudes.argsort(0).argsort(0).float()),
        correlation_expected=math.sqrt(2 / (math.pi * (models - 1))),
        nearest=float(nearest.mean()),
        nearest_largest=float(nearest.max()),
        training_nearest=float(others.mean()),
        training_nearest_largest=float(others.max()),
    )


def standardised(coefficients: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Return coefficients in standard deviations from their mean, column by column."""
    rows = coefficients.float()
    return (rows - rows.mean(0)) / rows.std(0).clamp(min=1e-30)


def ks_distance(standard: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """Return the Kolmogorov-Smirnov distance of each column to the unit Gaussian."""
    rows = len(standard)
    gaussian = torch.special.ndtr(standard.sort(0).values.double())
    steps = torch.arange(rows + 1, dtype=torch.float64)[:, None] / rows
    above, below = steps[1:] - gaussian, gaussian - steps[:-1]
    return torch.maximum(above, below).amax(0).float()


def mean_correlation(columns: Float[Tensor, "n k"]) -> float:
    """Return the mean absolute correlation over all pairs of columns; 0 for a single column."""
    count = columns.shape[1]
    if count < 2:
        return 0.0
    deviations = columns - columns.mean(0)
    deviations = deviations / deviations.norm(dim=0).clamp(min=1e-30)
    correlations = (deviations.mT @ deviations).abs()
    return float((correlations.sum() - correlations.diagonal().sum()) / (count * (count - 1)))
