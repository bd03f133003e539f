"""A setting that runs in seconds: the tiny base, a random space, a judge of random projections."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch

from experiments.cache import Cache
from experiments.held_out import HeldOut
from experiments.setting import ExperimentSetting
from weights2weights.bases import load_base
from weights2weights.inversion import PRESETS as INVERSION_PRESETS
from weights2weights.pca import TensorBlocks
from weights2weights.space import WeightSpace
from weights2weights.training import PRESETS, DreamBoothConfig
from weights2weights.worlds import load_world

MODELS, COMPONENTS, LATENT = 40, 12, 6


class Judge:
    """Embeds images and reads labels by fixed random projections of 8 × 8 pixels."""

    def __init__(self, label_names: tuple[str, ...]):
        generator = torch.Generator().manual_seed(5)
        self.label_names = label_names
        self._embed = torch.randn(192, 16, generator=generator)
        self._read = torch.randn(192, len(label_names), generator=generator)

    def identity(self, images: np.ndarray) -> torch.Tensor:
        return torch.nn.functional.normalize(self._see(images) @ self._embed, dim=-1)

    def attributes(self, images: np.ndarray) -> torch.Tensor:
        return (self._see(images) @ self._read).sigmoid()

    def features(self, images: np.ndarray) -> tuple[torch.Tensor, ...]:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        return (pixels / 255, torch.nn.functional.avg_pool2d(pixels / 255, 4))

    def _see(self, images: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        small = torch.nn.functional.adaptive_avg_pool2d(pixels / 128 - 1, 8)
        return small.flatten(1)


def rows_of(layout: Any, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of models that differ in a few hidden traits, and the traits."""
    generator = torch.Generator().manual_seed(seed)
    mixing = 0.1 * torch.randn(
        LATENT, layout.num_parameters, generator=torch.Generator().manual_seed(9)
    )
    traits = torch.randn(count, LATENT, generator=generator)
    noise = 0.02 * torch.randn(count, layout.num_parameters, generator=generator)
    return traits @ mixing + noise, traits


def labels_of(traits: torch.Tensor, names: list[str]) -> pandas.DataFrame:
    """Every label of the world is the sign of a mix of traits."""
    label_names = load_world("people").label_names
    mixing = torch.randn(
        traits.shape[1], len(label_names), generator=torch.Generator().manual_seed(3)
    )
    return pandas.DataFrame((traits @ mixing > 0).numpy(), index=names, columns=list(label_names))


def setting(base_folder: Path, cache: Path | None = None) -> ExperimentSetting:
    """Return the tiny base with a space of 40 models and 4 held-out ones."""
    base = load_base(base_folder)
    layout = base.layout(alpha=1.0)
    rows, traits = rows_of(layout, MODELS, 0)
    names = [f"people-1-{i:05d}" for i in range(MODELS)]
    space = WeightSpace.fit_blocks(
        TensorBlocks(rows),
        COMPONENTS,
        layout=layout,
        names=names,
        labels=labels_of(traits, names),
        base_hash=base.hash,
    )
    others, their_traits = rows_of(layout, 4, 1)
    held_out = [f"people-2-{i:05d}" for i in range(4)]
    world = load_world("people")
    return ExperimentSetting(
        base=base,
        space=space,
        world=world,
        scorer=Judge(world.label_names),
        held_out=HeldOut(tuple(held_out), others, labels_of(their_traits, held_out)),
        cache=Cache(cache),
        recipe=DreamBoothConfig(
            PRESETS["people"].instance_prompt,
            class_prompt=PRESETS["people"].class_prompt,
            steps=2,
            prior_loss_weight=0.0,
        ),
        inversion=replace(
            INVERSION_PRESETS["fast"], steps=2, samples_per_step=2, eval_samples=2, eval_every=0
        ),
        space_name="tiny",
        scorer_hash="plain",
    )
