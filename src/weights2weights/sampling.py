"""New models: points drawn from the distribution of the training models.

The paper draws every coefficient independently from a Gaussian with the mean and standard deviation
of the training models along that component.

Source: Dravid et al. 2024, arXiv:2406.09413, sections 3.2 and 4.2.
"""

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import InputError
from .protocols import Space

_PAIRS = 1000  # components whose pairwise correlations are measured; there are half a million
_NEIGHBOUR_ROWS = 1000  # training models whose nearest neighbour is looked up


def sample(
    space: Space,
    count: int,
    *,
    seed: int = 0,
    components: int | None = None,
    scale: float | None = None,
    first: int = 0,
) -> Float[Tensor, "n m"]:
    """Draw new points: independent Gaussians along each component.

    Row i depends on the seed and on i only, so ten samples are the first ten of a hundred.

    A space may recommend how to sample it, as `metadata["sampling"]` with `components` and `scale`:
    where much of every training model is noise, wide samples along the first components are more
    consistent subjects than narrow ones along all.

    Args:
        space: the space; its training models give mean and standard deviation.
        count: n, the number of points.
        seed: any non-negative integer.
        components: number of leading components to draw along; the others are 0, the mean. Default:
            what the space recommends, else all whose standard deviation is known. Fewer components
            leave the rest of a sample as it is.
        scale: factor on the standard deviations; below 1 gives more typical models. Default: what
            the space recommends, else 1, as in the paper.
        first: index of the first row, to continue where another call ended.

    Returns:
        float32 coefficients on all m components, on the CPU.

    Raises:
        InputError: the space has fewer than two training models; more components than have a known
            standard deviation; a negative count, seed or scale.
    """
    known = space.coefficients.shape[1]
    drawn, scale = sampling_of(space, components, scale)
    if len(space.names) < 2:
        raise InputError("this space holds no training models; sampling needs their distribution")
    if count < 0 or seed < 0 or first < 0 or not 0 <= scale < math.inf:
        raise InputError(
            f"count {count}, seed {seed}, first {first}, scale {scale}: expected none negative"
        )
    if not 1 <= drawn <= known:
        raise InputError(f"{drawn} components: expected 1 to {known}, whose distribution is known")
    points = torch.zeros(count, len(space))
    for row in range(count):
        # all are drawn, whatever is kept, so that truncation changes nothing else
        noise = torch.randn(known, generator=_generator(seed, first + row))
        point = space.coefficient_mean + scale * space.coefficient_std * noise
        points[row, :drawn] = point[:drawn]
    return points


def sampling_of(
    space: Space, components: int | None = None, scale: float | None = None
) -> tuple[int, float]:
    """Return the components and the scale that `sample` draws with.

    Raises:
        InputError: the recommendation of the space is not usable.
    """
    known, advice = space.coefficients.shape[1], space.metadata.get("sampling", {})
    try:
        most, factor = int(advice.get("components", known)), float(advice.get("scale", 1.0))
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"the space recommends sampling with {advice!r}: expected numbers for components and"
            " scale; pass both yourself"
        ) from error
    return (
        min(most, known) if components is None else components,
        factor if scale is None else scale,
    )


def _generator(seed: int, row: int) -> torch.Generator:
    """Return a generator for one row; neighbouring seeds and rows share nothing."""
    digest = hashlib.sha256(f"{seed}/{row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@dataclass(frozen=True)
class SampleReport:
    """How samples compare with the training models.

    Attributes:
        samples: how many.
        models: how many training models.
        components: how many were compared.
        skewness: mean absolute skewness of the training coefficients per component; 0 if Gaussian.
        kurtosis: mean absolute excess kurtosis; 0 if Gaussian.
        ks_distance: mean Kolmogorov-Smirnov distance of the training marginals to a Gaussian of the
            same mean and spread.
        ks_expected: what a true Gaussian sample of that size would show.
        mean_error: largest distance of sample mean to training mean, in standard errors.
        spread_ratio: mean ratio of the samples' to the training models' spread.
        correlation: mean absolute correlation of pairs of components over the training models.
        rank_correlation: the same of ranks of magnitudes, which also sees dependence without
            correlation.
        correlation_expected: what independent components would show for that many models.
        nearest: mean over samples of the cosine to the nearest training model.
        nearest_largest: the largest of them: the most copy-like sample.
        training_nearest: mean over training models of the cosine to the nearest other one.
        training_nearest_largest: the largest of them.
    """

    samples: int
    models: int
    components: int
    skewness: float
    kurtosis: float
    ks_distance: float
    ks_expected: float
    mean_error: float
    spread_ratio: float
    correlation: float
    rank_correlation: float
    correlation_expected: float
    nearest: float
    nearest_largest: float
    training_nearest: float
    training_nearest_largest: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def report_samples(space: Any, coefficients: Float[Tensor, "n m"]) -> SampleReport:
    """Compare samples with the training models: Figs. 4, 26 and 27 as numbers.

    Correlations are measured over the first 1,000 components, and training neighbours for at most
    1,000 training models evenly taken, so that the cost stays moderate at any size.

    Args:
        space: with its training coefficients.
        coefficients: samples of it. The last components are left out if all samples are 0 there, as
            those drawn along fewer components are.

    Raises:
        W2WError: no samples, or fewer than three training models.
    """
    if not len(coefficients) or len(space.names) < 3:
        raise InputError(
            f"{len(coefficients)} samples and {len(space.names)} training models: expected at least"
            " 1 and 3"
        )
    known = space.coefficients.shape[1]
    drawn = (coefficients[:, :known] != 0).any(0)
    width = int(drawn.nonzero().max()) + 1 if drawn.any() else 1
    points = coefficients[:, :width].float().cpu()
    training = space.coefficients[:, :width].float()
    standard = (training - training.mean(0)) / training.std(0).clamp(min=1e-30)
    errors = (points.mean(0) - training.mean(0)).abs() / training.std(0).clamp(min=1e-30)
    ratio = points.std(0) / training.std(0).clamp(min=1e-30) if len(points) > 1 else None
    some = training[:: math.ceil(len(training) / _NEIGHBOUR_ROWS)]
    nearest = space.neighbours(points, 1).similarities[:, 0]
    others = space.neighbours(some, 2).similarities[:, 1]
    models = len(training)
    return SampleReport(
        samples=len(points),
        models=models,
        components=width,
        skewness=float((standard**3).mean(0).abs().mean()),
        kurtosis=float(((standard**4).mean(0) - 3).abs().mean()),
        ks_distance=float(ks_distance(standard).mean()),
        # mean of the Kolmogorov distribution with estimated mean and spread, Lilliefors 1967
        ks_expected=0.63 / math.sqrt(models),
        mean_error=float(errors.max()) * math.sqrt(len(points)),
        spread_ratio=math.nan if ratio is None else float(ratio.mean()),
        correlation=mean_correlation(standard[:, :_PAIRS]),
        rank_correlation=mean_correlation(standard[:, :_PAIRS].abs().argsort(0).argsort(0).float()),
        correlation_expected=math.sqrt(2 / (math.pi * (models - 1))),
        nearest=float(nearest.mean()),
        nearest_largest=float(nearest.max()),
        training_nearest=float(others.mean()),
        training_nearest_largest=float(others.max()),
    )


def ks_distance(standard: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """Return the largest distance of each column's distribution function to the unit Gaussian's."""
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
