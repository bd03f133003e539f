"""`w2w fit`: the space of a dataset of models."""

from pathlib import Path

import click

from ._output import json_option, report


@click.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The new space."
)
@click.option(
    "--components",
    type=click.IntRange(1),
    help="How many to keep.  [default: 1000, or as many as --update has]",
)
@click.option(
    "--update",
    "known",
    metavar="SPACE",
    help="Let the models of WEIGHTS join this space, from a warm start.",
)
@click.option(
    "--old",
    type=click.Path(path_type=Path),
    help="With --update: the dataset it was fitted to.  [default: what the space knows of it]",
)
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV or Parquet, in place of the labels of WEIGHTS.",
)
@click.option(
    "--sampling",
    type=(click.IntRange(1), click.FloatRange(0)),
    metavar="COMPONENTS SPREAD",
    help="What the space says to sample with; see w2w sample.  [default: all of it, 1]",
)
@click.option("--oversampling", type=click.IntRange(0), help="[default: a tenth of --components]")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=1e-3,
    show_default=True,
    help="Stop when at most this share of the captured variance can be missing.",
)
@click.option(
    "--max-passes", type=click.IntRange(4), default=16, show_default=True, help="Stop then anyway."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--standardise",
    type=click.Choice(["number", "factor"]),
    help="Divide every number of a weight vector by its own spread, as the paper does, or all of A"
    " by one and all of B by one.  [default: factor if the models were trained with normalise"
    " factor, else number]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8", "int4"]),
    default="float32",
    show_default=True,
    help="In which components are stored, and coefficients, in float16 at least.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@json_option
def command(
    weights: Path,
    out: Path,
    components: int | None,
    known: str | None,
    old: Path | None,
    labels: Path | None,
    sampling: tuple[int, float] | None,
    oversampling: int | None,
    tolerance: float,
    max_passes: int,
    seed: int,
    standardise: str | None,
    dtype: str,
    device: str,
    as_json: bool,
) -> None:
    """Fit a space to a dataset of models.

    Reads WEIGHTS some six times, in memory for components × numbers, however many models there are.
    What comes out can be sampled, searched, edited and shared.

    \b
    Example: w2w fit weights --components 1000 --out space
             w2w fit more --update space --old weights --out larger
    """
    import time
    from dataclasses import replace

    import torch

    from ..dataset import WeightDataset
    from ..errors import InputError
    from ..space import WeightSpace
    from ..subjects import read_labels

    if known is None and old is not None:
        raise click.UsageError("--old goes with --update")
    if known is not None and labels is not None:
        raise click.UsageError("--labels does not go with --update: put them into the dataset")
    if known is not None and standardise is not None:
        raise click.UsageError("--standardise does not go with --update: it stays as it is")
    try:
        torch.empty(0, device=device, dtype=torch.float64)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {device!r} cannot fit here ({reason}); give cpu") from error

    start = time.perf_counter()
    dataset = WeightDataset.open(weights)
    options = {
        "oversampling": oversampling,
        "tolerance": tolerance,
        "max_passes": max_passes,
        "generator": torch.Generator().manual_seed(seed),
        "device": device,
        "progress": True,
    }
    if known is None:
        table = None if labels is None else read_labels(labels)
        options["standardise"] = standardise
        space = WeightSpace.fit(dataset, components or 1000, table, **options)
    else:
        before = None if old is None else WeightDataset.open(old)
        space = WeightSpace.from_pretrained(known)
        space = space.update(dataset, before, components, **options)
    if sampling is not None:
        said = {"components": sampling[0], "spread": sampling[1]}
        space = replace(space, facts={**space.facts, "sampling": said})
    space.save_pretrained(out, dtype=getattr(torch, dtype))
    facts = {
        "path": out,
        "models": len(space.names),
        "numbers": space.num_parameters,
        "components": len(space),
        **space.facts,
        "labels": list(space.labels.columns),
        "space": space.hash,
        "seconds": time.perf_counter() - start,
    }
    report(facts, as_json)
