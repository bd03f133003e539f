"""Rows packed into a few large files, for hubs and network disks that dislike many small ones.

A shard is a safetensors file of one float32 tensor "n d", with the header strings that each row
has as a file of its own. `dataset.json` lists the shards; rows written later are files next to it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from .._files import make_folder
from .._json import canonical_json, parse_json
from .._safetensors import open_checked, write_safetensors
from ..errors import InputError, W2WError
from ..formats import DIGEST, digest
from ..labels import write_labels
from ._folder import FACTS, SHARDS, Facts, write_failure
from ._rows import SUBJECT, PackedRow, read_metadata

if TYPE_CHECKING:
    from ._dataset import WeightDataset

_ROWS, _TENSOR = "w2w_rows", "weights"
_MOST_ROWS = 1024  # whose headers fit into one header


def pack(
    dataset: "WeightDataset",
    out: str | Path,
    *,
    shard_bytes: int = 256 << 20,
    progress: bool = False,
) -> "WeightDataset":
    """Copy a dataset into safetensors shards, which `WeightDataset.open` reads like the files.

    Equal datasets give equal bytes. Needs memory for one shard.

    Args:
        dataset: what to copy, with its labels and the reasons of failures.
        out: a new or empty folder, or one in which packing was interrupted.
        shard_bytes: approximate size of a shard.
        progress: show a bar on stderr.

    Raises:
        InputError: a damaged row, no rows, or a folder in use.
        ResourceError: the shards cannot be written.
    """
    out = Path(out)
    if not dataset.names:
        raise InputError(f"{dataset.path} holds no models to pack")
    if (out / FACTS).exists() or (out.exists() and {p.name for p in out.iterdir()} - {SHARDS}):
        raise InputError(f"{out} is not empty; expected a new folder for the packed dataset")
    make_folder(out / SHARDS)
    height = max(1, min(_MOST_ROWS, shard_bytes // (4 * dataset.layout.num_parameters)))
    starts = range(0, len(dataset), height)
    shards = tuple(f"{SHARDS}/{i:05d}-of-{len(starts):05d}.safetensors" for i in range(len(starts)))
    for shard, start in zip(shards, tqdm(starts, unit="shard", disable=not progress), strict=True):
        names = dataset.names[start : start + height]
        rows, headers = dataset[list(names)], []
        for name, row in zip(names, rows, strict=True):
            stated = read_metadata(dataset.place(name))
            own = {key: text for key, text in stated.items() if key.startswith("w2w_")}
            headers.append({**own, SUBJECT: name, DIGEST: digest(row)})
        write_safetensors(out / shard, {_TENSOR: rows}, {_ROWS: canonical_json(headers).decode()})
    for name, facts in dataset.failures.items():
        write_failure(out, name, **facts)
    labels = dataset.labels.dropna(how="all")
    if len(labels.columns):
        write_labels(out / "labels.csv", labels)
    Facts(dataset.layout, dataset.base_hash, dataset.recipe, shards).write(out)
    return type(dataset).open(out)


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
