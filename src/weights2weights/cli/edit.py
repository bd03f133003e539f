"""`w2w edit`: change attributes of a model."""

import math
import time
from pathlib import Path
from typing import Any

import click

from ._options import PATH, model_file_option, space_option
from ._output import json_option, report
from .directions import direction_options, facts_of, open_labelled


class Change(click.ParamType):
    """A label and a strength: "Bald=2", "Young=-1.5", "Chubby=paper"."""

    name = "LABEL=STRENGTH"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float | str]:
        """Return (label, strength)."""
        label, equals, strength = str(value).rpartition("=")
        if label and strength == "paper":
            return label, "paper"
        try:
            amount = float(strength)
        except ValueError:
            amount = math.nan
        if not (label and equals and math.isfinite(amount)):
            self.fail(f"{value!r}: expected such as Bald=2, Young=-1 or Chubby=paper", param, ctx)
        return label, amount


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--set",
    "changes",
    required=True,
    multiple=True,
    type=Change(),
    help="Label to change, and how far, in standard deviations of the training models; repeatable.",
)
@space_option
@model_file_option
@direction_options
@json_option
def command(
    model: Path,
    changes: tuple[tuple[str, float | str], ...],
    space: str,
    out: Path,
    labels: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Change attributes of a model, such as age or a beard.

    MODEL is a model file, a LoRA of any format, or one model of a dataset as DATASET/NAME. A LoRA
    may lie outside the space: the part of it that the space does not capture stays as it is.
    Strengths of 1 to 3 are usual; "paper" goes as far as the farthest training model. Edits add up,
    in any order.

    \b
    Example: w2w edit adam.safetensors --set Bald=2 --set Young=-1 --keep Male --out b.safetensors
    """
    from ..directions import edit, find_directions
    from ..models import save_model
    from ..opening import one_model

    strengths = dict(changes)
    if len(strengths) < len(changes):
        raise click.UsageError("--set names a label twice: give the sum of both strengths once")
    if both := set(strengths) & set(options["keep"]):
        raise click.UsageError(f"--keep {min(both)} contradicts --set {min(both)}")
    before, opened = one_model(model), open_labelled(space, labels)
    directions = find_directions(opened, list(strengths), **options)
    begun = time.perf_counter()
    amounts = {
        directions[label]: directions[label].range[1] if strength == "paper" else float(strength)
        for label, strength in strengths.items()
    }
    edited = edit(before, amounts, space=opened)
    seconds = time.perf_counter() - begun
    residual = 0.0 if edited.weights is None else opened.relative_residual(edited.weights)
    facts = {
        "path": save_model(out, edited),
        "space": opened.hash,
        "set": {direction.name: strength for direction, strength in amounts.items()},
        "keep": options["keep"],
        "directions": {label: facts_of(direction) for label, direction in directions.items()},
        "relative_residual": float(residual),
        "seconds": seconds,
    }
    report(facts, as_json)
