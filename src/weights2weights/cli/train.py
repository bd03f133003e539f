"""`w2w train`: DreamBooth for every subject folder."""

from pathlib import Path

import click

from ._options import base_option, device_option, dtype_option, open_base
from ._output import json_option, report


@click.command()
@click.argument("subjects", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The dataset of weights; continued if it is there.",
)
@base_option
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV or Parquet table of labels.  [default: labels.csv or .parquet in SUBJECTS]",
)
@click.option(
    "--recipe",
    "preset",
    type=click.Choice(["paper", "people"]),
    help="Settings to start from.  [default: those of the base's world, else the paper's]",
)
@click.option("--prompt", help="What the subject's images are called.")
@click.option(
    "--caption-share",
    type=click.FloatRange(0, 1),
    help="Chance of each part of an image's caption to follow the prompt.",
)
@click.option("--class-prompt", help="What the base's own images for prior preservation are.")
@click.option("--rank", type=click.IntRange(1), help="Of the LoRAs.")
@click.option("--alpha", type=float, help="Of the LoRAs.")
@click.option("--learning-rate", type=float, help="Of AdamW.")
@click.option("--steps", type=click.IntRange(1), help="Of the optimiser, for each subject.")
@click.option("--train-batch-size", type=click.IntRange(1), help="Images per step and subject.")
@click.option("--prior-weight", type=float, help="Of prior preservation; 0 does without it.")
@click.option("--num-class-images", type=click.IntRange(1), help="For prior preservation.")
@click.option(
    "--start",
    type=click.Choice(["random", "base"]),
    help="Begin with a random A, or with the one in the base's folder.",
)
@click.option("--seed", type=click.IntRange(0), help="Of noise, timesteps and initial weights.")
@click.option("--group", type=click.IntRange(1), help="Subjects at once.  [default: what fits]")
@click.option("--retry", is_flag=True, help="Try again what failed in an earlier call.")
@device_option
@dtype_option
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="For latents, class images and checkpoints."
    "  [default: $W2W_CACHE, else ~/.cache/weights2weights]",
)
@click.option(
    "--metrics",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add losses and rates to this file as lines of JSON.",
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
    group: int | None,
    retry: bool,
    device: str,
    dtype: str,
    cache: Path | None,
    metrics: Path | None,
    as_json: bool,
    **changes: object,
) -> None:
    """Learn a LoRA for every subject folder.

    SUBJECTS is a folder that holds one folder of PNG, JPEG or WebP images per subject; several
    may be given. A mask beside an image, 1.mask.png for 1.jpg, is white where the subject is. A
    caption beside it, 1.txt, says what is around the subject, in parts between commas: "smiling,
    red shirt, on a beach". Parts of it follow the prompt, which keeps them out of the model.

    Each group of subjects is stored as soon as it is done. After an interruption, give the same
    command again. A subject that cannot be learned is named on stderr, the others go on, and the
    exit code is 1.

    \b
    Example: w2w train subjects --out weights
    """
    from ..labels import find_labels, read_labels
    from ..subjects import find_subjects
    from ..training import RECIPES, train

    found = find_subjects(*subjects)
    table = labels or find_labels(*subjects)
    known = None if table is None else read_labels(table)
    dataset = train(
        open_base(base, device, dtype),
        found,
        out,
        None if preset is None else RECIPES[preset],
        group=group,
        labels=known,
        cache=cache,
        retry_failed=retry,
        metrics=metrics,
        progress=True,
        **{name: value for name, value in changes.items() if value is not None},
    )
    wanted = {subject.name for subject in found}
    failed = {name: why for name, why in dataset.failed.items() if name in wanted}
    facts = {
        "path": dataset.path,
        "models": len(dataset),
        "numbers": dataset.columns,
        "layout": dataset.layout.hash,
        "base": dataset.layout.base,
        "failed": failed,
    }
    report(facts if as_json else {**facts, "failed": len(failed)}, as_json)
    for name, why in failed.items():
        click.echo(f"{name}: {why}", err=True)
    if failed:
        click.echo(f"{len(failed)} of {len(found)} subjects failed; mend and add --retry", err=True)
        context.exit(1)
