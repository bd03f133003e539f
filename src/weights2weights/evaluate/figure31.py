"""Figure 31: the first components mix attributes, which is why directions come from labels."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..metrics.attributes import SEEN
from ..sheets import image_grid
from ._edits import direction, required_labels
from ._estimates import estimate, mean
from ._report import Result, Sheet, Table
from ._setting import Setting

QUICK = {"people": 4, "directions": 6}


def figure31(
    setting: Setting,
    *,
    components: int = 5,
    directions: int | None = None,
    people: int = 12,
    strength: float = 3.0,
    steps: int = 5,
) -> Result:
    """Walk along the first components, and along directions, and count the labels that change.

    Args:
        setting: with held-out people.
        components: how many.
        directions: how many to compare with; None takes every label's.
        people: from whom the walks start.
        strength: how far they go to either side, in standard deviations.
        steps: images of each walk on the sheet.
    """
    space = setting.space
    points = space.project(setting.people.first(people).weights)
    names = required_labels(space, setting.scorer.label_names)[:directions]
    along_components = [
        _unit(k, len(space)) * float(space.coefficient_std[k])
        for k in range(min(components, space.coefficients.shape[1]))
    ]
    along_directions = [direction(space, name).shift(1.0, len(space)).float() for name in names]
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
    drawn = setting.draw(space.to_weights(walks.flatten(0, 1)), setting.prompts[:1], [setting.seed])
    table = drawn.images[:, 0, 0].view(*walks.shape[:2], *drawn.images.shape[3:])
    sheet = image_grid(
        table,
        [f"component {k + 1}" for k in range(len(walks))],
        [f"{a:+g}" for a in _steps(strength, steps)],
    )
    return Result(
        "figure31",
        "Figure 31: walks along the first components",
        "walks along the first components change age, hair and gender together: they entangle"
        " attributes, and labelled directions are needed.",
        {
            "A component changes more labels than a direction": (
                mean(by_component) > mean(by_direction)
            )
        },
        figures,
        [
            Table(
                f"Labels, of {len(labels)}, that the reader sees change between −{strength:g} and"
                f" +{strength:g} standard deviations, for {len(points)} people",
                ["", "labels changed", "most often"],
                rows,
            )
        ],
        [Sheet("walks", sheet, "One person along the first components.", 480)],
        "Steps are equal in standard deviations of the training models along each, component or"
        " direction; a first component is the wider, so a step along it goes further.",
    )


def _unit(k: int, components: int) -> Float[Tensor, " m"]:
    return torch.eye(components)[k]


def _steps(strength: float, count: int) -> list[float]:
    return torch.linspace(-strength, strength, count).tolist()


def _changed(
    setting: Setting, points: Float[Tensor, "k m"], shift: Float[Tensor, " m"], strength: float
) -> Tensor:
    """Say for each person which labels the reader sees differ at both ends; bool "k labels"."""
    ends = torch.cat([points - strength * shift, points + strength * shift])
    seen = setting.draw(setting.space.to_weights(ends), setting.prompts[:1], [setting.seed])
    low, high = (seen.attributes[:, 0, 0] > SEEN).chunk(2)
    return low != high
