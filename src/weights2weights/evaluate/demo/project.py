"""Stage 2: LoRAs become points of the space."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..estimates import estimate
from ..page import Cell
from ._stage import Demo, Stage
from .train import Trained

_SHOWN = 4


@dataclass
class Projected(Stage):
    """The people as points.

    Attributes:
        points: coefficients of their models.
    """

    points: Float[Tensor, "k m"]


def project(run: Demo, trained: Trained) -> Projected:
    """Project the models into the space, and find the training models nearest to them."""
    setting, space = run.setting, run.setting.space
    points = space.project(trained.weights)
    near = space.neighbours(points, 2)
    projected = setting.generate(space.to_weights(points), run.prompts[:2], [setting.seed])
    references = setting.references(run.names)
    figures = {
        "models": len(space.names),
        "components": len(space),
        "captured_variance": space.captured_variance,
        "residual": estimate(space.relative_residual(trained.weights).square()),
        "cosine_to_nearest": estimate(near.similarities[:, 0]),
        "id_score": estimate(setting.id_scores(projected, references)),
        "neighbours": {
            name: [[other, cosine] for other, cosine in near.of(i)]
            for i, name in enumerate(run.names)
        },
    }
    nearest = space.to_weights(space.coefficients[near.indices[:_SHOWN, 0]])
    neighbours = setting.generate(nearest, run.prompts[:1], [setting.seed])
    rows = [
        [
            Cell(trained.generated.images[i, 0, 0], "model"),
            Cell(projected.images[i, 0, 0], "projected"),
            Cell(image, f"nearest training model, cosine {float(near.similarities[i, 0]):.2f}"),
        ]
        for i, image in enumerate(neighbours.images[:, 0, 0])
    ]
    return Projected(figures, points, views={"rows": rows})
