"""Edits: move models along directions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..models import Model, require_one_base
from ..protocols import Space
from ._direction import Direction

Strengths = Mapping[Direction, float | int]


def edit(models: Any, strengths: Mapping[Any, Any], *, space: Any = None) -> Any:
    """Move models along directions: add strength · std · normal of each.

    Edits compose by addition. Weights keep what lies outside the space.

    Args:
        models: points (…, m), weights (…, d) of the space's layout, a `Model`, a list of models,
            or a result of `invert`.
        strengths: for each direction, in standard deviations of the training models along it;
            negative for the opposite. 1 to 3 is usual; see `Direction.range`.
        space: the space of the directions; only needed for weights.

    Returns:
        what was given, edited; the points of a result. Tensors and arrays keep dtype and device; a
        `Model` with weights gets its point in the space as well.

    Raises:
        InputError: as `Direction.shift`; directions of different spaces; weights without their
            space, or of another layout or base.

    Example:
        >>> bald = Direction("Bald", torch.tensor([0.6, 0.8]), std=10.0)
        >>> edit(torch.zeros(3), {bald: 2})
        tensor([12., 16.,  0.])

    Source: Dravid et al. 2024, arXiv:2406.09413, section 4.3: θ' = θ + a·n.
    """
    for given in strengths:
        if not isinstance(given, Direction):
            raise InputError(
                f"{given!r} is a {type(given).__name__}; expected a Direction;"
                f" space.direction({given!r}) finds one"
            )
    if isinstance(space, str | Path):
        raise InputError(
            f"space {str(space)!r} is a name; expected a space;"
            f" WeightSpace.from_pretrained({str(space)!r}) opens it"
        )
    spaces = {direction.space for direction in strengths} | {space.hash if space else ""}
    if len(found := sorted(spaces - {""})) > 1:
        raise InputError(
            f"directions of the spaces {', '.join(found)}: expected one; find them in the space of"
            " the model"
        )
    if isinstance(models, Model):
        return _edit_model(models, strengths, space)
    if isinstance(models, list):
        return [_edit_model(model, strengths, space) for model in models]
    if isinstance(models, np.ndarray):
        return _edit_rows(torch.from_numpy(models), strengths, space).numpy()
    return _edit_rows(getattr(models, "points", models), strengths, space)


def _edit_rows(rows: Tensor, strengths: Strengths, space: Space | None) -> Tensor:
    """Edit points or weights, told apart by their length."""
    if not rows.is_floating_point():
        raise InputError(f"models of {rows.dtype}: expected floats, as edits are fractional")
    width = rows.shape[-1]
    if space is None or width == len(space):
        return rows + _total(strengths, width).to(rows)
    if width != space.layout.num_parameters:
        raise InputError(
            f"models of shape {list(rows.shape)}: expected a last axis of {len(space)}, a point of"
            f" the space, or of {space.layout.num_parameters}, weights of its layout"
        )
    return space.moved(space.layout, rows, _shift(strengths))[1]


def _edit_model(model: Model, strengths: Strengths, space: Space | None) -> Model:
    layout, point, weights = model.layout, model.coefficients, model.weights
    if space is None:
        own = {direction.space for direction in strengths} <= {"", model.space}
        if point is None or weights is not None or not own:
            raise InputError(
                "editing a model with weights, or of another space, needs space=, the space of the"
                " directions"
            )
        space_hash, base_hash = model.space, model.base_hash
    else:
        base_hash = require_one_base(space.base_hash, model.base_hash, "the model")
        if weights is not None:
            layout, weights = space.moved(layout, weights, _shift(strengths))
        if point is None or model.space != space.hash:
            point = space.coefficients_of(model).cpu()
        # a model may come from the whole of a space that is truncated here, or the other way round
        point = torch.nn.functional.pad(point, (0, max(len(space) - len(point), 0)))
        space_hash = space.hash
    return Model(
        layout,
        coefficients=point + _total(strengths, len(point)).to(point),
        weights=weights,
        space=space_hash,
        base_hash=base_hash,
        origin={
            "verb": "edit",
            "set": {direction.name: float(strength) for direction, strength in strengths.items()},
            "keep": sorted({name for direction in strengths for name in direction.kept}),
            "components": {direction.name: len(direction.normal) for direction in strengths},
            "method": sorted({direction.method for direction in strengths}),
            "model": dict(model.origin),
        },
    )


def _shift(strengths: Strengths) -> Float[Tensor, " j"]:
    """Return the whole shift on the leading components that it needs."""
    return _total(strengths, max((len(given.normal) for given in strengths), default=1))


def _total(strengths: Strengths, components: int) -> Float[Tensor, " m"]:
    """Sum the shifts in float64."""
    shifts = (direction.shift(strength, components) for direction, strength in strengths.items())
    return sum(shifts, torch.zeros(components, dtype=torch.float64))
