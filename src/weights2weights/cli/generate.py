"""`w2w generate`: images from models."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError
from ._models import open_model, open_models
from ._options import base_option, device_option, dtype_option, models_space_option, open_base
from ._output import json_option, report

if TYPE_CHECKING:
    from torch import Tensor

    from ..bases import Base
    from ..layout import WeightLayout
    from ..models import Model

MOST_SEEDS = 10_000


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
            if not stretch or len(seeds) + len(stretch) > MOST_SEEDS or stretch[-1] >= 2**63:
                self.fail(f"{value!r}: expected 1 to {MOST_SEEDS:,} seeds below 2^63", param, ctx)
            seeds += stretch
        return seeds


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...", type=click.Path(path_type=Path))
@click.option("--prompt", "prompts", required=True, multiple=True, help="May be given repeatedly.")
@click.option("--seeds", type=Seeds(), default="0-3", show_default=True, help="Such as 0-3,7.")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .png, .jpg or .webp file.",
)
@click.option(
    "--each",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write every image into this folder as a PNG of its own.",
)
@base_option
@models_space_option
@click.option(
    "--steps", default=20, show_default=True, type=click.IntRange(1, 1000), help="Of DDIM."
)
@click.option("--guidance", default=3.0, show_default=True, help="1 follows the prompt as it is.")
@click.option("--negative-prompt", default="", help="What guidance leads away from.")
@click.option(
    "--inject-at",
    type=click.IntRange(0, 1000),
    metavar="T",
    help="Denoise with the original weights down to timestep T: the lower, the more of the scene"
    " stays.",
)
@click.option(
    "--original",
    type=click.Path(path_type=Path),
    help="The model before its edit, for --inject-at.  [default: the base]",
)
@device_option
@dtype_option
@json_option
def command(
    models: tuple[Path, ...],
    prompts: tuple[str, ...],
    seeds: list[int],
    out: Path,
    each: Path | None,
    base: str,
    space: str,
    steps: int,
    guidance: float,
    negative_prompt: str,
    inject_at: int | None,
    original: Path | None,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Draw images from models: rows are models, columns prompts and seeds.

    A MODEL is a model file, a LoRA file, a dataset of weights (all of its models) or one of them as
    DATASET/NAME. Without any, the base itself draws.

    \b
    Example: w2w generate weights/adam --prompt "a photo of sks person, on a beach" --out adam.png
    """
    from ..generation import generate, image_grid

    if original is not None and inject_at is None:
        raise click.UsageError("--original is for --inject-at: give the timestep, such as 700")
    if inject_at is not None and not models:
        raise click.UsageError("--inject-at needs a MODEL to inject")
    _require_image_name(out)
    named = [model for path in models for model in open_models(path)]
    before = None if original is None else open_model(original)
    opened = open_base(base, device, dtype)
    begun = time.perf_counter()
    options = {
        "steps": steps,
        "guidance": guidance,
        "negative_prompt": negative_prompt,
        "inject_at": inject_at,
        "progress": True,
    }
    if named:
        layout, weights = _stack(named, opened, space)
        if before is not None:
            first = _stack([before], opened, space, layout)[1]
            options["original"] = first.expand_as(weights)
        images = generate(opened, weights, layout, prompts, seeds, **options)
    else:
        images = generate(opened, None, None, prompts, seeds, **options)
    seconds = time.perf_counter() - begun
    captions = [f"{prompt}\nseed {seed}" for prompt in prompts for seed in seeds]
    names = [name for name, _ in named]
    out.parent.mkdir(parents=True, exist_ok=True)
    image_grid(images.flatten(1, 2), names, captions).save(out)
    if each is not None:
        _write_each(images, names or [opened.id], seeds, each)
    facts = {
        "path": out,
        "base": opened.id,
        "models": names,
        "prompts": list(prompts),
        "seeds": seeds,
        "images": images.flatten(0, 2).shape[0],
        "seconds": round(seconds, 3),
    }
    report(facts, as_json)


def _stack(
    named: Sequence[tuple[str, "Model"]],
    base: "Base",
    space: str,
    layout: "WeightLayout | None" = None,
) -> tuple["WeightLayout", "Tensor"]:
    """Return the weights of models of one layout, those in a space by way of it."""
    import torch

    from ..layout import require_one_base
    from ..space import WeightSpace

    layout = layout or named[0][1].layout
    rows, opened = [], None
    for name, model in named:
        layout.require_equal(model.layout, name)
        require_one_base(base.hash, model.base_hash, name)
        if model.weights is not None:
            rows.append(model.weights)
            continue
        if opened is None:  # once for all points: its hash takes a while
            opened = WeightSpace.from_pretrained(space)
        if opened.hash != model.space:
            raise InputError(
                f"{name} is a point of space {model.space}, not of {space} ({opened.hash}); give"
                " its own with --space"
            )
        rows.append(opened.weights_of(model))
    return layout, torch.stack(rows)


def _require_image_name(out: Path) -> None:
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise click.UsageError(f"--out {out}: expected a name ending in .png, .jpg or .webp")


def _write_each(images: "Tensor", names: Sequence[str], seeds: Sequence[int], out: Path) -> None:
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    for row, of_model in zip(range(len(names)), images, strict=True):
        for prompt, of_prompt in enumerate(of_model):
            for seed, image in zip(seeds, of_prompt, strict=True):
                name = f"{row:03d}-{Path(names[row]).name}-{prompt}-{seed}.png"
                Image.fromarray(image.numpy()).save(out / name)
