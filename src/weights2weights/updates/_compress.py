"""Sums of updates as one LoRA of a chosen rank."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..layout import WeightLayout
from ._read import Update, modules_of, stacked

_OVERSAMPLING, _POWERS = 10, 4  # of the randomised SVD


def sum_updates(
    updates: Sequence[Update],
    factors: Float[Tensor, "n u"],
    rank: int | None = None,
    *,
    base: str = "",
) -> tuple[WeightLayout, Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """Return Σⱼ factors[i, j] · ΔWⱼ as LoRAs of one rank, the nearest ones in every layer.

    Args:
        updates: of any ranks, alphas and layers.
        factors: a row of factors for each sum.
        rank: of the result; default: the sum of all ranks, at most the width of the widest layer,
            which loses nothing.
        base: a name for the base model.

    Returns:
        layout with alpha = rank, float32 weights, and the share of each sum's energy ‖ΔW‖² that is
        kept.
    """
    modules = modules_of(updates)
    if rank is None:
        whole = sum(update.layout.rank for update in updates)
        widest = max(min(module.in_features, module.out_features) for module in modules)
        rank = min(whole, widest)
    layout = WeightLayout(modules, rank, float(rank), base)
    weights = torch.zeros(len(factors), layout.num_parameters)
    kept, energy = torch.zeros(2, len(factors), dtype=torch.float64)
    for module, span_A, span_B in layout.slices():
        owners, A, B = stacked(updates, module.name)
        for row, each in enumerate(factors.to(B)):
            near_A, near_B, part, whole = compress(A, each[owners, None] * B, rank)
            weights[row, span_A], weights[row, span_B] = near_A.flatten(), near_B.flatten()
            kept[row] += part
            energy[row] += whole
    return layout, weights, kept / energy.clamp(min=1e-300)


def compress(
    A: Float[Tensor, "R i"], B: Float[Tensor, "R o"], rank: int
) -> tuple[Float[Tensor, "r i"], Float[Tensor, "o r"], float, float]:
    """Return the best factors of rank r of Bᵀ A: by QR of both and the SVD of the small core.

    Where R exceeds the widths, the product itself is decomposed, by subspace iteration if r is
    small, which finds the leading r to within rounding or a fraction of the smallest kept value.

    Returns:
        A and B with equal norms, zeros beyond the rank of the product; its energy in them; all of
        its energy.
    """
    (R, into), out = A.shape, B.shape[1]
    if min(into, out) >= R:
        (left, core_B), (right, core_A) = torch.linalg.qr(B.mT), torch.linalg.qr(A.mT)
        core = core_B @ core_A.mT
    else:
        core, left, right = B.mT @ A, None, None
    energy = float(core.double().square().sum())
    if 4 * (rank + _OVERSAMPLING) < min(core.shape):
        left_core, values, right_core = _leading(core, rank)
    else:
        left_core, values, right_core = torch.linalg.svd(core, full_matrices=False)
    r = min(rank, len(values))
    left_core, values, right_core = left_core[:, :r], values[:r], right_core[:r]
    left = left_core if left is None else left @ left_core
    right = right_core if right is None else right_core @ right.mT
    near_A, near_B = A.new_zeros(rank, into), B.new_zeros(out, rank)
    near_A[:r], near_B[:, :r] = values.sqrt()[:, None] * right, left * values.sqrt()
    return near_A, near_B, float(values.double().square().sum()), energy


def _leading(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading singular triplets (Halko et al. 2011, algorithm 4.4 and 5.1)."""
    random = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], rank + _OVERSAMPLING, generator=random).to(matrix)
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(_POWERS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.mT @ basis).Q).Q
    left, values, right = torch.linalg.svd(basis.mT @ matrix, full_matrices=False)
    return basis @ left, values, right
