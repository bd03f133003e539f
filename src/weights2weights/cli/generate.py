"""`w2w generate`: images from models."""

import time
from pathlib import Path
from typing import Any

import click

from ._options import FOLDER, PATH, base_options, models_space_option
from ._output import json_option, report

MAX_SEEDS = 10_000


class Seeds(click.ParamType):
    """Seeds as "0-3", "7" or "0-3,7"."""

    name = "SEEDS"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """Return the seeds in the order of the text."""
        seeds: list[int] = []
        for part in str(value).split(","):
            first, dash, last = part.strip().partition("-")
            if not (first.isdecimal() and (not dash or last.isdecimal())):
                self.fail(f"{value!r}: expected numbers and ranges such as 0-3,7", param, ctx)
            stretch = range(int(first), int(last or first) + 1)
            if not stretch or len(seeds) + len(stretch) > MAX_SEEDS or stretch[-1] >= 2**63:
                self.fail(f"{value!r}: expected 1 to {MAX_SEEDS:,} seeds below 2^63", param, ctx)
            seeds += stretch
        return seeds


class ImageFile(click.Path):
    """A path whose extension names a kind of image."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        """Return the path."""
        path = Path(super().convert(value, param, ctx))  # type: ignore[arg-type]
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            self.fail(f"{path}: expected a name ending in .png, .jpg or .webp", param, ctx)
        return path


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...", type=PATH)
@click.option("--prompt", "prompts", required=True, multiple=True, help="Prompt; repeatable.")
@click.option("--seeds", type=Seeds(), default="0-3", help="Seeds, such as 0-3,7.")
@click.option(
    "--out", required=True, type=ImageFile(dir_okay=False), help="A .png, .jpg or .webp file."
)
@click.option(
    "--each", type=FOLDER, help="Also write every image into this folder, as a PNG file of its own."
)
@base_options
@models_space_option
@click.option("--steps", default=20, type=click.IntRange(1, 1000), help="DDIM steps.")
@click.option("--guidance", default=3.0, help="Scale of classifier-free guidance; 1 turns it off.")
@click.option(
    "--negative-prompt",
    default="",
    show_default=False,
    help="Prompt that guidance leads away from.",
)
@click.option(
    "--inject-at",
    type=click.IntRange(0, 1000),
    metavar="T",
    help="Denoise with the original weights down to timestep T; lower values keep more of the"
    " scene.",
)
@click.option(
    "--original", type=PATH, help="Model before its edit, for --inject-at.  [default: the base]"
)
@json_option
def command(
    models: tuple[Path, ...],
    prompts: tuple[str, ...],
    seeds: list[int],
    out: Path,
    each: Path | None,
    base: Any,
    as_json: bool,
    **options: Any,
) -> None:
    """Draw images from models: rows are models, columns prompts and seeds.

    A MODEL is a model file, a LoRA of any format, a dataset (all of its models) or one of them as
    DATASET/NAME. Without any, the base itself is drawn.

    \b
    Example: w2w generate loras/adam --prompt "a photo of sks person, on a beach" --out adam.png
    """
    if options["original"] is not None and options["inject_at"] is None:
        raise click.UsageError("--original needs --inject-at: give the timestep, such as 700")
    if options["inject_at"] is not None and not models:
        raise click.UsageError("--inject-at needs a MODEL to inject")
    from ..generation import generate
    from ..opening import as_models
    from ..sheets import image_grid, write_image, write_images

    found = as_models(models) if models else None
    opened = base()
    begun = time.perf_counter()
    images = generate(opened, found, prompts=prompts, seeds=seeds, progress=True, **options)
    seconds = time.perf_counter() - begun
    names = [model.name for model in found or ()]
    captions = [f"{prompt}\nseed {seed}" for prompt in prompts for seed in seeds]
    write_image(out, image_grid(images, names, captions))
    if each is not None:
        write_images(each, images, names or [opened.id], seeds)
    facts = {
        "path": out,
        "base": opened.id,
        "models": names,
        "prompts": list(prompts),
        "seeds": seeds,
        "images": images.shape[:3].numel(),
        "seconds": round(seconds, 3),
    }
    report(facts, as_json)
