"""`w2w pack`: a dataset in a few large files."""

from pathlib import Path

import click

from ._options import COUNT, FOLDER, PATH
from ._output import json_option, report


@click.command()
@click.argument("dataset", type=PATH)
@click.option("--out", required=True, type=FOLDER, help="A new folder.")
@click.option("--shard-mb", type=COUNT, default=256, help="Approximate size of a shard, in MiB.")
@json_option
def command(dataset: Path, out: Path, shard_mb: int, as_json: bool) -> None:
    """Copy a dataset into a few large files, for a hub or a network disk.

    Every command that takes a dataset takes the packed one, except import.

    \b
    Example: w2w pack loras --out packed
    """
    from ..dataset import WeightDataset, pack

    packed = pack(WeightDataset.open(dataset), out, shard_bytes=shard_mb << 20, progress=True)
    shards = len(list((out / "shards").glob("*.safetensors")))
    report({"path": out, "models": len(packed), "shards": shards}, as_json)
