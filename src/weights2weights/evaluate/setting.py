"""What the demo and the experiments work with: a base, a space, and a drawn world with its scorer.

The subjects are drawn, so their identity and attributes are known; the scorer says who is in a
generated image and which attributes it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .. import training
from ..bases import Base
from ..dataset import WeightDataset
from ..errors import InputError
from ..generation import generate
from ..inversion import PRESETS, Inversion, InversionConfig, invert
from ..layout import WeightLayout
from ..metrics.protocols import AttributeReader, FeatureNetwork, IdentityScorer
from ..models import require_one_base
from ..space import WeightSpace
from ..subjects import Subject
from ..training import DreamBoothConfig, train
from ..worlds import World, shipped
from ..worlds.folders import subject_of
from ..worlds.people import PEOPLE
from ..worlds.scorers import Scorer
from .provenance import measured_on

FRESH = 100
"""Training takes images of a drawn subject below this number, evaluation those from it on."""

REFERENCES = 8
"""The mean embedding of this many fresh images is the reference for a subject's identity."""


class Judge(IdentityScorer, AttributeReader, FeatureNetwork, Protocol):
    """A scorer of identity and attributes that also exposes its feature maps."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Images of k models, p prompts and s seeds: identity embeddings, attribute probabilities."""

    images: UInt8[Tensor, "k p s h w 3"]
    identity: Float[Tensor, "k p s e"]
    attributes: Float[Tensor, "k p s labels"]


