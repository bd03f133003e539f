"""`WeightDataset`: one row of weights per model, kept so that nothing is ever lost."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._json import canonical_json
from ..errors import InputError, W2WError
from ..layout import WeightLayout
from . import _writer
from ._check import Problem, problems
from ._labels import Labels, check_labels, label_names, to_frame
from ._manifest import DTYPES, Manifest, check_names, default_shard_rows
from ._rows import byte_view
from ._snapshot import Snapshot

if TYPE_CHECKING:
    import pandas
    from torch.utils.data import Dataset

_BLOCK_BYTES = 64 << 20
_ATTEMPTS = 5  # at reading while another process moves rows into shards

Result = TypeVar("Result")
Rows = int | str | slice | Sequence[int] | Sequence[str] | Tensor | np.ndarray


class NoSuchRow(InputError, IndexError):
    """A row index beyond the end."""


class WeightDataset:
    """A folder of weight vectors with names and labels: `open` one, or `create` one.

    A dataset object shows the folder as it stood when it was opened, last written through this
    object, or refreshed. Any number of processes may read and write the same folder at once:
    writers take turns, readers wait for nobody.

    What `append` has returned from is on the disk and stays there, whatever is killed or unplugged.
    A run that was interrupted and continued ends in exactly the files of an unbroken one.

    Reading rows checks that they are there, not every bit of them: that is for `verify`.
    """

    def __init__(self, snapshot: Snapshot, selected: tuple[str, ...] | None = None):
        self._snapshot = snapshot
        self._selected = selected

    # Making one, and adding to it.

    @classmethod
    def create(
        cls,
        path: str | Path,
        layout: WeightLayout,
        *,
        names: Sequence[str] = (),
        labels: Any = None,
        label_names: Sequence[str] = (),
        base_hash: str = "",
        recipe: Mapping[str, Any] | None = None,
        dtype: torch.dtype = torch.float32,
        shard_rows: int | None = None,
        resume: bool = False,
    ) -> "WeightDataset":
        """Begin a dataset in a new or empty folder, or continue one.

        Args:
            path: of the folder.
            layout: of every row.
            names: the rows to come, in their final order, whatever order they are stored in. Names
                that are not planned may be appended as well; they follow behind, as they come.
            labels: of planned names; see `append`.
            label_names: columns that the label table shall have, in order, even if all is missing.
            base_hash: content hash of the base model.
            recipe: how the rows come about, as JSON values. Two runs of one recipe give equal bytes
                only if nothing in it varies between them: no times, hosts or paths.
            dtype: float32, or float16 for half the space and about three decimal digits.
            shard_rows: names per shard; by default as many as fill about 64 MiB.
            resume: continue the dataset that is there, if one is; its settings must be these, names
                that it does not know are planned behind the others. Only `shard_rows` may differ,
                and stays as it was.

        Raises:
            W2WError: the folder holds something else; a dataset is there that has other settings,
                or `resume` is false; a name, a label or a setting that cannot be stored.
        """
        planned = check_names(names, "row name")
        table = check_labels(labels)
        _require_known(table, planned, "labels")
        spelled = {value: name for name, value in DTYPES.items()}
        if dtype not in spelled:
            raise InputError(f"dtype {dtype}: expected torch.float32 or torch.float16")
        if shard_rows is not None and shard_rows < 1:
            raise InputError(f"shard_rows {shard_rows}: expected at least 1")
        manifest = Manifest(
            layout=layout,
            dtype=spelled[dtype],
            base_hash=base_hash,
            recipe=json.loads(canonical_json(dict(recipe or {}))),
            shard_rows=shard_rows or default_shard_rows(layout.num_parameters * dtype.itemsize),
            planned=planned,
            label_names=_label_columns(label_names, table),
        )
        _writer.begin(Path(path), manifest, table, resume=resume)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> "WeightDataset":
        """Open the dataset in a folder.

        Raises:
            W2WError: there is none, or its manifest is damaged.
        """
        return cls(Snapshot.read(Path(path)))

    def append(
        self,
        names: Sequence[str],
        weights: Float[Tensor, "n d"],
        labels: Any = None,
        info: Sequence[Mapping[str, Any]] | None = None,
        failed: Mapping[str, str] | None = None,
    ) -> tuple[str, ...]:
        """Store rows, and what became of others, all in one step: when this returns, it is kept.

        A row that is there already with the same bytes is left alone, so repeating an append is
        safe. If the disk fills up or the process dies on the way, either all of it is stored or
        nothing. Costs one file of these rows, and now and then the copy of a full shard.

        Args:
            names: of the rows.
            weights: the rows, any floating dtype and device; stored in the dtype of the dataset.
            labels: a DataFrame indexed by name, or {name: {label: value}}. Values are 0 and 1,
                −1 and 1, true and false or other numbers; None or NaN is missing.
            info: JSON facts per row, such as its last loss.
            failed: name → reason, for subjects that yielded no row; `append` them when they do.

        Returns:
            the names that were not there before.

        Raises:
            W2WError: nothing was stored, because a row is not finite or its name is taken by other
                weights; weights of another length; a failure to write. Should a shard that was due
                fail to be written, the rows are stored all the same and the next append tries
                again.
        """
        names, failed = check_names(names, "row name"), dict(failed or {})
        check_names(list(failed), "failed name")
        if weights.shape != (len(names), self.columns) or not weights.is_floating_point():
            raise InputError(
                f"{len(names)} names with weights of shape {tuple(weights.shape)}, {weights.dtype}:"
                f" expected floating-point ({len(names)}, {self.columns}), rows of layout"
                f" {self.layout.hash}"
            )
        if info is not None and len(info) != len(names):
            raise InputError(f"{len(info)} infos for {len(names)} rows: expected one each")
        table, facts = check_labels(labels), [dict(i) for i in info or [{} for _ in names]]
        with self._writing() as now:
            _require_known(table, [*now.planned, *names, *failed], "labels")
            for name in failed:
                if name in now.places or name in names:
                    raise InputError(f"{name!r} has a row: expected a name without one to fail")
            fresh, stored = _writer.new_rows(now, names, weights)
            news = _writer.changed_labels(now, table)
            failures = {n: r for n, r in failed.items() if now.failed.get(n) != r}
            if fresh or news or failures:
                _writer.store_record(
                    now,
                    [names[i] for i in fresh],
                    [byte_view(stored[i]) for i in fresh],
                    info=[facts[i] for i in fresh],
                    labels=news,
                    failed=failures,
                )
                self.refresh()
                _writer.consolidate(self._snapshot)
        return tuple(names[i] for i in fresh)

    def mark_failed(self, name: str, reason: str) -> None:
        """Note that a subject yielded no row, and why; it is no longer pending.

        Raises:
            W2WError: it has a row; a failure to write.
        """
        self.append((), torch.empty(0, self.columns), failed={name: reason})

    def label(self, labels: Any) -> None:
        """Add labels, or replace them where they are known; see `append` for what they may be.

        Raises:
            W2WError: a name that is not in the dataset, a value that is no label.
        """
        self.append((), torch.empty(0, self.columns), labels=labels)
        if not self.pending():
            self.finish()

    def finish(self) -> None:
        """Bring the folder into its final form: shards, labels and manifest, and nothing else.

        Harmless when it is in that form already. More may be appended later.

        Raises:
            W2WError: names are still pending; a row is damaged; a failure to write.
        """
        with self._writing() as now:
            if now.pending:
                raise InputError(
                    f"{len(now.pending):,} of {len(now.planned):,} planned rows of {self.path} are"
                    f" still to come ({shown(now.pending)}): expected each to be stored or marked"
                    " as failed; continue the run that makes them"
                )
            _writer.finish(now)

    @classmethod
    def merge(
        cls, path: str | Path, datasets: Sequence["WeightDataset"], *, resume: bool = False
    ) -> "WeightDataset":
        """Copy several datasets, or selections of them, into a new one, row after row.

        Their layouts and base models must be the same. A row that comes twice with the same bytes
        is kept once. Labels are joined; where two differ, the later dataset counts. The new
        dataset is float32 unless all are float16. Needs memory for one block of 64 MiB.

        Args:
            path: of a new folder.
            datasets: what to copy, in this order.
            resume: continue a merge that was interrupted.

        Raises:
            W2WError: no datasets, other layouts or base models, a name with two different rows; a
                failure to write.
        """
        from ._merge import merge

        return merge(Path(path), datasets, resume=resume)

    # What it is.

    @property
    def path(self) -> Path:
        """The folder."""
        return self._snapshot.folder

    @property
    def layout(self) -> WeightLayout:
        """What each number of a row is."""
        return self._snapshot.manifest.layout

    @property
    def dtype(self) -> torch.dtype:
        """In which rows are stored; they are read as float32."""
        return self._snapshot.manifest.torch_dtype

    @property
    def base_hash(self) -> str:
        """Content hash of the base model, "" if unknown."""
        return self._snapshot.manifest.base_hash

    @property
    def recipe(self) -> dict[str, Any]:
        """How the rows came about."""
        return self._snapshot.manifest.recipe

    @property
    def columns(self) -> int:
        """Length d of a row."""
        return self.layout.num_parameters

    @property
    def rows(self) -> int:
        """Number n of rows."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the rows, in order."""
        return self._snapshot.names if self._selected is None else self._selected

    @property
    def planned(self) -> tuple[str, ...]:
        """All names, also of rows that are still to come or failed, in order."""
        return self._snapshot.planned if self._selected is None else self._selected

    @property
    def failed(self) -> dict[str, str]:
        """Why a name has no row, in planned order."""
        return dict(self._snapshot.failed) if self._selected is None else {}

    def pending(self) -> tuple[str, ...]:
        """Return the planned names that are neither stored nor failed, in order."""
        return self._snapshot.pending if self._selected is None else ()

    @property
    def finished(self) -> bool:
        """Whether the folder is in its final form; see `finish`."""
        return not (self._snapshot.pending or self._snapshot.records or self._snapshot.unreadable)

    @property
    def labels(self) -> "pandas.DataFrame":
        """The labels, one row per row in the same order, indexed by name.

        A column whose values are all among (0, 1) or (−1, 1) is a nullable boolean, any other a
        nullable Float64; missing is `pandas.NA`.

        Raises:
            W2WError: the label table is damaged.
        """
        return to_frame(self._labels(), self.names, self.label_names)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Columns of `labels`."""
        return self._snapshot.label_names

    @property
    def info(self) -> dict[str, dict[str, Any]]:
        """The JSON facts of every row, by name. Reads the header of every shard.

        Raises:
            W2WError: a shard is missing or damaged in its header.
        """
        return self._read(lambda now: row_info(now, self.names))

    def refresh(self) -> None:
        """Look again at what the folder holds, which other processes may have added to.

        Raises:
            W2WError: its manifest is gone or damaged.
        """
        self._snapshot = Snapshot.read(self.path, self._snapshot)

    def __repr__(self) -> str:
        return (
            f"WeightDataset({str(self.path)!r}, {self.rows:,} rows of {self.columns:,}"
            f" {self._snapshot.manifest.dtype})"
        )

    # Reading rows.

    def __getitem__(self, rows: Rows) -> Float[Tensor, "*n d"]:
        """Read rows as float32.

        Args:
            rows: one index or name gives one row "d"; a slice, a list of indices or names, or a
                mask gives "n d", in the order asked for.

        Raises:
            W2WError: no such row (an IndexError too, for an index), or its file is damaged.
        """
        names = self._names_of(rows)
        return self._rows([names])[0] if isinstance(names, str) else self._rows(names)

    def __contains__(self, name: object) -> bool:
        return name in (self._snapshot.places if self._selected is None else self._selected)

    def __iter__(self) -> Iterator[Float[Tensor, " d"]]:
        for block in self.blocks():
            yield from block

    def blocks(self, rows_per_block: int | None = None) -> "WeightBlocks":
        """Return all rows as a stream that can be run through any number of times.

        Args:
            rows_per_block: of every block but the last; by default about 64 MiB.
        """
        if rows_per_block is None:
            rows_per_block = max(1, _BLOCK_BYTES // (4 * self.columns))
        if rows_per_block < 1:
            raise InputError(f"rows_per_block {rows_per_block}: expected at least 1")
        return WeightBlocks(self, rows_per_block)

    def select(self, rows: Rows) -> "WeightDataset":
        """Return a view of some rows, in the order asked for; nothing is copied.

        Args:
            rows: as for indexing.

        Raises:
            W2WError: no such row, or one that comes twice.
        """
        names = self._names_of(rows)
        names = check_names([names] if isinstance(names, str) else names, "selected row")
        for name in names:
            self._snapshot.place(name)
        return WeightDataset(self._snapshot, names)

    def to_numpy(self) -> Float[np.ndarray, "n d"]:
        """Read everything into one float32 array of 4·n·d bytes."""
        array = np.empty((self.rows, self.columns), np.float32)
        rows, start = torch.from_numpy(array), 0
        for names in self.blocks().chunks():
            self._fill(names, rows[start : start + len(names)])
            start += len(names)
        return array

    def torch_dataset(self, label_names: Sequence[str] = ()) -> "Dataset[Any]":
        """Return a map-style dataset for `torch.utils.data.DataLoader`, fit for worker processes.

        Args:
            label_names: if any are given, an item is (weights "d", labels "l"), float32 with NaN
                for missing and 0 and 1 for false and true; otherwise just the weights.

        Raises:
            W2WError: no such label.
        """
        from ._torch import TorchRows

        absent = [name for name in label_names if name not in self.label_names]
        if absent:
            raise InputError(
                f"no label {absent[0]!r}: expected some of {shown(self.label_names) or 'none'}"
            )
        return TorchRows(self, tuple(label_names))

    # Trust.

    def verify(self) -> list[Problem]:
        """Read everything and give what is missing, damaged or not finite; empty if all is well.

        Costs one read of the whole dataset.
        """
        while True:
            now, found = self._snapshot, list(problems(self._snapshot))
            if found:  # or had another process put rows elsewhere meanwhile?
                self.refresh()
            if self._snapshot is now:
                return found

    def quarantine(self) -> tuple[str, ...]:
        """Move every damaged file to `quarantine/`, keeping the rows in it that are intact.

        Returns:
            the names that lost their row. They are pending again: make them anew, append them, and
            the dataset is what it was.

        Raises:
            W2WError: the manifest itself is damaged; a failure to write.
        """
        with self._writing() as now:
            damaged = {problem.file for problem in problems(now)}
            return _writer.set_aside(now, damaged) if damaged else ()

    # Inside.

    @contextmanager
    def _writing(self) -> Iterator[Snapshot]:
        """Hold the folder's lock; know afterwards what the folder holds, also after a failure."""
        if self._selected is not None:
            raise InputError(
                f"a selection of {self.rows:,} rows of {self.path} cannot be written to: expected"
                " the dataset itself; copy the selection with WeightDataset.merge first"
            )
        try:
            with _writer.writing(self.path, self._snapshot) as now:
                self._snapshot = now
                try:
                    yield now
                finally:
                    self.refresh()
        except FileNotFoundError as error:
            raise _missing(error) from error

    def _read(self, read: Callable[[Snapshot], Result]) -> Result:
        """Read; if a file has gone because another process put its rows elsewhere, look there."""
        for _ in range(_ATTEMPTS):
            try:
                return read(self._snapshot)
            except FileNotFoundError:
                self.refresh()
        try:
            return read(self._snapshot)
        except FileNotFoundError as error:
            raise _missing(error) from error

    def _rows(self, names: Sequence[str]) -> Float[Tensor, "n d"]:
        # NumPy asks the system for huge pages, torch does not: a fifth of the time for a block.
        rows = torch.from_numpy(np.empty((len(names), self.columns), np.float32))
        self._fill(names, rows)
        return rows

    def _fill(self, names: Sequence[str], out: Float[Tensor, "n d"]) -> None:
        """Read rows into contiguous float32 memory on the CPU."""
        if self.dtype == out.dtype:
            self._read(lambda now: now.read_rows(names, out))
            return
        stored = torch.from_numpy(np.empty(tuple(out.shape), np.float16))
        self._read(lambda now: now.read_rows(names, stored))
        out.copy_(stored)

    def _labels(self) -> Labels:
        known = self._read(lambda now: now.labels)
        return {name: known[name] for name in self.names if name in known}

    def _names_of(self, rows: Rows) -> str | tuple[str, ...]:
        if isinstance(rows, str):
            return rows
        if isinstance(rows, slice):
            return self.names[rows]
        wanted = rows.tolist() if isinstance(rows, Tensor | np.ndarray) else rows
        if not isinstance(wanted, Sequence):
            return self._name(wanted)
        if wanted and all(isinstance(row, bool) for row in wanted):
            if len(wanted) != self.rows:
                raise NoSuchRow(f"a mask of {len(wanted)}: expected one of {self.rows:,}")
            wanted = [index for index, row in enumerate(wanted) if row]
        return tuple(row if isinstance(row, str) else self._name(row) for row in wanted)

    def _name(self, row: Any) -> str:
        index = int(row)
        if not -self.rows <= index < self.rows:
            raise NoSuchRow(f"row {index}: expected one of {self.rows:,} rows of {self.path}")
        return self.names[index]


