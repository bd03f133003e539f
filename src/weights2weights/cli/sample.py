"""`w2w sample`: new models from a space."""

from pathlib import Path

import click

from ._output import json_option, report


@click.command()
@click.argument("space", default="people")
@click.option("-n", "--count", type=click.IntRange(1), default=8, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the new models and their report.json.",
)
@click.option(
    "--components",
    type=click.IntRange(1),
    help="Draw along the first this many.  [default: what the space says, else all]",
)
@click.option(
    "--spread",
    type=click.FloatRange(0),
    help="Factor on the training models' spread; below 1 gives more ordinary models.  [default:"
    " what the space says, else 1]",
)
@json_option
def command(
    space: str,
    count: int,
    seed: int,
    out: Path,
    components: int | None,
    spread: float | None,
    as_json: bool,
) -> None:
    """Draw new models from a space.

    Writes one model file each, and report.json, which compares them with the training models. Model
    number i depends on the seed and on i only.

    \b
    Example: w2w sample people -n 16 --seed 3 --out people
    """
    from .._files import make_folder, write_atomic
    from .._json import canonical_json, plain
    from ..models import save_model
    from ..sampling import report_samples, sampling_of
    from ..sampling import sample as draw
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    components, spread = sampling_of(opened, components, spread)
    points = draw(opened, count, seed=seed, components=components, spread=spread)
    make_folder(out)
    files = []
    for row, point in enumerate(points):
        origin = {"verb": "sample", "seed": seed, "row": row, "spread": spread}
        origin |= {"components": components}
        path = out / f"sample-{seed}-{row:04d}.safetensors"
        files.append(save_model(path, opened.model(point, origin)))
    facts = {
        "space": opened.hash,
        "seed": seed,
        "spread": spread,
        **plain(report_samples(opened, points)),
    }
    facts["drawn_components"] = components
    write_atomic(out / "report.json", [canonical_json(facts)])
    listed = {"files": files} if as_json else {}
    report({"path": out, **listed, **facts}, as_json)
