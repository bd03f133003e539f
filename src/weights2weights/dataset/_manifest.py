"""The manifest: what a dataset is and which files it stands on.

`manifest.json` is the only file of a dataset that ever changes, by one rename. All others are
written once, named after their content, and never touched again, so the manifest and the files that
it names fit together at every moment.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, repeat
from pathlib import Path
from typing import Any

import torch

from .._files import write_atomic
from .._json import canonical_json
from ..errors import InputError, W2WError
from ..layout import WeightLayout
from ._rows import MALFORMED

FILE = "manifest.json"
FORMAT = "weights2weights-dataset"
VERSION = 1

DTYPES = {"float32": torch.float32, "float16": torch.float16}

_SHARD = re.compile(r"shards/\d{5,}-[0-9a-f]{16}\.safetensors")
_LABELS = re.compile(r"labels-[0-9a-f]{16}\.parquet")
_SHARD_BYTES = 64 << 20
_MOST_SHARD_ROWS = 4096


@dataclass(frozen=True)
class StoredFile:
    """A file that the manifest names: its path inside the folder, and its SHA-256 in hex."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Shard(StoredFile):
    """A shard: `index` says which stretch of the plan it holds, `names` its rows in order."""

    index: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What a dataset is. Shard i holds the rows of names i·shard_rows … of `planned`.

    Attributes:
        layout: of every row.
        dtype: "float32" or "float16", in which rows are stored.
        base_hash: content hash of the base model, "" if unknown.
        recipe: how the rows came about, JSON values.
        shard_rows: names of the plan per shard.
        planned: all names in the order of the rows, also of those still to come.
        failed: name → why it has no row.
        label_names: columns of the label table.
        labels: the Parquet file, or None if there are no labels.
        shards: in the order of their rows.
        source: the bytes that it was read from, if it was.
    """

    layout: WeightLayout
    dtype: str
    base_hash: str
    recipe: dict[str, Any]
    shard_rows: int
    planned: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()
    labels: StoredFile | None = None
    shards: tuple[Shard, ...] = ()
    source: bytes = field(default=b"", repr=False, compare=False)

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch calls it."""
        return DTYPES[self.dtype]

    @cached_property
    def places(self) -> dict[str, tuple[str, int]]:
        """Where every row in a shard is: name → (file, number of the row in it)."""
        places: dict[str, tuple[str, int]] = {}
        for shard in self.shards:
            places.update(zip(shard.names, zip(repeat(shard.file), count()), strict=False))
        return places

    def write(self, folder: Path) -> None:
        """Make this the manifest of a folder.

        Raises:
            W2WError: the disk is full or the folder read-only.
        """
        facts = self._to_dict()
        write_atomic(folder / FILE, [canonical_json({**facts, "sha256": _sha256(facts)})])

    @property
    def intact(self) -> bool:
        """Whether the file that this was read from is the one that was written."""
        facts = json.loads(self.source)
        try:
            spelled = canonical_json(facts) == self.source
            return spelled and facts.pop("sha256", None) == _sha256(facts)
        except W2WError:  # numbers that no JSON of ours holds
            return False

    @classmethod
    def read(cls, folder: Path, before: "Manifest | None" = None) -> "Manifest":
        """Read the manifest of a folder, which may come from anywhere.

        Args:
            folder: of the dataset.
            before: what it was; given back if the file is the same, byte for byte.

        Raises:
            W2WError: there is none, it is damaged, or another program wrote it.
        """
        path = folder / FILE
        try:
            source = path.read_bytes()
            if before is not None and source == before.source:
                return before
            facts = json.loads(source)
            if facts["format"] != FORMAT:
                raise ValueError(f"format {facts['format']!r}")
            if facts["version"] != VERSION:
                raise InputError(
                    f"{path} has format version {facts['version']}: expected {VERSION}; use the"
                    " version of weights2weights that wrote it, or a later one"
                )
            return replace(cls._from_dict(facts), source=source)
        except W2WError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(
                f"{folder} is no dataset of weights: expected a folder with a {FILE}; w2w train and"
                " w2w import make one"
            ) from error
        except MALFORMED as error:
            raise InputError(
                f"{path} cannot be read ({type(error).__name__}: {error}): expected the manifest of"
                " a dataset; restore the file from a copy, the shards hold names and weights"
            ) from error

    def require_same_settings(self, other: "Manifest", folder: Path) -> None:
        """Raise W2WError unless rows made under `other` may join those of this manifest."""
        self.layout.require_equal(other.layout, "what is to be stored")
        recipes = {f"recipe.{k}": v for k, v in self.recipe.items()}
        others = {f"recipe.{k}": v for k, v in other.recipe.items()}
        here = {"dtype": self.dtype, "base_hash": self.base_hash, **recipes}
        there = {"dtype": other.dtype, "base_hash": other.base_hash, **others}
        for name in sorted(here.keys() | there.keys()):
            if here.get(name) != there.get(name):
                raise InputError(
                    f"{folder} was begun with {name} = {here.get(name)!r}, not"
                    f" {there.get(name)!r}: expected the same settings to continue; give them"
                    " again or choose another folder"
                )

    def _to_dict(self) -> dict[str, Any]:
        labels = self.labels and {"file": self.labels.file, "sha256": self.labels.sha256}
        return {
            "format": FORMAT,
            "version": VERSION,
            "layout": self.layout.to_dict(),
            "layout_hash": self.layout.hash,
            "dtype": self.dtype,
            "base_hash": self.base_hash,
            "recipe": self.recipe,
            "shard_rows": self.shard_rows,
            "planned": list(self.planned),
            "failed": self.failed,
            "label_names": list(self.label_names),
            "labels": labels,
            "shards": [
                {
                    "index": shard.index,
                    "file": shard.file,
                    "sha256": shard.sha256,
                    "rows": len(shard.names),
                    "names": list(shard.names),
                }
                for shard in self.shards
            ],
        }

    @classmethod
    def _from_dict(cls, facts: Mapping[str, Any]) -> "Manifest":
        layout = WeightLayout.from_dict(facts["layout"])
        if layout.hash != facts["layout_hash"]:
            raise ValueError(f"layout {layout.hash} is not the {facts['layout_hash']} it claims")
        labels = facts["labels"]
        manifest = cls(
            layout=layout,
            dtype=facts["dtype"],
            base_hash=str(facts["base_hash"]),
            recipe=dict(facts["recipe"]),
            shard_rows=int(facts["shard_rows"]),
            planned=_names(facts["planned"]),
            failed={str(name): str(reason) for name, reason in facts["failed"].items()},
            label_names=_names(facts["label_names"]),
            labels=labels and StoredFile(_inside(labels["file"], _LABELS), str(labels["sha256"])),
            shards=tuple(
                Shard(
                    _inside(shard["file"], _SHARD),
                    str(shard["sha256"]),
                    int(shard["index"]),
                    _names(shard["names"]),
                )
                for shard in facts["shards"]
            ),
        )
        if manifest.dtype not in DTYPES or manifest.shard_rows < 1:
            raise ValueError(f"dtype {manifest.dtype!r}, {manifest.shard_rows} rows per shard")
        indices = [shard.index for shard in manifest.shards]
        if indices != sorted(set(indices)) or min(indices, default=0) < 0:
            raise ValueError(f"shards {indices} out of order")
        stored = [name for shard in manifest.shards for name in shard.names]
        if len(set(stored)) < len(stored) or not set(stored) <= set(manifest.planned):
            raise ValueError("its shards hold a name twice, or one that is not planned")
        return manifest


