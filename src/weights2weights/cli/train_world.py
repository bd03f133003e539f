"""`w2w train-world`: train the base and the scorers of a drawn world, and check them."""

from pathlib import Path

import click

from ._output import json_option, report


@click.command()
@click.argument("name", default="people")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Work folder: checkpoints, logs, base/, scorer/ and check/.",
)
@click.option(
    "--recipe",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="How much of everything.",
)
@click.option("--start-from", "start", metavar="BASE", help="Go on with a base, such as people.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--minutes", type=float, help="Stop with checkpoints after this time.")
@json_option
def command(
    name: str,
    out: Path,
    recipe: str,
    start: str | None,
    device: str,
    minutes: float | None,
    as_json: bool,
) -> None:
    """Train the base and the scorers of a drawn world, and check them.

    The same call goes on where an earlier one stopped. Figures and images are in OUT/check.

    \b
    Example: w2w train-world people --out world --minutes 170
    """
    from ..worlds.check import check_world
    from ..worlds.recipe import CPU, GPU, TimeIsUp, train_world

    try:
        train_world(
            name,
            out,
            CPU if recipe == "cpu" else GPU,
            start=start,
            device=device,
            minutes=float("inf") if minutes is None else minutes,
            say=lambda line: click.echo(line, err=True),
        )
    except TimeIsUp:
        report({"finished": False, "work": out}, as_json)
        return
    report(check_world(name, out / "base", out / "scorer", out / "check"), as_json)
