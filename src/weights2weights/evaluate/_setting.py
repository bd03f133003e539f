"""What an item is measured on, and the two things that all items do: draw models, and look.

`Setting` holds base, space, judges and held-out subjects. Drawings are kept on disk by what they
depend on, so an interrupted item goes on, and items that need the same images share them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .. import __version__
from ..bases import Base
from ..dataset import WeightDataset
from ..errors import InputError
from ..generation import GUIDANCE, STEPS, generate
from ..inversion import PRESETS as INVERSION_PRESETS
from ..inversion import InversionConfig
from ..labels import read_labels
from ..layout import WeightLayout
from ..metrics.protocols import AttributeReader, FeatureNetwork, IdentityScorer
from ..space import WeightSpace
from ..subjects import Subject, find_subjects
from ..training import DreamBoothConfig, default_config, train
from ..worlds import USER_POPULATIONS, World, load_world, shipped
from ..worlds.folders import write_subjects
from ..worlds.scorers import Scorer
from ._keep import Keep, digest, digest_of_fields
from ._report import machine

if TYPE_CHECKING:
    import pandas


HELD_OUT = 950
"""Added to the seed: held-out people are of populations that no one trains a space on."""

TRAINING_PICTURES = 10
"""Of each subject, as in the paper."""

MEASURED = 4
"""Raise it when what an item measures changes: items and their kept parts are then computed anew.
Drawings stay, since they depend on nothing that is measured."""


@runtime_checkable
class Judge(IdentityScorer, AttributeReader, FeatureNetwork, Protocol):
    """What a world's scorer is: it knows people, reads attributes, and sees in layers."""


FRESH = 100
"""Images of a drawn subject from this number on are for judging; training takes earlier ones."""

REFERENCES = 8
"""So many of them, the first, say who a subject is; what is compared with that comes after."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Subjects that no space was fitted to, with the models that DreamBooth made of them.

    Attributes:
        names: of the subjects, as `worlds.folders.write_subjects` names them.
        weights: of their models, in the layout of the space.
        labels: one row per subject, indexed by name.
    """

    names: tuple[str, ...]
    weights: Float[Tensor, "n d"]
    labels: "pandas.DataFrame"

    def __len__(self) -> int:
        return len(self.names)

    def first(self, count: int) -> "HeldOut":
        """Return the first subjects, all if there are no more."""
        names = self.names[:count]
        return HeldOut(names, self.weights[:count], self.labels.loc[list(names)])

    @classmethod
    def open(cls, path: str | Path, layout: WeightLayout) -> "HeldOut":
        """Read them from a dataset.

        Raises:
            W2WError: none there, fewer than two models in it, or models of another layout.
        """
        dataset = WeightDataset.open(path)
        layout.require_equal(dataset.layout, str(path))
        names = dataset.names
        _require_two(names, str(path))
        return cls(tuple(names), dataset[list(names)], dataset.labels.loc[list(names)])


@dataclass(frozen=True, eq=False)
class Seen:
    """Images, and what the judges see in them.

    Attributes:
        images: k models × p prompts × s seeds.
        identity: unit-length embeddings.
        attributes: probabilities.
    """

    images: UInt8[Tensor, "k p s h w 3"]
    identity: Float[Tensor, "k p s e"]
    attributes: Float[Tensor, "k p s labels"]


