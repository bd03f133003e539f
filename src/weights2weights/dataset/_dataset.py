"""`WeightDataset`: a folder of LoRA files as a table with one row of weights per model."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._files import make_folder, readable_errors, remove, sync_folder
from .._html import html_table
from .._json import canonical_json
from .._safetensors import DIGEST
from ..errors import InputError, W2WError, shown
from ..formats import write_lora_file
from ..labels import find_labels, read_labels, tidy_labels, write_labels
from ..layout import WeightLayout
from . import _folder
from ._folder import Facts, Place, file_stem, list_rows, read_facts
from ._rows import READERS, RowReader, WeightBlocks, load_row, read_info, read_metadata, read_rows

if TYPE_CHECKING:
    import pandas

_BLOCK_BYTES = 64 << 20


class WeightDataset:
    """Models of one layout and base, kept as LoRA files in a folder.

    `open` reads any folder of LoRAs (PEFT, diffusers or kohya files of one layout); `create` makes
    one to write to. Rows that other processes write later are seen when it is opened again. Reading
    a row checks its digest, so damage is an error and never other weights.

    It is a map-style dataset for `torch.utils.data.DataLoader`, worker processes included.

    Attributes:
        path: the folder.
        layout: what each of the d numbers of a row is.
        base_hash: content hash of the base model, "" if unknown.
        recipe: how the rows were made, as JSON values; empty if unknown.

    Example:
        >>> from tempfile import mkdtemp
        >>> from weights2weights.layout import LoRAModule
        >>> layout = WeightLayout((LoRAModule("mid_block.proj_in", 2, 3),), rank=1, alpha=27.0)
        >>> dataset = WeightDataset.create(mkdtemp(), layout)
        >>> _ = dataset.write("ada", torch.arange(5.0))
        >>> dataset.names, dataset["ada"]
        (('ada',), tensor([0., 1., 2., 3., 4.]))
    """

    def __init__(self, path: Path, facts: Facts, rows: Mapping[str, Place]):
        self.path, self.layout = path, facts.layout
        self.base_hash, self.recipe = facts.base_hash, facts.recipe
        self._places = dict(rows)
        self._reader = RowReader(facts.layout, facts.base_hash)

    @classmethod
    def open(cls, path: str | Path) -> "WeightDataset":
        """Open the dataset in a folder.

        Without a `dataset.json`, all files are read to check that they have one layout.

        Raises:
            InputError: no LoRA is there, LoRAs of several layouts, a damaged `dataset.json`.
        """
        path = Path(path)
        if path.is_file():
            raise InputError(f"{path} is a file; expected the folder of a dataset")
        facts = read_facts(path)
        rows = list_rows(path, facts)
        if facts is not None:
            return cls(path, facts, rows)
        if not rows:
            raise InputError(f"{path} holds no dataset; expected {_folder.FACTS} or LoRA files")
        first = next(iter(rows))
        lora = load_row(rows[first], None)
        dataset = cls(path, Facts(lora.layout, lora.metadata.get(_folder.BASE, "")), rows)
        others = [why for why in dataset.verify().values() if "another layout" in why]
        if others:
            raise InputError(
                f"{len(others)} of {len(rows)} LoRAs differ from {first}"
                f" ({'; '.join(others[:5])}); expected one layout; move them elsewhere"
            )
        return dataset

    @classmethod
    def create(
        cls,
        path: str | Path,
        layout: WeightLayout,
        *,
        base_hash: str = "",
        recipe: Mapping[str, Any] | None = None,
        labels: Any = None,
    ) -> "WeightDataset":
        """Make a dataset, or open the one that is there if it has these settings.

        Args:
            path: the folder, made if absent.
            layout: of every row.
            base_hash: content hash of the base model.
            recipe: how the rows come about, as JSON values that do not vary between runs.
            labels: see `label`.

        Raises:
            InputError: the folder holds something else, or a dataset with other settings.
            ResourceError: the folder cannot be written.
        """
        path = Path(path)
        wanted = Facts(layout, base_hash, json.loads(canonical_json(dict(recipe or {}))))
        make_folder(path)
        if read_facts(path) is None:
            _require_ours(path, layout)
            if read_facts(path) is None:  # unless another process was quicker
                wanted.write(path)
        dataset = cls.open(path)
        dataset._require_settings(wanted)
        if labels is not None:
            dataset.label(labels)
        return dataset

    # What it holds.

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the rows, sorted: the order of indices, slices and blocks."""
        return tuple(sorted(self._places))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __repr__(self) -> str:
        return f"WeightDataset({str(self.path)!r}, {len(self):,} × {self.layout.num_parameters:,})"

    def _repr_html_(self) -> str:
        rows = {
            "models": f"{len(self):,}",
            "parameters per model": f"{self.layout.num_parameters:,}",
            "labels": ", ".join(self.labels.columns) or "none",
            "base model": self.layout.base or "unknown",
        }
        return html_table(rows, "WeightDataset")

    @property
    def labels(self) -> "pandas.DataFrame":
        """Labels, one row per model in the order of `names`; see `tidy_labels` for the columns.

        Raises:
            InputError: the label table is damaged.
        """
        table = find_labels(self.path)
        return tidy_labels(None if table is None else read_labels(table), self.names)

    @property
    def failed(self) -> dict[str, str]:
        """Subjects without a model → why."""
        return {name: facts["reason"] for name, facts in self.failures.items()}

    @property
    def failures(self) -> dict[str, dict[str, Any]]:
        """Subjects without a model → `reason` and `info` as given to `write_failure`."""
        failures = _folder.read_failures(self.path)
        return {name: facts for name, facts in failures.items() if name not in self._places}

    def info(self, name: str) -> dict[str, Any]:
        """Return the JSON facts with which a model was written; often none."""
        return read_info(self.place(name))

    def place(self, name: str) -> Place:
        """Return where a row is: its file, or its place in a shard."""
        try:
            return self._places[name]
        except KeyError:
            known = ", ".join(map(repr, self.names[:3])) or "none"
            raise InputError(
                f"{self.path} has no model called {shown(name)}; it has {len(self):,} ({known}, …)"
            ) from None

    def path_of(self, name: str) -> Path:
        """Return the LoRA file of a name; raises InputError if no file can have that name."""
        return self.path / f"{file_stem(name)}{_folder.SUFFIX}"

    # Reading.

    def __getitem__(self, rows: Any) -> Float[Tensor, "*n d"]:
        """Read rows as float32: a name or index gives "d"; a slice or a sequence of them "n d"."""
        one = isinstance(rows, str) or (hasattr(rows, "__index__") and not getattr(rows, "ndim", 0))
        chosen = self.names[rows] if isinstance(rows, slice) else [rows] if one else list(rows)
        if any("bool" in str(getattr(row, "dtype", type(row))) for row in chosen):
            raise InputError("rows chosen by booleans; expected indices: mask.nonzero()[0]")
        names = (row if isinstance(row, str) else self.names[row] for row in chosen)
        found = read_rows(self._reader, [self.place(name) for name in names])
        return found[0] if one else found

    def __iter__(self) -> Iterator[Float[Tensor, " d"]]:
        for block in self.blocks():
            yield from block

    def blocks(self, rows: int | None = None) -> WeightBlocks:
        """Return all rows in blocks of some rows, by default about 64 MiB; see `WeightBlocks`."""
        rows = rows or max(1, _BLOCK_BYTES // (4 * self.layout.num_parameters))
        return WeightBlocks(self._reader, tuple(self._places[n] for n in self.names), rows)

    def verify(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Read rows, all by default, and return name → what is wrong; empty if all is well."""
        names = self.names if names is None else names

        def problem(name: str) -> str | None:
            try:
                self._reader.read_into(self.place(name), torch.empty(self.layout.num_parameters))
            except W2WError as error:
                return str(error)

        with ThreadPoolExecutor(READERS) as pool:
            found = zip(names, pool.map(problem, names), strict=True)
            return {name: why for name, why in found if why}

    # Writing.

    def write(
        self,
        name: str,
        weights: Float[Tensor, " d"],
        *,
        seed: int | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> Path:
        """Store one model, replacing any of its name, and return the path of its LoRA file.

        When this returns, the file is on the disk.

        Args:
            name: of the subject.
            weights: entries of A and B in the order of `layout`; float32, float16 or bfloat16.
            seed: of its training.
            info: JSON facts to keep, such as the final loss.

        Raises:
            InputError: weights of another length or not finite; a name that no file can have, or
                that the disk does not distinguish from another one's.
            ResourceError: the disk is full or the folder read-only.
        """
        path = self.path_of(name)
        held = self._places.get(name)
        if isinstance(held, Path) and held != path:
            raise InputError(f"{held} holds {name!r}; expected {path.name}: move it away first")
        if name not in self._places and path.exists():
            holder = read_metadata(path).get(_folder.SUBJECT, name)
            if holder != name:  # a disk that ignores case, or accents' spelling
                raise InputError(f"{name!r} and {holder!r} share the file {path}; rename one")
        metadata = {
            _folder.SUBJECT: name,
            _folder.SEED: "" if seed is None else str(seed),
            _folder.RECIPE: hashlib.sha256(canonical_json(self.recipe)).hexdigest()[:16],
            _folder.BASE: self.base_hash,
            _folder.INFO: canonical_json(dict(info)).decode() if info else "",
            _folder.LAYOUT: self.layout.hash,
            DIGEST: "",
        }
        remove(self.path / _folder.FAILED / f"{file_stem(name)}.json")
        try:
            write_lora_file(path, weights, self.layout, "diffusers", metadata)
        except InputError as error:
            raise InputError(f"{name!r}: {error}") from error
        self._places[name] = path
        self.__dict__.pop("names", None)
        return path

    def write_failure(
        self, name: str, reason: str, *, info: Mapping[str, Any] | None = None
    ) -> None:
        """Keep why a subject has no model, until `write` gives it one."""
        if name in self._places:
            raise InputError(f"{name!r} has a model in {self.path}: expected a name without one")
        _folder.write_failure(self.path, name, reason, dict(info or {}))

    def move_aside(self, name: str) -> Path:
        """Move a model's file to the folder `broken` and drop the row; return the new path."""
        place = self.place(name)
        if not isinstance(place, Path):
            raise InputError(f"{name!r} is packed in {place.path}: expected a file of its own")
        broken = self.path / _folder.BROKEN
        make_folder(broken)
        aside, copies = broken / place.name, count(2)
        while aside.exists():
            aside = broken / f"{place.stem}-{next(copies)}{place.suffix}"
        with readable_errors("move", place):
            os.replace(place, aside)
            sync_folder(self.path)
        del self._places[name]
        self.__dict__.pop("names", None)
        return aside

    def label(self, labels: Any) -> None:
        """Add labels, replacing those known for the same name and column.

        Of two processes that add different labels at the same moment, one may lose its own.

        Args:
            labels: a DataFrame indexed by name, or {name: {label: value}}. Values are 0 and 1, −1
                and 1, true and false, or other numbers; None or NaN is missing. Names need not
                have a model yet.
        """
        try:
            new = tidy_labels(labels, list(labels.index if hasattr(labels, "index") else labels))
        except UnicodeEncodeError as error:
            raise InputError(f"labels with half a character, {error.object!a}") from error
        path = find_labels(self.path)
        if path is not None:
            old = read_labels(path)
            joined = new.combine_first(old)
            columns = list(dict.fromkeys((*old.columns, *new.columns)))
            new = tidy_labels(joined[columns], sorted(joined.index))
            if new.equals(old):
                return
        write_labels(path or self.path / "labels.csv", new.sort_index())

    def _require_settings(self, wanted: Facts) -> None:
        self.layout.require_equal(wanted.layout, str(self.path))
        ours = {"base_hash": self.base_hash, **self.recipe}
        theirs = {"base_hash": wanted.base_hash, **wanted.recipe}
        for key in ours | theirs:
            if ours.get(key) != theirs.get(key):
                raise InputError(
                    f"{self.path} holds a dataset made with {key} {shown(ours.get(key))}, and"
                    f" {shown(theirs.get(key))} is wanted; use those settings or another folder"
                )


def _require_ours(path: Path, layout: WeightLayout) -> None:
    """Refuse a folder that holds anything but LoRAs of the layout and their labels."""
    rows = list_rows(path, None)
    ours = {place.name for place in rows.values() if isinstance(place, Path)}
    ours |= {_folder.FACTS, _folder.FAILED, _folder.BROKEN, "labels.csv", "labels.parquet"}
    foreign = sorted(p.name for p in path.iterdir() if p.name not in ours and p.name[0] != ".")
    if foreign:
        raise InputError(
            f"{path} is not empty and holds no dataset ({shown(foreign[0])}); expected a new or"
            " empty folder, or one of LoRA files"
        )
    if rows:
        layout.require_equal(WeightDataset.open(path).layout, str(path))
