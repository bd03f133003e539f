"""From images to points of the space: reading, batches that fit into memory, and the result."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from .._config import require_fields
from .._json import plain
from .._memory import loras_that_fit, out_of_memory_explained
from ..bases import Base
from ..errors import InputError
from ..models import Model, require_one_base
from ..opening import Space, open_space
from ..space import WeightSpace
from ..training import default_config
from ._config import PRESETS, InversionConfig
from ._coordinates import Coordinates
from ._images import TargetImages
from ._inputs import read_images
from ._search import Search


@dataclass(frozen=True, eq=False)
class Inversion:
    """The result of an inversion, one row per subject; usable wherever points are.

    Attributes:
        points: float32 coefficients on the CPU; those that were not optimised are 0.
        loss: denoising loss of the images on held-out noise; NaN if it was not measured in time.
        start_loss: the same at the start, the mean of the training models.
        steps: optimiser steps that each subject took; 0 for those an interruption left out.
        images: the images as the search saw them: cropped and resized.
        seconds: from images to points.
        interrupted: whether Ctrl-C stopped the search; these are the best points until then.
        origins: how each point came about, as its model file states it.
        base_hash: content hash of the base.
    """

    points: Float[Tensor, "k m"]
    loss: Float[Tensor, "k"]
    start_loss: Float[Tensor, "k"]
    steps: Int[Tensor, "k"]
    images: UInt8[Tensor, "n h w 3"]
    seconds: float
    interrupted: bool = False
    origins: Sequence[dict[str, Any]] = ()
    base_hash: str = ""

    def __repr__(self) -> str:
        points, loss = tuple(self.points.shape), self.loss.mean()
        return f"Inversion(points {points}, {self.steps.sum()} steps, mean loss {loss:.4f})"

    def models(self, space: WeightSpace) -> list[Model]:
        """Return the models of all subjects that took a step, named after their first image."""
        return [
            replace(
                space.model(point, origin),
                base_hash=self.base_hash,
                name=Path(origin["images"][0]["name"]).stem if origin["images"] else "",
            )
            for point, origin in zip(self.points, self.origins, strict=True)
            if origin["steps"]
        ]


def invert(
    base: Base,
    space: Space,
    images: Any,
    *,
    mask: Any = None,
    preset: str = "fast",
    config: InversionConfig | None = None,
    subjects: Sequence[int] | None = None,
    prompt: str | None = None,
    seed: int = 0,
    subjects_per_batch: int | None = None,
    progress: bool = False,
    watch: Callable[[int, Tensor], object] | None = None,
    **changes: Any,
) -> Inversion:
    """Find the models of a space that generate what images show.

    A step costs a forward and backward pass of the UNet over K × samples_per_step samples.

    Args:
        base: of the space; left unchanged.
        space: the space to search, or its name.
        images: one or several paths, PIL images or uint8 arrays "h w 3" (NumPy or torch). The
            largest centred square is resized to the base's size.
        mask: where the subject is: for each image a path, a PIL image or an array "h w" of its
            size (bool, uint8, or 0 to 1), white or 1 on the subject, or None. It weights the
            squared error of each latent pixel.
        preset: "paper", "paper-ood", "fast" or "ood"; the last is for images unlike the training
            subjects, such as paintings, sketches and animals.
        config: settings to use instead of a preset's.
        subjects: for each image the number of its subject, 0 to K − 1; None: each its own.
        prompt: of the images; None is the instance prompt that the base's preset trains with.
        seed: of noise and timesteps. The same seed gives an image the same point whatever the
            batch, up to float rounding.
        subjects_per_batch: how many subjects to invert at once; None measures what fits.
        progress: show a progress bar on stderr.
        watch: called after every evaluation of a batch with the number of steps done and the best
            points so far "k m".
        **changes: fields of the settings to change.

    Returns:
        a point for every subject. After Ctrl-C the best so far, with `interrupted` set.

    Raises:
        InputError: images, masks, subjects or settings that do not fit, a space of another base, or
            a loss that became infinite or NaN.
        ResourceError: the batch does not fit into memory.

    Example:
        >>> def find(base, space):
        ...     return invert(base, space, "photo.jpg", mask="mask.png").points

    Source: Dravid et al. 2024, arXiv:2406.09413, section 3.4.
    """
    from tqdm import tqdm

    started = time.perf_counter()
    if config is None and preset not in PRESETS:
        raise InputError(f"preset {preset!r}: expected one of {', '.join(PRESETS)}")
    settings: dict[str, Any] = {"preset": preset if config is None else None}
    config = config or PRESETS[preset]
    require_fields(config, changes)
    config = replace(config, **changes)
    if seed < 0 or (subjects_per_batch is not None and subjects_per_batch < 1):
        raise InputError(
            f"seed {seed}, subjects_per_batch {subjects_per_batch}: expected at least 0 and 1"
        )
    space = open_space(space)
    pixels, masks, files = read_images(images, mask, base.size)
    require_one_base(base.hash, space.base_hash, "the space")
    coordinates = Coordinates(space, config, base.device)
    prompt = default_config(base).instance_prompt if prompt is None else prompt
    targets = TargetImages(base, pixels, masks, subjects, prompt, config.latents == "sample")
    K, interrupted = len(targets), False
    fitting = subjects_per_batch or K
    if K > 1 and not subjects_per_batch:
        fitting = loras_that_fit(base, space.layout, config.samples_per_step)

    def best_points() -> Tensor:
        points = torch.zeros(K, len(space))
        points[:, : coordinates.components] = coordinates.coefficients(search.best).cpu()
        return points

    shown = {"unit": " image-steps", "disable": not progress, "leave": False}
    with tqdm(total=K * config.steps, **shown) as bar:
        told = watch and (lambda step: watch(step, best_points()))
        search = Search(base, coordinates, targets, config, seed, bar, told)
        try:
            for rows in torch.arange(K).split(fitting):
                with out_of_memory_explained(base, f"{len(rows)} images"):
                    search.run(rows)
        except KeyboardInterrupt:
            interrupted = True
    if not interrupted and not search.loss.isfinite().all():
        diverged = int((~search.loss.isfinite()).nonzero()[0])
        raise InputError(
            f"the loss of image {diverged} of {K} became infinite or NaN: lower learning_rate"
        )
    settings |= {"config": config, "prompt": prompt, "seed": seed}
    owned = list(zip(files, targets.owners, strict=True))
    origins = [
        plain(
            {
                "verb": "invert",
                "images": [file for file, owner in owned if file and owner == subject],
                **settings,
                "steps": steps,
            }
        )
        for subject, steps in enumerate(search.steps)
    ]
    return Inversion(
        best_points(),
        search.loss,
        search.start_loss,
        search.steps,
        pixels,
        seconds=time.perf_counter() - started,
        interrupted=interrupted,
        origins=origins,
        base_hash=base.hash,
    )
