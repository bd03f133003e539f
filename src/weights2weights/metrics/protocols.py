"""What a judge of pictures must offer: the networks behind the metrics are pluggable.

Whatever has these methods can be given, without inheriting from anything. The shipped people world
satisfies the first two and `FeatureNetwork` with `worlds.scorers.Scorer`; `faces.FaceScorer`,
`alignment.ClipAlignment` and `perceptual.Lpips` are for photos.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor


@runtime_checkable
class IdentityScorer(Protocol):
    """Says who is in a picture."""

    def identity(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n e"]:
        """Give unit-length embeddings; a row of NaN where nobody was found."""
        ...


@runtime_checkable
class AttributeReader(Protocol):
    """Says which attributes the subject of a picture has."""

    @property
    def label_names(self) -> Sequence[str]:
        """The attributes, in the order of the columns of `attributes`."""
        ...

    def attributes(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n labels"]:
        """Give the probability of every attribute, from 0 to 1."""
        ...


@runtime_checkable
class FeatureNetwork(Protocol):
    """Sees a picture in layers, from edges to parts."""

    def features(
        self, images: UInt8[np.ndarray, "n h w 3"]
    ) -> tuple[Float[Tensor, "n _ _ _"], ...]:
        """Give the feature maps of each layer, "n channels height width"."""
        ...


@runtime_checkable
class PerceptualDistance(Protocol):
    """Says how different two pictures look."""

    @property
    def name(self) -> str:
        """What the figure is called in a report: never "LPIPS" where it is another distance."""
        ...

    def distance(
        self, images: UInt8[np.ndarray, "n h w 3"], others: UInt8[np.ndarray, "n h w 3"]
    ) -> Float[Tensor, " n"]:
        """Give the distance of each pair; 0 for equal pictures."""
        ...


@runtime_checkable
class TextAlignment(Protocol):
    """Says how well a picture shows what a text asks for."""

    @property
    def name(self) -> str:
        """What the figure is called in a report."""
        ...

    def alignment(
        self, images: UInt8[np.ndarray, "n h w 3"], texts: Sequence[str]
    ) -> Float[Tensor, " n"]:
        """Give the agreement of each picture with its own text; more is better."""
        ...
