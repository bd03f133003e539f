"""`w2w evaluate`: measures of a space."""

from pathlib import Path

import click

from ._options import FOLDER, SEED, space_option
from ._output import json_option, report


@click.command()
@click.argument(
    "measure", type=click.Choice(["samples", "components", "directions", "entanglement"])
)
@space_option
@click.option("--out", type=FOLDER, help="Folder for MEASURE.json.")
@click.option("--seed", default=0, type=SEED, help="Seed of the samples and of cross-validation.")
@json_option
def command(measure: str, space: str, out: Path | None, seed: int, as_json: bool) -> None:
    """Measure a space, given nothing but the space.

    \b
    samples       are samples new models, and are coefficients near Gaussian?
    components    how much variance do the first components capture?
    directions    how well does each label's direction classify held-out models?
    entanglement  how much do the directions of different labels overlap?

    \b
    Example: w2w evaluate directions --space people
    """
    from .._files import make_folder, write_atomic
    from .._json import canonical_json, plain
    from ..evaluate.measures import MEASURES
    from ..space import WeightSpace

    opened = WeightSpace.from_pretrained(space)
    facts = {
        "measure": measure,
        "space": space,
        "space_hash": opened.hash,
        "base_hash": opened.base_hash,
        "seed": seed,
        **MEASURES[measure](opened, seed=seed),
    }
    if out is not None:
        make_folder(out)
        write_atomic(out / f"{measure}.json", [canonical_json(plain(facts))])
    report(facts, as_json)
