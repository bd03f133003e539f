"""`w2w directions`: the attributes that a space can edit; `edit` finds the same directions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from ._options import COUNT, FILE, SEED
from ._output import json_option, one_line, report

if TYPE_CHECKING:
    from ..directions import Direction
    from ..space import WeightSpace

_OPTIONS = (
    click.option(
        "--keep",
        multiple=True,
        metavar="LABEL",
        callback=lambda context, option, labels: list(dict.fromkeys(labels)),
        help="Leave this label alone; may be repeated.",
    ),
    click.option(
        "--method",
        type=click.Choice(["effect", "ridge", "least_squares", "mean_difference"]),
        default="effect",
        help="effect holds the other labels fixed; ridge is a linear classifier; least_squares is"
        " the paper's; mean_difference also moves everything that co-occurs.",
    ),
    click.option(
        "--components",
        type=COUNT,
        help="Number of leading components to use.  [default: half the models, at most 1,000]",
    ),
    click.option(
        "--labels",
        type=FILE,
        help="Label table by model name, CSV or Parquet, instead of the space's labels.",
    ),
    click.option("--seed", type=SEED, default=0, help="Seed of the cross-validation folds."),
)


def direction_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options keep, method, components, labels and seed to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def open_labelled(space: str, labels: Path | None) -> "WeightSpace":
    """Open a space, with the user's label table instead of its own if there is one."""
    from ..labels import read_labels
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    return opened if labels is None else replace(opened, labels=read_labels(labels))


def facts_of(direction: "Direction") -> dict[str, Any]:
    """Return what `directions` and `edit` report about a direction."""
    return {
        "auc": direction.auc,
        "r2": direction.r2,
        "positives": direction.positives,
        "negatives": direction.negatives,
        "components": len(direction.normal),
        "std": direction.std,
        "range": list(direction.range),
        "keep": list(direction.kept),
    }


@click.command()
@click.argument("space", default="people")
@click.option("--label", "names", multiple=True, help="List only this label; may be repeated.")
@direction_options
@json_option
def command(
    space: str, names: tuple[str, ...], labels: Path | None, as_json: bool, **options: Any
) -> None:
    """List the attributes that you can edit, and what else each edit tends to change.

    For every label: how well its direction classifies held-out models (AUC; R² for numbers), how
    many models have it, the range of the training models in standard deviations, the unit of
    strengths, and the label whose direction is most similar (cosine).

    \b
    Example: w2w directions people --keep Male
    """
    from ..directions import cosines, find_directions
    from ..metrics.entanglement import mean_absolute_cosine

    opened = open_labelled(space, labels)
    if not names and opened.labels.empty:
        raise InputError(f"the space {space} holds no labels; pass a table with --labels")
    wanted, left_out = list(dict.fromkeys(names)), {}
    if not wanted:  # labels without a direction are listed, not errors
        classes = opened.labels.nunique().to_dict()
        wanted = [name for name in classes if classes[name] > 1]
        left_out = {name: "has one class only" for name in classes if classes[name] <= 1}
    found = find_directions(opened, wanted, **options)
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
    rows = {name: facts_of(direction) for name, direction in found.items()}
    for name, row in zip(rows, matrix.tolist(), strict=True):
        rows[name]["cosines"] = {n: c for n, c in zip(rows, row, strict=True) if n != name}
    if as_json:
        summary["directions"] = rows
    else:
        click.echo("\n".join(_table(found, rows)))
    report(summary, as_json)


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
