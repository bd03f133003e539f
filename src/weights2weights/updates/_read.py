"""A folder of anybody's LoRAs as updates of one base model."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ..dataset import BASE, FACTS, WeightDataset, list_loras
from ..errors import InputError, W2WError
from ..formats import map_lora
from ..layout import LoRAModule, WeightLayout
from ..models import Model, is_model, load_model

Factors = tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]]


@dataclass(frozen=True, eq=False)
class Update:
    """The update of one LoRA: layout.scale · B A in every layer it adapts.

    Attributes:
        name: of the model.
        layout: its layers, rank and alpha.
        factors: module → (A "r in", B "out r"), often mapped from a file.
        base_hash: content hash of the base, "" if unknown.
        metadata: strings of the file's header.
        path: of the file or folder, if it has one of its own.
    """

    name: str
    layout: WeightLayout
    factors: Mapping[str, Factors]
    base_hash: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None

    def norm(self) -> float:
        """Return the Frobenius norm of the update, all layers together."""
        square = 0.0
        for A, B in self.factors.values():
            A, B = A.double(), B.double()
            square += float(((A @ A.mT) * (B.mT @ B)).sum())
        return self.layout.scale * math.sqrt(max(square, 0.0))


def update_of(layout: WeightLayout, weights: Float[Tensor, " d"], name: str = "") -> Update:
    """Return the update of a weight vector, as views of it."""
    factors = {
        module.name: (
            weights[A].view(layout.rank, module.in_features),
            weights[B].view(module.out_features, layout.rank),
        )
        for module, A, B in layout.slices()
    }
    return Update(name, layout, factors)


def update_of_model(model: Model) -> Update:
    """Return the update of a model that holds weights.

    Raises:
        InputError: it is a point without weights.
    """
    if model.weights is None:
        raise InputError(
            f"{model.name or 'the model'} is a point of space {model.space} and has no weights of"
            " its own; export it as a LoRA first (w2w export)"
        )
    update = update_of(model.layout, model.weights, model.name)
    return replace(update, base_hash=model.base_hash)


def read_updates(
    paths: Iterable[str | Path], *, alpha: float | None = None, progress: bool = False
) -> tuple[list[Update], dict[str, str]]:
    """Open LoRAs of any rank, alpha, format and set of layers that belong to one base.

    Args:
        paths: LoRA files and folders, model files, datasets, and folders of these.
        alpha: LoRA alpha of files that do not state it.
        progress: show a bar on stderr.

    Returns:
        the updates, sorted by name, and path → reason, one line each, of what was left out: files
        that cannot be read, other kinds of adapter, other bases, updates that are zero.

    Raises:
        InputError: nothing is there, or nothing of it can be used.
    """
    found: list[Update] = []
    refused: dict[str, str] = {}
    places = list(map(Path, paths))
    packed = [path for path in places if (path / FACTS).is_file()]
    for path in packed:
        dataset = WeightDataset.open(path)
        for name in dataset.names:
            update = update_of(dataset.layout, dataset[name], name)
            found.append(replace(update, base_hash=dataset.base_hash))
    others = [path for path in places if path not in packed]
    files = list_loras(others) if others else {}
    for name, path in tqdm(files.items(), unit="file", disable=not progress):
        try:
            found.append(_open(name, path, alpha))
        except W2WError as error:
            refused[str(path)] = str(error)
    for update in [update for update in found if not update.norm() > 0]:
        refused[update.name] = f"{update.name}: its update is zero; it was never trained"
        found.remove(update)
    refused |= _other_bases(found)
    found = sorted((u for u in found if u.name not in refused), key=lambda update: update.name)
    names = Counter(update.name for update in found)
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(f"two LoRAs are called {twice[0]!r}; rename one of them")
    if not found:
        why = next(iter(refused.values()), "expected LoRA files")
        raise InputError(f"none of {len(refused)} files can be used; the first: {why}")
    return found, refused


def _open(name: str, path: Path, alpha: float | None) -> Update:
    if path.is_file() and is_model(path):
        return replace(update_of_model(load_model(path)), name=name)
    lora = map_lora(path, alpha)
    return Update(name, lora.layout, lora.factors, lora.metadata.get(BASE, ""), lora.metadata, path)


def _other_bases(updates: Sequence[Update]) -> dict[str, str]:
    """Return name → reason of the LoRAs that were made for another base than most."""
    hashes = Counter(update.base_hash for update in updates if update.base_hash)
    usual_hash = hashes.most_common(1)[0][0] if hashes else ""
    usual = dict(_usual_modules(updates))
    refused: dict[str, str] = {}
    for update in updates:
        own = [usual[module.name] for module in update.layout.modules]
        odd = [(m, u) for m, u in zip(update.layout.modules, own, strict=True) if m != u]
        if odd:
            module, expected = odd[0]
            refused[update.name] = (
                f"{update.name}: is for another base: {module.name} maps {module.in_features} to"
                f" {module.out_features} features, in most of the LoRAs {expected.in_features} to"
                f" {expected.out_features}; put it in a folder with LoRAs of its own base"
            )
        elif update.base_hash and update.base_hash != usual_hash:
            refused[update.name] = (
                f"{update.name}: is for another base (hash {update.base_hash}), most of the LoRAs"
                f" for {usual_hash}; put it in a folder with LoRAs of its own base"
            )
    return refused


def _usual_modules(updates: Sequence[Update]) -> dict[str, LoRAModule]:
    """Return every layer as most of the LoRAs describe it."""
    counts: dict[str, Counter[LoRAModule]] = {}
    for update in updates:
        for module in update.layout.modules:
            counts.setdefault(module.name, Counter())[module] += 1
    return {name: count.most_common(1)[0][0] for name, count in counts.items()}


def modules_of(updates: Sequence[Update]) -> tuple[LoRAModule, ...]:
    """Return the layers that any of the updates adapts, sorted by name."""
    return tuple(module for _, module in sorted(_usual_modules(updates).items()))


def stacked(
    updates: Sequence[Update], module: str
) -> tuple[Tensor, Float[Tensor, "R i"], Float[Tensor, "R o"]]:
    """Return a layer of all updates, one below the other, in float32, scale folded into B.

    Returns:
        the number of the model that each row belongs to, the rows of A and those of Bᵀ.
    """
    owners, As, Bs = [], [], []
    for number, update in enumerate(updates):
        if module in update.factors:
            A, B = update.factors[module]
            owners += [number] * len(A)
            As.append(A.float())
            Bs.append(update.layout.scale * B.mT.float())
    return torch.tensor(owners), torch.cat(As), torch.cat(Bs)
