"""`w2w fit`: fit a space to a dataset of models."""

import time
from pathlib import Path
from typing import Any

import click

from ._options import COUNT, FILE, FOLDER, PATH, SEED
from ._output import json_option, report


@click.command()
@click.argument("weights", type=PATH)
@click.option("--out", required=True, type=FOLDER, help="Folder of the new space.")
@click.option("--components", type=COUNT, default=1000, help="Number of components to keep.")
@click.option(
    "--labels", type=FILE, help="CSV or Parquet table to use in place of the labels of WEIGHTS."
)
@click.option(
    "--sampling",
    type=(COUNT, click.FloatRange(0)),
    metavar="COMPONENTS SCALE",
    help="Sampling defaults to store with the space; see w2w sample.  [default: all, 1]",
)
@click.option(
    "--oversampling",
    type=click.IntRange(0),
    help="Extra directions that speed up convergence.  [default: a tenth of --components]",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=1e-3,
    help="Stop when at most this fraction of the captured variance can be missing.",
)
@click.option(
    "--max-passes",
    type=click.IntRange(4),
    default=16,
    help="Maximum number of passes over the data.",
)
@click.option("--seed", type=SEED, default=0, help="Seed of the random start.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    help="Storage of the components; coefficients take float16 or float32.",
)
@click.option("--device", default="cpu", help="Device to compute on: cpu, cuda or cuda:1.")
@json_option
def command(
    weights: Path,
    out: Path,
    components: int,
    labels: Path | None,
    sampling: tuple[int, float] | None,
    seed: int,
    dtype: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit a space to a dataset of models.

    Reads WEIGHTS about six times. Memory grows with components × parameters, not with the number
    of models. The result can be sampled, searched, edited and shared.

    \b
    Example: w2w fit weights --components 1000 --out space
    """
    from dataclasses import replace

    import torch

    from ..dataset import WeightDataset
    from ..labels import read_labels
    from ..space import WeightSpace

    start = time.perf_counter()
    dataset, table = WeightDataset.open(weights), read_labels(labels) if labels else None
    options["generator"] = torch.Generator().manual_seed(seed)
    space = WeightSpace.fit(dataset, components, table, progress=True, **options)
    if sampling is not None:
        defaults = {"components": sampling[0], "scale": sampling[1]}
        space = replace(space, metadata={**space.metadata, "sampling": defaults})
    space.save_pretrained(out, dtype=getattr(torch, dtype))
    facts = {
        "path": out,
        "models": len(space.names),
        "numbers": space.num_parameters,
        "components": len(space),
        **space.metadata,
        "labels": list(space.labels.columns),
        "space": space.hash,
        "seconds": time.perf_counter() - start,
    }
    report(facts, as_json)
