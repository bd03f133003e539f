"""`Direction`: a unit normal that knows its scale, and edits that add up."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..layout import require_one_base
from ..models import Model
from ..space import WeightSpace

Strength = float | int | Literal["paper"]


@dataclass(frozen=True, eq=False)
class Direction:
    """One attribute as a direction in a space.

    Attributes:
        name: of the attribute.
        normal: float64, unit length, on the first j components; towards what the label affirms or
            where the target grows.
        spread: standard deviation of the training models' coefficients along the normal; the unit
            of strengths.
        largest: the largest projection of a training model from their mean, in standard deviations:
            the strength of every edit in the paper.
        auc: area under the ROC curve of held-out models, the mean of the folds; None for a target
            of numbers, or if there are too few models to hold any out.
        r2: share of a numeric target's variance that is predicted for held-out models; None for a
            label.
        positives: models for which the label holds; for numbers all that have one.
        negatives: models for which it does not; for numbers 0.
        kept: attributes whose directions were removed from the normal.
        method: how the normal was found.
        space: hash of the space; "" if unknown.

    Raises:
        W2WError: a normal that is not of unit length, or no spread along it.
    """

    name: str
    normal: Float[Tensor, " j"]
    spread: float
    largest: float
    auc: float | None = None
    r2: float | None = None
    positives: int = 0
    negatives: int = 0
    kept: tuple[str, ...] = ()
    method: str = "least_squares"
    space: str = ""

    def __post_init__(self):
        normal = self.normal.detach().double().cpu()
        length = float(normal.norm())
        if not abs(length - 1) < 1e-6:
            raise InputError(f"the normal of {self.name!r} has length {length:.6g}: expected 1")
        if not 0 < self.spread < math.inf:
            raise InputError(
                f"the training models have spread {self.spread} along {self.name!r}: expected some"
            )
        object.__setattr__(self, "normal", normal)

    def __repr__(self) -> str:
        quality = f"R² {self.r2:.3f}" if self.auc is None and self.r2 is not None else ""
        quality = f"AUC {self.auc:.3f}" if self.auc is not None else quality or "not judged"
        return f"Direction({self.name!r}, {len(self.normal)} components, {quality})"

    def __neg__(self) -> "Direction":
        """Return the opposite direction, "not Bald", judged alike; `largest` is unknown (NaN)."""
        sides = self.positives, self.negatives
        if self.negatives:  # a label; numbers have none, and all of them still have a value
            sides = self.negatives, self.positives
        return Direction(
            f"not {self.name}",
            -self.normal,
            self.spread,
            math.nan,
            self.auc,
            self.r2,
            *sides,
            self.kept,
            self.method,
            self.space,
        )

    def shift(self, strength: Strength, components: int) -> Float[Tensor, " m"]:
        """Return what an edit adds to a model's coefficients.

        Args:
            strength: in standard deviations of the training models along the normal, negative for
                the opposite; "paper" for `largest` of them.
            components: m, the length of the model's coefficients.

        Returns:
            float32, zero beyond the first j.

        Raises:
            W2WError: a strength that is no number; a model on fewer components than the normal.
        """
        return self._shift(strength, components).float()

    def _shift(self, strength: Strength, components: int) -> Tensor:
        amount = self.largest if strength == "paper" else strength
        if isinstance(amount, str) or not math.isfinite(amount):
            raise InputError(
                f"strength {strength!r} of {self.name!r}: expected a number of standard deviations,"
                ' or "paper" along a direction that knows its largest projection'
            )
        if len(self.normal) > components:
            raise InputError(
                f"{self.name!r} is a direction on {len(self.normal)} components: expected a model"
                f" on at least as many, got {components}; find it with components={components}"
            )
        shift = torch.zeros(components, dtype=torch.float64)
        shift[: len(self.normal)] = float(amount) * self.spread * self.normal
        return shift

    def weights(self, space: WeightSpace) -> Float[Tensor, " d"]:
        """Return the direction unprojected: what a strength of 1 adds to a weight vector.

        Reads all of the space's first j components; adding it to weights then costs next to
        nothing, however often.

        Returns:
            float32, on the device of the space.

        Raises:
            W2WError: a direction of another space.
        """
        return _unproject(space, _total([(self, 1.0)], len(space), space.hash))


def edit(
    coefficients: Float[Tensor, "*b m"], changes: Sequence[tuple[Direction, Strength]]
) -> Float[Tensor, "*b m"]:
    """Edit points of a space: add strength · spread · normal of every change.

    Edits compose by addition. All changes of one call are summed in float64 and rounded once, so
    their order does not change a bit of the result.

    Args:
        coefficients: of one or many models, all edited alike.
        changes: directions with their strengths; none at all changes nothing.

    Returns:
        coefficients in the dtype and on the device of those given.

    Raises:
        W2WError: as `Direction.shift`; directions of different spaces.

    Example:
        >>> bald = Direction("Bald", torch.tensor([0.6, 0.8]), spread=10.0, largest=3.0)
        >>> edit(torch.zeros(3), [(bald, 2)])
        tensor([12., 16.,  0.])
    """
    return coefficients + _total(changes, coefficients.shape[-1]).to(coefficients)


def edit_weights(
    space: WeightSpace,
    weights: Float[Tensor, "*b d"],
    changes: Sequence[tuple[Direction, Strength]],
) -> Float[Tensor, "*b d"]:
    """Edit weight vectors, also those that lie outside the space.

    The same as to project, edit, to_weights and put back what the projection lost; since all of
    these are affine, it is enough to add the unprojected shift, and nothing is lost on the way.

    Args:
        space: of the directions.
        weights: LoRAs of the space's layout.
        changes: see `edit`.

    Returns:
        float32 weights on the device of the space.

    Raises:
        W2WError: as `edit`; weights of another length, directions of another space.
    """
    if weights.shape[-1:] != (space.num_parameters,):
        raise InputError(
            f"weights of shape {list(weights.shape)}: expected a last axis of"
            f" {space.num_parameters}; use models of the layout that the space was fitted to"
        )
    change = _unproject(space, _total(changes, len(space), space.hash))
    return weights.to(change.device).float() + change


def edit_model(
    space: WeightSpace,
    model: Model,
    changes: Sequence[tuple[Direction, Strength]],
    origin: Mapping[str, Any] | None = None,
) -> Model:
    """Edit a model, whichever form it has.

    Args:
        space: of the directions.
        model: a point of that space, or a LoRA of its layout inside or outside of it.
        changes: see `edit`.
        origin: what the new model says of how it came about; default: the edit and the origin of
            the model.

    Returns:
        the edited point; for a model with weights also its edited weights, with all that lies
        outside the space as it was.

    Raises:
        W2WError: a point of another space, another layout or base; as `edit`.
    """
    space.layout.require_equal(model.layout, "the model")
    base_hash = require_one_base(space.base_hash, model.base_hash, "the model")
    point = model.coefficients
    if point is None or model.space != space.hash:
        point = space.coefficients_of(model).cpu()
    # a model may come from the whole of a space that is truncated here, or the other way round
    point = torch.nn.functional.pad(point, (0, max(len(space) - len(point), 0)))
    weights = model.weights
    if origin is None:
        origin = {
            "verb": "edit",
            "set": {direction.name: strength for direction, strength in changes},
            "keep": sorted({name for direction, _ in changes for name in direction.kept}),
            "components": {direction.name: len(direction.normal) for direction, _ in changes},
            "method": sorted({direction.method for direction, _ in changes}),
            "model": dict(model.origin),
        }
    return Model(
        model.layout,
        coefficients=edit(point, changes),
        weights=None if weights is None else edit_weights(space, weights, changes).cpu(),
        space=space.hash,
        base_hash=base_hash,
        origin=origin,
    )


def _total(
    changes: Sequence[tuple[Direction, Strength]], components: int, space: str = ""
) -> Float[Tensor, " m"]:
    """Sum the shifts in float64, from the smallest on, so that order does not matter."""
    spaces = {direction.space for direction, _ in changes} | {space}
    if len(spaces - {""}) > 1:
        raise InputError(
            f"directions of the spaces {', '.join(sorted(spaces - {''}))}: expected one; find them"
            " in the space of the model"
        )
    shifts = [direction._shift(strength, components) for direction, strength in changes]
    if not shifts:
        return torch.zeros(components, dtype=torch.float64)
    return torch.stack(shifts).sort(0).values.sum(0)


def _unproject(space: WeightSpace, shift: Tensor) -> Tensor:
    """Return shift @ components · std, reading only the components that are needed."""
    used = int(shift.nonzero().max()) + 1 if shift.any() else 1
    centred = WeightSpace(space.layout, torch.zeros_like(space.mean), space.std, space.components)
    return centred.to_weights(shift[:used].float())


def cosines(
    directions: Iterable[Direction] | Mapping[str, Direction],
) -> Float[Tensor, "a a"]:
    """Return the cosine of every direction to every other, float64: the entanglement matrix.

    In the order of the directions, also of those of a dictionary. The paper's Fig. 9 shows how the
    mean absolute entry falls as the number of training models grows.
    """
    listed = directions.values() if isinstance(directions, Mapping) else directions
    normals = padded([direction.normal for direction in listed])
    return normals @ normals.T


def padded(normals: Sequence[Tensor]) -> Float[Tensor, "a j"]:
    """Stack normals on different numbers of components; what one lacks is 0."""
    if not normals:
        return torch.zeros(0, 0, dtype=torch.float64)
    return torch.nn.utils.rnn.pad_sequence(list(normals), batch_first=True).double()
