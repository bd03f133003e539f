"""What lies where in a dataset: names of files, places of rows, and the JSON among them."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .._files import make_folder, read_regular, write_atomic
from .._json import canonical_json, parse_json
from .._safetensors import DIGEST, open_checked
from ..errors import InputError, W2WError, shown
from ..formats.peft import DIFFUSERS_NAME, WEIGHTS_NAME
from ..layout import WeightLayout

FORMAT, VERSION = "weights2weights-dataset", 1
FACTS, FAILED, BROKEN, SHARDS = "dataset.json", "failed", "broken", "shards"
SUFFIX = ".safetensors"
IN_FOLDERS = (WEIGHTS_NAME, DIFFUSERS_NAME)
"""A folder that holds one of these is a LoRA, named by the folder."""

# Strings in the header of a row; `ROWS` has those of all rows of a shard, whose tensor is `TENSOR`.
SUBJECT, SEED, INFO = "w2w_subject", "w2w_seed", "w2w_info"
RECIPE, BASE, LAYOUT = "w2w_recipe", "w2w_base", "w2w_layout"
ROWS, TENSOR = "w2w_rows", "weights"

_MAX_NAME = 200  # bytes; file systems take 255, and a suffix and some escapes must fit
# Separators, wildcards and control characters; a dot in front hides a file, and a dot or space at
# the end is lost on some file systems.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f"*/:<>?\\|%]|^\.|[. ]$')
_SHARD = re.compile(r"shards/[\w-]+\.safetensors")


@dataclass(frozen=True)
class Facts:
    """What `dataset.json` says of all rows; `shards` only where they are packed."""

    layout: WeightLayout
    base_hash: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    shards: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write `dataset.json`, all or nothing."""
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "layout": self.layout.to_dict(),
            "layout_hash": self.layout.hash,
            "base_hash": self.base_hash,
            "recipe": self.recipe,
        }
        if self.shards:
            facts["shards"] = list(self.shards)
        write_atomic(folder / FACTS, [canonical_json(facts)])


@dataclass(frozen=True)
class PackedRow:
    """A float32 row inside a shard: where its bytes begin, and the header it had as a file."""

    path: Path
    offset: int
    layout: WeightLayout
    metadata: Mapping[str, str]


Place = Path | PackedRow


def read_facts(folder: Path) -> Facts | None:
    """Read `dataset.json`, with suspicion; None if there is none."""
    path = folder / FACTS
    try:
        facts = parse_json(read_regular(path), str(path))
    except FileNotFoundError:
        return None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(f"{path} does not describe a dataset; expected the format {FORMAT}")
    if facts.get("version") != VERSION:
        raise InputError(
            f"{path} has version {shown(facts.get('version'))}: expected {VERSION}; a newer"
            " weights2weights may read it"
        )
    kinds = {"layout": dict, "layout_hash": str, "base_hash": str, "recipe": dict, "shards": list}
    facts = {"shards": [], **facts}
    damaged = [name for name, kind in kinds.items() if not isinstance(facts.get(name), kind)]
    if not damaged and not all(_SHARD.fullmatch(str(name)) for name in facts["shards"]):
        damaged = ["shards"]
    if not damaged:
        layout = WeightLayout.from_dict(facts["layout"])
        if layout.hash == facts["layout_hash"]:
            return Facts(layout, facts["base_hash"], facts["recipe"], tuple(facts["shards"]))
        damaged = [f"layout_hash: {layout.hash}, expected {shown(facts['layout_hash'])}"]
    raise InputError(
        f"{path} is damaged (at {damaged[0]}); restore it, or delete it: the LoRA files can be read"
        " without it"
    )


def file_stem(name: str) -> str:
    """Return the file name, without suffix, of the row `name`; `row_name` is the inverse."""
    try:
        stem = _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", name)
        size = len(stem.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"the name {shown(name)} is not text; rename the subject") from error
    if not 0 < size <= _MAX_NAME:
        raise InputError(
            f"the name {shown(name)} takes {size} bytes as a file name: expected 1 to {_MAX_NAME};"
            " rename the subject"
        )
    return stem


