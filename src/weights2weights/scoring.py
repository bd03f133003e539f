"""Images along a direction, and scores of models from their images."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .bases import Base
from .directions import Direction, edit
from .errors import InputError
from .generation import generate
from .sheets import image_grid
from .space import WeightSpace

if TYPE_CHECKING:
    from PIL.Image import Image


def traverse(
    base: Base,
    space: WeightSpace,
    direction: Direction,
    *,
    points: Float[Tensor, "n m"] | None = None,
    strengths: Sequence[float | int] = (-2.0, 0.0, 2.0),
    prompt: str = "a photo of sks person",
    seed: int = 0,
    **options: Any,
) -> "Image":
    """Draw models before and after edits along a direction.

    Args:
        base: the base model of the space.
        space: the space of the direction.
        direction: where to go.
        points: the models to edit; default: the mean of the training models.
        strengths: columns of the sheet, in standard deviations; see `edit`.
        prompt: prompt of all images.
        seed: initial noise of all images.
        options: passed to `generate`.

    Returns:
        a sheet with one row per model and one column per strength.
    """
    start = torch.zeros(1, len(space)) if points is None else points
    edited = torch.stack([edit(start, {direction: strength}) for strength in strengths], 1)
    cells = edited.flatten(0, 1)
    images = generate(base, cells, space=space, prompts=prompt, seeds=seed, **options)
    table = images.view(len(start), len(strengths), *images.shape[-3:])
    return image_grid(table, columns=[f"{strength:+g} σ" for strength in strengths])


def score_models(
    base: Base,
    space: WeightSpace,
    points: Float[Tensor, "n m"],
    scorer: Callable[[np.ndarray], Any],
    prompts: Sequence[str],
    seeds: Sequence[int],
    **options: Any,
) -> Float[Tensor, " n"]:
    """Draw every model and return the mean score of its images, for `direction_from_scores`.

    Args:
        base: the base model of the space.
        space: the space of the points.
        points: the models to score.
        scorer: any function uint8 images (n, h, w, 3) → n numbers, such as an attribute classifier.
        prompts: prompts for each model.
        seeds: seeds for each prompt; the same for all models, so that scores are comparable.
        options: passed to `generate`.

    Returns:
        float64 mean scores.

    Raises:
        InputError: the scorer returns another number of scores than it got images; as `generate`.
    """
    scores = []
    for row in points.split(1):
        images = generate(base, row, space=space, prompts=prompts, seeds=seeds, **options)
        images = images.flatten(0, 2).numpy()
        given = torch.as_tensor(scorer(images)).double().cpu()
        if given.shape != (len(images),):
            raise InputError(
                f"the scorer returned scores of shape {list(given.shape)} for {len(images)} images:"
                " expected one number each"
            )
        scores.append(given.mean())
    return torch.stack(scores) if scores else torch.zeros(0, dtype=torch.float64)
