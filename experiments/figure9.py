"""Figure 9: directions of different attributes entangle less, the more models they are fitted to.

Entanglement is the mean absolute cosine between the directions of all attributes. For each number
of models, several random sets of training models are drawn and a space is fitted to each: see
`subspace`.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from weights2weights.directions import cosines, find_directions
from weights2weights.evaluate.edits import require_labels
from weights2weights.metrics.entanglement import mean_absolute_cosine, random_cosine
from weights2weights.space import WeightSpace

from .estimates import estimate, mean, rises
from .plots import COLORS, line, plot
from .result import Check, Result, Sheet, Table
from .setting import ExperimentSetting
from .subspace import draw_subset, sizes_up_to, subspace

QUICK = {"resamplings": 2}

PAPER_PAIRS = (("Black_Hair", "Pale_Skin"), ("Young", "Bald"), ("Male", "No_Beard"))
"""The pairs of the paper's figure; CelebA labels the absence of a beard."""


def figure9(
    setting: ExperimentSetting, *, sizes: Sequence[int] | None = None, resamplings: int = 5
) -> Result:
    """Measure entanglement against the number of models.

    Args:
        setting: setting with the space.
        sizes: numbers of models; None takes 10, 30, 100, 300, …, and all.
        resamplings: random sets of each size, except that of all models.
    """
    space = setting.space
    sizes = sizes_up_to(len(space.names)) if sizes is None else list(sizes)
    labels = require_labels(space, setting.scorer.label_names, 2)
    pairs = [pair for pair in PAPER_PAIRS if set(pair) <= set(labels)]
    subsets = {
        size: [
            draw_subset(space, size, resampling, setting.seed)
            for resampling in range(1 if size == len(space.names) else resamplings)
        ]
        for size in sizes
    }
    # the same attributes at every size
    names = separable(space, labels, (rows for of_size in subsets.values() for rows in of_size))
    measured: dict[int, list[dict[str, Any]]] = {}
    for size, of_size in subsets.items():
        measured[size] = []
        for resampling, rows in enumerate(of_size):
            inputs = {"figure9": [size, resampling, names], **setting.inputs}
            measured[size].append(
                setting.cache.json(
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
    random, width = (
        [mean(estimate(torch.tensor([_or_nan(m[name]) for m in measured[size]]))) for size in sizes]
        for name in ("random", "width")
    )
    figures = {
        "sizes": sizes,
        "names": names,
        "mean_absolute_cosine": means,
        "random_directions": random,
        "width": width,
        "pairs": of_pairs,
        "resamplings": resamplings,
    }
    ends = mean(means[0]), mean(means[-1])
    checks = [
        Check("Entanglement falls from the fewest models to all", ends[1] < ends[0], list(ends)),
        Check(
            "Entanglement falls from each number of models to the next",
            rises([-mean(m) for m in means]),
            [mean(m) for m in means],
        ),
    ]
    for name, estimates in of_pairs.items():
        known = [mean(e) for e in estimates if e is not None]
        if len(known) > 1:
            statement = f"Entanglement of {name.replace('_', ' ')} falls, first to last"
            checks.append(Check(statement, known[-1] < known[0], [known[0], known[-1]]))
    rows = [
        [f"{size:,}", means[i], random[i], width[i], *(of_pairs[name][i] for name in of_pairs)]
        for i, size in enumerate(sizes)
    ]
    columns = ["models", "all pairs", "random directions", "components of a direction, mean"]
    columns += [name.replace("_", " ") for name in of_pairs]
    return Result(
        "figure9",
        "Figure 9: entanglement against the number of models",
        "the mean absolute cosine between attribute directions falls as the number of models grows"
        " from 10 to 65,000; so for black hair and pale skin, young and bald, male and beard.",
        checks,
        figures,
        [Table("Absolute cosine between directions", columns, rows)],
        [_plot(sizes, means, of_pairs)],
        f"All pairs are those of the {len(names)} attributes, of {len(labels)}, that at least two"
        " models have and two lack in every resampling; named pairs are missing where one attribute"
        " has no direction. Directions are those of ridge regression; random directions have as"
        " many components.",
    )


def separable(
    space: WeightSpace, names: Sequence[str], subsets: Iterable[Int[Tensor, " _"]]
) -> list[str]:
    """Return the labels that at least two models have and two lack in each of several sets.

    With only one such model, a direction would merely point at it.
    """
    held = {name: space.labels[name].to_numpy(dtype=float, na_value=torch.nan) for name in names}
    kept = list(names)
    for rows in subsets:
        of_subset = {name: held[name][rows.numpy()] for name in kept}
        kept = [n for n, h in of_subset.items() if (h > 0).sum() >= 2 and (h <= 0).sum() >= 2]
    return kept


def entanglement(
    space: WeightSpace,
    rows: Tensor,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    **options: Any,
) -> dict[str, Any]:
    """Measure the entanglement of directions in a space fitted to some models.

    Args:
        space: space of all models.
        rows: rows of the chosen models.
        names: attributes.
        pairs: pairs of attributes to report one by one.
        **options: options of `find_direction`; the default method is ridge regression.

    Returns:
        the `mean` absolute cosine, its expectation for `random` directions of as many components,
        their mean number (`width`), the absolute cosine of the `pairs` (None where an attribute has
        no direction), and the number of `attributes` with a direction.
    """
    asked = list(dict.fromkeys([*names, *(name for pair in pairs for name in pair)]))
    found = separable(space, asked, [rows])
    if len(found) < 2:
        nothing = {f"{a} and {b}": None for a, b in pairs}
        return dict.fromkeys(("mean", "random", "width")) | {"pairs": nothing, "attributes": 0}
    options = {"method": "ridge"} | options  # the paper's figure uses classifiers
    directions = list(find_directions(subspace(space, rows), found, **options).values())
    matrix: Float[Tensor, "a a"] = cosines(directions)
    place = {name: i for i, name in enumerate(found)}
    chosen = [i for i, name in enumerate(found) if name in set(names)]
    widths = [len(directions[i].normal) for i in chosen]
    # the shorter of two directions is padded with zeros, so the longer one counts
    random = [random_cosine(max(pair)) for pair in combinations(widths, 2)]
    several = len(chosen) > 1
    return {
        "mean": mean_absolute_cosine(matrix[chosen][:, chosen]) if several else None,
        "random": sum(random) / len(random) if several else None,
        "width": sum(widths) / len(widths) if several else None,
        "pairs": {
            f"{a} and {b}": abs(float(matrix[place[a], place[b]])) if {a, b} <= {*found} else None
            for a, b in pairs
        },
        "attributes": len(chosen),
    }


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _plot(sizes: Sequence[int], means: Sequence[Any], of_pairs: dict[str, list[Any]]) -> Sheet:
    with plot(size=(6.8, 4.0)) as p:
        line(p.axes, sizes, means, "all pairs of attributes", COLORS[6])
        for color, (name, estimates) in zip(COLORS, of_pairs.items(), strict=False):
            line(p.axes, sizes, estimates, name.replace("_", " "), color)
        p.axes.set_xscale("log")
        p.axes.set_xlabel("models of the space")
        p.axes.set_ylabel("absolute cosine")
        p.axes.set_ylim(bottom=0)
        p.axes.legend()
    return Sheet("entanglement", p.image, "Mean absolute cosine of directions, 95 % intervals.")
