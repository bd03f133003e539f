"""`w2w invert`: from images to models."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from ._options import base_option, device_option, dtype_option, open_base
from ._output import json_option, one_line, report

if TYPE_CHECKING:
    from ..bases import Base
    from ..inversion import Inversion
    from ..space import WeightSpace

GRID = "before-after.png"

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=_file)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the models and the grid.",
)
@click.option(
    "--mask",
    "masks",
    multiple=True,
    type=_file,
    help="White where the subject is; one for each image, in their order.  [default: 1.mask.png"
    " next to 1.jpg, if it exists]",
)
@click.option("--together", is_flag=True, help="All images show one subject: make one model.")
@click.option(
    "--preset",
    type=click.Choice(["paper", "paper-ood", "fast", "ood"]),
    default="fast",
    show_default=True,
    help="Settings to start from; ood is for paintings, sketches, animals.",
)
@click.option(
    "--components", type=click.IntRange(1), help="Optimise only the first N coefficients."
)
@click.option("--steps", type=click.IntRange(1), help="Maximum number of optimiser steps.")
@click.option("--samples-per-step", type=click.IntRange(1), help="Noises per image and step.")
@click.option("--learning-rate", type=float, help="Peak learning rate of Adam.")
@click.option(
    "--prior-weight",
    type=float,
    help="Weight of the prior; larger values stay closer to the training models.",
)
@click.option("--prompt", help="Prompt of the images.  [default: that of the base's training]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Noise seed.")
@click.option(
    "--subjects-per-batch",
    type=click.IntRange(1),
    help="Subjects to invert at once.  [default: as many as fit into memory]",
)
@click.option(
    "--gradient-checkpointing/--no-gradient-checkpointing",
    default=None,
    help="Use less memory, at the cost of speed.",
)
@click.option(
    "--seeds",
    "num_seeds",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Images of each model in the grid; 0 makes no grid.",
)
@click.option("--space", default="people", show_default=True, help="The space to search.")
@base_option
@device_option
@dtype_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    images: tuple[Path, ...],
    out: Path,
    masks: tuple[Path, ...],
    together: bool,
    preset: str,
    prompt: str | None,
    seed: int,
    subjects_per_batch: int | None,
    num_seeds: int,
    space: str,
    base: str,
    device: str,
    dtype: str,
    as_json: bool,
    **changes: Any,
) -> None:
    """Find the model in a space that generates the subject of an image.

    Writes a model file for every IMAGE, named after it, and a grid of the image, of what the
    space's mean generates, and of what the model generates. After Ctrl-C the best models so far are
    written, and the exit code is 130.

    \b
    Example: w2w invert ada.jpg --out found
    """
    from dataclasses import replace

    from ..inversion import PRESETS, before_and_after, invert
    from ..sheets import write_image
    from ..space import WeightSpace
    from ..subjects import find_mask
    from ..training import default_config

    if masks and len(masks) != len(images):
        raise click.UsageError(
            f"{len(masks)} masks for {len(images)} images: expected one --mask for each"
        )
    config = replace(PRESETS[preset], **{k: v for k, v in changes.items() if v is not None})
    names = _names(images, together)
    opened, where = open_base(base, device, dtype), WeightSpace.from_pretrained(space)
    prompt = prompt or default_config(opened.id).instance_prompt
    result = invert(
        opened,
        where,
        images,
        mask=list(masks) or [find_mask(image) for image in images],
        config=config,
        subjects=[0] * len(images) if together else None,
        prompt=prompt,
        seed=seed,
        subjects_per_batch=subjects_per_batch,
        progress=True,
    )
    settings = {"preset": preset, "config": config, "prompt": prompt, "seed": seed}
    groups = [images] if together else [[image] for image in images]
    files = _write(out, dict(zip(names, groups, strict=True)), result, where, opened, settings)
    grid = None
    if num_seeds and not result.interrupted:
        shown = {"prompt": prompt, "names": names, "seeds": range(num_seeds)}
        sheet = before_and_after(opened, where, result, progress=True, **shown)
        grid = write_image(out / GRID, sheet)
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


def _write(
    out: Path,
    groups: Mapping[str, Sequence[Path]],
    result: "Inversion",
    space: "WeightSpace",
    base: "Base",
    settings: dict[str, Any],
) -> list[Path]:
    """Write a model for every name with its images, if at least one step was taken."""
    from dataclasses import replace

    from .._files import checksum
    from .._json import plain
    from ..models import save_model

    files = []
    for row, (name, images) in enumerate(groups.items()):
        if not result.steps[row]:
            continue
        seen = [{"name": image.name, "sha256": checksum(image)} for image in images]
        origin = {"verb": "invert", "images": seen, **settings, "steps": result.steps[row]}
        model = replace(space.model(result.points[row], plain(origin)), base_hash=base.hash)
        files.append(save_model(out / f"{name}.safetensors", model))
    return files
