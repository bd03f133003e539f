"""`w2w train`: DreamBooth for every subject folder."""

import ctypes
import sys
from pathlib import Path
from typing import Any

import click
from click import argument, option

from ._options import (
    COUNT,
    FILE,
    FOLDER,
    PATH,
    SEED,
    base_options,
    given,
    labels_option,
    memory_options,
)
from ._output import Outcome, verb

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAX_KEPT = 2**31 - 1  # bytes; the most that fits mallopt's int
_MAX_ON_HEAP = 32 * 2**20  # the largest value that it accepts for this


@verb("train")
@argument("subjects", nargs=-1, required=True, type=PATH)
@option(
    "--out", required=True, type=FOLDER, help="Folder of the dataset; an existing one is continued."
)
@labels_option("CSV or Parquet table of labels.  [default: labels.csv or .parquet in SUBJECTS]")
@option(
    "--preset",
    type=click.Choice(["paper", "people", "sdxl", "sd3", "flux"]),
    help="Settings to start from.  [default: people for the embedded base, else paper]",
)
@option("--instance-prompt", help="Prompt of the subjects' images.")
@option(
    "--caption-dropout",
    type=click.FloatRange(0, 1),
    help="Probability of leaving each part of an image's caption out of its prompt.",
)
@option("--class-prompt", help="Prompt of the class images for prior preservation.")
@option("--rank", type=COUNT, help="LoRA rank.")
@option("--alpha", type=float, help="LoRA alpha.")
@option("--learning-rate", type=float, help="Peak learning rate of AdamW.")
@option("--steps", type=COUNT, help="Number of optimiser steps per subject.")
@option("--train-batch-size", type=COUNT, help="Images per step and subject.")
@option("--prior-loss-weight", type=float, help="Weight of prior preservation; 0 turns it off.")
@option("--num-class-images", type=COUNT, help="Number of class images.")
@option(
    "--start",
    type=click.Choice(["random", "base"]),
    help="Initialise A at random, or with the one in the base's folder.",
)
@option("--seed", type=SEED, help="Seed of noise, timesteps and initial weights.")
@memory_options
@option(
    "--retry",
    "retry_failed",
    is_flag=True,
    help="Train subjects again that failed in an earlier run.",
)
@option(
    "--cache",
    type=FOLDER,
    help="Folder for latents, class images and checkpoints."
    "  [default: $W2W_CACHE, else ~/.cache/weights2weights]",
)
@option("--log", type=FILE, help="File to append losses and rates to, as lines of JSON.")
@base_options
def train_command(
    subjects: tuple[Path, ...], out: Path, base: Any, preset: Any, labels: Any, **options: Any
) -> Outcome:
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
    if labels is None and (table := find_labels(*subjects)):
        labels = read_labels(table)
    config = PRESETS[preset] if preset else None
    dataset = train(base(), found, out, config, labels=labels, progress=True, **given(options))
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
    problems = [f"{name}: {why}" for name, why in failed.items()]
    if failed:
        share = f"{len(failed)} of {len(found)} subjects failed"
        problems.append(f"{share}; fix them and rerun with --retry")
    return Outcome(facts, facts | {"failed": len(failed)}, problems)


def keep_freed_memory() -> None:
    """Let this process keep up to 2 GiB of freed memory for the next training step.

    By default glibc returns a step's large tensors to the system and requests them again in the
    next one: 7 to 9 % of a step with 48 to 64 subjects. Does nothing with another C library.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, _MAX_KEPT)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAX_ON_HEAP)
