"""Figure 28: how many components the directions of edits should use."""

from collections.abc import Sequence

import torch

from weights2weights.directions import cosines, find_directions
from weights2weights.evaluate.edits import known_labels, require_labels
from weights2weights.metrics.entanglement import mean_absolute_cosine
from weights2weights.sheets import image_grid

from .edits import MEASURES, PAPER_ATTRIBUTES, Originals, summarise
from .estimates import above_zero, estimate
from .plots import COLORS, line, plot
from .result import Check, Result, Sheet, Table
from .setting import ExperimentSetting
from .subspace import sizes_up_to

QUICK = {"people": 6}

SHOWN = ("success", "id_score", "others_kept")


def figure28(
    setting: ExperimentSetting,
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
        components: components that the directions use; None takes 3, 10, 30, …, and all.
        people: number of people.
        seeds: seeds of the images.
        strength: of the edits, in standard deviations.
        attributes: edited attributes.
        shown: people on the sheet.
    """
    space = setting.space
    most = min(space.coefficients.shape[1], len(space.names) - 1)
    counts = sizes_up_to(most, least=3) if components is None else list(components)
    names = require_labels(space, attributes)
    chosen = setting.people.first(people)
    start = Originals.generate(setting, chosen.weights, setting.prompts[:1], list(range(seeds)))
    figures, sums, rows, columns = {}, {}, [], [start.before.images[:shown, 0, 0]]
    labels = known_labels(space, space.labels.columns)
    for j in counts:
        directions = find_directions(space, labels, components=j, method="ridge")
        edits = [start.edit(directions[name], strength) for name in names]
        scores = [each.scores for each in edits]
        columns.append(edits[0].after.images[:shown, 0, 0])
        sums[j] = torch.stack([each["success"] + each["others_kept"] for each in scores], 1)
        every = list(directions.values())
        figures[j] = {
            **summarise(scores),
            "entanglement": mean_absolute_cosine(cosines(every)) if len(every) > 1 else None,
        }
        rows.append([f"{j:,}", *(figures[j][m] for m in SHOWN), figures[j]["entanglement"]])
    best = max(counts, key=lambda j: float(sums[j].nanmean()))
    # paired: the same people and edits
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
        [
            Check(
                "Few components are too coarse: they do worse than the best number",
                above_zero(worse[counts[0]]),
                worse[counts[0]],
            ),
            Check(
                "All components do worse than the best number",
                above_zero(worse[counts[-1]]),
                worse[counts[-1]],
            ),
        ],
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
            Sheet("measures", p.image, "Edits against the components of directions."),
            Sheet("people", sheet, f"{names[0]}: one person per row.", 480),
        ],
        "The best number has the largest sum of success rate and other attributes kept. Another one"
        " does worse if the whole 95 % interval of the paired difference lies above 0. Directions"
        " are those of ridge regression, as the paper's are those of a classifier.",
    )
