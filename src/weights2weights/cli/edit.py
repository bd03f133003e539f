"""`w2w edit`: a model with some attributes changed."""

import math
import time
from pathlib import Path

import click

from ._directions import direction_options, open_labelled
from ._models import open_model
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
    help="How far, in standard deviations of the training models; may be repeated.",
)
@click.option("--space", default="people", show_default=True, help="A folder, hub id or world.")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The edited model, a .safetensors file.",
)
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

    MODEL is a model file, a LoRA file of any format, or one model of a dataset as DATASET/NAME. A
    LoRA may lie outside the space: what the space does not know of it stays as it is. Strength 1 to
    3 is usual; "paper" is as far as the farthest training model. Edits add up, in any order.

    \b
    Example: w2w edit adam.safetensors --set Bald=2 --set Young=-1 --keep Male --out b.safetensors
    """
    from ..directions import edit_model, find_directions
    from ..models import save_model

    names = [label for label, _ in changes]
    if len(set(names)) < len(names):
        raise click.UsageError("--set names a label twice: give their sum once")
    if both := set(names) & set(keep):
        raise click.UsageError(f"--keep {min(both)} contradicts --set {min(both)}")
    _, opened_model = open_model(model)
    opened = open_labelled(space, labels)
    options = {"method": method, "components": components, "seed": seed}
    directions = find_directions(opened, names, keep=list(dict.fromkeys(keep)), **options)
    begun = time.perf_counter()
    steps = [(directions[label], strength) for label, strength in changes]
    edited = edit_model(opened, opened_model, steps)  # pyright: ignore[reportArgumentType]
    seconds = time.perf_counter() - begun
    facts = {
        "path": save_model(out, edited),
        "space": opened.hash,
        "set": dict(changes),
        "keep": list(dict.fromkeys(keep)),
        "directions": {
            label: {
                "components": len(direction.normal),
                "spread": direction.spread,
                "largest": direction.largest,
                "auc": direction.auc,
                "r2": direction.r2,
            }
            for label, direction in directions.items()
        },
        "outside": 0.0
        if edited.weights is None
        else float(opened.relative_residual(edited.weights)),
        "seconds": seconds,
    }
    report(facts, as_json)
