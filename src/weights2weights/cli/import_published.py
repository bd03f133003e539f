"""`w2w import-published`: the authors' files as a space or a dataset."""

from pathlib import Path
from typing import Any

import click

from ._options import COUNT, FOLDER, PATH
from ._output import json_option, report


@click.command()
@click.argument("source", type=PATH)
@click.option("--out", type=FOLDER, help="The new space.")
@click.option("--dataset", type=FOLDER, help="The new dataset.")
@click.option("--components", type=COUNT, help="Number of components to keep.")
@click.option("--alpha", type=float, default=27.0, help="LoRA alpha.")
@click.option("--base", help="Name of the base model.  [default: that of the paper]")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    help="Precision of the space's components and coefficients.",
)
@json_option
def command(
    source: Path,
    out: Path | None,
    dataset: Path | None,
    components: int | None,
    alpha: float,
    base: str | None,
    dtype: str,
    as_json: bool,
) -> None:
    """Import the authors' published files.

    They become a space (--out), a dataset (--dataset) or both.

    SOURCE is a folder that holds V.pt, mean.pt, std.pt, weight_dimensions.pt and proj_1000pc.pt,
    itself or in files/, and optionally identity_df.pt and all_weights.pt, itself or in
    weights_datasets/identities. A dataset needs only the weights: all_weights.pt, or a file of
    n × d weights as SOURCE. Nothing in the files is run, not even the pickled table of labels.

    \b
    Example: w2w import-published weights2weights --out space --dtype float16
             w2w import-published dog_weights.pt --dataset dogs
    """
    import torch

    from ..formats.authors import PAPER_BASE
    from ..published import import_published, import_published_dataset

    if out is None and dataset is None:
        raise click.UsageError("Give --out SPACE, --dataset DATASET or both.")
    base, facts = base or PAPER_BASE, {}
    if dataset is not None:
        loras = import_published_dataset(source, dataset, alpha=alpha, base=base, progress=True)
        facts |= _facts(dataset, len(loras), loras) | {"dataset": dataset}
    if out is not None:
        space = import_published(source, components=components, alpha=alpha, base=base)
        space.save_pretrained(out, dtype=getattr(torch, dtype))
        facts |= _facts(out, len(space.names), space) | {
            "components": len(space),
            "known_components": space.coefficients.shape[1],
            "space": space.hash,
        }
    report(facts, as_json)


def _facts(path: Path, models: int, made: Any) -> dict[str, Any]:
    return {
        "path": path,
        "models": models,
        "numbers": made.layout.num_parameters,
        "labels": list(made.labels.columns),
        "layout": made.layout.hash,
    }
