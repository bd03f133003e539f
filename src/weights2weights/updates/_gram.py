"""Inner products of updates: exact by blocks of models, or from Kronecker sketches.

Each layer's N × N matrix is computed in the cheapest of these ways, with R = Σ ranks:

- pairs: (A Aᵀ) ∘ (B Bᵀ) over the stacked factors, summed over the ranks: R² · (in + out) / 2;
- dense: the updates themselves, some output rows at a time: N² · in · out, for large ranks;
- sketch: (S B)(A Tᵀ) with random orthonormal S and T of width k: N² · k², no longer exact and
  taken only if the exact matrix would cost more than `EXACT_OPERATIONS`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError
from ..layout import LoRAModule
from ._read import Update, modules_of

EXACT_OPERATIONS = 1e14
"""Multiply-adds above which layers are sketched: half an hour on two cores of a server."""

_WIDTHS = (512, 256, 128, 64)  # of sketches
_BLOCK_VALUES = 2**24  # of float32 computed at a time


@dataclass(frozen=True, eq=False)
class Gram:
    """Inner products of N updates.

    Attributes:
        products: ⟨ΔWᵢ, ΔWⱼ⟩, float64; the diagonal is always exact.
        sketch: width of the sketches, None if all products are exact.
        error: largest standard error of a cosine that sketching may cause; 0 if exact.
        operations: multiply-adds that it took.
    """

    products: Float[Tensor, "n n"]
    sketch: int | None
    error: float
    operations: float

    @property
    def norms(self) -> Float[Tensor, " n"]:
        """Frobenius norms of the updates."""
        return self.products.diagonal().sqrt()

    @property
    def cosines(self) -> Float[Tensor, "n n"]:
        """Cosines of the updates."""
        return self.products / self.norms[:, None] / self.norms


class Costs(NamedTuple):
    """Multiply-adds of one layer in each of the ways."""

    pairs: float
    dense: float
    sketch: float


@dataclass(frozen=True, eq=False)
class _Block:
    """One layer of some models of equal rank: A "n r in", Bᵀ "n r out" with the scale in it."""

    models: Tensor
    A: Tensor
    B: Tensor


def gram(
    updates: Sequence[Update],
    *,
    device: torch.device | str = "cpu",
    operations: float = EXACT_OPERATIONS,
    seed: int = 0,
    progress: bool = False,
) -> Gram:
    """Return the inner products of updates of any ranks, alphas and layers.

    Holds one layer of all models at a time, R · (in + out) numbers, and blocks of fixed size.

    Args:
        updates: of N models; a layer that one of them lacks counts as zero.
        device: where to compute.
        operations: multiply-adds to spend; if exact products need more, layers are sketched.
        seed: of the sketches.
        progress: show a bar on stderr.

    Raises:
        InputError: no updates.
    """
    if not updates:
        raise InputError("no updates; expected at least one")
    modules, width = modules_of(updates), _sketch_width(updates, operations)
    total = torch.zeros(len(updates), len(updates), dtype=torch.float64, device=device)
    squares, variance = torch.zeros_like(total.diagonal()), torch.zeros_like(total)
    random, spent = torch.Generator().manual_seed(seed), 0.0
    for module in tqdm(modules, unit="layer", disable=not progress):
        blocks, costs = _blocks(updates, module, device), _costs(updates, module, width or 1)
        own = _squares(blocks, squares)
        squares += own
        if width and costs.sketch < min(costs.pairs, costs.dense):
            variance += _sketch_variance(module, width) * own[:, None] * own
            _add_dense(_sketched(blocks, width, random), total)
            spent += costs.sketch
        elif costs.pairs <= costs.dense:
            _add_pairs(blocks, total)
            spent += costs.pairs
        else:
            _add_dense(blocks, total)
            spent += costs.dense
    total.diagonal().copy_(squares)
    norms = squares.sqrt().clamp(min=1e-300)
    errors = (variance.sqrt() / norms[:, None] / norms).fill_diagonal_(0)
    return Gram(total.cpu(), width, float(errors.max()), spent)


def products(
    first: Sequence[Update], second: Sequence[Update], *, device: torch.device | str = "cpu"
) -> Float[Tensor, "m n"]:
    """Return ⟨ΔWᵢ, ΔWⱼ⟩ between two lists of updates, exact, in float64.

    Layers that only one list adapts count as zero.
    """
    total = torch.zeros(len(first), len(second), dtype=torch.float64, device=device)
    shared = {module.name for module in modules_of(first)}
    for module in modules_of(second):
        if module.name in shared:
            ours, theirs = (_blocks(some, module, device) for some in (first, second))
            for a, b in product(ours, theirs):
                total[a.models[:, None], b.models] += _inner(a, b)
    return total.cpu()


def _blocks(
    updates: Sequence[Update], module: LoRAModule, device: torch.device | str
) -> list[_Block]:
    """Return a layer of all models that adapt it, in blocks of equal rank and bounded size."""
    by_rank: dict[int, list[int]] = {}
    for number, update in enumerate(updates):
        if module.name in update.factors:
            by_rank.setdefault(len(update.factors[module.name][0]), []).append(number)
    blocks = []
    for rank, numbers in sorted(by_rank.items()):
        size = max(math.isqrt(_BLOCK_VALUES) // rank, 1)
        for first in range(0, len(numbers), size):
            some = numbers[first : first + size]
            pairs = [updates[number].factors[module.name] for number in some]
            scales = torch.tensor([updates[number].layout.scale for number in some])
            A = torch.stack([A.float() for A, _ in pairs])
            B = torch.stack([B.mT.float() for _, B in pairs]) * scales[:, None, None]
            blocks.append(_Block(*(x.to(device) for x in (torch.tensor(some), A, B))))
    return blocks


def _squares(blocks: Sequence[_Block], like: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the squared norm of every model's update of a layer."""
    result = torch.zeros_like(like)
    for block in blocks:
        gram_A, gram_B = ((x @ x.mT).double() for x in (block.A, block.B))
        result[block.models] = (gram_A * gram_B).sum((1, 2))
    return result


