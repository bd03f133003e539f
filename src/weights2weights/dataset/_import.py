"""LoRA files from elsewhere become rows of a dataset."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..errors import InputError
from ..formats import LoRAFile
from ..labels import find_labels, read_labels
from ..models import require_one_base
from ._dataset import WeightDataset
from ._folder import BASE, FACTS, IN_FOLDERS, SEED, Place, list_rows, read_facts, row_name
from ._rows import load_row, read_info


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
        files: LoRA files, PEFT and diffusers folders, and folders of these or datasets with their
            label table. A row is named after its file, or its folder if the file has the name that
            programs look for; duplicate names get their folder in front.
        path: the dataset, new or not.
        alpha: LoRA alpha of files that do not state it.
        base: a name for the base model of a new dataset, in place of the one in the first file.
        labels: of rows, as for `WeightDataset.label`.
        progress: show a bar on stderr.

    Raises:
        InputError: no files; no usable dataset at `path`; values that are not labels.
        ResourceError: the dataset cannot be written.
    """
    given = [Path(os.path.abspath(file)) for file in files]
    found, path, outcome = _find(given), Path(path), Imported()
    named = _names(found)
    if (path / FACTS).exists():
        outcome.dataset = WeightDataset.open(path)
    for name, (folder, stem) in tqdm(named.items(), unit="file", disable=not progress):
        place = found[folder, stem]
        file = place if isinstance(place, Path) else place.path / stem
        try:
            lora = load_row(place, alpha)
        except InputError as error:
            outcome.refused[file] = str(error)
            continue
        if outcome.dataset is None:
            layout = lora.layout if base is None else replace(lora.layout, base=base)
            recipe, base_hash = {"origin": "imported LoRA files"}, lora.metadata.get(BASE, "")
            outcome.dataset = WeightDataset.create(path, layout, base_hash=base_hash, recipe=recipe)
        try:
            new = _take(outcome.dataset, name, file, lora, read_info(place))
        except InputError as error:
            outcome.refused[file] = str(error)
            continue
        (outcome.added if new else outcome.known).append(name)
        outcome.bases.update([lora.layout.base] * new)
    if outcome.dataset is not None:
        for folder in filter(Path.is_dir, given):
            if table := find_labels(folder):
                inside = {stem: name for name, (of, stem) in named.items() if of == folder}
                outcome.dataset.label(read_labels(table).rename(index=inside))
        if labels is not None:
            outcome.dataset.label(labels)
    return outcome


def list_loras(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Return name → LoRA file or folder of paths as for `import_loras`, without packed rows.

    Raises:
        InputError: no files; two files of one name in folders of one name.
    """
    found = _find(Path(os.path.abspath(path)) for path in paths)
    places = {name: found[key] for name, key in _names(found).items()}
    return {name: place for name, place in places.items() if isinstance(place, Path)}


def _take(
    dataset: WeightDataset, name: str, file: Path, lora: LoRAFile, info: dict[str, Any]
) -> bool:
    """Write one LoRA as a row, unless it is there; return whether it is new."""
    dataset.layout.require_equal(lora.layout, str(file))
    require_one_base(dataset.base_hash, lora.metadata.get(BASE, ""), str(file))
    if name in dataset:
        if not torch.equal(dataset[name], lora.weights.float()):
            raise InputError(f"{file}: {dataset.path} holds other weights as {name!r}; rename it")
        return False
    seed = lora.metadata.get(SEED, "")
    info = info or {"file": file.name, "format": lora.format, "base": lora.layout.base}
    dataset.write(name, lora.weights, seed=int(seed) if seed.isdecimal() else None, info=info)
    return True


def _find(paths: Iterable[Path]) -> dict[tuple[Path, str], Place]:
    """Return the places of LoRAs by folder and name in it, in the order given, each once."""
    found: dict[tuple[Path, str], Place] = {}
    for path in paths:
        if path.is_dir() and not any((path / name).is_file() for name in IN_FOLDERS):
            inside = list_rows(path, read_facts(path))
            if not inside:
                raise InputError(f"{path} is a folder without LoRAs: expected .safetensors files")
            found |= {(path, name): place for name, place in inside.items()}
            continue
        named = path.parent if path.name in IN_FOLDERS else path
        first = found.setdefault((named.parent, row_name(named.name)), path)
        if first != path:
            raise InputError(f"{first} and {path} would both be one row; rename one of them")
    if not found:
        raise InputError("no files to import: expected LoRA files or folders")
    return found


def _names(found: Iterable[tuple[Path, str]]) -> dict[str, tuple[Path, str]]:
    """Name every LoRA by its file, with its folder in front where that is not unique."""
    count = Counter(stem for _, stem in found)
    names: dict[str, tuple[Path, str]] = {}
    for folder, stem in found:
        name = stem if count[stem] == 1 else f"{folder.name}/{stem}"
        if name in names:
            one, other = (place / inside for place, inside in (names[name], (folder, stem)))
            raise InputError(f"{one} and {other} would both be {name!r}; rename one of them")
        names[name] = folder, stem
    return names
