"""What a judge of images must offer: the networks behind the metrics are pluggable.

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
    """Says who is in an image."""

    def identity(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n e"]:
        """Return unit-length embeddings; a row of NaN where nobody was found."""
        ...


@runtime_checkable
class AttributeReader(Protocol):
    """Says which attributes the subject of an image has."""

    @property
    def label_names(self) -> Sequence[str]:
        """The attributes, in the order of the columns of `attributes`."""
        ...

    def attributes(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n labels"]:
        """Return the probability of every attribute, from 0 to 1."""
        ...


@runtime_checkable
class FeatureNetwork(Protocol):
    """Sees an image in layers, from edges to parts."""

    def features(
        self, images: UInt8[np.ndarray, "n h w 3"]
    ) -> tuple[Float[Tensor, "n _ _ _"], ...]:
        """Return the feature maps of each layer, "n channels height width"."""
        ...


@runtime_checkable
class PerceptualDistance(Protocol):
    """Says how different two images look."""

    @property
    def name(self) -> str:
        """What the figure is called in a report: never "LPIPS" where it is another distance."""
        ...

    def distance(
        self, images: UInt8[np.ndarray, "n h w 3"], others: UInt8[np.ndarray, "n h w 3"]
    ) -> Float[Tensor, " n"]:
        """Return the distance of each pair; 0 for equal images."""
        ...


@runtime_checkable
class TextAlignment(Protocol):
    """Says how well an image shows what a text asks for."""

    @property
    def name(self) -> str:
        """What the figure is called in a report."""
        ...

    def alignment(
        self, images: UInt8[np.ndarray, "n h w 3"], texts: Sequence[str]
    ) -> Float[Tensor, " n"]:
        """Return the agreement of each image with its own text; more is better."""
        ...
