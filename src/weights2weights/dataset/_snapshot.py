"""What a dataset folder holds at one moment: the manifest and the records that wait beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from .._files import list_files
from ..errors import InputError, W2WError
from ._labels import Labels, from_parquet, label_names, merge_labels
from ._manifest import Manifest
from ._rows import RowsFile, read_header, read_into

PENDING = "pending"
"""The folder of records: rows that were stored and whose shard is not complete yet."""

SHARDS = "shards"
"""The folder of shards."""


Place = tuple[str, int]
"""Where a row is stored: a file, relative to the dataset's folder, and the row's number in it."""


@dataclass(frozen=True)
class Snapshot:
    """A dataset folder at one moment.

    A name that is in a shard is read from there; a record holds it only until it is cleared away.

    Attributes:
        folder: of the dataset.
        manifest: as it stood.
        records: files in `pending/`, in the order in which they were stored.
        unreadable: files there whose header is damaged.
    """

    folder: Path
    manifest: Manifest
    records: tuple[RowsFile, ...]
    unreadable: tuple[Path, ...] = ()

    @classmethod
    def read(cls, folder: Path, before: "Snapshot | None" = None) -> "Snapshot":
        """Read a folder while others may write to it.

        A writer first names a new shard in the manifest and then deletes the records that went into
        it. Reading in the opposite order, records before the manifest, can therefore see a row
        twice but never miss one.

        Args:
            folder: of the dataset.
            before: an earlier snapshot, given back if nothing has changed; records never change,
                so its headers need no second look.

        Raises:
            W2WError: there is no dataset, or its manifest is damaged.
        """
        known = {record.path: record for record in before.records} if before else {}
        manifest = Manifest.read(folder, before and before.manifest)
        while True:
            try:
                records, unreadable = _read_records(folder, manifest, known)
            except FileNotFoundError:  # cleared away after it was listed
                continue
            now = cls(folder, Manifest.read(folder, manifest), tuple(records), tuple(unreadable))
            return before if before and now == before else now

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where every stored row is, by name."""
        places: dict[str, Place] = {}
        for record in self.records:
            file = f"{PENDING}/{record.path.name}"
            places.update({name: (file, row) for row, name in enumerate(record.names)})
        return {**places, **self.manifest.places}

    @cached_property
    def row_counts(self) -> dict[str, int]:
        """How many rows each file holds, by its path relative to the folder."""
        counts = {f"{PENDING}/{record.path.name}": len(record.names) for record in self.records}
        return counts | {shard.file: len(shard.names) for shard in self.manifest.shards}

    @cached_property
    def planned(self) -> tuple[str, ...]:
        """All names in the order of their rows; those that came unplanned behind the others."""
        names = dict.fromkeys(self.manifest.planned)
        for record in self.records:
            names.update(dict.fromkeys([*record.names, *record.failed]))
        return tuple(names)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names that have a row, in the order of the rows."""
        return tuple(name for name in self.planned if name in self.places)

    @cached_property
    def failed(self) -> dict[str, str]:
        """Why a name has no row, in planned order; a row that came after all settles it."""
        reasons = dict(self.manifest.failed)
        for record in self.records:
            reasons.update(record.failed)
        return {n: reasons[n] for n in self.planned if n in reasons and n not in self.places}

    @cached_property
    def pending(self) -> tuple[str, ...]:
        """The names that have neither a row nor a failure, in planned order."""
        return tuple(n for n in self.planned if n not in self.places and n not in self.failed)

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The columns of the label table."""
        return label_names(self.manifest.label_names, [record.labels for record in self.records])

    @cached_property
    def labels(self) -> Labels:
        """The labels that were given, by name.

        Raises:
            FileNotFoundError: another writer has replaced the table; read the folder again.
            W2WError: the table is damaged.
        """
        table: Labels = {}
        if stored := self.manifest.labels:
            table = from_parquet(self.folder / stored.file, stored.sha256)
        return merge_labels(table, *(record.labels for record in self.records))

    def stretches(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Cut the plan into the stretches that make a shard each: (index, its names)."""
        step = self.manifest.shard_rows
        for index, start in enumerate(range(0, len(self.planned), step)):
            yield index, self.planned[start : start + step]

    def header(self, path: Path) -> RowsFile:
        """Read the header of a shard or record.

        Raises:
            FileNotFoundError: another writer has replaced it; read the folder again.
            W2WError: it is damaged.
        """
        return read_header(path, self.manifest.layout.num_parameters, self.manifest.torch_dtype)

    def read_rows(self, names: Sequence[str], out: Tensor) -> None:
        """Fill a contiguous CPU tensor "n d" of the stored dtype with the rows of some names.

        Neighbours are read together.

        Raises:
            FileNotFoundError: another writer has moved a row; read the folder again.
            W2WError: a row is not there, or its file ends too early.
        """
        places = [self.place(name) for name in names]
        start = 0
        for stop in range(1, len(places) + 1):
            file, row = places[start]
            if stop < len(places) and places[stop] == (file, row + stop - start):
                continue
            read_into(self.folder / file, self.row_counts[file], row, out[start:stop])
            start = stop

    def place(self, name: str) -> Place:
        """Return where a row is stored.

        Raises:
            W2WError: there is no such row.
        """
        if name not in self.places:
            if name in self.failed:
                came = f"{name!r} failed: {self.failed[name]}"
            elif name in self.planned:
                came = f"{name!r} is planned and has no row yet"
            else:
                came = f"no row is called {name!r}"
            raise InputError(
                f"{came}; expected one of the {len(self.names):,} rows of {self.folder}"
            )
        return self.places[name]


def _read_records(
    folder: Path, manifest: Manifest, known: dict[Path, RowsFile]
) -> tuple[list[RowsFile], list[Path]]:
    """Return the records of a folder in the order in which they came, and unreadable ones."""
    records, unreadable = [], []
    for path in list_files(folder / PENDING):
        if path.suffix != ".safetensors":
            continue
        try:
            numbers, dtype = manifest.layout.num_parameters, manifest.torch_dtype
            records.append(known.get(path) or read_header(path, numbers, dtype))
        except W2WError:
            unreadable.append(path)
    return records, unreadable
