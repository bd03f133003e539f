"""Several datasets become one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..models import require_one_base
from ._dataset import WeightDataset, row_info
from ._labels import merge_labels


def merge(path: Path, datasets: Sequence[WeightDataset], *, resume: bool) -> WeightDataset:
    """Do the work of `WeightDataset.merge`."""
    if not datasets:
        raise InputError("no datasets to merge: expected at least one")
    first, base_hash = datasets[0], ""
    for other in datasets:
        first.layout.require_equal(other.layout, str(other.path))
        base_hash = require_one_base(base_hash, other.base_hash, str(other.path))
    recipes: list[Any] = []
    for dataset in datasets:
        recipes += [dataset.recipe] if dataset.recipe not in recipes else []
    half = all(dataset.dtype == torch.float16 for dataset in datasets)
    names = dict.fromkeys(n for dataset in datasets for n in (*dataset.names, *dataset.failed))
    merged = WeightDataset.create(
        path,
        first.layout,
        names=list(names),
        labels=merge_labels(*(dataset._labels() for dataset in datasets)),
        label_names=tuple(dict.fromkeys(n for d in datasets for n in d.label_names)),
        base_hash=base_hash,
        recipe=recipes[0] if len(recipes) == 1 else {"merged": recipes},
        dtype=torch.float16 if half else torch.float32,
        resume=resume,
    )
    rows: set[str] = set()
    for dataset in datasets:
        rows.update(dataset.names)
        for chunk in dataset.blocks().chunks():
            info = dataset._read(lambda now, chunk=chunk: row_info(now, chunk))
            merged.append(chunk, dataset._rows(chunk), info=[info[name] for name in chunk])
    reasons = {n: r for d in datasets for n, r in d.failed.items() if n not in rows}
    merged.append((), torch.empty(0, merged.columns), failed=reasons)
    merged.finish()
    return merged
