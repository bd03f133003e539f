"""Rows packed into a few large files, for hubs and network disks that dislike many small ones.

A shard is a safetensors file of one float32 tensor "n d", with the header strings that each row
has as a file of its own. `dataset.json` lists the shards; rows written later are files next to it.
"""

from pathlib import Path

from .._json import parse_json
from .._safetensors import DIGEST, open_checked
from ..errors import InputError, W2WError
from ._folder import Facts
from ._rows import SUBJECT, PackedRow

ROWS, TENSOR = "w2w_rows", "weights"


def list_packed(folder: Path, facts: Facts) -> dict[str, PackedRow]:
    """Return the rows in the shards of a dataset by name; reads only headers."""
    rows: dict[str, PackedRow] = {}
    for shard in facts.shards:
        path = folder / shard
        try:
            rows |= {row.metadata[SUBJECT]: row for row in _rows_of(path, facts)}
        except (W2WError, OSError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} cannot be used ({error}); download or pack it again"
            ) from error
    return rows


def _rows_of(path: Path, facts: Facts) -> list[PackedRow]:
    d = facts.layout.num_parameters
    with open_checked(path) as file:
        metadata = parse_json(file.metadata[ROWS], ROWS)
        tensor = file.places[TENSOR]
        if tensor.dtype != "F32" or tensor.shape != (len(metadata), d) or len(file.places) > 1:
            raise InputError(
                f"holds {tensor.dtype} {list(tensor.shape)}: expected F32 [{len(metadata)}, {d}]"
            )
    start = path.stat().st_size - 4 * d * len(metadata)
    for row in metadata:
        if not all(isinstance(row[key], str) for key in (SUBJECT, DIGEST)):
            raise InputError(f"{ROWS} does not name every row and its digest")
    return [PackedRow(path, start + 4 * d * i, row) for i, row in enumerate(metadata)]
