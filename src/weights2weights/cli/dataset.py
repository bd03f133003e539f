"""`w2w import`, `w2w pack` and `w2w import-published`: files of others, and datasets as shards."""

from pathlib import Path
from typing import Any

import click
from click import argument, option

from ._options import COUNT, FOLDER, PATH, given, labels_option
from ._output import Outcome, one_line, verb


@verb("import")
@argument("files", nargs=-1, required=True, type=PATH)
@option("--out", required=True, type=PATH, help="The dataset's folder.")
@option("--alpha", type=float, help="LoRA alpha of files that do not state it.")
@option("--base", help="Name of the base model of a new dataset.  [default: the first file's]")
@labels_option("CSV or Parquet table of labels, one row per LoRA.")
def import_command(files: tuple[Path, ...], out: Path, **options: Any) -> Outcome:
    """Copy LoRA files into a dataset.

    FILES are LoRAs (PEFT or diffusers folders, diffusers or kohya files), or folders of them such
    as other datasets, whose labels come along. The dataset, or else the first file, sets the
    layout. Files of another layout, and files that cannot be read, are left out and listed on
    stderr; the others go in, and the exit code is 1. Safe to repeat.

    \b
    Example: w2w import downloads/*.safetensors --labels labels.csv --out loras
    """
    from ..dataset import import_loras

    outcome = import_loras(files, out, progress=True, **options)
    dataset, refused = outcome.dataset, outcome.refused
    facts = {
        "path": out,
        "models": 0 if dataset is None else len(dataset),
        "added": len(outcome.added),
        "known": len(outcome.known),
        "refused": {str(file): why for file, why in refused.items()},
        "layout": None if dataset is None else dataset.layout.hash,
        "bases": dict(outcome.bases),
    }
    if len(bases := sorted(outcome.bases.keys() - {""})) > 1:
        note = f"Note: the files name several base models ({one_line(', '.join(bases))})."
        click.echo(note, err=True)
    problems = [f"Error: {reason}" for reason in refused.values()]
    return Outcome(facts, facts | {"refused": len(refused)}, problems)


@verb("pack")
@argument("dataset", type=PATH)
@option("--out", required=True, type=FOLDER, help="A new folder.")
@option("--shard-mb", type=COUNT, default=256, help="Approximate size of a shard, in MiB.")
def pack_command(dataset: Path, out: Path, shard_mb: int) -> dict[str, Any]:
    """Copy a dataset into a few large files, for a hub or a network disk.

    Every command that takes a dataset takes the packed one, except import.

    \b
    Example: w2w pack loras --out packed
    """
    from ..dataset import WeightDataset, pack

    packed = pack(WeightDataset.open(dataset), out, shard_bytes=shard_mb << 20, progress=True)
    shards = len(list((out / "shards").glob("*.safetensors")))
    return {"path": out, "models": len(packed), "shards": shards}


@verb("import-published")
@argument("source", type=PATH)
@option("--out", type=FOLDER, help="The new space.")
@option("--dataset", type=FOLDER, help="The new dataset.")
@option("--components", type=COUNT, help="Number of components to keep.")
@option("--alpha", type=float, default=27.0, help="LoRA alpha.")
@option("--base", help="Name of the base model.  [default: that of the paper]")
@option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    help="Precision of the space's components and coefficients.",
)
def import_published_command(
    source: Path,
    out: Path | None,
    dataset: Path | None,
    components: int | None,
    dtype: str,
    **options: Any,
) -> dict[str, Any]:
    """Import the authors' published files.

    They become a space (--out), a dataset (--dataset) or both.

    SOURCE is a folder that holds V.pt, mean.pt, std.pt, weight_dimensions.pt and proj_1000pc.pt,
    itself or in files/, and optionally identity_df.pt and all_weights.pt, itself or in
    weights_datasets/identities. A dataset needs only the weights: all_weights.pt, or a file of
    n × d weights as SOURCE. Nothing in the files is run, not even the pickled table of labels.

    \b
    Example: w2w import-published weights2weights --out space --dtype float16
             w2w import-published dog_weights.pt --dataset dogs
    """
    import torch

    from ..published import import_published, import_published_dataset

    if out is None and dataset is None:
        raise click.UsageError("Give --out SPACE, --dataset DATASET or both.")
    facts: dict[str, Any] = {}
    if dataset is not None:
        loras = import_published_dataset(source, dataset, progress=True, **given(options))
        facts |= _facts(dataset, len(loras), loras) | {"dataset": dataset}
    if out is not None:
        space = import_published(source, components=components, **given(options))
        space.save_pretrained(out, dtype=getattr(torch, dtype))
        facts |= _facts(out, len(space.names), space) | {
            "components": len(space),
            "known_components": space.coefficients.shape[1],
            "space": space.hash,
        }
    return facts


def _facts(path: Path, models: int, made: Any) -> dict[str, Any]:
    return {
        "path": path,
        "models": models,
        "numbers": made.layout.num_parameters,
        "labels": list(made.labels.columns),
        "layout": made.layout.hash,
    }
