"""`w2w import`: LoRA files from elsewhere into a dataset."""

from pathlib import Path

import click

from ._output import json_option, one_line, report


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The dataset's folder.")
@click.option("--alpha", type=float, help="LoRA alpha of files that do not state it.")
@click.option(
    "--base", help="Name of the base model of a new dataset.  [default: the first file's]"
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="CSV or Parquet table of labels, one row per LoRA.",
)
@json_option
def command(
    files: tuple[Path, ...],
    out: Path,
    alpha: float | None,
    base: str | None,
    labels: Path | None,
    as_json: bool,
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

    outcome = import_loras(
        files,
        out,
        alpha=alpha,
        base=base,
        labels=None if labels is None else read_labels(labels),
        progress=True,
    )
    dataset = outcome.dataset
    facts = {
        "path": out,
        "models": 0 if dataset is None else len(dataset),
        "added": len(outcome.added),
        "known": len(outcome.known),
        "refused": {str(file): reason for file, reason in outcome.refused.items()},
        "layout": None if dataset is None else dataset.layout.hash,
        "bases": dict(outcome.bases),
    }
    if not as_json:
        facts["refused"] = len(outcome.refused)
    report(facts, as_json)
    for reason in outcome.refused.values():
        click.echo(f"Error: {one_line(reason)}", err=True)
    if len(outcome.bases.keys() - {""}) > 1:
        names = ", ".join(sorted(outcome.bases.keys() - {""}))
        click.echo(f"Note: the files name several base models ({one_line(names)}).", err=True)
    if outcome.refused:
        raise SystemExit(1)
