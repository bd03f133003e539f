"""Stage 5: a single photo becomes a point."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...models import save_model
from ..edits import edited, lacking
from ..page import Cell
from ._stage import Demo, Stage
from .edit import signed
from .train import Trained

_PHOTO_SIZE = 128


@dataclass
class Inverted(Stage):
    """The person of the photo.

    Attributes:
        point: coefficients of the person's model.
    """

    point: Float[Tensor, " m"]


def invert(run: Demo, trained: Trained) -> Inverted:
    """Invert one photo of one more person, generate new images of that person, and edit them."""
    from PIL import Image

    setting, space = run.setting, run.setting.space
    photo = setting.drawings([run.stranger], 1, size=_PHOTO_SIZE)[0, 0]
    Image.fromarray(photo).save(run.out / "photo.png")
    found = setting.invert(torch.from_numpy(setting.drawings([run.stranger], 1)[0]))
    point = found.points[0]
    origin = {"verb": "demo", "photo": "photo.png", "seed": setting.seed}
    save_model(run.out / "models" / "photo.safetensors", space.model(point, origin))
    seeds = [setting.seed, setting.seed + 1]
    generated = setting.generate(space.to_weights(found.points), run.prompts, seeds)
    id_scores = setting.id_scores(generated, setting.references([run.stranger]))
    figures = {
        "coefficients": min(setting.inversion.components, len(space)),
        "steps": int(found.steps[0]),
        "id_score": float(id_scores.mean()),
        "id_score_of_drawings": trained.id_score_of_drawings,
        "seconds": found.seconds,
    }
    row = [Cell(photo, "the photo")]
    row += [Cell(generated.images[0, 0, s], run.scene(run.prompts[0])) for s in range(2)]
    row += [Cell(generated.images[0, p, 0], run.scene(run.prompts[p])) for p in range(1, 4)]
    return Inverted(figures, point, views={"photo": row, "edits": _edits(run, point)})


def _edits(run: Demo, point: Float[Tensor, " m"]) -> list[Cell]:
    """Edit every attribute of the person, each towards what the person lacks."""
    setting, space = run.setting, run.setting.space
    prompts, seeds = run.prompts[:1], [setting.seed]
    before = setting.generate(space.to_weights(point[None]), prompts, seeds)
    add = {name: lacking(setting.attribute(before, name)) for name in run.attributes}
    moved = [
        edited(point[None], {found: run.strength}, add[name])
        for name, found in run.directions.items()
    ]
    after = setting.generate(space.to_weights(torch.cat(moved)), prompts, seeds)
    return [
        Cell(after.images[i, 0, 0], signed(name, bool(add[name])))
        for i, name in enumerate(run.attributes)
    ]
