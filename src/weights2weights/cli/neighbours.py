"""`w2w neighbours`: find the training models nearest to a model."""

from pathlib import Path

import click

from ._options import COUNT, PATH, space_option
from ._output import json_option, one_line, report


@click.command()
@click.argument("models", nargs=-1, required=True, type=PATH)
@space_option
@click.option("-n", "--count", type=COUNT, default=5, help="Neighbours per model.")
@json_option
def command(models: tuple[Path, ...], space: str, count: int, as_json: bool) -> None:
    """Find the training models nearest to a model.

    MODELS are model files or LoRAs of any format. Similarity is the cosine of the coefficients; a
    copy of a training model has a neighbour at 1.

    \b
    Example: w2w neighbours people/sample-3-0000.safetensors
    """
    from ..opening import load_models
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    found = {}
    for path in models:
        read = load_models(path)
        whole = len(read) > 1 or (path / "dataset.json").is_file()
        for model in read:
            nearest = opened.neighbours(opened.coefficients_of(model), count).of(0)
            found[str(path / model.name if whole else path)] = [
                {"name": other, "similarity": value} for other, value in nearest
            ]
    if as_json:
        report({"space": opened.hash, "neighbours": found}, as_json)
        return
    for path, nearest in found.items():
        click.echo(one_line(path))
        report({one_line(item["name"]): item["similarity"] for item in nearest}, as_json)
