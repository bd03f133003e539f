"""`w2w invert`: from photos to models."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from ._options import base_option, device_option, dtype_option, open_base
from ._output import json_option, one_line, report

if TYPE_CHECKING:
    from torch import Tensor

    from ..bases import Base
    from ..inversion import Inversion
    from ..space import WeightSpace
    from ..subjects import Images

GRID = "before-after.png"

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...", type=_file)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the models and of the grid.",
)
@click.option(
    "--mask",
    "masks",
    multiple=True,
    type=_file,
    help="White where the subject is; one for each photo, in their order.  [default: 1.mask.png"
    " beside 1.jpg, if it is there]",
)
@click.option("--together", is_flag=True, help="All photos show one subject: make one model.")
@click.option(
    "--preset",
    type=click.Choice(["paper", "fast", "ood"]),
    default="fast",
    show_default=True,
    help="Settings to start from; ood is for paintings, sketches, animals.",
)
@click.option("--components", type=click.IntRange(1), help="Seek the first this many coefficients.")
@click.option("--steps", type=click.IntRange(1), help="Of the optimiser, at most.")
@click.option("--samples-per-step", type=click.IntRange(1), help="Noises for each photo in a step.")
@click.option("--learning-rate", type=float, help="Of Adam.")
@click.option("--prior-weight", type=float, help="More keeps nearer to the training models.")
@click.option("--prompt", help="What the photos are called.  [default: as the training subjects]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the noise.")
@click.option("--group", type=click.IntRange(1), help="Photos at once.  [default: what fits]")
@click.option(
    "--images",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Of each model in the grid; 0 draws none.",
)
@click.option("--space", default="people", show_default=True, help="Where to look for the model.")
@base_option
@device_option
@dtype_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    photos: tuple[Path, ...],
    out: Path,
    masks: tuple[Path, ...],
    together: bool,
    preset: str,
    prompt: str | None,
    seed: int,
    group: int | None,
    images: int,
    space: str,
    base: str,
    device: str,
    dtype: str,
    as_json: bool,
    **changes: Any,
) -> None:
    """Find the model of the subject of a photo in a space.

    Writes a model file for every PHOTO, named like it, and a grid of the photo, of what the space
    draws before, and of what its model draws. After Ctrl-C the best so far is written, and the exit
    code is 130.

    \b
    Example: w2w invert ada.jpg --out found
    """
    from dataclasses import replace

    import torch

    from .._json import plain
    from ..inversion import RECIPES, invert
    from ..inversion import default_prompt as prompt_of
    from ..sheets import write_image
    from ..space import WeightSpace

    recipe = replace(RECIPES[preset], **{k: v for k, v in changes.items() if v is not None})
    names = _names(photos, together)
    found_masks = _masks(photos, masks)
    opened = open_base(base, device, dtype)
    read = [
        _read(photo, mask, opened.size) for photo, mask in zip(photos, found_masks, strict=True)
    ]
    where = WeightSpace.from_pretrained(space)
    pixels = torch.cat([each.pixels for each in read])
    prompt = prompt or prompt_of(opened)
    result = invert(
        opened,
        where,
        pixels,
        _stack_masks(read),
        subjects=[0] * len(photos) if together else None,
        recipe=recipe,
        prompt=prompt,
        seed=seed,
        group=group,
        progress=True,
    )
    settings = {"preset": preset, "recipe": plain(recipe), "prompt": prompt, "seed": seed}
    shown = [photos] if together else [[photo] for photo in photos]
    files = _write(out, names, shown, result, where, opened, settings)
    drawn = bool(images) and not result.interrupted
    if drawn:
        sheet = draw_grid(opened, where, pixels[: len(names)], result, names, prompt, images)
        write_image(out / GRID, sheet)
    facts = {
        "path": out,
        **({"files": files} if as_json else {"models": len(files)}),
        "grid": out / GRID if drawn else None,
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
        told = f"Interrupted; the best so far of {len(files)} of {len(names)} models is kept."
        click.echo(told, err=True)
        context.exit(130)


def _names(photos: Sequence[Path], together: bool) -> list[str]:
    """Return the names of the models: those of the photos, which must differ."""
    if together:
        return [photos[0].stem]
    name, times = Counter(photo.stem for photo in photos).most_common(1)[0]
    if times > 1:
        raise InputError(
            f"{times} photos are named {one_line(name)}, and their models would be: rename them,"
            " or give --together if they show one subject"
        )
    return [photo.stem for photo in photos]


def _masks(photos: Sequence[Path], masks: Sequence[Path]) -> list[Path | None]:
    from ..subjects import MASK_SUFFIX, PICTURE_SUFFIXES

    if masks:
        if len(masks) != len(photos):
            raise click.UsageError(
                f"{len(masks)} masks for {len(photos)} photos: expected one --mask for each"
            )
        return list(masks)
    beside = [
        [photo.with_name(photo.stem + MASK_SUFFIX + suffix) for suffix in PICTURE_SUFFIXES]
        for photo in photos
    ]
    return [next((path for path in paths if path.is_file()), None) for paths in beside]


def _read(photo: Path, mask: Path | None, size: int) -> "Images":
    from ..subjects import Subject, read_images

    return read_images(Subject(photo.stem, (photo,), (mask,)), size)


def _stack_masks(read: "Sequence[Images]") -> "Tensor | None":
    import torch

    if all(each.masks is None for each in read):
        return None
    return torch.cat(
        [torch.ones(each.pixels.shape[:3]) if each.masks is None else each.masks for each in read]
    )


def _write(
    out: Path,
    names: Sequence[str],
    shown: Sequence[Sequence[Path]],
    result: "Inversion",
    space: "WeightSpace",
    base: "Base",
    settings: dict[str, Any],
) -> list[Path]:
    """Write the models for which at least one step was taken."""
    from dataclasses import replace

    from .._files import checksum
    from ..models import save_model

    files = []
    for row, (name, photos) in enumerate(zip(names, shown, strict=True)):
        if not result.steps[row]:
            continue
        seen = [{"name": photo.name, "sha256": checksum(photo)} for photo in photos]
        origin = {"verb": "invert", "photos": seen, **settings, "steps": int(result.steps[row])}
        model = replace(space.model(result.coefficients[row], origin), base_hash=base.hash)
        files.append(save_model(out / f"{name}.safetensors", model))
    return files


def draw_grid(
    base: "Base",
    space: "WeightSpace",
    photos: "Tensor",
    result: "Inversion",
    names: Sequence[str],
    prompt: str,
    images: int,
) -> Any:
    """Lay out each photo, what the space draws at the start, and what the models draw."""
    import torch

    from ..generation import generate
    from ..sheets import image_grid

    points = torch.cat([torch.zeros(1, len(space)), result.coefficients])
    seeds = range(images)
    drawn = generate(base, points, space=space, prompts=prompt, seeds=seeds, progress=True)[:, 0]
    before = drawn[:1, :1].expand(len(photos), -1, -1, -1, -1)
    table = torch.cat([photos[:, None], before, drawn[1:]], 1)
    columns = ["photo", "before\nseed 0", *(f"after\nseed {seed}" for seed in range(images))]
    return image_grid(table, names, columns)
