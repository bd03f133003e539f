"""What rooms below `space` need of a space; `space.WeightSpace` provides it."""

# ruff: noqa: D102  # WeightSpace documents them

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from .layout import WeightLayout
from .models import Model

if TYPE_CHECKING:
    import pandas


@runtime_checkable
class Space(Protocol):
    """A linear space of models, with coefficients and labels of its training models.

    Any marks what `WeightSpace` computes once: pyright accepts no cached_property for a typed one.
    """

    def __len__(self) -> int: ...
    @property
    def layout(self) -> WeightLayout: ...
    @property
    def mean(self) -> Tensor: ...
    @property
    def coefficients(self) -> Tensor: ...
    @property
    def coefficient_mean(self) -> Any: ...
    @property
    def coefficient_std(self) -> Any: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> "pandas.DataFrame": ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def hash(self) -> Any: ...
    @property
    def base_hash(self) -> str: ...
    def to_weights(self, coefficients: Tensor) -> Tensor: ...
    def moved(
        self, layout: WeightLayout, weights: Tensor, shift: Tensor
    ) -> tuple[WeightLayout, Tensor]: ...
    def coefficients_of(self, model: Model) -> Tensor: ...
