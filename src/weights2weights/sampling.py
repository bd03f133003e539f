"""New models: points drawn from the distribution of the training models.

The paper draws every coefficient independently from a Gaussian with the mean and standard deviation
of the training models along that component. `evaluate.samples` measures what justifies this.

Source: Dravid et al. 2024, arXiv:2406.09413, sections 3.2 and 4.2.
"""

import hashlib
import math
import operator

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import InputError
from .protocols import Space


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

    Row i depends on the seed and on i only, so ten samples are the first ten of a hundred. A space
    may recommend how to sample it, as `metadata["sampling"]` with `components` and `scale`: where
    much of every training model is noise, wide samples along the first components are more
    consistent subjects than narrow ones along all.

    Args:
        space: its training models give mean and standard deviation.
        count: n, the number of points.
        seed: any non-negative integer.
        components: number of leading components to draw along, the others are 0. Default: what the
            space recommends, else all with a known standard deviation.
        scale: factor on the standard deviations; below 1 gives more typical models. Default: what
            the space recommends, else 1, as in the paper.
        first: index of the first row, to continue where another call ended.

    Returns:
        float32 coefficients on all m components, on the CPU.

    Raises:
        InputError: a space of fewer than two training models, or a number out of range.
    """
    known = space.coefficients.shape[1]
    drawn, scale = sampling_of(space, components, scale)
    if len(space.names) < 2:
        raise InputError("this space holds no training models; sampling needs their distribution")
    try:
        count, seed, first = map(operator.index, (count, seed, first))
    except TypeError as error:
        raise InputError(f"count {count}, seed {seed}, first {first}: expected integers") from error
    if count < 0 or seed < 0 or first < 0 or not 0 <= scale < math.inf:
        raise InputError(
            f"count {count}, seed {seed}, first {first}, scale {scale}: expected none negative"
        )
    if not 1 <= drawn <= known:
        raise InputError(f"{drawn} components: expected 1 to {known}, whose distribution is known")
    points = torch.zeros(count, len(space))
    for row in range(count):
        digest = hashlib.sha256(f"{seed}/{first + row}".encode()).digest()
        random = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        # all are drawn, whatever is kept, so that truncation changes nothing else
        noise = torch.randn(known, generator=random)
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
    drawn = min(most, known) if components is None else components
    return drawn, factor if scale is None else scale
