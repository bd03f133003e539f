"""The judges that measures accept: any object with these methods will do, no base class needed.

`worlds.scorers.Scorer` is all three for drawings; `faces.FaceScorer` scores identity in photos.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor


@runtime_checkable
class IdentityScorer(Protocol):
    """Recognises the subject of an image."""

    def identity(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n e"]:
        """Return unit-length embeddings; a row of NaN where no subject was found."""
        ...


@runtime_checkable
class AttributeReader(Protocol):
    """Reads the attributes of the subject of an image."""

    @property
    def label_names(self) -> Sequence[str]:
        """The attributes, in the order of the columns of `attributes`."""
        ...

    def attributes(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n labels"]:
        """Return the probability of every attribute, from 0 to 1."""
        ...


@runtime_checkable
class FeatureNetwork(Protocol):
    """Extracts features of an image, layer by layer."""

    def features(
        self, images: UInt8[np.ndarray, "n h w 3"]
    ) -> tuple[Float[Tensor, "n _ _ _"], ...]:
        """Return the feature maps of each layer, (n, channels, height, width)."""
        ...
