"""`w2w train`: DreamBooth for every subject folder."""

from pathlib import Path

import click

from ._malloc import keep_freed_memory
from ._options import base_option, device_option, dtype_option, open_base
from ._output import json_option, report


@click.command()
@click.argument("subjects", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the dataset; an existing one is continued.",
)
@base_option
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV or Parquet table of labels.  [default: labels.csv or .parquet in SUBJECTS]",
)
@click.option(
    "--preset",
    type=click.Choice(["paper", "people"]),
    help="Settings to start from.  [default: people for the embedded base, else paper]",
)
@click.option("--instance-prompt", help="Prompt of the subjects' images.")
@click.option(
    "--caption-dropout",
    type=click.FloatRange(0, 1),
    help="Probability of leaving each part of an image's caption out of its prompt.",
)
@click.option("--class-prompt", help="Prompt of the class images for prior preservation.")
@click.option("--rank", type=click.IntRange(1), help="LoRA rank.")
@click.option("--alpha", type=float, help="LoRA alpha.")
@click.option("--learning-rate", type=float, help="Peak learning rate of AdamW.")
@click.option("--steps", type=click.IntRange(1), help="Number of optimiser steps per subject.")
@click.option("--train-batch-size", type=click.IntRange(1), help="Images per step and subject.")
@click.option(
    "--prior-loss-weight", type=float, help="Weight of prior preservation; 0 turns it off."
)
@click.option("--num-class-images", type=click.IntRange(1), help="Number of class images.")
@click.option(
    "--start",
    type=click.Choice(["random", "base"]),
    help="Initialise A at random, or with the one in the base's folder.",
)
@click.option(
    "--seed", type=click.IntRange(0), help="Seed of noise, timesteps and initial weights."
)
@click.option(
    "--gradient-checkpointing/--no-gradient-checkpointing",
    default=None,
    help="Use less memory, at the cost of speed.",
)
@click.option(
    "--subjects-per-batch",
    type=click.IntRange(1),
    help="Subjects to train at once.  [default: as many as fit into memory]",
)
@click.option("--retry", is_flag=True, help="Train subjects again that failed in an earlier run.")
@device_option
@dtype_option
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for latents, class images and checkpoints."
    "  [default: $W2W_CACHE, else ~/.cache/weights2weights]",
)
@click.option(
    "--log",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to append losses and rates to, as lines of JSON.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    subjects: tuple[Path, ...],
    out: Path,
    base: str,
    labels: Path | None,
    preset: str | None,
    subjects_per_batch: int | None,
    retry: bool,
    device: str,
    dtype: str,
    cache: Path | None,
    log: Path | None,
    as_json: bool,
    **changes: object,
) -> None:
    """Train a LoRA for every subject folder.

    SUBJECTS is a directory with one subdirectory of PNG, JPEG or WebP images per subject; several
    may be given. A mask next to an image, 1.mask.png for 1.jpg, is white where the subject is. A
    caption next to it, 1.txt, describes everything but the subject, in comma-separated parts:
    "smiling, red shirt, on a beach". Random parts of it are appended to the prompt, which keeps
    them out of the model.

    Each batch of subjects is stored as soon as it is done. After an interruption, run the same
    command again. A subject that cannot be trained is reported on stderr, the others continue, and
    the exit code is 1.

    \b
    Example: w2w train subjects --out weights
    """
    from ..labels import find_labels, read_labels
    from ..subjects import find_subjects
    from ..training import PRESETS, train

    keep_freed_memory()
    found = find_subjects(*subjects)
    table = labels or find_labels(*subjects)
    known = None if table is None else read_labels(table)
    dataset = train(
        open_base(base, device, dtype),
        found,
        out,
        None if preset is None else PRESETS[preset],
        subjects_per_batch=subjects_per_batch,
        labels=known,
        cache=cache,
        retry_failed=retry,
        log=log,
        progress=True,
        **{name: value for name, value in changes.items() if value is not None},
    )
    wanted = {subject.name for subject in found}
    failed = {name: why for name, why in dataset.failed.items() if name in wanted}
    facts = {
        "path": dataset.path,
        "models": len(dataset),
        "numbers": dataset.layout.num_parameters,
        "layout": dataset.layout.hash,
        "base": dataset.layout.base,
        "failed": failed,
    }
    report(facts if as_json else {**facts, "failed": len(failed)}, as_json)
    for name, why in failed.items():
        click.echo(f"{name}: {why}", err=True)
    if failed:
        click.echo(
            f"{len(failed)} of {len(found)} subjects failed; fix them and rerun with --retry",
            err=True,
        )
        context.exit(1)
