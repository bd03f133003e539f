"""Figure 9: directions of different attributes entangle less, the more models they are fitted to.

Entanglement is the mean absolute cosine between the directions of all attributes. Each number of
models is drawn several times from the training models, and the space of the chosen ones is fitted
anew: see `_subspace`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..directions import cosines, find_directions
from ..metrics.entanglement import mean_absolute_cosine, pair_cosines
from ..space import WeightSpace
from ._edits import labels_of, mean
from ._plots import COLORS, line, plot
from ._report import Picture, Result, Table
from ._setting import Setting, estimate
from ._subspace import draw_subset, sizes_up_to, subspace

PAIRS = (("Black_Hair", "Pale_Skin"), ("Young", "Bald"), ("Male", "No_Beard"))
"""Of the paper; CelebA labels the absence of a beard."""

QUICK = {"resamplings": 2}


def figure9(
    setting: Setting, *, sizes: Sequence[int] | None = None, resamplings: int = 5
) -> Result:
    """Measure entanglement against the number of models.

    Args:
        setting: whose space is taken apart.
        sizes: numbers of models; None goes from 10 to all in steps of about √10 and 2.
        resamplings: of each number; of all models there is only one.
    """
    space = setting.space
    sizes = sizes_up_to(len(space.names)) if sizes is None else list(sizes)
    names = labels_of(space, setting.scorer.label_names)
    pairs = [pair for pair in PAIRS if set(pair) <= set(names)]
    measured: dict[int, list[dict[str, Any]]] = {}
    for size in sizes:
        measured[size] = []
        for resampling in range(1 if size == len(space.names) else resamplings):
            inputs = {"figure9": [size, resampling], **setting.inputs}
            rows = draw_subset(space, size, resampling, setting.seed)
            measured[size].append(
                setting.keep.numbers(
                    inputs, lambda rows=rows: entanglement(space, rows, names, pairs)
                )
            )
    means = [estimate(torch.tensor([_or_nan(m["mean"]) for m in measured[size]])) for size in sizes]
    of_pairs = {
        f"{a} and {b}": [
            estimate(torch.tensor([_or_nan(m["pairs"][f"{a} and {b}"]) for m in measured[size]]))
            for size in sizes
        ]
        for a, b in pairs
    }
    figures = {
        "sizes": sizes,
        "mean_absolute_cosine": means,
        "pairs": of_pairs,
        "attributes": [[m["attributes"] for m in measured[size]] for size in sizes],
        "resamplings": resamplings,
    }
    ends = mean(means[0]), mean(means[-1])
    checks = {
        f"Entanglement falls from {sizes[0]} to {sizes[-1]:,} models"
        f" (here from {ends[0]:.3f} to {ends[1]:.3f})": ends[1] < ends[0],
        "It falls from each number of models to the next": all(
            mean(b) < mean(a) for a, b in pairwise(means)
        ),
    }
    for name, estimates in of_pairs.items():
        known = [mean(e) for e in estimates if e is not None]
        if len(known) > 1:
            checks[f"So it does for {name.replace('_', ' ')}, first to last"] = known[-1] < known[0]
    rows = [
        [f"{size:,}", means[i], *(of_pairs[name][i] for name in of_pairs)]
        for i, size in enumerate(sizes)
    ]
    columns = ["models", "all pairs", *(name.replace("_", " ") for name in of_pairs)]
    return Result(
        "figure9",
        "Figure 9: entanglement against the number of models",
        "the mean absolute cosine between attribute directions falls as the number of models grows"
        " from 10 to 65,000; so for black hair and pale skin, young and bald, male and beard.",
        checks,
        figures,
        [Table("Absolute cosine between directions", columns, rows)],
        [_plot(sizes, means, of_pairs)],
        "An attribute that all or none of the chosen models have has no direction and is left out."
        " Every direction uses the number of components that cross-validation chooses for it.",
    )


def entanglement(
    space: WeightSpace,
    rows: Tensor,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Measure how the directions of the space of some models entangle.

    Returns:
        `mean` absolute cosine, that of the `pairs` (None where one has no direction), and how many
        `attributes` have a direction.
    """
    smaller = subspace(space, rows)
    # Two models of each kind at least, so that a direction says more than where one model lies.
    found = [
        name for name in names if 2 <= sum(smaller.labels[name].dropna().tolist()) <= len(rows) - 2
    ]
    directions = find_directions(smaller, found)
    matrix: Float[Tensor, "a a"] = cosines(directions)
    known = [pair for pair in pairs if set(pair) <= set(found)]
    of_pairs = pair_cosines(matrix, found, known)
    return {
        "mean": mean_absolute_cosine(matrix) if len(found) > 1 else None,
        "pairs": {
            f"{a} and {b}": abs(of_pairs[a, b]) if (a, b) in of_pairs else None for a, b in pairs
        },
        "attributes": len(found),
    }


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _plot(sizes: Sequence[int], means: Sequence[Any], of_pairs: dict[str, list[Any]]) -> Picture:
    with plot(size=(6.8, 4.0)) as p:
        line(p.axes, sizes, means, "all pairs of attributes", COLORS[6])
        for color, (name, estimates) in zip(COLORS, of_pairs.items(), strict=False):
            line(p.axes, sizes, estimates, name.replace("_", " "), color)
        p.axes.set_xscale("log")
        p.axes.set_xlabel("models that the space and the directions are fitted to")
        p.axes.set_ylabel("absolute cosine")
        p.axes.set_ylim(bottom=0)
        p.axes.legend()
    return Picture("entanglement", p.image, "Mean absolute cosine of directions, 95 % intervals.")