@dataclass(frozen=True, eq=False)
class Setting:
    """Base, space, judges and subjects of an evaluation.

    Attributes:
        base: what the models personalise.
        space: what is evaluated.
        world: whose subjects are shown.
        scorer: says who is in an image, reads attributes, and sees in layers.
        held_out: subjects that the space does not know; None for items that need none.
        keep: where finished parts go.
        recipe: how models of subjects are trained, with the prompts.
        inversion: how images are inverted.
        seed: of everything random.
        space_name: as the user called it.
        scorer_hash: names the scorer's weights.
        progress: whether to show bars on stderr.
    """

    base: Base
    space: WeightSpace
    world: World
    scorer: Judge
    held_out: HeldOut | None = None
    keep: Keep = field(default_factory=lambda: Keep(None))
    recipe: DreamBoothConfig = field(default_factory=DreamBoothConfig)
    inversion: InversionConfig = INVERSION_PRESETS["fast"]
    seed: int = 0
    space_name: str = "people"
    scorer_hash: str = ""
    progress: bool = False

    @property
    def layout(self) -> WeightLayout:
        """Of the models."""
        return self.space.layout

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What every figure depends on, for `Keep`: one complete set, which nothing adds to."""
        space, held_out = self.space, self.held_out
        people = [list(held_out.names), held_out.weights] if held_out else None
        return {
            **self._drawing,
            "space": digest([space.hash, space.coefficients, list(space.names)]),
            "labels": _digest_of_labels(space.labels),
            "scorer": self.scorer_hash,
            "held_out": digest(people),
            "held_out_labels": _digest_of_labels(held_out.labels) if held_out else "",
            "recipe": digest_of_fields(self.recipe),
            "inversion": digest_of_fields(self.inversion),
            "seed": self.seed,
            "measured": MEASURED,
        }

    @cached_property
    def _drawing(self) -> dict[str, Any]:
        """What an image depends on besides weights, prompts and seeds."""
        dtype = _dtype_of(self.base)
        return {"base": self.base.hash, "dtype": dtype, "version": __version__}

    @cached_property
    def prompts(self) -> list[str]:
        """The prompt of training, and the same in every scene of the world."""
        scenes = (
            text.replace(self.recipe.class_prompt, self.recipe.instance_prompt)
            for text in self.world.scene_prompts.values()
        )
        return list(dict.fromkeys([self.recipe.instance_prompt, *scenes]))

    @property
    def people(self) -> HeldOut:
        """The held-out subjects.

        Raises:
            W2WError: there are none, or a single one.
        """
        if self.held_out is None:
            raise InputError(
                "this item needs held-out subjects: expected a dataset of their weights; give it"
                " with --held-out"
            )
        _require_two(self.held_out.names, "the held-out set")
        return self.held_out

    def draw(
        self,
        weights: Float[Tensor, "k d"] | None,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        layout: WeightLayout | None = None,
        **options: Any,
    ) -> Seen:
        """Draw every prompt with every seed from every model, and look at the images.

        Args:
            weights: None draws the base itself, with K = 1.
            prompts: P texts.
            seeds: S seeds.
            layout: of the weights, if it is not that of the space.
            options: of `generation.generate`.
        """
        layout = None if weights is None else layout or self.layout
        inputs = {
            "drawn": digest([weights, list(prompts), list(seeds)]),
            "layout": layout.hash if layout else "",
            "options": digest({"steps": STEPS, "guidance": GUIDANCE, **options}),
            **self._drawing,
        }

        def compute() -> dict[str, Tensor]:
            drawn = generate(
                self.base,
                weights,
                layout=layout,
                prompts=prompts,
                seeds=seeds,
                progress=self.progress,
                **options,
            )
            return {"images": drawn}

        return self.look(self.keep.tensors(inputs, compute)["images"])

    def look(self, images: UInt8[Tensor, "k p s h w 3"]) -> Seen:
        """Let the judges see images."""
        flat = images.flatten(0, 2).numpy()
        identity, attributes = self.scorer.identity(flat), self.scorer.attributes(flat)
        shape = images.shape[:3]
        return Seen(images, identity.view(*shape, -1), attributes.view(*shape, -1))

    def images_of(
        self, names: Sequence[str], count: int, first: int = 0
    ) -> UInt8[np.ndarray, "n count h w 3"]:
        """Return images of drawn subjects, at the base's size.

        Args:
            names: as `write_subjects` gives them: world, seed and number.
            count: images of each.
            first: number of the first; from `FRESH` on no training has seen them.

        Raises:
            W2WError: a name says no such subject.
        """
        drawn = []
        for name in names:
            population, index = subject_of(self.world, name)
            subject = self.world.subject(population, index)
            drawn += [
                self.world.draw(
                    subject, self.world.image(population, index, first + i), self.base.size
                )
                for i in range(count)
            ]
        return np.stack(drawn).reshape(len(names), count, self.base.size, self.base.size, 3)

    def write_images(self, names: Sequence[str], count: int, folder: Path) -> None:
        """Write the first images of drawn subjects as `worlds.folders` does: with captions."""
        for name, of_one in zip(names, self.images_of(names, count), strict=True):
            (folder / name).mkdir(parents=True, exist_ok=True)
            population, index = subject_of(self.world, name)
            for number, pixels in enumerate(of_one):
                said = self.world.surroundings(self.world.image(population, index, number))
                write_image(folder / name / f"{number:03d}.png", pixels, said)

    def learn(
        self,
        subjects: Sequence[Subject],
        out: Path,
        recipe: DreamBoothConfig | None = None,
        **options: Any,
    ) -> WeightDataset:
        """Learn models of subjects that the space can take: of its layers, rank and alpha.

        What failed in an earlier run is tried again: images may have been mended since, and a
        failure that is kept would end every later run in that folder.

        Args:
            subjects: to learn.
            out: folder of the dataset.
            recipe: None is the setting's; its rank, alpha and layers give way to the space's.
            options: of `training.train`.

        Raises:
            W2WError: one of the subjects could not be trained, or the base has not the layers that
                the space's models have.
        """
        recipe = self._for_space(recipe or self.recipe)
        dataset = train(
            self.base, subjects, out, recipe, retry_failed=True, progress=self.progress, **options
        )
        if failed := [one.name for one in subjects if one.name in dataset.failed]:
            raise InputError(f"{failed[0]} could not be trained: {dataset.failed[failed[0]]}")
        return dataset

    def _for_space(self, recipe: DreamBoothConfig) -> DreamBoothConfig:
        layout = self.layout
        own = self.base.layout(recipe.rank, recipe.alpha, recipe.targets)
        if layout.difference(own):
            # only then: equal layers are spelled in more ways than one, and a dataset of the other
            # spelling could not be gone on with
            layers = {"rank": layout.rank, "alpha": layout.alpha, "targets": layout.targets}
            recipe = replace(recipe, **layers, start="random")  # the base's is of the base's layout
            own = self.base.layout(**layers)
        layout.require_equal(own, f"base {self.base.id}")
        return recipe

    def references(self, names: Sequence[str]) -> Float[Tensor, "n e"]:
        """Return who subjects are: the mean embedding of images that no training has seen."""
        images = self.images_of(names, REFERENCES, FRESH)
        embeddings = self.scorer.identity(images.reshape(-1, *images.shape[2:]))
        mean = embeddings.view(len(names), REFERENCES, -1).mean(1)
        return torch.nn.functional.normalize(mean, dim=-1)

    def sees(self, seen: Seen, label: str) -> Float[Tensor, "k p s"]:
        """Return the probability that the reader gives a label in each image."""
        return seen.attributes[..., self.scorer.label_names.index(label)]

    def likeness(self, seen: Seen, references: Float[Tensor, "k e"]) -> Float[Tensor, "k p s"]:
        """Return the ID score of images: the cosine to whom each model is of."""
        return (seen.identity * references[:, None, None]).sum(-1)

    def context(self) -> dict[str, Any]:
        """Return what every report says: on what its figures were measured."""
        return measured_on(self.base, self.space_name, self.space, self.world, self.seed)


def open_setting(
    base: Base,
    space: str,
    *,
    world: str = "people",
    held_out: str | Path | None = None,
    keep: Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Setting:
    """Open a space with the judges of a world.

    Args:
        base: loaded.
        space: a folder, a hub id or the word of an embedded world.
        world: whose judges and subjects to take.
        held_out: dataset of the weights of held-out subjects.
        keep: folder for finished parts; None keeps nothing.
        seed: of everything random.
        progress: bars on stderr.

    Raises:
        W2WError: one of them is not there, the space or the weights were made for another base, or
            the space was fitted to one of the held-out subjects.
    """
    opened = WeightSpace.from_pretrained(space)
    require_base(base, opened.base_hash, f"space {space}")
    if held_out is not None:
        dataset = WeightDataset.open(held_out)
        require_base(base, dataset.base_hash, str(held_out))
        require_strangers(opened, dataset.names)
    scorer = Scorer.load(shipped(world, "scorer"))
    return Setting(
        base=base,
        space=opened,
        world=load_world(world),
        scorer=scorer,
        held_out=HeldOut.open(held_out, opened.layout) if held_out is not None else None,
        keep=Keep(keep),
        recipe=default_config(world),
        seed=seed,
        space_name=space,
        scorer_hash=digest(dict(scorer.network.state_dict())),
        progress=progress,
    )


def train_held_out(setting: Setting, folder: Path, people: int) -> Setting:
    """Return the setting with held-out people: drawn, fine-tuned and stored in a folder, once.

    Args:
        setting: without held-out people.
        folder: receives their images and weights. Images are drawn unless all are there, and
            training goes on behind the models that are there.
        people: how many.

    Raises:
        W2WError: fewer than two, one that could not be trained, or one that the space was fitted
            to.
    """
    names = [f"{setting.world.name}-{HELD_OUT + setting.seed}-{i:05d}" for i in range(people)]
    _require_two(names, "the held-out set")
    require_strangers(setting.space, names)
    subjects = folder / "subjects"
    if not _all_there(subjects, names):
        write_subjects(
            setting.world.name,
            subjects,
            subjects=people,
            images=TRAINING_PICTURES,
            size=setting.base.size,
            seed=HELD_OUT + setting.seed,
        )
    chosen = set(names)
    dataset = setting.learn(
        [subject for subject in find_subjects(subjects) if subject.name in chosen],
        folder / "weights",
        labels=read_labels(subjects / "labels.csv"),
    )
    rows = dataset[names]
    return replace(setting, held_out=HeldOut(tuple(names), rows, dataset.labels.loc[names]))


def _all_there(subjects: Path, names: Sequence[str]) -> bool:
    """Say whether a folder holds the images of subjects, and their labels, which come last."""
    table = subjects / "labels.csv"
    return (
        table.is_file()
        and set(names) <= set(read_labels(table).index)
        and all(
            (subjects / name / f"{number:03d}{ending}").is_file()
            for name in names
            for number in range(TRAINING_PICTURES)
            for ending in (".png", ".txt")
        )
    )


def _require_two(names: Sequence[str], what: str) -> None:
    if len(names) < 2:
        raise InputError(
            f"{what} holds {len(names)} models: expected those of two held-out subjects or more"
        )


def require_strangers(space: WeightSpace, names: Sequence[str]) -> None:
    """Refuse subjects whose models a space was fitted to.

    Raises:
        W2WError: one of them is among its training models.
    """
    if known := sorted(set(names) & set(space.names)):
        raise InputError(
            f"the space was fitted to {len(known)} of these subjects, such as {known[0]}: expected"
            " people that it does not know"
        )


def write_image(path: Path, pixels: UInt8[np.ndarray, "h w 3"], caption: str) -> None:
    """Write an image, and beside it what it shows besides the subject."""
    from PIL import Image

    Image.fromarray(pixels).save(path)
    path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")


def _dtype_of(base: Base) -> str:
    """Return the numbers that a base computes with, such as "bfloat16"."""
    return str(base.dtype).removeprefix("torch.")


def _digest_of_labels(labels: "pandas.DataFrame") -> str:
    values = labels.to_numpy(dtype=float, na_value=float("nan"))
    return digest([list(map(str, labels.columns)), list(map(str, labels.index)), values])


def require_base(base: Base, base_hash: str, what: str) -> None:
    """Refuse what was made for another base.

    Raises:
        W2WError: the hashes are known and differ.
    """
    if base_hash and base_hash != base.hash:
        raise InputError(
            f"{what} was made for another base (hash {base_hash}) than {base.id} ({base.hash});"
            " give its own with --base"
        )


def subject_of(world: World, name: str) -> tuple[int, int]:
    """Return population and number of a drawn subject from its name, such as "people-3-00012".

    Raises:
        W2WError: the name is none that `w2w world` gives.
    """
    found = re.fullmatch(rf"{re.escape(world.name)}-(\d+)-(\d+)", name)
    if found is None:
        raise InputError(
            f"{name!r} is no drawn subject: expected a name such as {world.name}-0-00012, as"
            " `w2w world` gives, whose images can be drawn again"
        )
    return USER_POPULATIONS + int(found[1]), int(found[2])


def measured_on(
    base: Base, space_name: str, space: WeightSpace, world: World, seed: int
) -> dict[str, Any]:
    """Return what figures were measured on: base, dtype, space, machine, seed; and in words."""
    return {
        "base": base.id,
        "base_hash": base.hash,
        "dtype": _dtype_of(base),
        "space": space_name,
        "space_hash": space.hash,
        "world": f"drawn {world.name}",
        "machine": machine(base.device),
        "seed": seed,
        "version": __version__,
        "statement": (
            f"All images show drawn {world.name}, made by a small model that learned nothing but"
            f" drawings: no photograph, and no real person, is shown or was used."
        ),
    }
