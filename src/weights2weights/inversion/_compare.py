"""The images of an inversion next to what its models generate."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..bases import Base
from ..generation import generate
from ..sheets import image_grid
from ..space import WeightSpace
from ..training import default_config
from ._invert import Inversion

if TYPE_CHECKING:
    from PIL.Image import Image


def before_and_after(
    base: Base,
    space: WeightSpace,
    found: Inversion,
    *,
    prompt: str | None = None,
    names: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1),
    progress: bool = False,
) -> "Image":
    """Lay out what was inverted, what the mean of the space generates, and what the models do.

    Args:
        base: of the space.
        space: that was searched.
        found: the result of `invert`; row i is shown with image i.
        prompt: to generate with; None is that of the base's training.
        names: a caption for every row, or none.
        seeds: of the images after the inversion; the one before has the first.
        progress: show a progress bar on stderr.
    """
    prompt = prompt or default_config(base).instance_prompt
    points = torch.cat([torch.zeros(1, len(space)), found.points])
    drawn = generate(base, points, space=space, prompts=prompt, seeds=seeds, progress=progress)
    mean, models = drawn[:, 0].split([1, len(found.points)])
    shown = found.images[: len(models), None]
    table = torch.cat([shown, mean[:, :1].expand_as(shown), models], 1)
    after = [f"after\nseed {seed}" for seed in seeds]
    return image_grid(table, names, ["image", f"before\nseed {seeds[0]}", *after])
