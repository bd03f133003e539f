"""`w2w generate`, `merge` and `export`: images, combinations and LoRA files of models."""

import time
from pathlib import Path
from typing import Any

import click
from click import argument, option

from ._options import (
    COUNT,
    FILE,
    FOLDER,
    PATH,
    base_options,
    model_file_option,
    models_space_option,
)
from ._output import verb

_MAX_SEEDS = 10_000


def seeds(text: str) -> list[int]:
    """Read seeds in the order of a text such as "0-3", "7" or "0-3,7"."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (not dash or last.isdecimal())):
            raise click.BadParameter(f"{text!r}: expected numbers and ranges such as 0-3,7")
        stretch = range(int(first), int(last or first) + 1)
        if not stretch or len(found) + len(stretch) > _MAX_SEEDS or stretch[-1] >= 2**63:
            raise click.BadParameter(f"{text!r}: expected 1 to {_MAX_SEEDS:,} seeds below 2^63")
        found += stretch
    return found


def _image_file(_: click.Context, __: click.Parameter, path: Path) -> Path:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise click.BadParameter(f"{path}: expected a name ending in .png, .jpg or .webp")
    return path


@verb("generate")
@argument("models", nargs=-1, metavar="[MODEL]...", type=PATH)
@option("--prompt", "prompts", required=True, multiple=True, help="Prompt; repeatable.")
@option("--seeds", type=seeds, default="0-3", help="Seeds, such as 0-3,7.")
@option("--out", required=True, type=FILE, callback=_image_file, help="A .png, .jpg or .webp file.")
@option(
    "--each", type=FOLDER, help="Also write every image into this folder, as a PNG file of its own."
)
@base_options
@models_space_option
@option("--steps", type=click.IntRange(1, 1000), help="Sampling steps.  [default: the base's]")
@option("--guidance", type=float, help="Scale of guidance.  [default: the base's]")
@option(
    "--negative-prompt",
    default="",
    show_default=False,
    help="Prompt that guidance leads away from.",
)
@option(
    "--inject-at",
    type=click.IntRange(0, 1000),
    metavar="T",
    help="Denoise with the original weights down to timestep T; lower values keep more of the"
    " scene.",
)
@option(
    "--original", type=PATH, help="Model before its edit, for --inject-at.  [default: the base]"
)
def generate_command(
    models: tuple[Path, ...],
    prompts: tuple[str, ...],
    seeds: list[int],
    out: Path,
    each: Path | None,
    base: Any,
    **options: Any,
) -> dict[str, Any]:
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
    return {
        "path": out,
        "base": opened.id,
        "models": names,
        "prompts": list(prompts),
        "seeds": seeds,
        "images": images.shape[:3].numel(),
        "seconds": round(seconds, 3),
    }


@verb("merge")
@argument("model", type=PATH)
@option(
    "--with",
    "other",
    required=True,
    type=PATH,
    help="LoRA of another kind, such as a style, of any rank and format.",
)
@option("--weight", type=float, help="Weight of the other model.  [default: 1]")
@option("--rank", type=COUNT, help="Rank of the result.  [default: the sum of both ranks, exact]")
@option(
    "--interpolate",
    "share",
    type=float,
    metavar="SHARE",
    help="Instead, interpolate from MODEL (0) to the other (1), two models of one space.",
)
@models_space_option
@model_file_option
def merge_command(
    model: Path,
    other: Path,
    weight: float | None,
    rank: int | None,
    share: float | None,
    space: str,
    out: Path,
) -> dict[str, Any]:
    """Add a LoRA of another kind, such as a style, to a model.

    The updates of both are summed exactly, and their ranks add up unless --rank asks for the
    nearest LoRA of a smaller one, whose share of the energy is reported. The cosine of the two
    updates measures how different they are: near 0, the result does what both do. Two points of one
    space share too much to be added; use --interpolate for a model between them.

    \b
    Example: w2w merge adam.safetensors --with pencil.safetensors --weight 0.8 --out b.safetensors
    """
    from ..merging import interpolate, merge
    from ..models import save_model

    if share is not None and (weight is not None or rank is not None):
        raise click.UsageError("--weight and --rank do not apply to --interpolate")
    if share is not None:
        between = interpolate(model, other, share, space=space)
        return {"path": save_model(out, between), "interpolated": share, "space": between.space}
    merged = merge(model, other, weight=1.0 if weight is None else weight, rank=rank, space=space)
    layout = merged.layout
    return {
        "path": save_model(out, merged),
        "weight": merged.origin["weight"],
        "cosine": merged.origin["cosine"],
        "energy_kept": merged.origin.get("energy_kept", 1.0),
        "rank": layout.rank,
        "alpha": layout.alpha,
        "modules": len(layout.modules),
        "numbers": layout.num_parameters,
    }


@verb("export")
@argument("model", type=PATH)
@option(
    "--format",
    "kind",
    required=True,
    type=click.Choice(["peft", "diffusers", "kohya"]),
    help="kohya for A1111 and ComfyUI, diffusers for load_lora_weights, peft for PeftModel.",
)
@option("--out", required=True, type=PATH, help="A .safetensors file; for peft a folder.")
@option("--alpha", type=float, help="LoRA alpha of a file that does not state it.")
@models_space_option
def export_command(
    model: Path, kind: Any, out: Path, alpha: float | None, space: str
) -> dict[str, Any]:
    """Write a model as a LoRA file for other programs.

    MODEL is a model file, one model of a dataset as DATASET/NAME, or a LoRA file or folder of any
    format. Weights, rank, alpha and the name of the base are preserved exactly.

    \b
    Example: w2w export older.safetensors --format kohya --out lora.safetensors
    """
    from ..exports import read_lora, save_lora

    lora = read_lora(model, space=space, alpha=alpha)
    path = save_lora(out, lora, format=kind)
    return {"path": path, "format": kind, "rank": lora.layout.rank, "alpha": lora.layout.alpha}
