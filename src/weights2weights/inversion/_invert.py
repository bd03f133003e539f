"""From photos to points of the space: checks, groups that fit the memory, and what comes out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bases import Base
from ..errors import InputError
from ..layout import require_one_base
from ..space import WeightSpace
from ..training import PAPER as DREAMBOOTH
from ..training import RECIPES as DREAMBOOTH_RECIPES
from ..training import DreamBoothConfig, group_size, told_if_too_large
from ._coordinates import Coordinates
from ._photos import Photos, check_photos
from ._recipe import FAST, InversionConfig
from ._search import Search


@dataclass(frozen=True, eq=False)
class Inversion:
    """What a search found, a row per subject.

    Attributes:
        coefficients: float32 on the CPU, on all m components of the space; those that were not
            sought are 0.
        loss: denoising loss of the photos on held-out noise; NaN where an interruption came before
            it was measured.
        start_loss: the same at the start, the mean of the training models.
        steps: of the optimiser that each subject took; 0 for those that an interruption left out.
        seconds: from photos to coefficients.
        interrupted: whether the search was stopped by Ctrl-C; the best points so far are here.
    """

    coefficients: Float[Tensor, "k m"]
    loss: Float[Tensor, "k"]
    start_loss: Float[Tensor, "k"]
    steps: Int[Tensor, "k"]
    seconds: float
    interrupted: bool = False


def invert(
    base: Base,
    space: WeightSpace,
    images: Any,
    masks: Float[Tensor, "n h w"] | None = None,
    *,
    subjects: Sequence[int] | None = None,
    recipe: InversionConfig = FAST,
    prompt: str | None = None,
    seed: int = 0,
    group: int | None = None,
    progress: bool = False,
) -> Inversion:
    """Find the models of a space that draw what photos show.

    Costs per step one pass of the UNet, forth and back, over K × samples_per_step samples, and two
    products of K rows with the components.

    Args:
        base: of the space; it is left as it was.
        space: where to look.
        images: photos, uint8 "n h w 3", torch or NumPy, square and of the base's size.
        masks: how much each pixel counts, from 0 to 1.
        subjects: for each photo the number of its subject, 0 to K − 1; None: each its own.
        recipe: how.
        prompt: what the photos are called; None is what the training subjects of the base's world
            were called, for any other base the paper's "sks person".
        seed: of noise and timesteps. The same seed gives a photo the same coefficients whatever the
            batch, up to float rounding.
        group: how many subjects are inverted at once; None picks what the memory holds.
        progress: a bar on stderr with rate and time left.

    Returns:
        a point for every subject. After Ctrl-C the best so far, with `interrupted` set.

    Raises:
        W2WError: photos, masks or subjects that do not fit, a space of another base, a recipe that
            needs the spread of training models where the space has none, a group that does not fit
            into the memory, a loss that became infinite or NaN.

    Source: Dravid et al. 2024, arXiv:2406.09413, section 3.4.
    """
    begun = time.perf_counter()
    images, owners = check_photos(base, images, masks, subjects)
    require_one_base(base.hash, space.base_hash, "the space")
    if seed < 0 or (group is not None and group < 1):
        raise InputError(f"seed {seed}, group {group}: expected at least 0 and 1")
    coordinates = Coordinates(space, recipe, base.device)
    prompt = default_prompt(base) if prompt is None else prompt
    photos = Photos(base, images, masks, owners, prompt, recipe.latents == "sample")
    group = group or _fitting(base, space, recipe, len(photos))
    interrupted = False
    with _bar(len(photos) * recipe.steps, progress) as bar:
        search = Search(base, coordinates, photos, recipe, seed, bar)
        try:
            for rows in torch.arange(len(photos)).split(group):
                with told_if_too_large(base, f"{len(rows)} photos"):
                    search.run(rows)
        except KeyboardInterrupt:
            interrupted = True
    if not interrupted and not search.loss.isfinite().all():
        broken = int((~search.loss.isfinite()).nonzero()[0])
        raise InputError(
            f"the loss of photo {broken} of {len(photos)} became infinite or NaN: give a lower"
            " learning_rate"
        )
    found = torch.zeros(len(photos), len(space))
    found[:, : coordinates.components] = coordinates.coefficients(search.best).cpu()
    seconds = time.perf_counter() - begun
    return Inversion(found, search.loss, search.start_loss, search.steps, seconds, interrupted)


def default_prompt(base: Base) -> str:
    """Return what the training subjects of a base's world are called, else the paper's words."""
    return DREAMBOOTH_RECIPES.get(base.id, DREAMBOOTH).prompt


def _fitting(base: Base, space: WeightSpace, recipe: InversionConfig, K: int) -> int:
    """Return how many subjects fit at once: as many as of a training with as many samples."""
    if K == 1:
        return 1
    alike = DreamBoothConfig(
        rank=space.layout.rank,
        alpha=space.layout.alpha,
        targets=space.layout.targets,
        train_batch_size=recipe.samples_per_step,
        prior_weight=0.0,
    )
    return min(K, group_size(base, alike))


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=" photo-steps", disable=not progress, leave=False)
