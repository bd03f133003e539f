"""`Direction`: a unit normal with its scale and how well it was found."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .._html import html_table
from ..errors import InputError
from ._fit import padded


@dataclass(frozen=True, eq=False)
class Direction:
    """One attribute as a direction in a space; compared and hashed by identity.

    Attributes:
        name: name of the attribute.
        normal: float64, unit length, on the first j components; points to where the label holds or
            the number grows.
        std: standard deviation of the training models' coefficients along the normal; the unit of
            strengths.
        range: lowest and highest projection of a training model, relative to their mean, in units
            of `std`. The second is the strength of every edit in the paper.
        auc: area under the ROC curve on held-out models; None for numbers, or if none are held out.
        r2: fraction of a number's variance predicted for held-out models; None for a label.
        positives: number of models with the label; for numbers, of models with a value.
        negatives: number of models without the label; 0 for numbers.
        kept: attributes whose directions were removed from the normal.
        method: how the normal was found.
        space: hash of the space; "" if unknown.

    Raises:
        InputError: the normal is not of unit length, or models do not vary along it.
    """

    name: str
    normal: Float[Tensor, " j"]
    std: float
    range: tuple[float, float] = (-math.inf, math.inf)
    auc: float | None = None
    r2: float | None = None
    positives: int = 0
    negatives: int = 0
    kept: tuple[str, ...] = ()
    method: str = ""
    space: str = ""

    def __post_init__(self):
        normal = self.normal.detach().double().cpu()
        length = float(normal.norm())
        if not abs(length - 1) < 1e-6:
            raise InputError(f"the normal of {self.name!r} has length {length:.6g}: expected 1")
        if not 0 < self.std < math.inf:
            raise InputError(
                f"the training models have standard deviation {self.std} along {self.name!r}:"
                " expected a positive one"
            )
        object.__setattr__(self, "normal", normal)

    @property
    def quality(self) -> str:
        """AUC or R² on held-out models, as text."""
        if self.auc is not None:
            return f"AUC {self.auc:.3f}"
        return "not validated" if self.r2 is None else f"R² {self.r2:.3f}"

    def __repr__(self) -> str:
        return f"Direction({self.name!r}, {len(self.normal)} components, {self.quality})"

    def _repr_html_(self) -> str:
        """Return the figures as a table, for notebooks."""
        total = self.positives + self.negatives
        rows = {
            "held-out models": self.quality,
            "models with it": f"{self.positives:,}" + f" of {total:,}" * bool(self.negatives),
            "range": f"{self.range[0]:+.1f} to {self.range[1]:+.1f} σ",
            "σ": f"{self.std:.3g}",
            "components": f"{len(self.normal):,}",
            "method": self.method,
            "kept": ", ".join(self.kept),
        }
        return html_table({key: value for key, value in rows.items() if value}, self.name)

    def shift(self, strength: float | int, components: int) -> Float[Tensor, " m"]:
        """Return what an edit adds to a model's m coefficients: float64, zero beyond the first j.

        Args:
            strength: in standard deviations of the training models along the normal.
            components: m.

        Raises:
            InputError: the strength is not finite, or the model has fewer than j coefficients.
        """
        if not math.isfinite(strength):
            raise InputError(
                f"strength {strength!r} of {self.name!r}: expected a number of standard deviations"
            )
        if len(self.normal) > components:
            raise InputError(
                f"{self.name!r} is a direction on {len(self.normal)} components, the model has"
                f" {components}; find the direction with components={components}"
            )
        shift = torch.zeros(components, dtype=torch.float64)
        shift[: len(self.normal)] = float(strength) * self.std * self.normal
        return shift


def cosines(directions: Iterable[Direction] | Mapping[str, Direction]) -> Float[Tensor, "a a"]:
    """Return the cosine between each pair of directions, float64: how entangled they are.

    The paper's Fig. 9 shows how the mean absolute entry falls with the number of training models.
    """
    listed = directions.values() if isinstance(directions, Mapping) else directions
    normals = padded([direction.normal for direction in listed])
    return normals @ normals.T
