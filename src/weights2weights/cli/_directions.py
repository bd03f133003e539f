"""Options of the verbs that find directions: `directions` and `edit` find the same ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..space import WeightSpace

_OPTIONS = (
    click.option("--keep", multiple=True, metavar="LABEL", help="Leave alone; may be repeated."),
    click.option(
        "--method",
        type=click.Choice(["effect", "least_squares", "ridge", "logistic", "mean_difference"]),
        default="effect",
        show_default=True,
        help="least_squares is the paper's; effect changes a label while the others stay;"
        " mean_difference also moves all that goes with it.",
    ),
    click.option(
        "--components",
        type=click.IntRange(1),
        help="Use the first this many."
        "  [default: all for effect and ridge, else by cross-validation]",
    ),
    click.option(
        "--labels",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Own table of labels, CSV or Parquet, by model name, in place of the space's.",
    ),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of held-out folds."
    ),
)


def direction_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command the options keep, method, components, labels and seed."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def open_labelled(space: str, labels: Path | None) -> "WeightSpace":
    """Open a space, with an own table of labels in place of its own if there is one.

    Raises:
        W2WError: no such space or table.
    """
    from ..labels import read_labels
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    return opened if labels is None else replace(opened, labels=read_labels(labels))
