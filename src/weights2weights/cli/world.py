"""`w2w world`: draw the subjects of a world as ordinary image folders."""

from pathlib import Path

import click


@click.command()
@click.argument("name", default="people")
@click.option("--subjects", default=50, show_default=True, type=click.IntRange(1))
@click.option("--images", default=10, show_default=True, type=click.IntRange(1), help="Of each.")
@click.option(
    "--size", default=128, show_default=True, type=click.IntRange(16, 4096), help="Pixels."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--alike",
    is_flag=True,
    help="Image n of every subject with the same pose, expression, clothes, light and scene.",
)
@click.option("--grid", is_flag=True, help="Also draw all of them on one sheet, grid.png.")
def command(
    name: str,
    subjects: int,
    images: int,
    size: int,
    seed: int,
    out: Path,
    alike: bool,
    grid: bool,
) -> None:
    """Draw the subjects of a world: a folder of images each, and labels.csv.

    Beside each image a text says what it shows besides the subject, as w2w train reads it.

    \b
    Example: w2w world people --subjects 50 --images 10 --out subjects
    """
    from ..worlds.folders import draw_grid, write_subjects

    out.mkdir(parents=True, exist_ok=True)
    write_subjects(
        name,
        out,
        subjects=subjects,
        images=images,
        size=size,
        seed=seed,
        alike=alike,
        progress=True,
    )
    click.echo(f"{subjects} subjects × {images} images and labels.csv in {out}")
    if grid:
        sheet = draw_grid(
            name,
            rows=subjects,
            columns=images,
            size=min(size, 128),
            seed=seed,
            same=True,
            alike=alike,
        )
        sheet.save(out / "grid.png")
        click.echo(f"all of them on one sheet: {out / 'grid.png'}")
