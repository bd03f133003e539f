"""Figure 34: denoising with the original weights first keeps the scene of an edited image."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from weights2weights.directions import find_directions
from weights2weights.evaluate.edits import require_labels
from weights2weights.sheets import image_grid

from .edits import MEASURES, PAPER_ATTRIBUTES, Originals, summarise
from .estimates import estimate, mean, rises
from .plots import COLORS, line, plot
from .result import Check, Result, Sheet, Table
from .setting import ExperimentSetting, Scored

QUICK = {"people": 6}


def figure34(
    setting: ExperimentSetting,
    *,
    timesteps: Sequence[int] = (1000, 900, 800, 700, 600, 400),
    people: int = 24,
    seeds: int = 1,
    strength: float = 3.0,
    attributes: Sequence[str] = PAPER_ATTRIBUTES,
    shown: int = 3,
) -> Result:
    """Inject the edited weights at later and later timesteps.

    Args:
        setting: with held-out people.
        timesteps: timesteps of the injection; 1000 is the beginning.
        people: number of people.
        seeds: seeds of the images.
        strength: of the edits, in standard deviations.
        attributes: edited attributes.
        shown: people on the sheet.
    """
    names = require_labels(setting.space, attributes)
    chosen = setting.people.first(people)
    start = Originals.generate(setting, chosen.weights, setting.prompts[1:2], list(range(seeds)))
    directions = find_directions(setting.space, names).values()
    figures, columns = {}, [start.before.images[:shown, 0, 0]]
    for timestep in timesteps:
        edits = [
            start.edit(direction, strength, inject_at=timestep, original=start.weights)
            for direction in directions
        ]
        columns.append(edits[0].after.images[:shown, 0, 0])
        scenes = [scene_difference(setting, start.before, each.after) for each in edits]
        figures[timestep] = {
            **summarise([each.scores for each in edits]),
            "scene": estimate(torch.stack(scenes, 1)),
        }
    success = [mean(figures[t]["success"]) for t in timesteps]
    scene = [mean(figures[t]["scene"]) for t in timesteps]
    measures = ("success", "id_score", "others_kept")
    rows = [
        [f"T = {t}", *(figures[t][m] for m in measures), figures[t]["scene"]] for t in timesteps
    ]
    with plot(size=(6.4, 3.6)) as p:
        line(p.axes, timesteps, [figures[t]["success"] for t in timesteps], MEASURES["success"])
        other = p.axes.twinx()
        line(other, timesteps, [figures[t]["scene"] for t in timesteps], "", COLORS[1])
        p.axes.invert_xaxis()
        p.axes.set_xlabel("timestep T of the injection; later to the right")
        p.axes.set_ylabel(MEASURES["success"], color=COLORS[0])
        other.set_ylabel("change of the scene, grey levels", color=COLORS[1])
        other.grid(visible=False)
    sheet = image_grid(torch.stack(columns, 1), (), ["before", *(f"T = {t}" for t in timesteps)])
    return Result(
        "figure34",
        "Figure 34: delayed injection",
        "with the edited weights from timestep T on, the scene of the original image is kept:"
        " T of 700 to 1000 for global changes, 400 to 700 for fine ones.",
        [
            Check("The later the injection, the less the scene changes", rises(scene[::-1]), scene),
            Check(
                "The later the injection, the weaker the edit: first to last",
                success[-1] < success[0],
                [success[0], success[-1]],
            ),
        ],
        {"timesteps": list(timesteps), "strength": strength}
        | {"measures": [figures[t] for t in timesteps]},
        [
            Table(
                f"{', '.join(names)} of {len(chosen)} people, {strength:g} standard deviations",
                ["", *(MEASURES[m] for m in measures), "change of the scene"],
                rows,
            )
        ],
        [
            Sheet("trade", p.image, "A later injection preserves the scene and weakens the edit."),
            Sheet("people", sheet, f"{names[0]}: one person per row.", 480),
        ],
        "The change of the scene is the mean absolute difference of pixels outside the face.",
    )


def scene_difference(
    setting: ExperimentSetting, before: Scored, after: Scored
) -> Float[Tensor, "k p s"]:
    """Return the mean absolute difference outside the face, in grey levels."""
    size = before.images.shape[3]
    left, top, right, bottom = (round(share * size) for share in setting.world.focus)
    outside = torch.ones(size, size)
    outside[top:bottom, left:right] = 0
    difference = (before.images.float() - after.images.float()).abs().mean(-1)
    return (difference * outside).sum((-1, -2)) / outside.sum()
