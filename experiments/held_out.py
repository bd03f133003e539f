"""Held-out people: drawn subjects that no space was fitted to, with their DreamBooth models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from weights2weights.dataset import WeightDataset
from weights2weights.errors import InputError
from weights2weights.evaluate.setting import Setting, require_unseen
from weights2weights.labels import read_labels
from weights2weights.layout import WeightLayout
from weights2weights.subjects import find_subjects
from weights2weights.worlds.folders import write_subjects

if TYPE_CHECKING:
    import pandas

HELD_OUT = 950
"""Added to the seed: held-out people come from populations that no space is trained on."""

TRAINING_IMAGES = 10
"""Images per subject, as in the paper."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Subjects that no space was fitted to, with their models.

    Attributes:
        names: names of the subjects, as `worlds.folders.write_subjects` gives them.
        weights: their models, in the layout of the space.
        labels: one row per subject, indexed by name.
    """

    names: tuple[str, ...]
    weights: Float[Tensor, "n d"]
    labels: "pandas.DataFrame"

    def __len__(self) -> int:
        return len(self.names)

    def first(self, count: int) -> "HeldOut":
        """Return the first subjects, or all of them if there are fewer."""
        names = self.names[:count]
        return HeldOut(names, self.weights[:count], self.labels.loc[list(names)])

    @classmethod
    def open(cls, path: str | Path, layout: WeightLayout) -> "HeldOut":
        """Read held-out subjects from a dataset.

        Raises:
            W2WError: there is no dataset, it holds fewer than two models, or its layout differs.
        """
        dataset = WeightDataset.open(path)
        layout.require_equal(dataset.layout, str(path))
        return cls.of(dataset, dataset.names)

    @classmethod
    def of(cls, dataset: WeightDataset, names: Sequence[str]) -> "HeldOut":
        """Take the named models of a dataset."""
        names = list(names)
        require_two(names)
        return cls(tuple(names), dataset[names], dataset.labels.loc[names])


def train_held_out(setting: Setting, folder: Path, people: int) -> HeldOut:
    """Draw and train held-out people in a folder, or resume there.

    Args:
        setting: base, space and world.
        folder: receives their images and weights.
        people: how many.

    Raises:
        W2WError: fewer than two people, one that could not be trained, or one that the space was
            fitted to.
    """
    seed = HELD_OUT + setting.seed
    names = [f"{setting.world.name}-{seed}-{i:05d}" for i in range(people)]
    require_two(names)
    require_unseen(setting.space, names)
    subjects = folder / "subjects"
    if not _complete(subjects, names):
        write_subjects(
            setting.world.name,
            subjects,
            subjects=people,
            images=TRAINING_IMAGES,
            size=setting.base.size,
            seed=seed,
        )
    dataset = setting.train(
        [subject for subject in find_subjects(subjects) if subject.name in set(names)],
        folder / "weights",
        labels=read_labels(subjects / "labels.csv"),
    )
    return HeldOut.of(dataset, names)


def _complete(subjects: Path, names: Sequence[str]) -> bool:
    """Return whether a folder holds all images of subjects, and their labels, written last."""
    table = subjects / "labels.csv"
    return (
        table.is_file()
        and set(names) <= set(read_labels(table).index)
        and all(
            (subjects / name / f"{number:03d}{ending}").is_file()
            for name in names
            for number in range(TRAINING_IMAGES)
            for ending in (".png", ".txt")
        )
    )


def require_two(names: Sequence[str]) -> None:
    """Refuse a held-out set that is too small for an interval.

    Raises:
        W2WError: there are fewer than two names.
    """
    if len(names) < 2:
        raise InputError(f"the held-out set has {len(names)} models: expected at least two")
