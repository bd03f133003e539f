"""`w2w directions` and `w2w edit`: the attributes that a space can edit, and the edits."""

import math
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from ..errors import InputError
from ._options import COUNT, PATH, SEED, labels_option, model_file_option, several, space_option
from ._output import Outcome, as_text, one_line, verb

if TYPE_CHECKING:
    from ..directions import Direction
    from ..space import WeightSpace

_direction_options = several(
    option(
        "--keep",
        multiple=True,
        metavar="LABEL",
        callback=lambda context, option, labels: list(dict.fromkeys(labels)),
        help="Leave this label alone; may be repeated.",
    ),
    option(
        "--method",
        type=click.Choice(["effect", "ridge", "least_squares", "mean_difference"]),
        default="effect",
        help="effect holds the other labels fixed; ridge is a linear classifier; least_squares is"
        " the paper's; mean_difference also moves everything that co-occurs.",
    ),
    option(
        "--components",
        type=COUNT,
        help="Number of leading components to use.  [default: half the models, at most 1,000]",
    ),
    labels_option("Label table by model name, CSV or Parquet, instead of the space's labels."),
    option("--seed", type=SEED, default=0, help="Seed of the cross-validation folds."),
)


def _open_labelled(space: str, labels: Any) -> "WeightSpace":
    """Open a space, with the user's label table instead of its own if there is one."""
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    return opened if labels is None else replace(opened, labels=labels)


def _facts_of(direction: "Direction") -> dict[str, Any]:
    names = ("auc", "r2", "positives", "negatives", "std", "range")
    facts = {name: getattr(direction, name) for name in names}
    return facts | {"components": len(direction.normal), "keep": direction.kept}


@verb("directions")
@argument("space", default="people")
@option("--label", "names", multiple=True, help="List only this label; may be repeated.")
@_direction_options
def directions_command(space: str, names: tuple[str, ...], labels: Any, **options: Any) -> Outcome:
    """List the attributes that you can edit, and what else each edit tends to change.

    For every label: how well its direction classifies held-out models (AUC; R² for numbers), how
    many models have it, the range of the training models in standard deviations, the unit of
    strengths, and the label whose direction is most similar (cosine).

    \b
    Example: w2w directions people --keep Male
    """
    from ..directions import cosines, find_directions
    from ..metrics.entanglement import mean_absolute_cosine

    opened = _open_labelled(space, labels)
    if not names and opened.labels.empty:
        raise InputError(f"the space {space} holds no labels; pass a table with --labels")
    classes = {} if names else opened.labels.nunique().to_dict()
    left_out = {name: "has one class only" for name in classes if classes[name] <= 1}
    wanted = names or [name for name in classes if name not in left_out]
    found = find_directions(opened, list(dict.fromkeys(wanted)), **options)
    matrix = cosines(found)
    aucs = [direction.auc for direction in found.values() if direction.auc is not None]
    summary = {
        "space": opened.hash,
        "models": len(opened.names),
        "method": options["method"],
        "keep": options["keep"],
        "mean_auc": sum(aucs) / len(aucs) if aucs else None,
        "entanglement": mean_absolute_cosine(matrix) if len(found) > 1 else None,
        "left_out": left_out,
    }
    rows = {name: _facts_of(direction) for name, direction in found.items()}
    for name, row in zip(rows, matrix.tolist(), strict=True):
        rows[name]["cosines"] = {n: c for n, c in zip(rows, row, strict=True) if n != name}
    lines = [*_table(found, rows), as_text(summary)]
    return Outcome({**summary, "directions": rows}, "\n".join(lines))


def _table(found: dict[str, "Direction"], rows: dict[str, dict[str, Any]]) -> list[str]:
    """Return a header and one line per direction."""
    width = max([len(one_line(name)) for name in rows] + [5])
    lines = [f"{'label':<{width}}  held-out   models  range in σ       σ  also changes"]
    for name, direction in found.items():
        nearest = max(rows[name]["cosines"].items(), key=lambda pair: abs(pair[1]), default=None)
        also = f"{one_line(nearest[0])} {nearest[1]:+.2f}" if nearest else "-"
        low, high = direction.range
        lines.append(
            f"{one_line(name):<{width}}  {direction.quality:<9}  {direction.positives:>6,}"
            f"  {low:+4.1f} {high:+5.1f}  {direction.std:>6.3g}  {also}"
        )
    return lines


def _change(text: str) -> tuple[str, float | str]:
    """Read a label and a strength: "Bald=2", "Young=-1.5", "Chubby=paper"."""
    label, _, strength = text.rpartition("=")
    with suppress(ValueError):
        amount = 0.0 if strength == "paper" else float(strength)
        if label and math.isfinite(amount):
            return label, "paper" if strength == "paper" else amount
    raise click.BadParameter(f"{text!r}: expected such as Bald=2, Young=-1 or Chubby=paper")


@verb("edit")
@argument("model", type=PATH)
@option(
    "--set",
    "changes",
    required=True,
    multiple=True,
    type=_change,
    metavar="LABEL=STRENGTH",
    help="Label to change, and how far, in standard deviations of the training models; repeatable.",
)
@space_option
@model_file_option
@_direction_options
def edit_command(
    model: Path, changes: Any, space: str, out: Path, labels: Any, **options: Any
) -> dict[str, Any]:
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
    before, opened = one_model(model), _open_labelled(space, labels)
    directions = find_directions(opened, list(strengths), **options)
    begun = time.perf_counter()
    amounts = {
        directions[label]: directions[label].range[1] if strength == "paper" else strength
        for label, strength in strengths.items()
    }
    edited = edit(before, amounts, space=opened)
    seconds = time.perf_counter() - begun
    residual = 0.0 if edited.weights is None else opened.relative_residual(edited.weights)
    return {
        "path": save_model(out, edited),
        "space": opened.hash,
        "set": {direction.name: strength for direction, strength in amounts.items()},
        "keep": options["keep"],
        "directions": {label: _facts_of(direction) for label, direction in directions.items()},
        "relative_residual": float(residual),
        "seconds": seconds,
    }
