"""`w2w directions`: what a space can change, and how well it knows it."""

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, W2WError
from ._directions import direction_options, open_labelled
from ._output import json_option, one_line, report

if TYPE_CHECKING:
    from ..directions import Direction


@click.command()
@click.argument("space", default="people")
@click.option("--label", "names", multiple=True, help="Only this; may be repeated.")
@direction_options
@json_option
def command(
    space: str,
    names: tuple[str, ...],
    keep: tuple[str, ...],
    method: str,
    components: int | None,
    labels: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """List the attributes that a space can change, and how well it knows them.

    For every label: how well its direction tells held-out models apart (AUC; R² for numbers), how
    many models have it, the standard deviation that strengths count, and how much it is entangled
    with the others (cosine of the directions).

    \b
    Example: w2w directions people --keep Male
    """
    from tqdm import tqdm

    from ..directions import cosines, find_direction, find_directions

    opened = open_labelled(space, labels)
    if not names and opened.labels.empty:
        raise InputError(
            f"the space {space} holds no labels: expected some; give a table with --labels"
        )
    options = {"method": method, "components": components, "seed": seed}
    kept = find_directions(opened, list(dict.fromkeys(keep)), **options)
    found: dict[str, Direction] = {}
    left_out: dict[str, str] = {}
    wanted = list(dict.fromkeys(names)) or list(opened.labels.columns)
    for name in tqdm(wanted, unit="label", delay=1, leave=False):
        others = [direction for label, direction in kept.items() if label != name]
        try:
            found[name] = find_direction(opened, name, keep=others, **options)
        except W2WError as error:
            if names:
                raise
            left_out[name] = str(error)
    matrix = cosines(found)
    aucs = [direction.auc for direction in found.values() if direction.auc is not None]
    between = matrix.abs().triu(1).sum() / max(len(found) * (len(found) - 1) / 2, 1)
    summary = {
        "space": opened.hash,
        "models": len(opened.names),
        "method": method,
        "keep": list(dict.fromkeys(keep)),
        "mean_auc": statistics.fmean(aucs) if aucs else None,
        "entanglement": float(between),
        "left_out": left_out,
    }
    rows = {name: _facts(direction) for name, direction in found.items()}
    for name, cosines_to in zip(rows, matrix.tolist(), strict=True):
        cosine_to = dict(zip(rows, cosines_to, strict=True))
        rows[name]["cosines"] = {other: c for other, c in cosine_to.items() if other != name}
    if as_json:
        report({**summary, "directions": rows}, as_json)
        return
    for line in _table(rows):
        click.echo(line)
    report(summary, as_json)


def _facts(direction: "Direction") -> dict[str, Any]:
    return {
        "auc": direction.auc,
        "r2": direction.r2,
        "positives": direction.positives,
        "negatives": direction.negatives,
        "components": len(direction.normal),
        "spread": direction.spread,
        "largest": direction.largest,
        "keep": list(direction.kept),
    }


def _table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Return a header and a line per direction, with the one it is most entangled with."""
    width = max([len(one_line(name)) for name in rows] + [5])
    lines = [f"{'label':<{width}}  held-out   models  components  spread  most entangled with"]
    for name, row in rows.items():
        figure = f"AUC {row['auc']:.3f}" if row["auc"] is not None else "-"
        figure = f"R²  {row['r2']:.3f}" if row["r2"] is not None else figure
        nearest = max(row["cosines"].items(), key=lambda pair: abs(pair[1]), default=None)
        beside = f"{one_line(nearest[0])} {nearest[1]:+.2f}" if nearest else "-"
        lines.append(
            f"{one_line(name):<{width}}  {figure:<9}  {row['positives']:>6,}"
            f"  {row['components']:>10,}  {row['spread']:>6.3g}  {beside}"
        )
    return lines
