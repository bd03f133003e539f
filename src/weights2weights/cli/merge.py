"""`w2w merge`: a model with a LoRA of another kind, or between two points of a space."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._models import open_model
from ._options import models_space_option
from ._output import json_option, report

if TYPE_CHECKING:
    from ..models import Model
    from ..space import WeightSpace


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--with",
    "other",
    required=True,
    type=click.Path(path_type=Path),
    help="A LoRA of another kind, such as a style; any rank and format.",
)
@click.option("--weight", type=float, help="Of the other.  [default: 1]")
@click.option(
    "--interpolate",
    "share",
    type=float,
    help="Go from MODEL (0) to the other (1) instead; for two models of one space.",
)
@models_space_option
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The new model, a .safetensors file.",
)
@json_option
def command(
    model: Path,
    other: Path,
    weight: float | None,
    share: float | None,
    space: str,
    out: Path,
    as_json: bool,
) -> None:
    """Add a LoRA of another kind, such as a style, to a model.

    The updates of both are summed exactly, and their ranks add up. The cosine of the two says how
    far they are of different kinds: near 0, the result does what both do. Two points of one space
    do not add up, they share too much; --interpolate gives a model between them.

    \b
    Example: w2w merge adam.safetensors --with pencil.safetensors --weight 0.8 --out b.safetensors
    """
    from ..merging import interpolate_models, merge_models
    from ..models import save_model

    if share is not None and weight is not None:
        raise click.UsageError("--weight is for a merge, not for --interpolate")
    (_, first), (_, second) = open_model(model), open_model(other)
    if share is not None:
        between = interpolate_models(first, second, share, _space(space, (first, second), True))
        facts = {"path": save_model(out, between), "interpolated": share, "space": between.space}
        report(facts, as_json)
        return
    amount = 1.0 if weight is None else weight
    merged = merge_models(first, second, amount, _space(space, (first, second), False))
    layout = merged.layout
    facts = {
        "path": save_model(out, merged),
        "weight": amount,
        "cosine": merged.origin["cosine"],
        "rank": layout.rank,
        "alpha": layout.alpha,
        "modules": len(layout.modules),
        "numbers": layout.num_parameters,
    }
    report(facts, as_json)


def _space(space: str, models: tuple["Model", "Model"], points: bool) -> "WeightSpace | None":
    """Open the space if a model needs it: to become weights, or to become a point."""
    from ..space import WeightSpace

    first, second = models
    if points:
        needed = not first.space or first.space != second.space
    else:
        # two points of one space are refused before either is needed
        needed = first.space != second.space or not first.space
        needed = needed and any(one.weights is None for one in models)
    return WeightSpace.from_pretrained(space) if needed else None
