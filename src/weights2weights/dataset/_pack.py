"""Pack a dataset into a few large files, for hubs and network disks that dislike small ones."""

from pathlib import Path

from tqdm import tqdm

from .._files import TEMPORARY, make_folder
from .._json import canonical_json
from .._safetensors import DIGEST, digest, write_safetensors
from ..errors import InputError
from ..labels import find_labels, read_labels, write_labels
from ._dataset import WeightDataset
from ._folder import FAILED, ROWS, SHARDS, SUBJECT, TENSOR, Facts, write_failure
from ._rows import read_metadata

_MOST_ROWS = 1024  # whose headers fit into one header


def pack(
    dataset: WeightDataset,
    out: str | Path,
    *,
    shard_bytes: int = 256 << 20,
    progress: bool = False,
) -> WeightDataset:
    """Copy a dataset into safetensors shards, which `WeightDataset.open` reads like the files.

    A shard is one float32 tensor "n d", with the header strings that each row has as a file of its
    own. `dataset.json` lists the shards; rows written later are files next to them.

    Args:
        dataset: what to copy, with its labels and the reasons of failures.
        out: a new or empty folder, or one in which packing was interrupted.
        shard_bytes: approximate size of a shard, which must fit into memory.
        progress: show a bar on stderr.

    Raises:
        InputError: a damaged row, no rows, or a folder in use.
    """
    out = Path(out)
    if not dataset.names:
        raise InputError(f"{dataset.path} holds no models to pack")
    if out.is_file():
        raise InputError(f"{out} is a file; expected a new folder for the packed dataset")
    ours = {SHARDS, FAILED, "labels.csv"} if (out / SHARDS).exists() else set[str]()
    if any(path.name not in ours and TEMPORARY not in path.name for path in out.glob("*")):
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
        write_safetensors(out / shard, {TENSOR: rows}, {ROWS: canonical_json(headers).decode()})
    for name, facts in dataset.failures.items():
        write_failure(out, name, **facts)
    if table := find_labels(dataset.path):
        write_labels(out / "labels.csv", read_labels(table).dropna(how="all").sort_index())
    Facts(dataset.layout, dataset.base_hash, dataset.recipe, shards).write(out)
    return WeightDataset.open(out)
