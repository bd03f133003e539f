"""`UpdateSpace`: anybody's LoRAs as points, whatever their rank, seed and trainer."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from .._json import parse_json
from .._safetensors import Streamed, open_checked, write_safetensors
from ..errors import InputError
from ..labels import tidy_labels
from ..layout import WeightLayout
from ..models import Model, require_one_base
from ..updates import (
    EXACT_OPERATIONS,
    Update,
    gram,
    modules_of,
    products,
    stacked,
    sum_updates,
    update_of,
    update_of_model,
)
from . import _store
from ._hub import UPDATES
from ._space import WeightSpace, digest

RANK = 32
"""Default rank of the LoRAs that points become."""

_ZERO = 1e-9  # of the total variance; components with less are rounding


@dataclass(frozen=True, eq=False, repr=False)
class UpdateSpace(WeightSpace):
    """A space over the updates ΔW = (alpha / rank) · B A of N LoRAs of any rank, seed and trainer.

    Every training update is divided by its norm, which is what alphas and trainers decide, and
    principal components are taken of these unit updates, from their inner products alone. A point
    c is the update Σᵢ (1 / N + (c @ components)ᵢ) · ΔWᵢ / ‖ΔWᵢ‖ · `norm`; it becomes a LoRA of the
    rank of `layout` by a singular value decomposition of every layer. In the fields that a
    `WeightSpace` has too, the training updates take the place of the d parameters:

    Attributes:
        layout: of the LoRAs that points become; its rank can be chosen freely (`with_rank`).
        mean: "N", mean cosine of each training update with all of them.
        std: "N", norms of the training updates.
        components: "m N", factors of the unit updates; rows sum to 0.
        updates: the N training updates.
    """

    updates: tuple[Update, ...] = ()

    @property
    def width(self) -> int:
        """Number N of training updates, the width of the components."""
        return len(self.updates)

    @cached_property
    def hash(self) -> str:
        """16 hex digits that identify the coordinates, whatever the rank of the layout."""
        plain = replace(self.layout, rank=1, alpha=1.0)
        return digest(self.mean, self.std, salt=plain.hash + self.fit_id)

    @cached_property
    def norm(self) -> float:
        """Norm of a typical training update, the geometric mean; points are scaled to it."""
        return float(self.std.double().log().mean().exp())

    def with_rank(self, rank: int) -> "UpdateSpace":
        """Return the space whose points become LoRAs of another rank; the hash stays the same."""
        return replace(self, layout=replace(self.layout, rank=rank, alpha=float(rank)))

    # Points and weights.

    def project_updates(self, updates: Sequence[Update]) -> Float[Tensor, "n m"]:
        """Return the coefficients of LoRAs of any rank, each scaled to norm 1 first.

        A LoRA shows what it learned through its own A alone: the wider the layers, the more of an
        update that is not among the training updates is orthogonal to all of them.

        Raises:
            InputError: an update of zero, or of another base.
        """
        norms = self._norms(updates)
        cosines = products(updates, self.updates) / norms[:, None] / self.std.double()
        return ((cosines - self.mean) @ self.components.mT.double()).float()

    def project(self, weights: Any) -> Float[Tensor, "*batch m"]:
        """Return the coefficients of LoRAs of this space's layout; see `project_updates`."""
        rows = torch.as_tensor(weights)
        self.layout.unflatten(rows)  # raises unless they fit
        flat = rows.reshape(-1, rows.shape[-1]).float().cpu()
        points = self.project_updates([update_of(self.layout, row) for row in flat])
        return points.view(*rows.shape[:-1], len(self))

    def mixtures(self, coefficients: Any) -> Float[Tensor, "*batch n"]:
        """Return the factors of the training updates ΔWᵢ that points stand for."""
        points = torch.as_tensor(coefficients).double().cpu()
        if points.shape[-1] > len(self):
            raise InputError(f"{points.shape[-1]} coefficients, expected at most {len(self)}")
        shares = 1 / self.width + points @ self.components[: points.shape[-1]].double()
        return shares * self.norm / self.std.double()

    def to_lora(
        self, coefficients: Float[Tensor, "n j"], rank: int | None = None
    ) -> tuple[WeightLayout, Float[Tensor, "n d"], Float[Tensor, " n"]]:
        """Return points as LoRAs of a rank: their layout, weights and the share of energy kept."""
        factors = self.mixtures(coefficients)
        return sum_updates(self.updates, factors, rank or self.layout.rank, base=self.layout.base)

    def to_weights(self, coefficients: Any) -> Float[Tensor, "*batch d"]:
        """Return points as weight vectors of `layout`; not differentiable, see `linear`."""
        points = torch.as_tensor(coefficients)
        _, weights, _ = self.to_lora(points.reshape(-1, points.shape[-1]))
        return weights.view(*points.shape[:-1], -1)

    def relative_residual(self, weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return the share of updates outside the space, from 0 to 1, by their norms."""
        rows = torch.as_tensor(weights)
        updates = [update_of(self.layout, row) for row in rows.reshape(-1, rows.shape[-1]).float()]
        cosines = products(updates, self.updates) / self._norms(updates)[:, None]
        cosines = cosines / self.std.double()
        whole = 1 - 2 * cosines.mean(1) + self.mean.double().mean()
        inside = ((cosines - self.mean) @ self.components.mT.double()).square().sum(1)
        return (1 - inside / whole).clamp(min=0).sqrt().view(rows.shape[:-1])

    def _norms(self, updates: Sequence[Update]) -> Float[Tensor, " n"]:
        known = {module.name: module for module in self.layout.modules}
        for update in updates:
            for module in update.layout.modules:
                if known.get(module.name, module) != module:
                    raise InputError(
                        f"{update.name or 'the model'} is for another base: {module.name} maps"
                        f" {module.in_features} to {module.out_features} features, in this space"
                        f" {known[module.name].in_features} to {known[module.name].out_features}"
                    )
        norms = torch.tensor([update.norm() for update in updates], dtype=torch.float64)
        if not (norms > 0).all():
            raise InputError("an update is zero: the LoRA was never trained")
        return norms

    # Models.

    def coefficients_of(self, model: Model) -> Float[Tensor, " m"]:
        """Return the point of a model: its coefficients in this space, or its weights projected."""
        require_one_base(self.base_hash, model.base_hash, model.name or "the model")
        if model.coefficients is not None and model.space == self.hash:
            return pad(model.coefficients.cpu(), (0, len(self) - len(model.coefficients)))
        return self.project_updates([update_of_model(model)])[0]

    def moved(
        self, layout: WeightLayout, weights: Float[Tensor, "*batch d"], shift: Float[Tensor, " j"]
    ) -> tuple[WeightLayout, Float[Tensor, "*batch e"]]:
        """Return LoRAs of any layout whose points are shifted, at this space's rank or their own.

        The shift is scaled to the norm of each update; what lies outside the space stays.
        """
        shares = shift.double().cpu() @ self.components[: len(shift)].double() / self.std.double()
        rows = weights.reshape(-1, weights.shape[-1]).float().cpu()
        own = [update_of(layout, row) for row in rows]
        factors = torch.cat([torch.eye(len(own)), self._norms(own)[:, None] * shares], 1)
        rank = max(self.layout.rank, layout.rank)
        into, moved, _ = sum_updates([*own, *self.updates], factors, rank, base=self.layout.base)
        return into, moved.view(*weights.shape[:-1], -1).to(weights)

    def linear(self, components: int) -> WeightSpace:
        """Return the first components as a space whose weights are linear in its points.

        Every layer has the identity as A and whole updates as B, so that its points can be searched
        by gradients: memory is components × Σ in · out. The coordinates are those of this space.
        """
        widest = max(module.in_features for module in self.layout.modules)
        layout = WeightLayout(self.layout.modules, widest, float(widest), self.layout.base)
        mean, rows = (
            torch.zeros(layout.num_parameters),
            torch.zeros(components, layout.num_parameters),
        )
        factors = self.components[:components].double() * self.norm / self.std.double()
        center = (self.norm / self.width / self.std).float()
        for module, span_A, span_B in layout.slices():
            owners, A, B = stacked(self.updates, module.name)
            mean[span_A].view(widest, -1).fill_diagonal_(1.0)
            shape = (module.out_features, widest)
            mean[span_B].view(shape)[:, : module.in_features] = (center[owners, None] * B).mT @ A
            for row, each in zip(rows, factors.float(), strict=True):
                row[span_B].view(shape)[:, : module.in_features] = (each[owners, None] * B).mT @ A
        return WeightSpace(
            layout,
            mean,
            torch.ones(len(mean)),
            rows,
            self.coefficients[:, :components],
            self.names,
            self.labels,
            self.base_hash,
            metadata=self.metadata,
        )

    # Saving.

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Save the space, with the factors of its training updates, and return the folder.

        Args:
            folder: made if absent; a space in it is replaced.
            dtype: of the factors on disk; default: float16 if all were read as that, else float32.
        """
        if dtype not in (None, torch.float32, torch.float16):
            raise InputError(f"dtype is {dtype}, expected float32 or float16 for the factors")
        _store.write(Path(folder), self, None, lambda path: _write_updates(path, self, dtype))
        return Path(folder)


def fit_updates(
    updates: Sequence[Update],
    components: int = 1000,
    *,
    labels: Any = None,
    rank: int | None = None,
    device: torch.device | str = "cpu",
    operations: float = EXACT_OPERATIONS,
    progress: bool = False,
) -> UpdateSpace:
    """Fit a space to the updates of LoRAs of any rank, alpha, seed and trainer.

    Costs one Gram matrix (`updates.gram`) and the eigenvectors of it.

    Args:
        updates: the training models, as `read_updates` returns them.
        components: m; at most N − 1 are kept.
        labels: a table indexed by name.
        rank: of the LoRAs that points become; default: 32, or that of the widest layer.
        device: where to compute the inner products.
        operations: multiply-adds after which inner products are sketched; see `gram`.
        progress: show a bar on stderr.

    Raises:
        InputError: fewer than two different updates, or no components.
    """
    if len(updates) < 2 or components < 1:
        raise InputError(
            f"{len(updates)} LoRAs and {components} components: expected at least two LoRAs and one"
            " component"
        )
    found = gram(updates, device=device, operations=operations, progress=progress)
    cosines = found.cosines
    mean = cosines.mean(1)
    centred = cosines - mean - mean[:, None] + mean.mean()
    values, vectors = (x.flip(-1) for x in torch.linalg.eigh(centred))
    total = float(values.clamp(min=0).sum())
    kept = min(int((values > _ZERO * len(updates)).sum()), components, len(updates) - 1)
    if not kept:
        raise InputError(
            f"the {len(updates)} LoRAs are all the same model; expected different ones"
        )
    values, vectors = values[:kept], vectors[:, :kept]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    vectors = vectors * largest.sign()
    modules, names = modules_of(updates), [update.name for update in updates]
    widest = max(min(module.in_features, module.out_features) for module in modules)
    rank = rank or min(RANK, widest)
    bases = [update.layout.base for update in updates if update.layout.base]
    base = max(sorted(set(bases)), key=bases.count, default="")
    base_hash = next((update.base_hash for update in updates if update.base_hash), "")
    metadata = {
        "of": "updates",
        "captured_variance": float(values.sum()) / total,
        "error_bound": 0.0,
        "sketch": found.sketch,
        "cosine_error": found.error,
        "ranks": sorted({update.layout.rank for update in updates}),
    }
    return UpdateSpace(
        WeightLayout(modules, rank, float(rank), base),
        mean.float(),
        found.norms.float(),
        (vectors / values.sqrt()).mT.float().contiguous(),
        coefficients=(vectors * values.sqrt()).float(),
        names=tuple(names),
        labels=tidy_labels(labels, names),
        base_hash=base_hash,
        metadata=metadata,
        updates=tuple(updates),
    )


def _write_updates(folder: Path, space: UpdateSpace, dtype: torch.dtype | None) -> dict[str, str]:
    """Write the factors of every layer, one model below the other, and return the checksum."""
    half = all(A.dtype == torch.float16 for u in space.updates for A, _ in u.factors.values())
    dtype = dtype or (torch.float16 if half else torch.float32)
    tensors: dict[str, Streamed] = {}
    for module in space.layout.modules:
        pairs = [u.factors[module.name] for u in space.updates if module.name in u.factors]
        R = sum(len(A) for A, _ in pairs)
        A, B = ([pair[part] for pair in pairs] for part in (0, 1))
        down, up = (_streamed(dtype, A), _streamed(dtype, [factor.mT for factor in B]))
        tensors[f"{module.name}.A"] = Streamed(dtype, (R, module.in_features), down)
        tensors[f"{module.name}.B"] = Streamed(dtype, (R, module.out_features), up)
    models = []
    for update in space.updates:
        lacks = [i for i, m in enumerate(space.layout.modules) if m.name not in update.factors]
        models.append([update.name, update.layout.rank, update.layout.alpha, lacks])
    header = {"models": json.dumps(models, separators=(",", ":"))}
    return {UPDATES: write_safetensors(folder / UPDATES, tensors, header)}


def _streamed(dtype: torch.dtype, factors: Sequence[Tensor]) -> Iterator[Tensor]:
    return (factor.to(dtype) for factor in factors)


def load_updates(path: Path, layout: WeightLayout) -> tuple[Update, ...]:
    """Map the training updates of a space.

    Raises:
        InputError: the file is damaged, or does not fit the layout.
    """
    try:
        with open_checked(path) as file:
            models = parse_json(file.metadata["models"], "the list of models")
            stacks = {name: file.read(name) for name in file.places}
        layouts, factors = [], [{} for _ in models]
        for _, rank, alpha, lacks in models:
            own = [m for i, m in enumerate(layout.modules) if i not in lacks]
            layouts.append(WeightLayout(tuple(own), rank, alpha, layout.base))
        for module in layout.modules:
            holders = [i for i, own in enumerate(layouts) if module in own.modules]
            ranks = [layouts[i].rank for i in holders]
            A, B = (stacks.pop(f"{module.name}.{part}").split(ranks) for part in "AB")
            for i, down, up in zip(holders, A, B, strict=True):
                factors[i][module.name] = (down, up.mT)
    except (InputError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be read ({str(error)[:200]}); download or save the space again"
        ) from error
    if stacks:
        raise InputError(f"{path} holds {next(iter(stacks))}, which the space does not have")
    named = zip(models, layouts, factors, strict=True)
    return tuple(Update(str(name), own, found) for (name, *_), own, found in named)
