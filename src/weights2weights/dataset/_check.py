"""Look at every byte of a dataset and say what is wrong with it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .._files import checksum
from ..errors import W2WError
from ._labels import from_parquet
from ._manifest import FILE
from ._rows import RowsFile, finite_rows, read_into
from ._snapshot import Snapshot

_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a dataset.

    Attributes:
        file: that is damaged or missing.
        reason: in a few words.
        names: of the rows that it costs.
    """

    file: Path
    reason: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.names:
            return f"{self.file}: {self.reason}"
        shown = ", ".join(map(repr, self.names[:3]))
        more = f" and {len(self.names) - 3:,} more" if len(self.names) > 3 else ""
        rows = "row" if len(self.names) == 1 else "rows"
        return f"{self.file}: {self.reason}; {rows} {shown}{more}"


def problems(now: Snapshot) -> Iterator[Problem]:
    """Check the checksum, shape and finite values of every file; gives what is wrong, if anything.

    Costs one read of the whole dataset, and memory for 16 MiB or one row.
    """
    if not now.manifest.intact:
        yield Problem(now.folder / FILE, "its bytes are not those that were written")
    for path in now.unreadable:
        yield Problem(path, "its header is damaged; it cannot say which rows it held")
    for record in now.records:
        sha256 = record.path.stem.split("-")[-1]
        yield from _check_rows(now, record.path, sha256, record.names)
    for shard in now.manifest.shards:
        step = now.manifest.shard_rows
        stretch = now.manifest.planned[shard.index * step : (shard.index + 1) * step]
        held = set(shard.names)
        if tuple(name for name in stretch if name in held) != shard.names:
            reason = f"holds other names than stretch {shard.index} of the plan"
            yield Problem(now.folder / shard.file, reason, shard.names)
        yield from _check_rows(now, now.folder / shard.file, shard.sha256, shard.names)
    if labels := now.manifest.labels:
        path = now.folder / labels.file
        try:
            from_parquet(path, labels.sha256)
        except FileNotFoundError:
            yield Problem(path, "is missing")
        except W2WError:
            yield Problem(path, "its bytes are not those that were written")


def _check_rows(now: Snapshot, path: Path, sha256: str, names: Sequence[str]) -> Iterator[Problem]:
    names = tuple(names)
    try:
        file = now.header(path)
        if file.names != names:
            yield Problem(path, "holds other rows than the manifest says", names)
        elif not checksum(path).startswith(sha256):
            lost = tuple(names[index] for index, row in file.intact() if row is None)
            yield Problem(path, "its bytes are not those that were written", lost)
        else:
            yield from _check_finite(file)
    except FileNotFoundError:
        yield Problem(path, "is missing", names)
    except OSError as error:
        yield Problem(path, f"cannot be read: {error.strerror}", names)
    except W2WError:
        yield Problem(path, "its header is damaged", names)


def _check_finite(file: RowsFile) -> Iterator[Problem]:
    step = max(1, _BLOCK_BYTES // file.row_bytes)
    for start in range(0, len(file.names), step):
        rows = torch.empty(min(step, len(file.names) - start), file.columns, dtype=file.dtype)
        read_into(file.path, len(file.names), start, rows)
        finite = finite_rows(rows)
        if not finite.all():
            broken = [file.names[start + i] for i in torch.nonzero(~finite).flatten().tolist()]
            yield Problem(file.path, "holds numbers that are NaN or infinite", tuple(broken))
