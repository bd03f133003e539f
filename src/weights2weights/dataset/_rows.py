"""One safetensors file of named weight vectors: a shard, or a record that waits to join one.

The file holds one tensor, `weights` "n d", and a header with everything else that belongs to its
rows. Any safetensors reader opens it. It is written here rather than by the safetensors package for
two reasons: that package holds the whole file in memory and orders header fields by chance, while
shards must be streamed and must have the same bytes in every run.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._files import write_named
from .._json import canonical_json
from ..errors import InputError
from ._labels import Labels

FIELD = "weights2weights"
"""The metadata field of the header; its text is JSON."""

DTYPES = {"F32": torch.float32, "F16": torch.float16}
"""What a row may be stored as, by its name in safetensors."""

MALFORMED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What reading JSON of an unknown shape may raise."""

_MOST_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
_READ_BYTES = 8 << 20


@dataclass(frozen=True)
class RowsFile:
    """What the header of a file of rows says.

    Attributes:
        path: of the file.
        names: of the rows, in order.
        digests: of the bytes of every row; they tell intact rows of a damaged file apart.
        info: JSON facts per row, or an empty object.
        labels: name → label → value, for rows here or elsewhere.
        failed: name → reason, subjects that yielded no row.
        columns: length d of a row.
        dtype: in which rows are stored.
        start: offset of the first row in the file.
    """

    path: Path
    names: tuple[str, ...]
    digests: tuple[str, ...]
    columns: int
    dtype: torch.dtype
    start: int
    info: tuple[dict[str, Any], ...] = ()
    labels: Labels = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return self.columns * self.dtype.itemsize

    def row(self, file: BufferedReader, index: int) -> bytearray | None:
        """Read the bytes of one row; None if it is damaged, or holds what no row may hold."""
        row = bytearray(self.row_bytes)
        file.seek(self.start + index * self.row_bytes)
        if file.readinto(row) != len(row) or digest(row) != self.digests[index]:
            return None
        return row if finite_rows(torch.frombuffer(row, dtype=self.dtype)[None])[0] else None

    def intact(self) -> Iterator[tuple[int, bytearray | None]]:
        """Return every row with its index: its bytes, or None where it is damaged."""
        with self.path.open("rb") as file:
            for index in range(len(self.names)):
                yield index, self.row(file, index)


def digest(row: bytes | bytearray | memoryview) -> str:
    """Return 32 hex digits that stand for the bytes of a row."""
    return hashlib.sha256(row).hexdigest()[:32]


def finite_rows(rows: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
    """Say which rows hold finite numbers only."""
    if not len(rows):
        return torch.ones(0, dtype=torch.bool)
    low, high = rows.aminmax(dim=1)  # one pass, no temporaries: NaN anywhere makes both NaN
    return torch.isfinite(low) & torch.isfinite(high)


def byte_view(rows: Tensor) -> memoryview:
    """Return the bytes of a contiguous CPU tensor, without a copy."""
    return rows.numpy().reshape(-1).view(np.uint8).data


def write_rows(
    folder: Path,
    stem: str,
    rows: Iterable[bytes | bytearray | memoryview],
    *,
    names: Sequence[str],
    digests: Sequence[str],
    columns: int,
    dtype: torch.dtype,
    info: Sequence[dict[str, Any]] = (),
    labels: Labels | None = None,
    failed: dict[str, str] | None = None,
) -> tuple[Path, str]:
    """Write a file of rows, named after `stem` and its own content.

    Returns:
        the path, and the SHA-256 of the file in hex.

    Raises:
        W2WError: the disk is full or the folder read-only.
    """
    facts = {
        "names": list(names),
        "digests": list(digests),
        "info": list(info) if any(info) else [],
        "labels": labels or {},
        "failed": failed or {},
    }
    facts = {name: value for name, value in facts.items() if value or name in ("names", "digests")}
    header = _header(canonical_json(facts).decode().strip(), len(names), columns, dtype)
    return write_named(
        folder, lambda sha256: f"{stem}-{sha256[:16]}.safetensors", _chain(header, rows)
    )


def read_header(path: Path, columns: int, dtype: torch.dtype) -> RowsFile:
    """Read what a file of rows holds; the rows themselves are not read.

    Args:
        path: of the file, which may come from anywhere.
        columns: length of a row that is expected.
        dtype: of a row that is expected.

    Raises:
        FileNotFoundError: there is no such file.
        W2WError: it is no file of such rows, or is damaged in its header.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= min(_MOST_HEADER_BYTES, os.fstat(file.fileno()).st_size - 8):
                raise ValueError(f"a header of {size:,} bytes does not fit")
            header = json.loads(file.read(size))
        tensor, metadata = header["weights"], header["__metadata__"]
        facts = json.loads(metadata[FIELD])
        file_columns, file_dtype = int(tensor["shape"][1]), DTYPES[tensor["dtype"]]
        found = RowsFile(
            path=path,
            names=tuple(map(str, facts["names"])),
            digests=tuple(map(str, facts["digests"])),
            columns=file_columns,
            dtype=file_dtype,
            start=8 + size,
            info=tuple(map(dict, facts.get("info") or [{} for _ in facts["names"]])),
            labels={str(k): dict(v) for k, v in facts.get("labels", {}).items()},
            failed={str(k): str(v) for k, v in facts.get("failed", {}).items()},
        )
        if not len(found.names) == len(found.digests) == len(found.info) == tensor["shape"][0]:
            raise ValueError("names, digests and rows differ in number")
    except FileNotFoundError:
        raise
    except MALFORMED as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path} cannot be read as rows of a dataset ({reason}); expected a safetensors file"
            " with a tensor 'weights'; w2w verify lists the damage"
        ) from error
    if (found.columns, found.dtype) != (columns, dtype):
        raise InputError(
            f"{path} holds rows of {found.columns:,} {found.dtype} numbers: expected {columns:,} of"
            f" {dtype}; it belongs to another dataset"
        )
    return found


def read_into(path: Path, rows: int, first_row: int, out: Tensor) -> None:
    """Fill a contiguous CPU tensor "n d" with consecutive rows of a file, in the file's dtype.

    Args:
        path: of the file.
        rows: that it holds in all.
        first_row: to read.
        out: where to.

    Raises:
        FileNotFoundError: there is no such file.
        W2WError: it is not of the size of that many rows, or cannot be read.
    """
    wanted, row_bytes = byte_view(out), out.shape[1] * out.element_size()
    try:
        with path.open("rb", buffering=0) as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            if start + rows * row_bytes != os.fstat(file.fileno()).st_size:
                raise ValueError(f"not of the size of {rows:,} rows of {out.shape[1]:,} numbers")
            file.seek(start + first_row * row_bytes)
            filled = 0
            while filled < len(wanted):
                count = file.readinto(wanted[filled : filled + _READ_BYTES])
                if not count:
                    raise ValueError("it ends too early")
                filled += count
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}): expected the"
            " bytes that were written; w2w verify lists the damage, quarantine() sets it aside"
        ) from error


def _header(facts: str, rows: int, columns: int, dtype: torch.dtype) -> bytes:
    name = next(name for name, known in DTYPES.items() if known == dtype)
    size = rows * columns * dtype.itemsize
    header = {
        "__metadata__": {FIELD: facts},
        "weights": {"dtype": name, "shape": [rows, columns], "data_offsets": [0, size]},
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # rows start at a multiple of 8 bytes, as safetensors asks
    return len(text).to_bytes(8, "little") + text


def _chain(first: bytes, rest: Iterable[Any]) -> Iterator[Any]:
    yield first
    yield from rest