@dataclass(frozen=True)
class WeightBlocks:
    """Rows as float32 tensors "b d" in fixed memory: one block at a time, as often as wished.

    Attributes:
        dataset: whose rows.
        rows_per_block: of every block but the last.
    """

    dataset: WeightDataset
    rows_per_block: int

    @property
    def rows(self) -> int:
        """Number n of rows in all blocks together."""
        return self.dataset.rows

    @property
    def columns(self) -> int:
        """Length d of a row."""
        return self.dataset.columns

    def __len__(self) -> int:
        return -(-self.rows // self.rows_per_block)

    def __iter__(self) -> Iterator[Float[Tensor, "b d"]]:
        for names in self.chunks():
            yield self.dataset._rows(names)

    def chunks(self) -> Iterator[tuple[str, ...]]:
        """Return the names of the rows of each block."""
        names = self.dataset.names
        for start in range(0, len(names), self.rows_per_block):
            yield names[start : start + self.rows_per_block]


def row_info(now: Snapshot, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the JSON facts of some rows."""
    places = {name: now.place(name) for name in names}
    headers = {
        file: now.header(now.folder / file) for file in {file for file, _ in places.values()}
    }
    return {name: headers[file].info[row] for name, (file, row) in places.items()}


def _label_columns(wanted: Sequence[str], table: dict[str, Any]) -> tuple[str, ...]:
    check_labels({"": dict.fromkeys(wanted)})
    return label_names(check_names(wanted, "label name"), [table])


def _require_known(table: Mapping[str, Any], names: Sequence[str], what: str) -> None:
    known = set(names)
    unknown = [name for name in table if name not in known]
    if unknown:
        raise InputError(
            f"{what} for {len(unknown):,} names that are no rows ({shown(unknown)}): expected"
            " names of this dataset; leave the others out"
        )


def _missing(error: FileNotFoundError) -> W2WError:
    return InputError(
        f"{error.filename} is missing: expected every file that the manifest names; w2w verify"
        " lists the damage, quarantine() makes the lost rows pending again"
    )


def shown(names: Sequence[str]) -> str:
    """Return the first names of many, for a message."""
    shown = ", ".join(map(repr, names[:3]))
    return f"{shown} and {len(names) - 3:,} more" if len(names) > 3 else shown
