"""A space fitted to some of the training models, computed from the coefficients of all.

Coefficients are an orthonormal change of coordinates of the standardised weights, so a PCA of some
rows of coefficients is the PCA of their weights, except for the residual of the whole space and for
the standardisation, which remains that of all models. It takes milliseconds.
"""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from weights2weights.errors import InputError
from weights2weights.space import WeightSpace


def subspace(
    space: WeightSpace, rows: Int[Tensor, " r"], components: int | None = None
) -> WeightSpace:
    """Fit a space to some of the training models of a space.

    Args:
        space: a space with its training models.
        rows: rows of the chosen models.
        components: upper limit; default: all that the models span, at most r − 1.

    Returns:
        the space with the chosen models as its training models.

    Raises:
        W2WError: fewer than two models.
    """
    if len(rows) < 2:
        raise InputError(f"{len(rows)} models: expected at least two to span a space")
    chosen = space.coefficients[rows].double()
    center = chosen.mean(0)
    _, sizes, turns = torch.linalg.svd(chosen - center, full_matrices=False)
    held = int((sizes > 1e-6 * sizes[0]).sum())
    held = min(held, len(rows) - 1, components or held)
    turns = turns[:held]
    # The largest entry of each component is positive, so that equal rows give equal signs.
    largest = turns.gather(1, turns.abs().argmax(1, keepdim=True))
    turns = turns * largest.sign()
    known = space.coefficients.shape[1]
    names = tuple(space.names[i] for i in rows.tolist())
    variances = sizes[:held].square() / (len(rows) - 1)
    captured = space.captured_variance * float(
        variances.sum() / sizes.square().sum() * (len(rows) - 1)
    )
    return replace(
        space,
        mean=space.mean + (center.float() @ space.components[:known].float()) * space.std,
        components=turns.float() @ space.components[:known].float(),
        coefficients=((chosen - center) @ turns.mT).float(),
        names=names,
        labels=space.labels.loc[list(names)],
        fit_id="",
        metadata={"captured_variance": captured},
    )


def draw_subset(space: WeightSpace, size: int, resampling: int, seed: int) -> Int[Tensor, " r"]:
    """Draw training models without replacement: another set for each resampling and size."""
    generator = torch.Generator().manual_seed((seed * 1000 + resampling) * 100_003 + size)
    return torch.randperm(len(space.names), generator=generator)[:size].sort().values


def sizes_up_to(most: int, least: int = 10) -> list[int]:
    """Return the sizes to compare: 10, 30, 100, 300, …, and all.

    Example:
        >>> sizes_up_to(1100), sizes_up_to(65_000)[-3:], sizes_up_to(40, least=3)
        ([10, 30, 100, 300, 1100], [10000, 30000, 65000], [3, 10, 40])
    """
    sizes = [digit * 10**power for power in range(7) for digit in (1, 3)]
    return [*(size for size in sizes if least <= size < 0.7 * most), most]
