"""`w2w sample`: new models from a space."""

from pathlib import Path
from typing import Any

import click

from ._options import COUNT, FOLDER, SEED
from ._output import json_option, report


@click.command()
@click.argument("space", default="people")
@click.option("-n", "--count", type=COUNT, default=8, help="Number of models.")
@click.option("--seed", type=SEED, default=0, help="Random seed.")
@click.option(
    "--out", required=True, type=FOLDER, help="Folder for the new models and report.json."
)
@click.option(
    "--components",
    type=COUNT,
    help="Number of leading components to draw along.  [default: the space's own, else all]",
)
@click.option(
    "--scale",
    type=click.FloatRange(0),
    help="Factor on the training models' standard deviations; below 1 gives more typical models."
    "  [default: the space's own, else 1]",
)
@json_option
def command(space: str, count: int, seed: int, out: Path, as_json: bool, **options: Any) -> None:
    """Draw new models from a space.

    Writes one file per model, and report.json, which compares them with the training models. Model
    i depends on the seed and on i only.

    \b
    Example: w2w sample people -n 16 --seed 3 --out people
    """
    from .._files import make_folder, write_atomic
    from .._json import canonical_json, plain
    from ..evaluate.samples import report_samples
    from ..models import save_model
    from ..sampling import sample, sampling_of
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    components, scale = sampling_of(opened, **options)
    points = sample(opened, count, seed=seed, components=components, scale=scale)
    make_folder(out)
    files = []
    for row, point in enumerate(points):
        origin = {"verb": "sample", "seed": seed, "row": row, "scale": scale}
        model = opened.model(point, {**origin, "components": components})
        files.append(save_model(out / f"sample-{seed}-{row:04d}.safetensors", model))
    facts = {
        "space": opened.hash,
        "seed": seed,
        "scale": scale,
        **plain(report_samples(opened, points)),
        "drawn_components": components,
    }
    write_atomic(out / "report.json", [canonical_json(facts)])
    listed = {"files": files} if as_json else {}
    report({"path": out, **listed, **facts}, as_json)