@dataclass(frozen=True, eq=False)
class Setting:
    """The base, the space and the drawn world of an evaluation.

    Attributes:
        base: model that is personalised.
        space: space under evaluation.
        world: source of the subjects.
        scorer: scorer of generated images.
        recipe: training configuration, with the prompts.
        inversion: inversion configuration.
        seed: seed of everything random.
        space_name: how the user named the space.
        progress: show progress bars on stderr.
    """

    base: Base
    space: WeightSpace
    world: World
    scorer: Judge
    recipe: DreamBoothConfig = field(default_factory=DreamBoothConfig)
    inversion: InversionConfig = PRESETS["fast"]
    seed: int = 0
    space_name: str = "people"
    progress: bool = False

    @classmethod
    def open(cls, base: Base, space: str, **fields: Any) -> Any:
        """Open a space (a folder, a hub id or an embedded one) together with the drawn people.

        Raises:
            W2WError: there is no such space, or it was fitted to models of another base.
        """
        opened = WeightSpace.from_pretrained(space)
        require_one_base(base.hash, opened.base_hash, f"space {space}")
        scorer = Scorer.load(shipped(PEOPLE.name, "scorer"))
        recipe = training.PRESETS[PEOPLE.name]
        return cls(base, opened, PEOPLE, scorer, recipe, space_name=space, **fields)

    @property
    def layout(self) -> WeightLayout:
        """Layout of the models."""
        return self.space.layout

    @cached_property
    def prompts(self) -> list[str]:
        """The instance prompt, then the instance prompt in every scene of the world."""
        scenes = (
            text.replace(self.recipe.class_prompt, self.recipe.instance_prompt)
            for text in self.world.scene_prompts.values()
        )
        return list(dict.fromkeys([self.recipe.instance_prompt, *scenes]))

    def generate(
        self,
        weights: Float[Tensor, "k d"] | None,
        prompts: Sequence[str],
        seeds: Sequence[int],
        **options: Any,
    ) -> Scored:
        """Generate an image for every model, prompt and seed, and score all of them.

        Args:
            weights: one model per row; None generates from the base itself, with k = 1.
            prompts: p texts.
            seeds: s seeds.
            **options: options of `generation.generate`; `layout` is that of the space by default.
        """
        layout = None if weights is None else options.pop("layout", None) or self.layout
        return self.score(self._images(weights, layout, prompts, seeds, **options))

    def _images(
        self,
        weights: Float[Tensor, "k d"] | None,
        layout: WeightLayout | None,
        prompts: Sequence[str],
        seeds: Sequence[int],
        **options: Any,
    ) -> UInt8[Tensor, "k p s h w 3"]:
        options |= {"layout": layout, "progress": self.progress}
        return generate(self.base, weights, prompts=prompts, seeds=seeds, **options)

    def score(self, images: UInt8[Tensor, "k p s h w 3"]) -> Scored:
        """Score images."""
        flat, shape = images.flatten(0, 2).numpy(), images.shape[:3]
        identity, attributes = self.scorer.identity(flat), self.scorer.attributes(flat)
        return Scored(images, identity.view(*shape, -1), attributes.view(*shape, -1))

    def attribute(self, scored: Scored, label: str) -> Float[Tensor, "k p s"]:
        """Return the probability of a label in each image."""
        return scored.attributes[..., self.scorer.label_names.index(label)]

    def id_scores(self, scored: Scored, references: Float[Tensor, "k e"]) -> Float[Tensor, "k p s"]:
        """Return the ID score of each image: the cosine to the reference of its model's subject."""
        return (scored.identity * references[:, None, None]).sum(-1)

    def references(self, names: Sequence[str]) -> Float[Tensor, "n e"]:
        """Return the mean identity embedding of images of each subject that no training uses."""
        embeddings = self.identities(self.drawings(names, REFERENCES, FRESH))
        return torch.nn.functional.normalize(embeddings.mean(1), dim=-1)

    def identities(self, images: UInt8[np.ndarray, "n c h w 3"]) -> Float[Tensor, "n c e"]:
        """Return the identity embeddings of several images of each subject."""
        embeddings = self.scorer.identity(images.reshape(-1, *images.shape[2:]))
        return embeddings.view(*images.shape[:2], -1)

    def drawings(
        self, names: Sequence[str], count: int, first: int = 0, size: int | None = None
    ) -> UInt8[np.ndarray, "n count h w 3"]:
        """Draw images of subjects.

        Args:
            names: as `w2w world` names subjects: world, seed and number.
            count: images per subject.
            first: number of the first image; training never uses those from `FRESH` on.
            size: pixels per side; None takes that of the base.

        Raises:
            W2WError: a name is not that of a drawn subject.
        """
        size = size or self.base.size
        drawn = []
        for name in names:
            population, index = subject_of(self.world, name)
            subject = self.world.subject(population, index)
            images = (self.world.image(population, index, first + i) for i in range(count))
            drawn += [self.world.draw(subject, image, size) for image in images]
        return np.stack(drawn).reshape(len(names), count, size, size, 3)

    def train(self, subjects: Sequence[Subject], out: Path, **options: Any) -> WeightDataset:
        """Train models of subjects in the layout of the space; it decides rank, alpha and layers.

        Subjects that failed in an earlier run are tried again: their images may have been fixed.

        Args:
            subjects: subjects to train.
            out: folder of the dataset.
            **options: options of `training.train`.

        Raises:
            W2WError: a subject could not be trained, or the base lacks layers of the space.
        """
        recipe, layout = self.recipe, self.layout
        own = self.base.layout(recipe.rank, recipe.alpha, recipe.targets)
        if layout.difference(own):
            # Only then: equal layers can be spelled in several ways, and a dataset begun under one
            # spelling cannot be resumed under another.
            layers = {"rank": layout.rank, "alpha": layout.alpha, "targets": layout.targets}
            recipe = replace(recipe, **layers, start="random")  # the base's fits its own layout
            own = self.base.layout(**layers)
        layout.require_equal(own, f"base {self.base.id}")
        options |= {"retry_failed": True, "progress": self.progress}
        dataset = train(self.base, subjects, out, recipe, **options)
        if failed := [one.name for one in subjects if one.name in dataset.failed]:
            raise InputError(f"{failed[0]} could not be trained: {dataset.failed[failed[0]]}")
        return dataset

    def invert(self, images: UInt8[Tensor, "n h w 3"]) -> Inversion:
        """Invert images, one per subject, with the instance prompt and the seed of the setting.

        Raises:
            KeyboardInterrupt: the inversion was interrupted; what it found is discarded.
        """
        found = invert(
            self.base,
            self.space,
            images,
            config=self.inversion,
            prompt=self.recipe.instance_prompt,
            seed=self.seed,
            progress=self.progress,
        )
        if found.interrupted:
            raise KeyboardInterrupt
        return found

    def measured_on(self) -> dict[str, Any]:
        """Return what figures are measured on, for reports; see `provenance.measured_on`."""
        return measured_on(self.base, self.space, self.space_name, self.seed)


def require_unseen(space: WeightSpace, names: Sequence[str]) -> None:
    """Refuse subjects whose models a space was fitted to.

    Raises:
        W2WError: one of them is among its training models.
    """
    if known := sorted(set(names) & set(space.names)):
        raise InputError(
            f"the space was fitted to {len(known)} of these subjects, such as {known[0]}: expected"
            " subjects it has not seen"
        )
