"""What `w2w evaluate` measures of a space, given nothing but the space.

Each measure is a function `measure(space, *, seed) -> dict` of JSON values; none needs a base or
images, so they apply to any space.
"""

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from ..directions import cosines, find_directions
from ..metrics.entanglement import mean_absolute_cosine, random_cosine
from ..sampling import sample
from ..space import WeightSpace
from .edits import require_labels
from .samples import report_samples

SAMPLES = 1000


def samples(space: WeightSpace, *, seed: int = 0) -> dict[str, Any]:
    """Return how samples compare with the training models; see `samples.SampleReport`."""
    return asdict(report_samples(space, sample(space, SAMPLES, seed=seed)))


def components(space: WeightSpace, *, seed: int = 0) -> dict[str, Any]:
    """Return the variance of the training models that the first components capture.

    Returns:
        `captured_variance` of all components, and `curve`: [components, captured variance] at 1, 2,
        5, 10, 20, 50, … components. Where the space does not record the variance of its training
        models, the curve is relative to all components.
    """
    variances = space.coefficients.double().var(0)
    whole = space.captured_variance if math.isfinite(space.captured_variance) else 1.0
    shares = (variances.cumsum(0) / variances.sum() * whole).tolist()
    steps = [digit * 10**power for power in range(7) for digit in (1, 2, 5)]
    counts = [*(step for step in steps if step < len(shares)), len(shares)]
    return {
        "components": len(space),
        "captured_variance": space.captured_variance,
        "curve": [[count, shares[count - 1]] for count in counts],
    }


def directions(space: WeightSpace, *, seed: int = 0) -> dict[str, Any]:
    """Return how well the direction of each label classifies held-out models.

    Returns:
        `labels`: label → held-out AUC and the numbers of models with and without it; `mean_auc`.

    Raises:
        W2WError: the space has no usable labels.
    """
    names = require_labels(space, space.labels.columns)
    found = find_directions(space, names, seed=seed)
    known = {name: space.labels[name].dropna().to_numpy(dtype=float) for name in names}
    aucs = [direction.auc for direction in found.values() if direction.auc is not None]
    return {
        "mean_auc": sum(aucs) / len(aucs) if aucs else None,
        "labels": {
            name: {
                "auc": direction.auc,
                "with": int((known[name] > 0).sum()),
                "without": int((known[name] <= 0).sum()),
            }
            for name, direction in found.items()
        },
    }


def entanglement(space: WeightSpace, *, seed: int = 0) -> dict[str, Any]:
    """Return how much the directions of different labels overlap (Fig. 9).

    Returns:
        `mean_absolute_cosine` over all pairs of labels, its expectation for `random` directions,
        and `pairs`: the ten pairs with the largest absolute cosine.

    Raises:
        W2WError: the space has fewer than two usable labels.
    """
    names = require_labels(space, space.labels.columns, 2)
    found = list(find_directions(space, names, seed=seed).values())
    matrix = cosines(found)
    first, second = torch.triu_indices(len(names), len(names), 1)
    order = matrix[first, second].abs().argsort(descending=True)[:10].tolist()
    return {
        "mean_absolute_cosine": mean_absolute_cosine(matrix),
        "random": random_cosine(max(len(direction.normal) for direction in found)),
        "pairs": [
            [names[first[i]], names[second[i]], float(matrix[first[i], second[i]])] for i in order
        ],
    }


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "samples": samples,
    "components": components,
    "directions": directions,
    "entanglement": entanglement,
}
"""Name on the command line → measure."""
