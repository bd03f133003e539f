"""Merging a model with a LoRA of another kind: one LoRA whose update is the sum of two.

A LoRA adds (alpha/rank) · B · A to a layer. Adding the *vectors* of two LoRAs does not add what
they do, since (B + B′)(A + A′) holds the products B·A′ and B′·A as well. The sum of two updates is
a LoRA of both ranks together: A stacked on A′, B beside B′. That is exact, needs no training, and
serves a subject with a style, or with a text slider (Dravid et al. 2024, appendix H, Fig. 33).

It works because such LoRAs are nearly orthogonal, which `cosine` measures on the updates. Two
points of one space are not: they share the mean, which a sum would count twice. Between such
points one can only go from one to the other, which is `interpolate`.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import InputError
from .layout import LoRAModule, WeightLayout, require_one_base
from .models import Model
from .space import WeightSpace


def merge(
    first: Float[Tensor, " d"],
    first_layout: WeightLayout,
    second: Float[Tensor, " e"],
    second_layout: WeightLayout,
    weight: float = 1.0,
) -> tuple[Float[Tensor, " f"], WeightLayout]:
    """Return one LoRA whose update on every layer is that of the first plus weight × the second's.

    Args:
        first: weights of a LoRA.
        first_layout: of it.
        second: weights of another, of any rank, alpha and set of layers on the same base.
        second_layout: of it.
        weight: of the second, negative to take it away.

    Returns:
        (weights, layout): float32, of the ranks' sum on the layers of both. The factor alpha / rank
        is that of the first, whose numbers stand unchanged; a layer that only one of them adapts
        has zeros for the other.

    Raises:
        W2WError: weights that are not of their layout, layers of one name and different width, a
            weight that is no number.
    """
    if not math.isfinite(weight):
        raise InputError(f"weight {weight} of a merge: expected a finite number")
    ours, theirs = _parts(first, first_layout), _parts(second, second_layout)
    modules = _union(first_layout, second_layout)
    rank = first_layout.rank + second_layout.rank
    layout = WeightLayout(
        modules, rank, first_layout.scale * rank, first_layout.base or second_layout.base
    )
    factor = weight * second_layout.scale / first_layout.scale
    rows = []
    for module in layout.modules:
        A, B = _of(ours, module, first_layout.rank)
        A_too, B_too = _of(theirs, module, second_layout.rank)
        rows.append(torch.cat([A, A_too]).flatten())
        rows.append(torch.cat([B, factor * B_too], 1).flatten())
    return torch.cat(rows).float(), layout


def cosine(
    first: Float[Tensor, " d"],
    first_layout: WeightLayout,
    second: Float[Tensor, " e"],
    second_layout: WeightLayout,
) -> float:
    """Return the cosine of the updates of two LoRAs, as if all layers' B · A were one long vector.

    Near 0, their merge does what both do; near 1 they are of the same kind. Without forming any
    product: ⟨B A, B′ A′⟩ is the sum of the entries of (Bᵀ B′) ∘ (A A′ᵀ). An update of 0 has
    cosine 0.

    Raises:
        W2WError: as `merge`.
    """
    _union(first_layout, second_layout)
    ours, theirs = _parts(first, first_layout), _parts(second, second_layout)
    size = _inner(ours, ours) * _inner(theirs, theirs)
    return _inner(ours, theirs) / math.sqrt(size) if size > 0 else 0.0


def interpolate(
    first: Float[Tensor, "*batch m"], second: Float[Tensor, "*others k"], share: float = 0.5
) -> Float[Tensor, "*batch m"]:
    """Go from one point of a space to another: first + share · (second − first).

    This mixes two subjects into a third; it cannot show both. It is the same on coefficients and on
    the weights of points of one space.

    Args:
        first: coefficients of a model or models.
        second: as many.
        share: 0 is the first, 1 the second; beyond, away from the other.

    Raises:
        W2WError: other shapes, a share that is no number.
    """
    if first.shape != second.shape:
        raise InputError(
            f"points of shapes {list(first.shape)} and {list(second.shape)}: expected equal ones,"
            " from one space"
        )
    if not math.isfinite(share):
        raise InputError(f"share {share} of an interpolation: expected a finite number")
    return torch.lerp(first, second, share)


def merge_models(
    first: Model, second: Model, weight: float = 1.0, space: WeightSpace | None = None
) -> Model:
    """Merge a model with one of another kind.

    Args:
        first: a subject.
        second: a style, a slider, or a subject of another space.
        weight: of the second.
        space: of those that are points without weights.

    Returns:
        a model with weights, of the ranks' sum; see `merge`. Its origin says what it is made of,
        and the cosine of the two updates.

    Raises:
        W2WError: both are points of one space, which do not merge; a point whose space is missing;
            as `merge`.
    """
    if first.space and first.space == second.space:
        raise InputError(
            f"both models are points of space {first.space}, and their merge would only interpolate"
            " between them: expected a LoRA of another kind; if that is wanted, ask for it with"
            " interpolate (--interpolate 0.5)"
        )
    base_hash = require_one_base(first.base_hash, second.base_hash, "the second model")
    both = _weights(first, space), first.layout, _weights(second, space), second.layout
    weights, layout = merge(*both, weight)
    origin = {
        "verb": "merge",
        "first": dict(first.origin),
        "second": dict(second.origin),
        "weight": weight,
        "cosine": cosine(*both),
    }
    return Model(layout, weights=weights, base_hash=base_hash, origin=origin)


def interpolate_models(
    first: Model, second: Model, share: float = 0.5, space: WeightSpace | None = None
) -> Model:
    """Return the model between two points of one space; see `interpolate`.

    Args:
        first: a point, or a LoRA if `space` is given, which is then projected.
        second: likewise.
        share: 0 is the first, 1 the second.
        space: in which to interpolate; not needed for two points.

    Raises:
        W2WError: not two points of one space, or models of two bases.
    """
    points, base_hash = [], require_one_base(first.base_hash, second.base_hash, "the second model")
    for model in (first, second):
        if space is not None:
            points.append(space.coefficients_of(model).cpu())
        elif model.coefficients is not None and model.space == first.space:
            points.append(model.coefficients)
        else:
            raise InputError(
                "interpolation between models that are no points of one space: expected two model"
                " files of one space, or the space to project them into"
            )
    m = max(map(len, points))
    points = [torch.nn.functional.pad(point, (0, m - len(point))) for point in points]
    origin = {
        "verb": "interpolate",
        "first": dict(first.origin),
        "second": dict(second.origin),
        "share": share,
    }
    middle = interpolate(points[0], points[1], share)
    return Model(
        first.layout,
        coefficients=middle,
        space=first.space if space is None else space.hash,
        base_hash=base_hash or ("" if space is None else space.base_hash),
        origin=origin,
    )


def _weights(model: Model, space: WeightSpace | None) -> Tensor:
    if model.weights is not None:
        return model.weights
    if space is None or space.hash != model.space:
        raise InputError(f"a point of space {model.space} without weights: expected its space")
    return space.weights_of(model).cpu()


Parts = dict[str, tuple[float, Tensor, Tensor]]


def _parts(weights: Tensor, layout: WeightLayout) -> Parts:
    """Return (alpha / rank, A, B) of every layer, in float64."""
    if weights.shape != (layout.num_parameters,):
        raise InputError(
            f"weights of shape {list(weights.shape)}: expected [{layout.num_parameters}], one LoRA"
            " of its layout"
        )
    weights = weights.detach().cpu().double()
    return {
        module.name: (
            layout.scale,
            weights[span_A].view(layout.rank, module.in_features),
            weights[span_B].view(module.out_features, layout.rank),
        )
        for module, span_A, span_B in layout.slices()
    }


def _of(parts: Parts, module: LoRAModule, rank: int) -> tuple[Tensor, Tensor]:
    if module.name in parts:
        return parts[module.name][1:]
    zeros = torch.zeros(rank, module.in_features, dtype=torch.float64)
    return zeros, torch.zeros(module.out_features, rank, dtype=torch.float64)


def _inner(ours: Parts, theirs: Parts) -> float:
    total = 0.0
    for name in ours.keys() & theirs.keys():
        (scale, A, B), (scale_too, A_too, B_too) = ours[name], theirs[name]
        total += scale * scale_too * float(((B.mT @ B_too) * (A @ A_too.mT)).sum())
    return total


def _union(first: WeightLayout, second: WeightLayout) -> tuple[LoRAModule, ...]:
    """Return the layers of both, sure that those of one name are one layer."""
    modules = {module.name: module for module in first.modules}
    for module in second.modules:
        ours = modules.setdefault(module.name, module)
        if ours != module:
            raise InputError(
                f"{module.name} is {ours.in_features} wide in, {ours.out_features} out in one and"
                f" {module.in_features}, {module.out_features} in the other: expected LoRAs of one"
                " base model"
            )
    return tuple(modules.values())
