"""The training models nearest to given points."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The training models nearest to some points.

    Attributes:
        similarities: cosines, falling.
        indices: rows of the training models.
        names: of all training models.
    """

    similarities: Float[Tensor, "*batch c"]
    indices: Int[Tensor, "*batch c"]
    names: tuple[str, ...] = field(repr=False)

    def of(self, point: int) -> list[tuple[str, float]]:
        """Return (name, similarity) of the neighbours of one point, nearest first."""
        indices, similarities = (
            figures.reshape(-1, figures.shape[-1])[point].tolist()
            for figures in (self.indices, self.similarities)
        )
        return [(self.names[i], s) for i, s in zip(indices, similarities, strict=True)]
