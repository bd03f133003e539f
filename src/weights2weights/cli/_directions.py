"""Options of the verbs that find directions: `directions` and `edit` find the same ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..space import WeightSpace

_OPTIONS = (
    click.option(
        "--keep", multiple=True, metavar="LABEL", help="Leave this label alone; may be repeated."
    ),
    click.option(
        "--method",
        type=click.Choice(["effect", "ridge", "least_squares", "mean_difference"]),
        default="effect",
        show_default=True,
        help="effect holds the other labels fixed; ridge is a linear classifier; least_squares is"
        " the paper's; mean_difference also moves everything that co-occurs.",
    ),
    click.option(
        "--components",
        type=click.IntRange(1),
        help="Number of leading components to use.  [default: half the models, at most 1,000]",
    ),
    click.option(
        "--labels",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Label table by model name, CSV or Parquet, instead of the space's labels.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Seed of the cross-validation folds.",
    ),
)


def direction_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options keep, method, components, labels and seed to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def open_labelled(space: str, labels: Path | None) -> "WeightSpace":
    """Open a space, with the user's label table instead of its own if there is one.

    Raises:
        W2WError: no such space or table.
    """
    from ..labels import read_labels
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    return opened if labels is None else replace(opened, labels=read_labels(labels))
