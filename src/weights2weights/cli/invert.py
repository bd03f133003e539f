"""`w2w invert`: from images to models."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import InputError
from ._options import COUNT, FOLDER, SEED, base_options, config_options, space_option
from ._output import json_option, one_line, report

_IMAGE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FIELDS = {  # of InversionConfig
    "components": (COUNT, "Optimise only the first N coefficients."),
    "steps": (COUNT, "Maximum number of optimiser steps."),
    "samples_per_step": (COUNT, "Noises per image and step."),
    "learning_rate": (float, "Peak learning rate of Adam."),
    "prior_weight": (
        float,
        "Weight of the prior; larger values stay closer to the training models.",
    ),
}


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=_IMAGE)
@click.option("--out", required=True, type=FOLDER, help="Folder for the models and the grid.")
@click.option(
    "--mask",
    "masks",
    multiple=True,
    type=_IMAGE,
    help="White where the subject is; one for each image, in their order.  [default: 1.mask.png"
    " next to 1.jpg, if it exists]",
)
@click.option("--together", is_flag=True, help="All images show one subject: make one model.")
@click.option(
    "--preset",
    type=click.Choice(["paper", "paper-ood", "fast", "ood"]),
    default="fast",
    help="Settings to start from; ood is for paintings, sketches, animals.",
)
@config_options(_FIELDS)
@click.option("--prompt", help="Prompt of the images.  [default: that of the base's training]")
@click.option("--seed", type=SEED, default=0, help="Noise seed.")
@click.option(
    "--seeds",
    "num_seeds",
    type=click.IntRange(0),
    default=2,
    help="Images of each model in the grid; 0 makes no grid.",
)
@space_option
@base_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    images: tuple[Path, ...],
    out: Path,
    masks: tuple[Path, ...],
    together: bool,
    prompt: str | None,
    num_seeds: int,
    space: str,
    base: Any,
    as_json: bool,
    changes: Mapping[str, Any],
    **options: Any,
) -> None:
    """Find the model in a space that generates the subject of an image.

    Writes a model file for every IMAGE, named after it, and a grid of the image, of what the
    space's mean generates, and of what the model generates. After Ctrl-C the best models so far are
    written, and the exit code is 130.

    \b
    Example: w2w invert ada.jpg --out found
    """
    from ..inversion import before_and_after, invert
    from ..models import save_model
    from ..sheets import write_image
    from ..space import WeightSpace
    from ..subjects import find_mask

    if masks and len(masks) != len(images):
        raise click.UsageError(
            f"{len(masks)} masks for {len(images)} images: expected one --mask for each"
        )
    names = _names(images, together)
    opened, where = base(), WeightSpace.from_pretrained(space)
    result = invert(
        opened,
        where,
        images,
        mask=list(masks) or [find_mask(image) for image in images],
        subjects=[0] * len(images) if together else None,
        prompt=prompt,
        progress=True,
        **options,
        **changes,
    )
    models = result.models(where)
    files = [save_model(out / f"{model.name}.safetensors", model) for model in models]
    grid = None
    if num_seeds and not result.interrupted:
        shown: dict[str, Any] = {"prompt": prompt, "names": names, "seeds": range(num_seeds)}
        sheet = before_and_after(opened, where, result, progress=True, **shown)
        grid = write_image(out / "before-after.png", sheet)
    facts = {
        "path": out,
        **({"files": files} if as_json else {"models": len(files)}),
        "grid": grid,
        "base": opened.id,
        "space": where.hash,
        "start_loss": result.start_loss,
        "loss": result.loss,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "interrupted": result.interrupted,
    }
    report(facts, as_json)
    if result.interrupted:
        kept = f"Interrupted; saved the best models so far, {len(files)} of {len(names)}."
        click.echo(kept, err=True)
        context.exit(130)


def _names(images: Sequence[Path], together: bool) -> list[str]:
    """Return the names of the models: those of the images, which must differ."""
    if together:
        return [images[0].stem]
    name, times = Counter(image.stem for image in images).most_common(1)[0]
    if times > 1:
        raise InputError(
            f"{times} images are named {one_line(name)}, and so would be their models: rename them,"
            " or give --together if they show one subject"
        )
    return [image.stem for image in images]
