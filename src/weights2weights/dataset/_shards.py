"""Rows packed into a few large files, for hubs and network disks that dislike many small ones.

A shard is a safetensors file of one float32 tensor `weights` (n, d). Its header holds, under
`w2w_rows`, a JSON list with the header strings that each row has as a file of its own, digest
included. `dataset.json` lists the shards. Rows written later stand next to them as files.
"""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from .._json import canonical_json, parse_json
from .._safetensors import open_checked, write_safetensors
from ..errors import InputError, W2WError
from ..formats import DIGEST
from ._folder import Facts
from ._rows import SUBJECT, PackedRow

_ROWS, _TENSOR = "w2w_rows", "weights"


def write_shard(path: Path, rows: Float[Tensor, "n d"], metadata: Sequence[dict[str, str]]) -> None:
    """Write one shard, all or nothing."""
    write_safetensors(path, {_TENSOR: rows}, {_ROWS: canonical_json(list(metadata)).decode()})


def list_packed(folder: Path, facts: Facts) -> dict[str, PackedRow]:
    """Return the rows in the shards of a dataset by name; reads only headers.

    Raises:
        InputError: a shard is missing, damaged or of another length of rows.
    """
    rows: dict[str, PackedRow] = {}
    for shard in facts.shards:
        path = folder / shard
        try:
            for row in _rows_of(path, facts.layout.num_parameters):
                rows[row.metadata[SUBJECT]] = row
        except (W2WError, OSError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} cannot be used ({error}); download or pack it again"
            ) from error
    return rows


def _rows_of(path: Path, d: int) -> list[PackedRow]:
    with open_checked(path) as file:
        metadata = parse_json(file.metadata[_ROWS], _ROWS)
        tensor = file.places[_TENSOR]
        if tensor.dtype != "F32" or tensor.shape != (len(metadata), d) or len(file.places) > 1:
            raise InputError(
                f"holds {tensor.dtype} {list(tensor.shape)}: expected F32 [{len(metadata)}, {d}]"
            )
    start = path.stat().st_size - 4 * d * len(metadata)
    for row in metadata:
        if not all(isinstance(row[key], str) for key in (SUBJECT, DIGEST)):
            raise InputError(f"{_ROWS} does not name every row and its digest")
    return [PackedRow(path, start + 4 * d * i, row) for i, row in enumerate(metadata)]