def row_name(file: str) -> str:
    """Return the row name of a file name, with or without suffix."""
    return unquote(file.removesuffix(SUFFIX))


def list_rows(folder: Path, facts: Facts | None) -> dict[str, Place]:
    """Return where the rows of a folder are, by name; a file replaces a packed row of its name."""
    packed: dict[str, Place] = {}
    if facts is not None:
        for path in (folder / shard for shard in facts.shards):
            try:
                packed |= {row.metadata[SUBJECT]: row for row in _packed(path, facts.layout)}
            except (W2WError, OSError, KeyError, TypeError) as error:
                raise InputError(f"{path} cannot be used ({error}); download it again") from error
    return packed | _list_files(folder)


def _packed(path: Path, layout: WeightLayout) -> Iterator[PackedRow]:
    """Yield the rows of a shard; reads only its header."""
    d = layout.num_parameters
    with open_checked(path) as file:
        headers = parse_json(file.metadata[ROWS], ROWS)
        tensor = file.places[TENSOR]
        if tensor.dtype != "F32" or tensor.shape != (len(headers), d) or len(file.places) > 1:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise InputError(f"holds {found}: expected F32 [{len(headers)}, {d}]")
    start = path.stat().st_size - 4 * d * len(headers)
    for row, header in enumerate(headers):
        if not all(isinstance(header[key], str) for key in (SUBJECT, DIGEST)):
            raise InputError(f"{ROWS} does not name every row and its digest")
        yield PackedRow(path, start + 4 * d * row, layout, header)


def _list_files(folder: Path) -> dict[str, Path]:
    """Return the LoRA files of a folder, and its folders that hold one LoRA, by row name."""
    try:
        with os.scandir(folder) as entries:
            files = sorted(entry.name for entry in entries if _is_lora(entry))
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror}); check the path") from error
    rows: dict[str, Path] = {}
    for file in files:
        name = row_name(file)
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise InputError(f"{folder} holds a file whose name is not text, {file!a}: rename")
        if name in rows:
            raise InputError(f"{rows[name]} and {folder / file} have one name; rename one of them")
        rows[name] = folder / file
    return rows


def _is_lora(entry: os.DirEntry) -> bool:
    if entry.name.startswith("."):  # unfinished files, among others
        return False
    if entry.name.endswith(SUFFIX):
        return entry.is_file()
    own = entry.name in (FAILED, BROKEN, SHARDS)
    return not own and any(os.path.isfile(os.path.join(entry, name)) for name in IN_FOLDERS)


def is_dataset(path: str | Path) -> bool:
    """Return whether a path is a folder with a `dataset.json`, or of several LoRAs."""
    path = Path(path)
    if not path.is_dir() or any((path / name).exists() for name in (FACTS, *IN_FOLDERS)):
        return (path / FACTS).exists()
    try:
        first, _, *_ = _list_files(path).values()
        if first.is_dir():
            return True
        with open_checked(first) as file:
            return any("lora" in name for name in file.places)
    except (ValueError, OSError):  # fewer than two, or something else
        return False


def write_failure(folder: Path, name: str, reason: str, info: dict[str, Any]) -> None:
    """Keep the reason why a subject has no model."""
    make_folder(folder / FAILED)
    reason = reason.encode(errors="backslashreplace").decode()  # it may quote a broken file name
    facts = {"name": name, "reason": reason, "info": info}
    write_atomic(folder / FAILED / f"{file_stem(name)}.json", [canonical_json(facts)])


def read_failures(folder: Path) -> dict[str, dict[str, Any]]:
    """Return name → {"reason", "info"} of subjects without a model; damaged notes say so."""
    failures: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / FAILED).glob("[!.]*.json")):
        try:
            facts = parse_json(read_regular(path), str(path))
            reason, info = str(facts["reason"]), dict(facts["info"])
        except (InputError, FileNotFoundError, KeyError, TypeError, ValueError):
            reason, info = f"{path} is damaged and no longer says why", {}
        failures[unquote(path.stem)] = {"reason": reason, "info": info}
    return failures
