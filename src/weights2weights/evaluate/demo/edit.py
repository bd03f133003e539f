"""Stage 4: points moved along directions."""

from collections.abc import Mapping

import torch

from ... import directions
from ..edits import Edit, edit_towards_missing, score_edit, summarise
from ..page import Cell, words
from ..setting import Scored
from ._stage import Demo, Stage
from .project import Projected

_SHOWN = 4


def edit(run: Demo, projected: Projected) -> Stage:
    """Edit every attribute of every person, and score the images before and after."""
    setting, points = run.setting, projected.points
    prompts, seeds = run.prompts[:1], [setting.seed, setting.seed + 1]
    before = setting.generate(setting.space.to_weights(points), prompts, seeds)
    edits = {
        name: edit_towards_missing(setting, points, before, found, run.strength, prompts, seeds)
        for name, found in run.directions.items()
    }
    scores = {name: score_edit(setting, before, e.after, name, e.add) for name, e in edits.items()}
    figures = {
        "strength": run.strength,
        **summarise(list(scores.values())),
        "attributes": {
            name: {"auc": run.directions[name].auc, **summarise([each])}
            for name, each in scores.items()
        },
    }
    views = {"rows": _rows(before, edits), "traversals": _traversals(run, projected)}
    return Stage(figures, views=views)


def signed(label: str, add: bool) -> str:
    """Return the caption of an edit, such as "+ wearing hat"."""
    return ("+ " if add else "− ") + words(label)


def _rows(before: Scored, edits: Mapping[str, Edit]) -> list[list[Cell]]:
    return [
        [Cell(image, "before")]
        + [Cell(e.after.images[i, 0, 0], signed(n, bool(e.add[i]))) for n, e in edits.items()]
        for i, image in enumerate(before.images[:_SHOWN, 0, 0])
    ]


def _traversals(run: Demo, projected: Projected) -> list[list[Cell]]:
    """Generate images of two people at several strengths, along one direction each."""
    setting = run.setting
    strengths = [share * run.strength for share in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    rows = []
    for i, (name, found) in enumerate(list(run.directions.items())[:2]):
        point = projected.points[i % len(projected.points)]
        moved = torch.stack([directions.edit(point, {found: a}) for a in strengths])
        weights = setting.space.to_weights(moved)
        images = setting.generate(weights, run.prompts[:1], [setting.seed]).images[:, 0, 0]
        captions = [f"{words(name)} {a:+g}" if a else "0" for a in strengths]
        rows.append([Cell(*pair) for pair in zip(images, captions, strict=True)])
    return rows
