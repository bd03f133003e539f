"""The fields of a space, checked."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..labels import tidy_labels
from ..layout import WeightLayout

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Contents:
    """The fields of a space, which `WeightSpace` documents."""

    layout: WeightLayout
    mean: Float[Tensor, " d"]
    std: Float[Tensor, " d"]
    components: Float[Tensor, "m d"]
    coefficients: Float[Tensor, "n k"] = field(default_factory=lambda: torch.empty(0, 0))
    names: tuple[str, ...] = ()
    labels: "pandas.DataFrame" = field(default_factory=lambda: tidy_labels(None, ()))
    base_hash: str = ""
    fit_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        d, m, k = self.num_parameters, len(self.components), self.coefficients.shape[1]
        shapes = {"mean": (d,), "std": (d,), "components": (m, d)}
        for name, shape in {**shapes, "coefficients": (len(self.names), k)}.items():
            found = getattr(self, name).shape
            if found != shape:
                raise InputError(
                    f"{name} has shape {list(found)}, expected {list(shape)} for {m} components,"
                    f" {d} parameters and {len(self.names)} models"
                )
        if k > m:
            raise InputError(f"coefficients on {k} components, expected at most {m}")
        for name in ("captured_variance", "error_bound"):
            value = self.metadata.get(name, 0.0)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"metadata {name} is {value!r:.40}, expected a number")
        object.__setattr__(self, "labels", tidy_labels(self.labels, self.names))
        if not self.fit_id:
            object.__setattr__(self, "fit_id", _digest(self.components[:1]))

    @property
    def num_parameters(self) -> int:
        """Length d of a weight vector."""
        return self.layout.num_parameters

    @property
    def captured_variance(self) -> float:
        """Fraction of the training models' standardised variance in the space; NaN if unknown."""
        return float(self.metadata.get("captured_variance", math.nan))

    @cached_property
    def hash(self) -> str:
        """16 hex digits that identify the coordinates: layout, mean, std and `fit_id`.

        The same for truncations and copies in another dtype: a point is the same model in them.
        """
        return _digest(self.mean, self.std, salt=self.layout.hash + self.fit_id)


def _digest(*tensors: Tensor, salt: str = "") -> str:
    digest = hashlib.sha256(salt.encode())
    for tensor in tensors:
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
