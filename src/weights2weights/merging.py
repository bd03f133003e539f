"""Merging a model with a LoRA of another kind: one LoRA whose update is the sum of two.

Adding the *vectors* of two LoRAs would also add the products B·A′ and B′·A. The sum of the updates
B·A and B′·A′ is a LoRA of both ranks: A stacked on A′, B next to B′ (Dravid et al. 2024, appendix
H, Fig. 33). Two points of one space share its mean, which a sum counts twice: they interpolate.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import InputError
from .layout import LoRAModule, WeightLayout
from .models import Model, require_one_base
from .opening import Models, Space, one_model, open_space, stack_models
from .updates import sum_updates, update_of


def merge(
    first: Models,
    second: Models,
    *,
    weight: float = 1.0,
    rank: int | None = None,
    space: Space | None = None,
) -> Model:
    """Merge a model with one of another kind.

    Args:
        first: a subject, in any form that `generate` takes.
        second: a style, a slider, or a subject of another space.
        weight: of the second; negative subtracts it.
        rank: of the result, the nearest LoRA of that rank; None keeps the sum of both, exactly.
        space: of points; opened only if it is needed.

    Returns:
        a model with weights; see `merge_weights`. Its origin names both models, the cosine of their
        updates and the share of the energy of their sum that the rank keeps.

    Raises:
        InputError: both are points of one space, which do not merge; a point without its space;
            models of two bases; as `merge_weights`.
    """
    one, two = one_model(first, space=space), one_model(second, space=space)
    if one.space and one.space == two.space:
        raise InputError(
            f"both models are points of space {one.space}, and merging them would only interpolate"
            " between them: expected a LoRA of another kind, or interpolate (--interpolate 0.5)"
        )
    base_hash = require_one_base(one.base_hash, two.base_hash, "the second model")
    (ours, (first,)), (theirs, (second,)) = (stack_models(x, space=space) for x in (one, two))
    layout, weights = merge_weights(ours, first, theirs, second, weight=weight)
    angle = cosine(ours, first, theirs, second)
    origin = {"verb": "merge", "first": dict(one.origin), "second": dict(two.origin)}
    origin |= {"weight": weight, "cosine": angle}
    if rank is not None:
        whole = [update_of(layout, weights)]
        layout, (weights,), kept = sum_updates(whole, torch.ones(1, 1), rank, base=layout.base)
        origin["energy_kept"] = float(kept)
    return Model(layout, weights=weights, base_hash=base_hash, origin=origin)


def interpolate(
    first: Models, second: Models, share: float = 0.5, *, space: Space | None = None
) -> Model:
    """Return the model between two points of a space: first + share · (second − first).

    This mixes two subjects into a third; it does not show both.

    Args:
        first: a point; or a LoRA, which is then projected into `space`.
        second: likewise.
        share: 0 is the first, 1 the second; values outside extrapolate.
        space: in which to interpolate; not needed for two `Model`s or files of one space.

    Raises:
        InputError: not two points of one space, models of two bases, a share that is not finite.
    """
    if not math.isfinite(share):
        raise InputError(f"share {share} of an interpolation: expected a finite number")
    one, two = one_model(first, space=space), one_model(second, space=space)
    base_hash = require_one_base(one.base_hash, two.base_hash, "the second model")
    if one.coefficients is not None and two.coefficients is not None and one.space == two.space:
        a, b, place, layout = one.coefficients, two.coefficients, one.space, one.layout
    elif space is not None:
        opened = open_space(space)
        a, b = (opened.coefficients_of(model).cpu() for model in (one, two))
        base_hash = base_hash or opened.base_hash
        place, layout = opened.hash, opened.layout
    else:
        raise InputError(
            "the models are not points of one space: expected two model files of one space, or the"
            " space to project them into as space=… (--space)"
        )
    a, b = torch.nn.utils.rnn.pad_sequence([a, b], batch_first=True)
    point, origins = (
        torch.lerp(a, b, share),
        {"first": dict(one.origin), "second": dict(two.origin)},
    )
    origin = {"verb": "interpolate", **origins, "share": share}
    return Model(layout, coefficients=point, space=place, base_hash=base_hash, origin=origin)


def merge_weights(
    first_layout: WeightLayout,
    first: Float[Tensor, " d"],
    second_layout: WeightLayout,
    second: Float[Tensor, " e"],
    *,
    weight: float = 1.0,
) -> tuple[WeightLayout, Float[Tensor, " f"]]:
    """Return one LoRA whose update of every layer is that of the first plus weight × the second's.

    Args:
        first_layout: layout of the first.
        first: weights of a LoRA.
        second_layout: layout of the second: any rank, alpha and set of layers on the same base.
        second: weights of another LoRA.
        weight: of the second; negative subtracts it.

    Returns:
        (layout, weights): float32, of the sum of both ranks on the layers of both. The factor
        alpha / rank is that of the first, whose entries are unchanged; a layer that only one of
        them adapts has zeros for the other.

    Raises:
        InputError: weights that are not of their layout, layers of one name and different width, a
            weight that is not finite.
    """
    if not math.isfinite(weight):
        raise InputError(f"weight {weight} of a merge: expected a finite number")
    rank = first_layout.rank + second_layout.rank
    base = first_layout.base or second_layout.base
    modules = _union(first_layout, second_layout)
    layout = WeightLayout(modules, rank, first_layout.scale * rank, base)
    ours = _factors(first_layout, first, layout.modules)
    theirs = _factors(second_layout, second, layout.modules)
    factor = weight * second_layout.scale / first_layout.scale
    rows = []
    for (A, B), (A_too, B_too) in zip(ours, theirs, strict=True):
        rows += [torch.cat([A, A_too]).flatten(), torch.cat([B, factor * B_too], 1).flatten()]
    return layout, torch.cat(rows).float()


def cosine(
    first_layout: WeightLayout,
    first: Float[Tensor, " d"],
    second_layout: WeightLayout,
    second: Float[Tensor, " e"],
) -> float:
    """Return the cosine of the updates of two LoRAs, taking all layers' B · A as one long vector.

    Near 0, their merge does what both do; near 1 they are of the same kind. No product is formed:
    ⟨B A, B′ A′⟩ is the sum of the entries of (Bᵀ B′) ∘ (A A′ᵀ). An update of 0 has cosine 0.

    Raises:
        InputError: as `merge_weights`.
    """
    modules = _union(first_layout, second_layout)
    ours, theirs = _factors(first_layout, first, modules), _factors(second_layout, second, modules)
    size = _inner(ours, ours) * _inner(theirs, theirs)
    return _inner(ours, theirs) / math.sqrt(size) if size > 0 else 0.0


Factors = list[tuple[Tensor, Tensor]]


def _factors(layout: WeightLayout, weights: Tensor, modules: Sequence[LoRAModule]) -> Factors:
    """Return A and B for every layer in float64, zeros where the LoRA has none."""
    if weights.shape != (layout.num_parameters,):
        raise InputError(
            f"weights of shape {list(weights.shape)}: expected [{layout.num_parameters}], one LoRA"
            " of their layout"
        )
    weights = weights.detach().cpu().double()
    spans = {module.name: (A, B) for module, A, B in layout.slices()}
    factors = []
    for module in modules:
        shapes = (layout.rank, module.in_features), (module.out_features, layout.rank)
        own = [weights[span] for span in spans.get(module.name, ())]
        A, B = own or [weights.new_zeros(math.prod(shape)) for shape in shapes]
        factors.append((A.view(shapes[0]), B.view(shapes[1])))
    return factors


def _inner(ours: Factors, theirs: Factors) -> float:
    return sum(
        float(((B.mT @ B_too) * (A @ A_too.mT)).sum())
        for (A, B), (A_too, B_too) in zip(ours, theirs, strict=True)
    )


def _union(first: WeightLayout, second: WeightLayout) -> tuple[LoRAModule, ...]:
    """Return the layers of both; those of one name must be one layer."""
    modules = {module.name: module for module in first.modules}
    for module in second.modules:
        ours = modules.setdefault(module.name, module)
        if ours != module:
            raise InputError(
                f"{module.name} maps {ours.in_features} to {ours.out_features} features in one and"
                f" {module.in_features} to {module.out_features} in the other: expected LoRAs of"
                " one base model"
            )
    return tuple(modules.values())
