"""`w2w import-published`: the authors' files as a space."""

from pathlib import Path

import click

from ._output import json_option, report


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The new space."
)
@click.option("--components", type=click.IntRange(1), help="Keep the first this many.")
@click.option("--alpha", type=float, default=27.0, show_default=True, help="Of the LoRAs.")
@click.option("--base", help="Name of the base model.  [default: that of the paper]")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="In which components and coefficients are stored.",
)
@json_option
def command(
    folder: Path,
    out: Path,
    components: int | None,
    alpha: float,
    base: str | None,
    dtype: str,
    as_json: bool,
) -> None:
    """Bring the authors' published files into a space.

    FOLDER holds V.pt, mean.pt, std.pt, weight_dimensions.pt and proj_1000pc.pt, itself or in
    files/, and identity_df.pt and perhaps all_weights.pt, itself or in weights_datasets/identities.
    Tensors are read as such, and the pickled table of labels is read without running anything.

    \b
    Example: w2w import-published weights2weights --out space --dtype float16
    """
    import torch

    from ..published import PAPER_BASE, import_published

    space = import_published(folder, components=components, alpha=alpha, base=base or PAPER_BASE)
    space.save_pretrained(out, dtype=getattr(torch, dtype))
    facts = {
        "path": out,
        "models": len(space.names),
        "numbers": space.num_parameters,
        "components": len(space),
        "known_components": space.coefficients.shape[1],
        "labels": list(space.labels.columns),
        "layout": space.layout.hash,
        "space": space.hash,
    }
    report(facts, as_json)
