"""`w2w train`: DreamBooth for every subject folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ._malloc import keep_freed_memory
from ._options import COUNT, FILE, FOLDER, FRACTION, PATH, SEED, base_options, config_options
from ._output import json_option, report

_FIELDS = {  # of DreamBoothConfig
    "instance_prompt": (str, "Prompt of the subjects' images."),
    "caption_dropout": (
        FRACTION,
        "Probability of leaving each part of an image's caption out of its prompt.",
    ),
    "class_prompt": (str, "Prompt of the class images for prior preservation."),
    "rank": (COUNT, "LoRA rank."),
    "alpha": (float, "LoRA alpha."),
    "learning_rate": (float, "Peak learning rate of AdamW."),
    "steps": (COUNT, "Number of optimiser steps per subject."),
    "train_batch_size": (COUNT, "Images per step and subject."),
    "prior_loss_weight": (float, "Weight of prior preservation; 0 turns it off."),
    "num_class_images": (COUNT, "Number of class images."),
    "start": (
        click.Choice(["random", "base"]),
        "Initialise A at random, or with the one in the base's folder.",
    ),
    "seed": (SEED, "Seed of noise, timesteps and initial weights."),
}


@click.command()
@click.argument("subjects", nargs=-1, required=True, type=PATH)
@click.option(
    "--out", required=True, type=FOLDER, help="Folder of the dataset; an existing one is continued."
)
@click.option(
    "--labels",
    type=FILE,
    help="CSV or Parquet table of labels.  [default: labels.csv or .parquet in SUBJECTS]",
)
@click.option(
    "--preset",
    type=click.Choice(["paper", "people"]),
    help="Settings to start from.  [default: people for the embedded base, else paper]",
)
@config_options(_FIELDS)
@click.option(
    "--retry",
    "retry_failed",
    is_flag=True,
    help="Train subjects again that failed in an earlier run.",
)
@click.option(
    "--cache",
    type=FOLDER,
    help="Folder for latents, class images and checkpoints."
    "  [default: $W2W_CACHE, else ~/.cache/weights2weights]",
)
@click.option("--log", type=FILE, help="File to append losses and rates to, as lines of JSON.")
@base_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    subjects: tuple[Path, ...],
    out: Path,
    base: Any,
    labels: Path | None,
    preset: str | None,
    as_json: bool,
    changes: Mapping[str, Any],
    **options: Any,
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
    dataset = train(
        base(),
        found,
        out,
        None if preset is None else PRESETS[preset],
        labels=None if table is None else read_labels(table),
        progress=True,
        **options,
        **changes,
    )
    wanted = {subject.name for subject in found}
    failed = {name: why for name, why in dataset.failed.items() if name in wanted}
    facts = {
        "path": dataset.path,
        "models": len(dataset),
        "numbers": dataset.layout.num_parameters,
        "layout": dataset.layout.hash,
        "base": dataset.layout.base,
        "failed": failed if as_json else len(failed),
    }
    report(facts, as_json)
    for name, why in failed.items():
        click.echo(f"{name}: {why}", err=True)
    if failed:
        summary = f"{len(failed)} of {len(found)} subjects failed; fix them and rerun with --retry"
        click.echo(summary, err=True)
        context.exit(1)
