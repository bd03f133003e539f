"""The setting of an experiment: a setting with held-out people and a cache of what was computed.

Generated images are cached under everything they depend on, so that an interrupted experiment
resumes and experiments that need the same images share them.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from weights2weights import __version__
from weights2weights.bases import Base
from weights2weights.dataset import WeightDataset
from weights2weights.errors import InputError
from weights2weights.evaluate.setting import Scored as Scored
from weights2weights.evaluate.setting import Setting, require_unseen
from weights2weights.models import require_one_base

from .cache import Cache, digest, digest_of_fields
from .held_out import HeldOut, require_two

if TYPE_CHECKING:
    import pandas

MEASURED = 5
"""Raise it when what an experiment measures changes, so that cached figures are computed again.
Generated images are kept, since they do not depend on what is measured."""


@dataclass(frozen=True, eq=False)
class ExperimentSetting(Setting):
    """A setting with held-out people and a cache.

    Attributes:
        held_out: subjects that the space has not seen; None for experiments that need none.
        cache: where finished parts are kept.
        scorer_hash: content hash of the scorer's weights.
    """

    held_out: HeldOut | None = None
    cache: Cache = field(default_factory=lambda: Cache(None))
    scorer_hash: str = ""

    @property
    def people(self) -> HeldOut:
        """The held-out subjects.

        Raises:
            W2WError: there are none, or only one.
        """
        if self.held_out is None:
            raise InputError(
                "this experiment needs held-out subjects: pass a dataset of their models with"
                " --held-out"
            )
        require_two(self.held_out.names)
        return self.held_out

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Everything that the figures of this setting depend on."""
        space, held_out = self.space, self.held_out
        people = [list(held_out.names), held_out.weights] if held_out else None
        return {
            **self._generator,
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
    def _generator(self) -> dict[str, Any]:
        """What an image depends on besides weights, prompts and seeds."""
        dtype = str(self.base.dtype).removeprefix("torch.")
        return {"base": self.base.hash, "dtype": dtype, "version": __version__}

    def _images(self, weights, layout, prompts, seeds, **options) -> torch.Tensor:
        sampling = {"steps": self.base.family.steps, "guidance": self.base.family.guidance}
        inputs = {
            "generated": digest([weights, list(prompts), list(seeds)]),
            "layout": layout.hash if layout else "",
            "options": digest({**sampling, **options}),
            **self._generator,
        }
        parents = super()._images
        return self.cache.tensors(
            inputs, lambda: {"images": parents(weights, layout, prompts, seeds, **options)}
        )["images"]


def open_setting(
    base: Base, space: str, *, held_out: str | Path | None, cache: Path, seed: int
) -> ExperimentSetting:
    """Open a space with the scorer of the embedded world and held-out subjects.

    Args:
        base: a loaded base.
        space: a folder, a hub id or the name of the embedded space.
        held_out: dataset of the models of held-out subjects.
        cache: folder for finished parts.
        seed: seed of everything random.

    Raises:
        W2WError: one of them does not exist, the space or the models were made for another base, or
            the space was fitted to one of the held-out subjects.
    """
    setting = ExperimentSetting.open(base, space, seed=seed, progress=True, cache=Cache(cache))
    people = None
    if held_out is not None:
        dataset = WeightDataset.open(held_out)
        require_one_base(base.hash, dataset.base_hash, str(held_out))
        require_unseen(setting.space, dataset.names)
        people = HeldOut.open(held_out, setting.layout)
    scorer: Any = setting.scorer
    hashed = digest(dict(scorer.network.state_dict()))
    return replace(setting, held_out=people, scorer_hash=hashed)


def _digest_of_labels(labels: "pandas.DataFrame") -> str:
    values = labels.to_numpy(dtype=float, na_value=float("nan"))
    return digest([list(map(str, labels.columns)), list(map(str, labels.index)), values])
