"""`w2w sample`: new models from a space."""

from pathlib import Path

import click

from ._output import json_option, report


@click.command()
@click.argument("space", default="people")
@click.option(
    "-n", "--count", type=click.IntRange(1), default=8, show_default=True, help="Number of models."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed.")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the new models and report.json.",
)
@click.option(
    "--components",
    type=click.IntRange(1),
    help="Number of leading components to draw along.  [default: the space's own, else all]",
)
@click.option(
    "--scale",
    type=click.FloatRange(0),
    help="Factor on the training models' standard deviations; below 1 gives more typical models."
    "  [default: the space's own, else 1]",
)
@json_option
def command(
    space: str,
    count: int,
    seed: int,
    out: Path,
    components: int | None,
    scale: float | None,
    as_json: bool,
) -> None:
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
    from ..sampling import sample as draw
    from ..sampling import sampling_of
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    components, scale = sampling_of(opened, components, scale)
    points = draw(opened, count, seed=seed, components=components, scale=scale)
    make_folder(out)
    files = []
    for row, point in enumerate(points):
        origin = {"verb": "sample", "seed": seed, "row": row, "scale": scale}
        origin |= {"components": components}
        path = out / f"sample-{seed}-{row:04d}.safetensors"
        files.append(save_model(path, opened.model(point, origin)))
    facts = {
        "space": opened.hash,
        "seed": seed,
        "scale": scale,
        **plain(report_samples(opened, points)),
    }
    facts["drawn_components"] = components
    write_atomic(out / "report.json", [canonical_json(facts)])
    listed = {"files": files} if as_json else {}
    report({"path": out, **listed, **facts}, as_json)
