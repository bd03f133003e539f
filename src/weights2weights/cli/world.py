"""`w2w world`: draw the people of the embedded world as ordinary image folders."""

from pathlib import Path
from typing import Any

import click

from ._options import COUNT, FOLDER, SEED


@click.command()
@click.argument("name", default="people")
@click.option("--subjects", default=50, type=COUNT, help="Number of subjects.")
@click.option("--images", default=10, type=COUNT, help="Images per subject.")
@click.option("--size", default=128, type=click.IntRange(16, 4096), help="Pixels per side.")
@click.option("--seed", default=0, type=SEED, help="Population; every seed draws other people.")
@click.option("--out", required=True, type=FOLDER, help="Folder to write to.")
@click.option(
    "--alike",
    is_flag=True,
    help="Give image n of every subject the same pose, expression, clothes, light and scene.",
)
@click.option("--grid", is_flag=True, help="Also write all images on one sheet, grid.png.")
def command(name: str, size: int, out: Path, grid: bool, **which: Any) -> None:
    """Draw subjects of a world: a folder of images for each, and labels.csv.

    A text file next to each image describes its surroundings, for w2w train.

    \b
    Example: w2w world people --subjects 50 --images 10 --out subjects
    """
    from ..sheets import write_image
    from ..worlds.folders import draw_grid, write_subjects

    out.mkdir(parents=True, exist_ok=True)
    write_subjects(name, out, size=size, progress=True, **which)
    click.echo(f"{which['subjects']} subjects × {which['images']} images and labels.csv in {out}")
    if grid:
        write_image(out / "grid.png", draw_grid(name, size=min(size, 128), **which))
        click.echo(f"all images on one sheet: {out / 'grid.png'}")