def _inner(a: _Block, b: _Block) -> Float[Tensor, "m n"]:
    """Return the inner products of the models of two blocks."""
    entries = a.A.flatten(0, 1) @ b.A.flatten(0, 1).mT
    entries *= a.B.flatten(0, 1) @ b.B.flatten(0, 1).mT
    shape = (len(a.models), a.A.shape[1], len(b.models), b.A.shape[1])
    return entries.view(shape).sum((1, 3)).double()


def _add_pairs(blocks: Sequence[_Block], total: Float[Tensor, "n n"]) -> None:
    for a, b in combinations_with_replacement(blocks, 2):
        inner = _inner(a, b)
        total[a.models[:, None], b.models] += inner
        if a is not b:
            total[b.models[:, None], a.models] += inner.mT


def _add_dense(blocks: Sequence[_Block], total: Float[Tensor, "n n"]) -> None:
    models = torch.cat([block.models for block in blocks])
    (*_, width_in), width_out = blocks[0].A.shape, blocks[0].B.shape[2]
    step = max(_BLOCK_VALUES // (len(models) * width_in), 1)
    for first in range(0, width_out, step):
        rows = [block.B[:, :, first : first + step].mT @ block.A for block in blocks]
        flat = torch.cat([row.flatten(1) for row in rows])
        total[models[:, None], models] += (flat @ flat.mT).double()


def _sketched(blocks: Sequence[_Block], width: int, random: torch.Generator) -> list[_Block]:
    """Return factors of (S B)(A Tᵀ), whose inner products are those of B A in expectation."""
    S, T = (
        _orthonormal(features, width, random).to(blocks[0].A)
        for features in (blocks[0].B.shape[2], blocks[0].A.shape[2])
    )
    return [_Block(block.models, block.A @ T, block.B @ S) for block in blocks]


def _sketch_variance(module: LoRAModule, width: int) -> float:
    """Bound Var⟨S X Tᵀ, S Y Tᵀ⟩ / (‖X‖² ‖Y‖²): that of a rank-1 X = Y under Gaussian sketches.

    One side of width k has at most 2 / k, with equality for rank 1; orthonormal rows have less.
    """
    sides = (module.in_features, module.out_features)
    return math.prod(1 + 2 / width for features in sides if width < features) - 1


def _orthonormal(features: int, width: int, random: torch.Generator) -> Float[Tensor, "f k"]:
    """Return k random orthonormal columns, scaled so that they preserve squares on average."""
    if width >= features:
        return torch.eye(features)
    columns = torch.linalg.qr(torch.randn(features, width, generator=random)).Q
    return columns * math.sqrt(features / width)


def _costs(updates: Sequence[Update], module: LoRAModule, width: int = 1) -> Costs:
    """Return the multiply-adds of a layer in each way."""
    ranks = [len(u.factors[module.name][0]) for u in updates if module.name in u.factors]
    N, R, out, into = len(ranks), sum(ranks), module.out_features, module.in_features
    k, j = min(width, out), min(width, into)
    return Costs(
        pairs=R**2 * (into + out) / 2,
        dense=(N**2 + R) * into * out,
        sketch=N**2 * k * j + R * (k * out + j * into + k * j),
    )


def _sketch_width(updates: Sequence[Update], operations: float) -> int | None:
    """Return the widest sketch that is affordable, else the narrowest; None if none is needed."""
    modules = modules_of(updates)
    exact = {module: min(_costs(updates, module)[:2]) for module in modules}
    if sum(exact.values()) <= operations:
        return None
    for width in _WIDTHS:
        costs = (min(_costs(updates, module, width).sketch, exact[module]) for module in modules)
        if sum(costs) <= operations:
            return width
    return _WIDTHS[-1]
