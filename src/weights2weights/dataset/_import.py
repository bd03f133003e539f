"""LoRA files from elsewhere become rows of a dataset."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..errors import InputError
from ..formats import LoRAFile, load_lora
from ..labels import find_labels, read_labels
from ..models import require_one_base
from ._dataset import WeightDataset
from ._folder import FACTS, IN_FOLDERS, list_rows, row_name
from ._rows import BASE, SEED, read_info


@dataclass
class Imported:
    """What became of the LoRA files of an import.

    Attributes:
        dataset: where they went; None if no file could be read and there was none before.
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
    progress: bool = False,
) -> Imported:
    """Copy LoRA files of any known format into a dataset, one row each; merge datasets.

    The dataset at `path`, or else the first file that can be read, sets the layout. Files of
    another layout, files that cannot be read and names taken by other weights are left out and
    listed; the rest go in. Repeating an import is safe, and continues one that was cut short.

    Args:
        files: LoRA files, PEFT and diffusers folders, and folders of these with their label table.
            A row is named after its file, or its folder if the file has the name that programs
            look for; duplicate names get their folder in front.
        path: the dataset, new or not.
        alpha: LoRA alpha of files that do not state it.
        base: a name for the base model of a new dataset, in place of the one in the first file.
        labels: of rows, as for `WeightDataset.label`.
        progress: show a bar on stderr.

    Raises:
        InputError: no files; no usable dataset at `path`; values that are not labels.
        ResourceError: the dataset cannot be written.
    """
    paths = list(map(Path, files))
    named = list_loras(paths)
    path, outcome = Path(path), Imported()
    if (path / FACTS).exists():
        outcome.dataset = WeightDataset.open(path)
    for name, file in tqdm(named.items(), unit="file", disable=not progress):
        try:
            lora = load_lora(file, alpha)
        except InputError as error:
            outcome.refused[file] = str(error)
            continue
        if outcome.dataset is None:
            layout = lora.layout if base is None else replace(lora.layout, base=base)
            recipe, base_hash = {"origin": "imported LoRA files"}, lora.metadata.get(BASE, "")
            outcome.dataset = WeightDataset.create(path, layout, base_hash=base_hash, recipe=recipe)
        try:
            _take(outcome.dataset, name, file, lora, outcome)
        except InputError as error:
            outcome.refused[file] = str(error)
    if outcome.dataset is not None:
        renamed = {os.path.abspath(file): name for name, file in named.items()}
        for folder in filter(Path.is_dir, paths):
            if table := find_labels(folder):
                inside = {row: os.path.abspath(file) for row, file in list_rows(folder).items()}
                names = {row: renamed.get(file, row) for row, file in inside.items()}
                outcome.dataset.label(read_labels(table).rename(index=names))
        if labels is not None:
            outcome.dataset.label(labels)
    return outcome


def list_loras(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Return name → LoRA file or folder of paths as for `import_loras`; names are unique.

    Raises:
        InputError: no files; two files of one name in folders of one name.
    """
    return _names(_expand(list(map(Path, paths))))


def _take(dataset: WeightDataset, name: str, file: Path, lora: LoRAFile, outcome: Imported) -> None:
    """Write one LoRA as a row, unless it is there."""
    if difference := dataset.layout.difference(lora.layout):
        raise InputError(
            f"{file} has another layout: {difference}; all rows of {dataset.path} have one"
        )
    require_one_base(dataset.base_hash, lora.metadata.get(BASE, ""), str(file))
    if name in dataset:
        if not torch.equal(dataset[name], lora.weights.float()):
            raise InputError(f"{file}: {dataset.path} holds other weights as {name!r}; rename it")
        outcome.known.append(name)
        return
    seed = lora.metadata.get(SEED, "")
    info = read_info(file) if file.is_file() else {}
    info = info or {"file": file.name, "format": lora.format, "base": lora.layout.base}
    dataset.write(name, lora.weights, seed=int(seed) if seed.isdecimal() else None, info=info)
    outcome.added.append(name)
    outcome.bases[lora.layout.base] += 1


def _expand(paths: Iterable[Path]) -> list[Path]:
    """Put what is in a folder of LoRAs in the place of the folder, in the order of the names."""
    files: list[Path] = []
    for path in paths:
        folder = path.is_dir() and not any((path / name).is_file() for name in IN_FOLDERS)
        inside = list(list_rows(path).values()) if folder else [path]
        if not inside:
            raise InputError(f"{path} is a folder without LoRAs: expected .safetensors files in it")
        files += inside
    if not files:
        raise InputError("no files to import: expected LoRA files or folders")
    return list({os.path.abspath(file): file for file in files}.values())


def _names(files: Sequence[Path]) -> dict[str, Path]:
    """Name every file by its stem, with its folder in front where that is not unique."""
    whole = [Path(os.path.abspath(file)) for file in files]
    named = [path.parent if path.name in IN_FOLDERS else path for path in whole]
    count = Counter(row_name(path.name) for path in named)
    names: dict[str, Path] = {}
    for file, path in zip(files, named, strict=True):
        stem = row_name(path.name)
        name = stem if count[stem] == 1 else f"{path.parent.name}/{stem}"
        if name in names:
            raise InputError(f"{names[name]} and {file} would both be {name!r}; rename one of them")
        names[name] = file
    return names
