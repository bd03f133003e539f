"""The names of a dataset's files, and the JSON among them."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .._files import make_folder, read_regular, write_atomic
from .._json import canonical_json, parse_json
from .._safetensors import open_checked
from ..errors import InputError, shown
from ..layout import WeightLayout

FORMAT = "weights2weights-dataset"
VERSION = 1
FACTS, FAILED, BROKEN, SHARDS = "dataset.json", "failed", "broken", "shards"
SUFFIX = ".safetensors"

_MAX_NAME = 200  # bytes; file systems take 255, and a suffix and some escapes must fit
# Separators, wildcards and control characters; a dot in front hides a file, and a dot or space at
# the end is lost on some file systems.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f"*/:<>?\\|%]|^\.|[. ]$')
_SHARD = re.compile(r"shards/[\w-]+\.safetensors")
# A folder that holds one of these is a LoRA, named by the folder.
IN_FOLDERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")


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


def list_rows(folder: Path) -> dict[str, Path]:
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
            raise InputError(
                f"{rows[name]} and {folder / file} have one name, {name!r}; rename one of them"
            )
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
    """Say whether a path is a dataset: it has a `dataset.json`, or is a folder of several LoRAs."""
    path = Path(path)
    if not path.is_dir() or (path / FACTS).exists():
        return path.is_dir()
    try:
        places = list(list_rows(path).values())
        if len(places) < 2 or any((path / name).exists() for name in IN_FOLDERS):
            return False
        if places[0].is_dir():
            return True
        with open_checked(places[0]) as file:
            return any("lora" in name for name in file.places)
    except (InputError, OSError):
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
