"""Figure 31: the first components mix attributes, which is why directions come from labels."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from weights2weights.directions import find_directions
from weights2weights.evaluate.edits import require_labels
from weights2weights.metrics.attributes import SEEN
from weights2weights.sheets import image_grid

from .estimates import estimate, mean
from .result import Check, Result, Sheet, Table
from .setting import ExperimentSetting

QUICK = {"people": 4, "directions": 6}


def figure31(
    setting: ExperimentSetting,
    *,
    components: int = 5,
    directions: int | None = None,
    people: int = 12,
    strength: float = 3.0,
    steps: int = 5,
) -> Result:
    """Move along the first components, and along directions, and count the labels that change.

    Args:
        setting: with held-out people.
        components: number of components.
        directions: number of directions to compare with; None takes every label's.
        people: number of people.
        strength: distance to either side, in standard deviations.
        steps: images of each traversal on the sheet.
    """
    space = setting.space
    points = space.project(setting.people.first(people).weights)
    names = require_labels(space, setting.scorer.label_names)[:directions]
    along_components = [
        _unit(k, len(space)) * float(space.coefficient_std[k])
        for k in range(min(components, space.coefficients.shape[1]))
    ]
    found = find_directions(space, names).values()
    along_directions = [direction.shift(1.0, len(space)).float() for direction in found]
    walked = [_changed(setting, points, shift, strength) for shift in along_components]
    steered = [_changed(setting, points, shift, strength) for shift in along_directions]
    by_component = estimate(torch.stack([w.float().sum(-1) for w in walked], 1))
    by_direction = estimate(torch.stack([s.float().sum(-1) for s in steered], 1))
    labels = list(setting.scorer.label_names)
    most = [
        [labels[i].replace("_", " ") for i in w.float().mean(0).topk(4).indices.tolist()]
        for w in walked
    ]
    figures: dict[str, Any] = {
        "labels_changed_along_components": by_component,
        "labels_changed_along_directions": by_direction,
        "components": [
            {"changed": estimate(w.float().sum(-1)), "most": changed}
            for w, changed in zip(walked, most, strict=True)
        ],
    }
    rows = [
        [f"component {k + 1}", part["changed"], ", ".join(part["most"])]
        for k, part in enumerate(figures["components"])
    ]
    rows.append([f"directions of {len(names)} labels, mean", by_direction, ""])
    walks = torch.stack(
        [
            torch.stack([points[0] + a * shift for a in _steps(strength, steps)])
            for shift in along_components
        ]
    )
    drawn = setting.generate(
        space.to_weights(walks.flatten(0, 1)), setting.prompts[:1], [setting.seed]
    )
    table = drawn.images[:, 0, 0].view(*walks.shape[:2], *drawn.images.shape[3:])
    sheet = image_grid(
        table,
        [f"component {k + 1}" for k in range(len(walks))],
        [f"{a:+g}" for a in _steps(strength, steps)],
    )
    return Result(
        "figure31",
        "Figure 31: traversals along the first components",
        "traversals along the first components change age, hair and gender together: they entangle"
        " attributes, and labelled directions are needed.",
        [
            Check(
                "A component changes more labels than a direction",
                mean(by_component) > mean(by_direction),
                [mean(by_component), mean(by_direction)],
            )
        ],
        figures,
        [
            Table(
                f"Labels, of {len(labels)}, that change between −{strength:g} and +{strength:g}"
                f" standard deviations, for {len(points)} people",
                ["", "labels changed", "most often"],
                rows,
            )
        ],
        [Sheet("walks", sheet, "One person along the first components.", 480)],
        "Steps are equal in standard deviations of the training models along each component or"
        " direction; the first components vary more, so a step along them goes further.",
    )


def _unit(k: int, components: int) -> Float[Tensor, " m"]:
    return torch.eye(components)[k]


def _steps(strength: float, count: int) -> list[float]:
    return torch.linspace(-strength, strength, count).tolist()


def _changed(
    setting: ExperimentSetting,
    points: Float[Tensor, "k m"],
    shift: Float[Tensor, " m"],
    strength: float,
) -> Tensor:
    """Return for each person which labels differ between the two ends; bool "k labels"."""
    ends = torch.cat([points - strength * shift, points + strength * shift])
    images = setting.generate(setting.space.to_weights(ends), setting.prompts[:1], [setting.seed])
    low, high = (images.attributes[:, 0, 0] > SEEN).chunk(2)
    return low != high
