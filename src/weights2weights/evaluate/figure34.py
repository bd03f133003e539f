"""Figure 34: denoising with the original weights first keeps the scene of an edited image."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..sheets import image_grid
from ._edits import MEASURES, PAPER_ATTRIBUTES, Unedited, required_labels, summarise
from ._estimates import estimate, mean, rises
from ._plots import COLORS, line, plot
from ._report import Result, Sheet, Table
from ._setting import Seen, Setting

QUICK = {"people": 6}


def figure34(
    setting: Setting,
    *,
    timesteps: Sequence[int] = (1000, 900, 800, 700, 600, 400),
    people: int = 24,
    seeds: int = 1,
    strength: float = 3.0,
    attributes: Sequence[str] = PAPER_ATTRIBUTES,
    shown: int = 3,
) -> Result:
    """Inject edited weights later and later.

    Args:
        setting: with held-out people.
        timesteps: from which on the edited weights act; 1000 is from the beginning.
        people: of the setting's.
        seeds: of the images.
        strength: of the edits, in standard deviations.
        attributes: to edit.
        shown: people on the sheet.
    """
    names = required_labels(setting.space, attributes)
    chosen = setting.people.first(people)
    start = Unedited.draw(setting, chosen.weights, setting.prompts[1:2], list(range(seeds)))
    figures, columns = {}, [start.before.images[:shown, 0, 0]]
    for timestep in timesteps:
        edits = [
            start.edit(name, strength, inject_at=timestep, original=start.weights) for name in names
        ]
        columns.append(edits[0].after.images[:shown, 0, 0])
        scenes = [scene_difference(setting, start.before, each.after) for each in edits]
        figures[timestep] = {
            **summarise([each.judged for each in edits]),
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
        {
            "The later the injection, the less the scene changes": rises(scene[::-1]),
            "The later the injection, the weaker the edit: first to last": success[-1] < success[0],
        },
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
            Sheet("trade", p.image, "What a later injection keeps, and what it costs."),
            Sheet("people", sheet, f"{names[0]}: each row one person.", 480),
        ],
        "The change of the scene is the mean absolute difference of pixels outside of the face.",
    )


def scene_difference(setting: Setting, before: Seen, after: Seen) -> Float[Tensor, "k p s"]:
    """Return the mean absolute difference, in grey levels, of what lies outside of the face."""
    size = before.images.shape[3]
    left, top, right, bottom = (round(share * size) for share in setting.world.focus)
    outside = torch.ones(size, size)
    outside[top:bottom, left:right] = 0
    difference = (before.images.float() - after.images.float()).abs().mean(-1)
    return (difference * outside).sum((-1, -2)) / outside.sum()
