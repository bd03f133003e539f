"""Stage 1: images of people become LoRAs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...dataset import WeightDataset
from ...errors import W2WError
from ...labels import read_labels
from ...metrics.verification import verification_auc
from ...subjects import find_subjects
from ...worlds.folders import write_subjects
from ..estimates import estimate, mean
from ..page import Cell
from ..setting import FRESH, REFERENCES, Scored
from ._stage import POPULATION, Demo, Stage

_SHOWN = 4


@dataclass
class Trained(Stage):
    """Models of the people.

    Attributes:
        weights: one model per row.
        generated: their images, for every prompt of the demo.
        id_score_of_drawings: mean ID score of drawings to their own person, for comparison.
    """

    weights: Float[Tensor, "k d"]
    generated: Scored
    id_score_of_drawings: float


def train(run: Demo, images: int, **changes: Any) -> Trained:
    """Draw the people, write their images as ordinary files, and fine-tune the base for each."""
    setting, weights_folder = run.setting, run.out / "weights"
    recipe = replace(setting.recipe, **changes)
    _write_people(run, images)
    before = _count_models(weights_folder, run.names)
    start = time.perf_counter()
    dataset = setting.train(
        # an earlier run may have left other people there
        [one for one in find_subjects(run.out / "subjects") if one.name in run.names],
        weights_folder,
        recipe,
        labels=read_labels(run.out / "subjects" / "labels.csv"),
        cache=run.out / "cache",
    )
    seconds = time.perf_counter() - start
    weights = dataset[list(run.names)]
    generated = setting.generate(weights, run.prompts, [setting.seed])
    references = setting.references(run.names)
    # not among the images that the references are the mean of
    drawings = setting.identities(setting.drawings(run.names, 4, FRESH + REFERENCES))
    of_drawings = mean(estimate((drawings * references[:, None]).sum(-1)))
    people = torch.arange(len(run.names))
    auc = verification_auc(
        generated.identity.flatten(0, 2),
        people.repeat_interleave(len(run.prompts)),
        drawings.flatten(0, 1),
        people.repeat_interleave(drawings.shape[1]),
    )
    figures = {
        "subjects": len(run.names),
        "images": images,
        "steps": recipe.steps,
        "parameters": setting.layout.num_parameters,
        "seconds": seconds,
        "models_before": before,
        "verification_auc": auc,
        "id_score": estimate(setting.id_scores(generated, references)),
        "id_score_of_drawings": of_drawings,
    }
    views = {"rows": _rows(run, generated)}
    return Trained(figures, weights, generated, of_drawings, views=views)


def _write_people(run: Demo, images: int) -> None:
    setting = run.setting
    write_subjects(
        setting.world.name,
        run.out / "subjects",
        subjects=len(run.names),
        images=images,
        seed=setting.seed + POPULATION,
    )


def _count_models(folder: Path, names: Sequence[str]) -> int:
    """Return how many of the models an earlier run has left in a folder."""
    try:
        dataset = WeightDataset.open(folder)
    except W2WError:
        return 0  # none yet; training reports a damaged one
    return sum(name in dataset for name in names)


def _rows(run: Demo, generated: Scored) -> list[list[Cell]]:
    """Return three training images of each person, then images of the model."""
    photos = run.setting.drawings(run.names[:_SHOWN], 3)
    return [
        [Cell(photo, "training image") for photo in theirs]
        + [Cell(images[p, 0], run.scene(text)) for p, text in enumerate(run.prompts)]
        for theirs, images in zip(photos, generated.images[:_SHOWN], strict=True)
    ]
