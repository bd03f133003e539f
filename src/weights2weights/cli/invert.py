"""`w2w invert`: from images to models."""

from collections import Counter
from pathlib import Path
from typing import Any

import click
from click import argument, option

from ..errors import InputError
from ._options import COUNT, FOLDER, SEED, base_options, given, memory_options, space_option
from ._output import Outcome, one_line, verb

_IMAGE = click.Path(exists=True, dir_okay=False, path_type=Path)


@verb("invert")
@argument("images", nargs=-1, required=True, metavar="IMAGE...", type=_IMAGE)
@option("--out", required=True, type=FOLDER, help="Folder for the models and the grid.")
@option(
    "--mask",
    "masks",
    multiple=True,
    type=_IMAGE,
    help="White where the subject is; one for each image, in their order.  [default: 1.mask.png"
    " next to 1.jpg, if it exists]",
)
@option("--together", is_flag=True, help="All images show one subject: make one model.")
@option(
    "--preset",
    type=click.Choice(["paper", "paper-ood", "fast", "ood"]),
    default="fast",
    help="Settings to start from; ood is for paintings, sketches, animals.",
)
@option("--components", type=COUNT, help="Optimise only the first N coefficients.")
@option("--steps", type=COUNT, help="Maximum number of optimiser steps.")
@option("--samples-per-step", type=COUNT, help="Noises per image and step.")
@option("--learning-rate", type=float, help="Peak learning rate of Adam.")
@option(
    "--prior-weight",
    type=float,
    help="Weight of the prior; larger values stay closer to the training models.",
)
@memory_options
@option("--prompt", help="Prompt of the images.  [default: that of the base's training]")
@option("--seed", type=SEED, default=0, help="Noise seed.")
@option(
    "--seeds",
    "num_seeds",
    type=click.IntRange(0),
    default=2,
    help="Images of each model in the grid; 0 makes no grid.",
)
@space_option
@base_options
def invert_command(
    images: tuple[Path, ...],
    out: Path,
    masks: tuple[Path, ...],
    together: bool,
    num_seeds: int,
    space: str,
    base: Any,
    **options: Any,
) -> Outcome:
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
        many = f"{len(masks)} masks for {len(images)} images"
        raise click.UsageError(f"{many}: expected one --mask for each")
    names = [image.stem for image in images[: 1 if together else None]]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(
            f"{times} images are named {one_line(name)}, and so would be their models: rename them,"
            " or give --together if they show one subject"
        )
    opened, where = base(), WeightSpace.from_pretrained(space)
    mask = list(masks) or [find_mask(image) for image in images]
    subjects = [0] * len(images) if together else None
    settings = {"mask": mask, "subjects": subjects, "progress": True, **given(options)}
    result = invert(opened, where, images, **settings)
    models = result.models(where)
    files = [save_model(out / f"{model.name}.safetensors", model) for model in models]
    grid = None
    if num_seeds and not result.interrupted:
        shown = {"prompt": options["prompt"], "names": names, "seeds": range(num_seeds)}
        sheet = before_and_after(opened, where, result, progress=True, **shown)
        grid = write_image(out / "before-after.png", sheet)
    facts = {
        "path": out,
        "grid": grid,
        "base": opened.id,
        "space": where.hash,
        "start_loss": result.start_loss,
        "loss": result.loss,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "interrupted": result.interrupted,
    }
    kept = f"Interrupted; saved the best models so far, {len(files)} of {len(names)}."
    problems = [kept] * result.interrupted
    return Outcome({**facts, "files": files}, {"models": len(files), **facts}, problems, 130)
