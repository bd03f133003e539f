"""The training models nearest to given points."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CHUNK = 2**25  # similarities computed at a time


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
        width = self.indices.shape[-1]
        indices = self.indices.reshape(-1, width)[point].tolist()
        similarities = self.similarities.reshape(-1, width)[point].tolist()
        return [(self.names[i], s) for i, s in zip(indices, similarities, strict=True)]


def find_neighbours(
    points: Float[Tensor, "*batch j"],
    training: Float[Tensor, "n j"],
    names: tuple[str, ...],
    count: int,
) -> Neighbours:
    """Compare points with all training models by cosine similarity, exactly."""
    rows = _unit(points.cpu()).reshape(-1, points.shape[-1])
    training = _unit(training)
    count = min(count, len(training))
    height = max(_CHUNK // len(training), 1)
    found = [(part @ training.T).topk(count) for part in rows.split(height)]
    shape = (*points.shape[:-1], count)
    return Neighbours(
        torch.cat([part.values for part in found]).reshape(shape),
        torch.cat([part.indices for part in found]).reshape(shape),
        names,
    )


def _unit(rows: Tensor) -> Tensor:
    rows = rows.float()
    return rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-30)
