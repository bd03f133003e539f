"""`w2w edit`: a model with some attributes changed."""

import math
import time
from pathlib import Path

import click

from ._directions import direction_options, open_labelled
from ._options import model_file_option, space_option
from ._output import json_option, report


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
@click.argument("model", type=click.Path(path_type=Path))
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
    keep: tuple[str, ...],
    method: str,
    components: int | None,
    labels: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Change attributes of a model, such as age or a beard.

    MODEL is a model file, a LoRA of any format, or one model of a dataset as DATASET/NAME. A LoRA
    may lie outside the space: the part of it that the space does not capture stays as it is.
    Strengths of 1 to 3 are usual; "paper" goes as far as the farthest training model. Edits add up,
    in any order.

    \b
    Example: w2w edit adam.safetensors --set Bald=2 --set Young=-1 --keep Male --out b.safetensors
    """
    from ..directions import edit_model, find_directions
    from ..models import save_model
    from ..opening import one_model

    names = [label for label, _ in changes]
    if len(set(names)) < len(names):
        raise click.UsageError("--set names a label twice: give the sum of both strengths once")
    if both := set(names) & set(keep):
        raise click.UsageError(f"--keep {min(both)} contradicts --set {min(both)}")
    opened_model = one_model(model)
    opened = open_labelled(space, labels)
    options = {"method": method, "components": components, "seed": seed}
    directions = find_directions(opened, names, keep=list(dict.fromkeys(keep)), **options)
    begun = time.perf_counter()
    steps = [(directions[label], strength) for label, strength in changes]
    edited = edit_model(opened, opened_model, steps)  # pyright: ignore[reportArgumentType]
    seconds = time.perf_counter() - begun
    figures = ("spread", "largest", "auc", "r2")
    facts = {
        "path": save_model(out, edited),
        "space": opened.hash,
        "set": dict(changes),
        "keep": list(dict.fromkeys(keep)),
        "directions": {
            label: {"components": len(found.normal)} | {key: getattr(found, key) for key in figures}
            for label, found in directions.items()
        },
        "outside": 0.0
        if edited.weights is None
        else float(opened.relative_residual(edited.weights)),
        "seconds": seconds,
    }
    report(facts, as_json)
