"""LoRA files of others become rows of a dataset."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..errors import InputError, W2WError
from ..formats import LoRAFile, load_lora
from ._dataset import WeightDataset
from ._labels import check_labels

# Files whose name says nothing, because programs look for it; their folder has the name.
_UNNAMED = {"adapter_model.safetensors", "pytorch_lora_weights.safetensors"}

_BATCH_BYTES = 64 << 20


@dataclass
class Imported:
    """What became of LoRA files that were to be imported.

    Attributes:
        dataset: that they went to; None if no file could be read and there was none before.
        added: names of new rows.
        known: names of rows that were there already, with the same weights.
        refused: file → why it was left out, in one line.
        bases: base model named in a file ("" for none) → number of rows added.
    """

    dataset: WeightDataset | None = None
    added: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    refused: dict[Path, str] = field(default_factory=dict)
    bases: Counter[str] = field(default_factory=Counter)


def import_loras(
    files: Iterable[str | Path],
    path: str | Path,
    *,
    alpha: float | None = None,
    base: str | None = None,
    labels: Any = None,
    dtype: torch.dtype = torch.float32,
    progress: bool = False,
) -> Imported:
    """Read LoRA files of any known format into a dataset, one row each.

    The dataset that is at `path`, or else the first file that can be read, sets the layout. A file
    of another layout is left out and told: rows of one dataset must mean the same, number by
    number, and resizing a LoRA is not for this function to guess. Files that cannot be read, and
    names that are taken by other weights, are left out and told as well; the others go on. To
    repeat an import is safe, and continues one that was cut short.

    Args:
        files: LoRA files; PEFT and diffusers folders; folders of these, of which all are taken. A
            row is named after its file, or its folder if the file has the name that programs look
            for; names that come twice get their folder in front.
        path: of the dataset, new or not.
        alpha: LoRA alpha of files that do not state it.
        base: a name for the base model of a new dataset, in place of the one in the first file.
        labels: of rows, as for `WeightDataset.append`; those of other names are left out.
        dtype: of a new dataset.
        progress: show a bar on stderr.

    Raises:
        W2WError: no files; a dataset at `path` that is damaged, or a folder that is none; labels
            that are none; a failure to write.
    """
    named = _names(_expand(map(Path, files)))
    known_labels = check_labels(labels)
    path, outcome = Path(path), Imported()
    if (path / "manifest.json").exists():
        outcome.dataset = WeightDataset.open(path)
    batch: dict[str, tuple[Path, LoRAFile]] = {}
    for name, file in tqdm(named.items(), unit="file", disable=not progress):
        try:
            lora = load_lora(file, alpha)
        except W2WError as error:
            outcome.refused[file] = str(error)
            continue
        if outcome.dataset is None:
            layout = lora.layout if base is None else replace(lora.layout, base=base)
            recipe = {"origin": "imported LoRA files"}
            outcome.dataset = WeightDataset.create(path, layout, recipe=recipe, dtype=dtype)
        dataset = outcome.dataset
        if reason := _mismatch(dataset, name, lora):
            outcome.refused[file] = f"{file}{reason}"
        elif name in dataset:
            outcome.known.append(name)
        else:
            batch[name] = (file, lora)
            if len(batch) * 4 * dataset.columns >= _BATCH_BYTES:
                _store(dataset, batch, outcome)
    if outcome.dataset is None:
        return outcome
    _store(outcome.dataset, batch, outcome)
    outcome.dataset.label({n: row for n, row in known_labels.items() if n in outcome.dataset})
    if not outcome.dataset.pending():
        outcome.dataset.finish()
    return outcome


def _expand(paths: Iterable[Path]) -> list[Path]:
    """Put what is in a folder of LoRAs in the place of the folder, in the order of the names."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir() or _is_lora_folder(path):
            files.append(path)
            continue
        inside = sorted(path.iterdir())
        loras = [p for p in inside if p.suffix == ".safetensors" or _is_lora_folder(p)]
        if not loras:
            raise InputError(f"{path} is a folder without LoRAs: expected .safetensors files in it")
        files += loras
    if not files:
        raise InputError("no files to import: expected LoRA files or folders")
    return list({os.path.abspath(file): file for file in files}.values())


def _is_lora_folder(path: Path) -> bool:
    return any((path / name).is_file() for name in _UNNAMED)


def _names(files: Sequence[Path]) -> dict[str, Path]:
    """Name every file by as few of the last parts of its path as tell it from the others."""
    parts = {file: _name_parts(file) for file in files}
    depths = dict.fromkeys(parts, 1)
    while True:
        names = {file: "/".join(parts[file][-depth:]) for file, depth in depths.items()}
        count = Counter(names.values())
        clashing = [f for f, name in names.items() if count[name] > 1 and depths[f] < len(parts[f])]
        if not clashing:
            break
        for file in clashing:
            depths[file] += 1
    for name in names.values():
        if count[name] > 1:
            same = " and ".join(str(file) for file in names if names[file] == name)
            raise InputError(
                f"{same} would have one name: expected each its own; rename one of them"
            )
    return {name: file for file, name in names.items()}


def _name_parts(file: Path) -> tuple[str, ...]:
    whole = Path(os.path.abspath(file))
    named = whole.parent if whole.name in _UNNAMED else whole
    last = named.stem if named.suffix == ".safetensors" else named.name
    return (*named.parts[1:-1], last)


def _mismatch(dataset: WeightDataset, name: str, lora: LoRAFile) -> str:
    """Say why a LoRA cannot become a row, or nothing if it can."""
    if difference := dataset.layout.difference(lora.layout):
        return f" has another layout: {difference}; rows of {dataset.path} must mean the same"
    weights = lora.weights.to(dataset.dtype)
    if not torch.isfinite(weights).all():
        return " has weights beyond float16: expected at most 65504; import it as float32"
    if name in dataset and not torch.equal(dataset[name], weights.float()):
        return f": {dataset.path} holds other weights as {name!r}; rename the file"
    return ""


def _store(
    dataset: WeightDataset, batch: dict[str, tuple[Path, LoRAFile]], outcome: Imported
) -> None:
    """Append what was read; leaves the batch empty."""
    if not batch:
        return
    info = [
        {"file": file.name, "format": lora.format, "base": lora.layout.base}
        for file, lora in batch.values()
    ]
    weights = torch.stack([lora.weights.float() for _, lora in batch.values()])
    dataset.append(list(batch), weights, info=info)
    outcome.added += batch
    outcome.bases.update(lora.layout.base for _, lora in batch.values())
    batch.clear()
