"""Figure 28: how many components the directions of edits should use."""

from collections.abc import Sequence

import torch

from ..directions import cosines
from ..metrics.entanglement import mean_absolute_cosine
from ..sheets import image_grid
from ._edits import (
    MEASURES,
    PAPER_ATTRIBUTES,
    Unedited,
    direction,
    labels_of,
    required_labels,
    summarise,
)
from ._estimates import above_zero, estimate
from ._plots import COLORS, line, plot
from ._report import Result, Sheet, Table
from ._setting import Setting
from ._subspace import sizes_up_to

QUICK = {"people": 6}

SHOWN = ("success", "id_score", "others_kept")


def figure28(
    setting: Setting,
    *,
    components: Sequence[int] | None = None,
    people: int = 24,
    seeds: int = 1,
    strength: float = 3.0,
    attributes: Sequence[str] = PAPER_ATTRIBUTES,
    shown: int = 3,
) -> Result:
    """Edit people along directions that use more and more components.

    Args:
        setting: with held-out people.
        components: how many the directions use; None goes from 3 to all that are known.
        people: of the setting's.
        seeds: of the images.
        strength: of the edits, in standard deviations.
        attributes: to edit.
        shown: people on the sheet.
    """
    space = setting.space
    most = min(space.coefficients.shape[1], len(space.names) - 1)
    counts = sizes_up_to(most, least=3) if components is None else list(components)
    names = required_labels(space, attributes)
    chosen = setting.people.first(people)
    start = Unedited.draw(setting, chosen.weights, setting.prompts[:1], list(range(seeds)))
    figures, sums, rows, columns = {}, {}, [], [start.before.images[:shown, 0, 0]]
    for j in counts:
        edits = [start.edit(name, strength, direction(space, name, j, "ridge")) for name in names]
        judged = [each.judged for each in edits]
        columns.append(edits[0].after.images[:shown, 0, 0])
        sums[j] = torch.stack([each["success"] + each["others_kept"] for each in judged], 1)
        every = [
            direction(space, name, j, "ridge") for name in labels_of(space, space.labels.columns)
        ]
        figures[j] = {
            **summarise(judged),
            "entanglement": mean_absolute_cosine(cosines(every)) if len(every) > 1 else None,
        }
        rows.append([f"{j:,}", *(figures[j][m] for m in SHOWN), figures[j]["entanglement"]])
    best = max(counts, key=lambda j: float(sums[j].nanmean()))
    # of the same people and edits, so that what makes people differ drops out
    worse = {j: estimate(sums[best] - sums[j]) for j in (counts[0], counts[-1])}
    sheet = image_grid(
        torch.stack(columns, 1), (), ["before", *(f"{j:,} components" for j in counts)]
    )
    with plot(size=(6.4, 3.6)) as p:
        for color, measure in zip(COLORS, SHOWN, strict=False):
            values = [figures[j][measure] for j in counts]
            line(p.axes, counts, values, MEASURES[measure], color)
        p.axes.set_xscale("log")
        p.axes.set_xlabel("components of the directions")
        p.axes.set_ylim(0, 1.02)
        p.axes.legend()
    return Result(
        "figure28",
        "Figure 28: components for editing",
        "1,000 components are best for directions: 100 are too coarse, 10,000 entangle.",
        {
            "Few components are too coarse: they succeed less, or keep less, than the best": (
                above_zero(worse[counts[0]])
            ),
            "All components do worse than the best number": above_zero(worse[counts[-1]]),
        },
        {"components": counts, "best": best, "strength": strength}
        | {"best_minus_fewest": worse[counts[0]], "best_minus_most": worse[counts[-1]]}
        | {"measures": [figures[j] for j in counts]},
        [
            Table(
                f"{', '.join(names)} of {len(chosen)} people, {strength:g} standard deviations",
                ["components", *(MEASURES[m] for m in SHOWN), "entanglement"],
                rows,
            )
        ],
        [
            Sheet("measures", p.image, "What edits do, against the components of directions."),
            Sheet("people", sheet, f"{names[0]}: each row one person.", 480),
        ],
        "The best number has the largest sum of success and of other labels kept. Another one does"
        " worse if the paired difference of the sums, person by person, has its whole 95 % interval"
        " above 0. Directions are those of ridge regression, as the paper's are of a classifier.",
    )
