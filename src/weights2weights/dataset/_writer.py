"""Everything that changes a dataset folder, each step safe to be cut short anywhere.

Rows that arrive become one record in `pending/`, whole or not at all; from then on they are kept.
Once all names of a stretch of the plan are settled (stored or failed), their rows are copied into
one shard, the manifest names it, and the records are cleared away. A shard thus depends on the plan
and on its rows, never on when the run was interrupted or in which order rows arrived: that is why
a resumed run ends in the same bytes as an unbroken one.

All of it happens under the folder's lock, one writer at a time. Readers need no lock.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._files import (
    list_files,
    locked,
    make_folder,
    move,
    remove,
    remove_temporary,
    write_named,
)
from ..errors import InputError, W2WError
from ._labels import Labels, to_parquet
from ._manifest import FILE, Manifest, Shard, StoredFile
from ._rows import RowsFile, byte_view, digest, finite_rows, write_rows
from ._snapshot import PENDING, SHARDS, Snapshot

LOCK = ".lock"
QUARANTINE = "quarantine"

_OURS = re.compile(r"(\d{5,}|labels)-[0-9a-f]{16}\.(safetensors|parquet)")


@contextmanager
def writing(folder: Path, before: Snapshot | None = None) -> Iterator[Snapshot]:
    """Be the only writer of a dataset; gives what the folder holds now.

    Raises:
        W2WError: there is no dataset, another writer holds on to it, or the folder is read-only.
    """
    Manifest.read(folder)  # before a lock file is left in a folder that is none of ours
    with locked(folder / LOCK):
        for place in (folder, folder / SHARDS, folder / PENDING):
            remove_temporary(place)
        yield Snapshot.read(folder, before)


def begin(folder: Path, manifest: Manifest, labels: Labels, *, resume: bool) -> None:
    """Make a dataset that has a plan and no rows yet, or check that one may be continued.

    Raises:
        W2WError: the folder holds something else, or a dataset of other settings, or one at all
            and `resume` is false.
    """
    make_folder(folder)
    if not (folder / FILE).exists():
        foreign = [path for path in sorted(folder.iterdir()) if not _is_left_over(path)]
        if foreign:
            raise InputError(
                f"{folder} is not empty and holds no dataset ({foreign[0].name}): expected a new or"
                " an empty folder; choose another"
            )
    with locked(folder / LOCK):
        remove_temporary(folder)
        if not (folder / FILE).exists():
            _commit(folder, manifest, labels)
            return
    found = Manifest.read(folder)
    if not resume:
        raise InputError(
            f"{folder} holds a dataset already: expected a new folder; choose another, or continue"
            " that one (resume=True)"
        )
    found.require_same_settings(manifest, folder)
    with writing(folder) as now:
        known = set(now.planned)
        unplanned = [name for name in manifest.planned if name not in known]
        if unplanned:
            replace(now.manifest, planned=(*now.planned, *unplanned)).write(folder)
        if news := changed_labels(now, labels):
            store_record(now, (), (), labels=news)


def new_rows(
    now: Snapshot, names: Sequence[str], weights: Float[Tensor, "n d"]
) -> tuple[list[int], Tensor]:
    """Check rows that are to be stored; give the indices of new ones, and all as stored.

    Raises:
        W2WError: a row is not finite, or its name is there already with other bytes.
    """
    stored = weights.detach().to("cpu", now.manifest.torch_dtype).contiguous()
    for index in torch.nonzero(~finite_rows(stored)).flatten().tolist():
        row, name = weights[index], names[index]
        if torch.isfinite(row).all():
            raise InputError(
                f"row {name!r} reaches {row.abs().max():.3g}, beyond float16: expected at most"
                " 65504; store the dataset as float32"
            )
        raise InputError(
            f"row {name!r} holds {int((~torch.isfinite(row)).sum())} numbers that are NaN or"
            " infinite: expected finite weights; mark the subject as failed or train it again"
        )
    fresh = []
    there = torch.empty(1, stored.shape[1], dtype=stored.dtype)
    for index, name in enumerate(names):
        if name not in now.places:
            fresh.append(index)
            continue
        now.read_rows([name], there)
        if byte_view(there) != byte_view(stored[index]):
            raise InputError(
                f"row {name!r} is stored in {now.folder} already with other weights: expected a"
                " new name or the same numbers; rename it, or use another folder"
            )
    return fresh, stored


def store_record(
    now: Snapshot,
    names: Sequence[str],
    rows: Sequence[Any],
    *,
    digests: Sequence[str] = (),
    info: Sequence[dict[str, Any]] = (),
    labels: Labels | None = None,
    failed: Mapping[str, str] | None = None,
) -> None:
    """Keep rows, failures and labels in one file: all of them or none.

    Raises:
        W2WError: the disk is full or the folder read-only.
    """
    numbers = [path.name.split("-")[0] for path in list_files(now.folder / PENDING)]
    sequence = 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
    make_folder(now.folder / PENDING)
    write_rows(
        now.folder / PENDING,
        f"{sequence:06d}",
        rows,
        names=names,
        digests=digests or [digest(row) for row in rows],
        columns=now.manifest.layout.num_parameters,
        dtype=now.manifest.torch_dtype,
        info=info,
        labels=dict(labels or {}),
        failed=dict(failed or {}),
    )


def changed_labels(now: Snapshot, labels: Labels) -> Labels:
    """Return those rows of a label table that say anything new."""
    known = now.labels if labels else {}
    return {
        name: row
        for name, row in labels.items()
        if any(column not in known.get(name, {}) for column in row)
        or any(known[name][column] != value for column, value in row.items())
    }


def consolidate(now: Snapshot, *, everything: bool = False) -> None:
    """Copy rows from records into the shards that they complete.

    Args:
        now: what the folder holds.
        everything: also make shards of stretches that are not full, as at the end of a run, and
            leave no record behind.

    Raises:
        W2WError: a row or the label table is damaged, the disk is full or the folder read-only.
    """
    old = {shard.index: shard for shard in now.manifest.shards}
    shards = dict(old)
    for index, planned in now.stretches():
        if index in old and len(old[index].names) == len(planned):
            continue
        names = tuple(name for name in planned if name in now.places)
        settled = len(names) + sum(name in now.failed for name in planned) == len(planned)
        full = len(planned) == now.manifest.shard_rows
        if not settled or not (full or everything):
            continue
        if not names:
            shards.pop(index, None)
        elif index not in old or old[index].names != names:
            shards[index] = _write_shard(now, index, names)
    if shards == old and not (everything and now.records):
        return
    manifest = replace(
        now.manifest,
        planned=now.planned,
        failed=now.failed,
        label_names=now.label_names,
        shards=tuple(shards[index] for index in sorted(shards)),
    )
    labels_differ = manifest.planned != now.manifest.planned or any(r.labels for r in now.records)
    _commit(now.folder, manifest, now.labels if labels_differ else None)
    clear_away(now)


def clear_away(before: Snapshot) -> None:
    """Delete files that no longer count: stored records, replaced files, what dead writers left."""
    now = Snapshot.read(before.folder, before)
    stored = {name for shard in now.manifest.shards for name in shard.names}
    spoken_for: set[str] = set()  # an older record that stays must not outlive what overrode it
    for record in now.records:
        told = record.labels.keys() | record.failed.keys()
        if stored.issuperset(record.names) and spoken_for.isdisjoint(told):
            remove(record.path)
        else:
            spoken_for |= told
    named = {shard.file for shard in now.manifest.shards}
    named |= {now.manifest.labels.file} if now.manifest.labels else set()
    for path in [*list_files(now.folder), *list_files(now.folder / SHARDS)]:
        if _OURS.fullmatch(path.name) and path.relative_to(now.folder).as_posix() not in named:
            remove(path)


def finish(now: Snapshot) -> None:
    """Bring a folder with nothing pending into its final form.

    Raises:
        W2WError: as `consolidate`.
    """
    consolidate(now, everything=True)
    clear_away(now)
    for folder in (now.folder / PENDING, now.folder / SHARDS):
        with suppress(OSError):  # it is not empty, or was never there
            folder.rmdir()


def set_aside(now: Snapshot, damaged: Iterable[Path]) -> tuple[str, ...]:
    """Move damaged files out of the dataset; keep the rows in them that are intact.

    Intact rows become records first, then the manifest lets go of the shards, then the files move
    to `quarantine/`: at every moment each intact row is in a file that counts.

    Returns:
        the names that lost their row and are pending again.

    Raises:
        W2WError: the manifest itself is damaged; the disk is full or the folder read-only.
    """
    folder, damaged = now.folder, set(damaged)
    if folder / FILE in damaged:
        raise InputError(
            f"{folder / FILE} is damaged, and it says what the other files should be: expected the"
            " bytes that were written; restore it from a copy first"
        )
    headers = {record.path: record for record in now.records}
    lost: list[str] = []
    for path in sorted(damaged & headers.keys()):
        lost += _rescue(now, headers[path])
    for shard in now.manifest.shards:
        if folder / shard.file not in damaged:
            continue
        try:
            lost += _rescue(now, now.header(folder / shard.file), shard.names)
        except (W2WError, FileNotFoundError):
            lost += shard.names
    kept = tuple(shard for shard in now.manifest.shards if folder / shard.file not in damaged)
    labels = now.manifest.labels
    if labels and folder / labels.file in damaged:
        labels = None
    manifest = replace(now.manifest, planned=now.planned, shards=kept, labels=labels)
    manifest.write(folder)
    make_folder(folder / QUARANTINE)
    for path in sorted(damaged):
        move(path, folder / QUARANTINE)
    rescued = {
        name for record in now.records for name in record.names if record.path not in damaged
    }
    return tuple(name for name in lost if name not in rescued)


def _rescue(now: Snapshot, file: RowsFile, names: Sequence[str] | None = None) -> list[str]:
    """Store the intact rows of a damaged file as a record; give the names of the others."""
    names = file.names if names is None else names
    wanted = set(names)
    intact = {
        file.names[index]: (index, row)
        for index, row in file.intact()
        if row is not None and file.names[index] in wanted
    }
    if intact or file.labels or file.failed:
        store_record(
            now,
            list(intact),
            [row for _, row in intact.values()],
            info=[file.info[index] for index, _ in intact.values()],
            labels=file.labels,
            failed=file.failed,
        )
    return [name for name in names if name not in intact]


def _commit(folder: Path, manifest: Manifest, labels: Labels | None) -> None:
    """Write the label table, if it changed and has any column, then the manifest that names it."""
    if labels is not None and manifest.label_names:
        table = to_parquet(labels, manifest.planned, manifest.label_names)
        path, sha256 = write_named(folder, lambda sha: f"labels-{sha[:16]}.parquet", [table])
        manifest = replace(manifest, labels=StoredFile(path.name, sha256))
    manifest.write(folder)


def _write_shard(now: Snapshot, index: int, names: tuple[str, ...]) -> Shard:
    places = [now.places[name] for name in names]
    headers = {f"{PENDING}/{record.path.name}": record for record in now.records}
    for file in {file for file, _ in places} - headers.keys():
        headers[file] = now.header(now.folder / file)
    sources = [(headers[file], row) for file, row in places]
    make_folder(now.folder / SHARDS)
    path, sha256 = write_rows(
        now.folder / SHARDS,
        f"{index:05d}",
        _copy(sources),
        names=names,
        digests=[file.digests[row] for file, row in sources],
        columns=now.manifest.layout.num_parameters,
        dtype=now.manifest.torch_dtype,
        info=[file.info[row] for file, row in sources],
    )
    return Shard(path.relative_to(now.folder).as_posix(), sha256, index, names)


def _copy(sources: Sequence[tuple[RowsFile, int]]) -> Iterator[bytearray]:
    """Return the bytes of rows one after the other; a damaged one stops it."""
    for file, group in groupby(sources, key=lambda source: source[0]):
        with file.path.open("rb") as opened:
            for _, row in group:
                data = file.row(opened, row)
                if data is None:
                    raise InputError(
                        f"row {file.names[row]!r} in {file.path} is damaged: expected the bytes"
                        " that were stored; w2w verify lists the damage, quarantine() sets it aside"
                    )
                yield data


def _is_left_over(path: Path) -> bool:
    """Tell whether a file may stem from a dataset whose making was cut short."""
    return path.name == LOCK or path.name.startswith(".tmp-") or bool(_OURS.fullmatch(path.name))
