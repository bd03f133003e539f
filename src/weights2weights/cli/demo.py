"""`w2w demo` and `w2w world`: the embedded world, end to end or as ordinary image folders."""

from pathlib import Path
from typing import Any

import click
from click import argument, option

from ._options import COUNT, FOLDER, SEED, base_options, space_option
from ._output import Outcome, verb


@verb("demo")
@option("--out", default="demo", type=FOLDER, help="Folder for images, models and the report.")
@base_options
@space_option
@option("--subjects", default=8, type=click.IntRange(2), help="Number of people to fine-tune.")
@option("--seed", default=0, type=SEED, help="Seed of the people, the noise and the samples.")
def demo_command(out: Path, base: Any, space: str, subjects: int, seed: int) -> Outcome:
    """Run the full demo, from images of new people to edited models and a LoRA file.

    Draws people, fine-tunes a model for each, projects them into the space, samples new people,
    edits, inverts one photo and exports a LoRA. Writes report.html and report.json.

    \b
    Example: w2w demo --out demo
    """
    from ..evaluate import Setting, demo
    from .train import keep_freed_memory

    keep_freed_memory()
    setting = Setting.open(base(), space, seed=seed, progress=True)
    facts = demo(setting, out, subjects=subjects, log=lambda text: click.echo(text, err=True))
    page = {"path": out / "report.html"}
    single = {name: _single(stage) for name, stage in facts.items() if isinstance(stage, dict)}
    return Outcome(page | facts, {**page, **single, "seconds": facts["seconds"]})


def _single(stage: dict[str, Any]) -> dict[str, Any]:
    """Return the single figures of a stage, with means in place of confidence intervals."""
    means = {k: v.get("mean") if isinstance(v, dict) else v for k, v in stage.items()}
    return {k: v for k, v in means.items() if v is not None or not isinstance(stage[k], dict)}


@verb("world")
@argument("name", default="people")
@option("--subjects", default=50, type=COUNT, help="Number of subjects.")
@option("--images", default=10, type=COUNT, help="Images per subject.")
@option("--size", default=128, type=click.IntRange(16, 4096), help="Pixels per side.")
@option("--seed", default=0, type=SEED, help="Population; every seed draws other people.")
@option("--out", required=True, type=FOLDER, help="Folder to write to.")
@option(
    "--alike",
    is_flag=True,
    help="Give image n of every subject the same pose, expression, clothes, light and scene.",
)
@option("--grid", is_flag=True, help="Also write all images on one sheet, grid.png.")
def world_command(name: str, out: Path, **which: Any) -> dict[str, Any]:
    """Draw subjects of a world: a folder of images for each, and labels.csv.

    A text file next to each image describes its surroundings, for w2w train.

    \b
    Example: w2w world people --subjects 50 --images 10 --out subjects
    """
    from ..worlds.folders import write_subjects

    out.mkdir(parents=True, exist_ok=True)
    write_subjects(name, out, progress=True, **which)
    return {"path": out, "subjects": which["subjects"], "images": which["images"]}
