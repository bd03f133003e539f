"""`w2w merge`: a model with a LoRA of another kind, or between two points of a space."""

from pathlib import Path

import click

from ._options import PATH, model_file_option, models_space_option
from ._output import json_option, report


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--with",
    "other",
    required=True,
    type=PATH,
    help="LoRA of another kind, such as a style, of any rank and format.",
)
@click.option("--weight", type=float, help="Weight of the other model.  [default: 1]")
@click.option(
    "--interpolate",
    "share",
    type=float,
    metavar="SHARE",
    help="Instead, interpolate from MODEL (0) to the other (1), two models of one space.",
)
@models_space_option
@model_file_option
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

    The updates of both are summed exactly, and their ranks add up. The cosine of the two updates
    measures how different they are: near 0, the result does what both do. Two points of one space
    share too much to be added; use --interpolate for a model between them.

    \b
    Example: w2w merge adam.safetensors --with pencil.safetensors --weight 0.8 --out b.safetensors
    """
    from ..merging import interpolate, merge
    from ..models import save_model

    if share is not None and weight is not None:
        raise click.UsageError("--weight does not apply to --interpolate")
    if share is not None:
        between = interpolate(model, other, share, space=space)
        facts = {"path": save_model(out, between), "interpolated": share, "space": between.space}
        report(facts, as_json)
        return
    merged = merge(model, other, weight=1.0 if weight is None else weight, space=space)
    layout = merged.layout
    facts = {
        "path": save_model(out, merged),
        "weight": merged.origin["weight"],
        "cosine": merged.origin["cosine"],
        "rank": layout.rank,
        "alpha": layout.alpha,
        "modules": len(layout.modules),
        "numbers": layout.num_parameters,
    }
    report(facts, as_json)