def default_shard_rows(row_bytes: int) -> int:
    """Return the rows per shard: the power of two that makes about 64 MiB, at most 4,096."""
    rows = max(1, _SHARD_BYTES // row_bytes)
    return min(_MOST_SHARD_ROWS, 1 << (rows.bit_length() - 1))


def check_names(names: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the names of rows as a tuple.

    Raises:
        W2WError: one is empty, is no text, comes twice, or cannot be written as UTF-8.
    """
    if isinstance(names, str):
        raise InputError(f"{what} {names!r} is one text: expected a list of names")
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str) or not name or not _is_utf8(name):
            raise InputError(f"{what} {name!r}: expected names that are text and not empty")
        if name in seen:
            raise InputError(f"{what} {name!r} comes twice: expected each once; rename one of them")
        seen.add(name)
    return tuple(names)


def _sha256(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(facts)).hexdigest()


def _is_utf8(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:  # a lone surrogate, from a file name in no known encoding
        return False


def _names(values: Sequence[Any]) -> tuple[str, ...]:
    names = tuple(map(str, values))
    if len(set(names)) < len(names):
        raise ValueError("a name comes twice")
    return names


def _inside(file: Any, pattern: re.Pattern[str]) -> str:
    """Return a path that the manifest names; one that leads out of the folder is refused."""
    if not pattern.fullmatch(str(file)):
        raise ValueError(f"file {file!r}")
    return str(file)
