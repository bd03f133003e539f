"""`w2w import`: LoRA files from elsewhere into a dataset."""

from pathlib import Path
from typing import Any

import click

from ._options import PATH
from ._output import json_option, one_line, report


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--out", required=True, type=PATH, help="The dataset's folder.")
@click.option("--alpha", type=float, help="LoRA alpha of files that do not state it.")
@click.option(
    "--base", help="Name of the base model of a new dataset.  [default: the first file's]"
)
@click.option("--labels", type=PATH, help="CSV or Parquet table of labels, one row per LoRA.")
@json_option
def command(
    files: tuple[Path, ...], out: Path, labels: Path | None, as_json: bool, **options: Any
) -> None:
    """Copy LoRA files into a dataset.

    FILES are LoRAs (PEFT or diffusers folders, diffusers or kohya files), or folders of them such
    as other datasets, whose labels come along. The dataset, or else the first file, sets the
    layout. Files of another layout, and files that cannot be read, are left out and listed on
    stderr; the others go in, and the exit code is 1. Safe to repeat.

    \b
    Example: w2w import downloads/*.safetensors --labels labels.csv --out loras
    """
    from ..dataset import import_loras
    from ..labels import read_labels

    table = None if labels is None else read_labels(labels)
    outcome = import_loras(files, out, labels=table, progress=True, **options)
    dataset, refused = outcome.dataset, outcome.refused
    facts = {
        "path": out,
        "models": 0 if dataset is None else len(dataset),
        "added": len(outcome.added),
        "known": len(outcome.known),
        "refused": {str(f): why for f, why in refused.items()} if as_json else len(refused),
        "layout": None if dataset is None else dataset.layout.hash,
        "bases": dict(outcome.bases),
    }
    report(facts, as_json)
    for reason in refused.values():
        click.echo(f"Error: {one_line(reason)}", err=True)
    if len(bases := sorted(outcome.bases.keys() - {""})) > 1:
        note = f"Note: the files name several base models ({one_line(', '.join(bases))})."
        click.echo(note, err=True)
    if refused:
        raise SystemExit(1)
