"""`python -m experiments NAME... --out DIR`: run experiments and write their report."""

from dataclasses import replace
from pathlib import Path

import click

from weights2weights.cli._options import base_option, device_option, dtype_option, open_base
from weights2weights.errors import W2WError

from .held_out import train_held_out
from .runner import EXPERIMENTS, WITHOUT_PEOPLE, run
from .setting import open_setting

_ALL = "\n".join(f"  {name:<13}{what}" for name, what in EXPERIMENTS.items())


@click.command(
    epilog="\b\nExperiments:\n" + _ALL, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.argument(
    "names", nargs=-1, required=True, metavar="NAME...", type=click.Choice(["all", *EXPERIMENTS])
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for JSON, PNG and report.html. Finished experiments in it are not run again.",
)
@base_option
@click.option("--space", default="people", show_default=True, help="Space to evaluate.")
@click.option(
    "--held-out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DATASET",
    help="Models of drawn people that the space was not fitted to.  [default: trained in"
    " OUT/held-out]",
)
@click.option(
    "--people",
    type=click.IntRange(2),
    help="Number of people to train without --held-out.  [default: 100, with --quick 8]",
)
@click.option("--quick", is_flag=True, help="Use few images, for a first look.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@device_option
@dtype_option
def main(
    names: tuple[str, ...],
    out: Path,
    base: str,
    space: str,
    held_out: Path | None,
    people: int | None,
    quick: bool,
    seed: int,
    device: str,
    dtype: str,
) -> None:
    """Run the experiments NAME..., or all of them ("all").

    Each is written as JSON and PNG, and report.html shows everything in OUT. Run the same command
    again to resume an interrupted run.

    \b
    Example: python -m experiments all --quick --out out/experiments
    """
    chosen = list(EXPERIMENTS) if "all" in names else list(dict.fromkeys(names))
    if people is not None and held_out is not None:
        raise click.UsageError("--people and --held-out exclude each other; pass one of them")
    try:
        setting = open_setting(
            open_base(base, device, dtype), space, held_out=held_out, cache=out / "cache", seed=seed
        )
        if held_out is None and not set(chosen) <= WITHOUT_PEOPLE:
            trained = train_held_out(setting, out / "held-out", people or (8 if quick else 100))
            setting = replace(setting, held_out=trained)
        run(chosen, setting, out, quick=quick, log=lambda text: click.echo(text, err=True))
    except W2WError as error:
        raise click.ClickException(str(error)) from error
    click.echo(out / "report.html")


if __name__ == "__main__":
    main(prog_name="python -m experiments")
