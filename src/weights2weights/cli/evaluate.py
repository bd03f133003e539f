"""`w2w evaluate`: the paper's tables and figures."""

from pathlib import Path

import click

from ._options import base_option, device_option, dtype_option, open_base
from ._output import json_option, report


@click.command()
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for JSON, PNG and report.html; finished items in it are not measured again.",
)
@base_option
@click.option("--space", default="people", show_default=True, help="A folder, hub id or world.")
@click.option(
    "--held-out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="WEIGHTS",
    help="Models of drawn people the space does not know, named as by w2w world."
    "  [default: trained in OUT/held-out]",
)
@click.option(
    "--people",
    type=click.IntRange(2),
    help="How many to train where --held-out is not given.  [default: 100, with --quick 8]",
)
@click.option("--quick", is_flag=True, help="A first look with few images; the report says so.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@device_option
@dtype_option
@json_option
def command(
    items: tuple[str, ...],
    out: Path,
    base: str,
    space: str,
    held_out: Path | None,
    people: int | None,
    quick: bool,
    seed: int,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Measure the paper's tables and figures on a space.

    An ITEM is table1, table2, figure4, figure8, figure9, figure10, figure26-27, figure28,
    figure30, figure31, figure33, figure34, or all of them: "all". Each is written as
    JSON and PNG, and report.html shows all that OUT holds beside what the paper shows. Repeat a
    call that was interrupted: it goes on.

    \b
    Example: w2w evaluate all --quick --out evaluation
    """
    from ..evaluate import (
        ITEMS,
        WITHOUT_PEOPLE,
        evaluate,
        open_setting,
        require_matplotlib,
        train_held_out,
    )

    if unknown := [name for name in items if name not in (*ITEMS, "all")]:
        raise click.UsageError(
            f"no item {unknown[0]!r}: expected all, or some of {', '.join(ITEMS)}"
        )
    names = list(ITEMS) if "all" in items else list(dict.fromkeys(items))
    if people is not None and held_out is not None:
        raise click.UsageError("--people says how many to train: leave out --held-out or --people")
    require_matplotlib()
    opened = open_base(base, device, dtype)
    setting = open_setting(
        opened, space, held_out=held_out, keep=out / "parts", seed=seed, progress=True
    )
    if held_out is None and not set(names) <= WITHOUT_PEOPLE:
        setting = train_held_out(setting, out / "held-out", people or (8 if quick else 100))
    stored = evaluate(names, setting, out, quick=quick, say=lambda text: click.echo(text, err=True))
    facts = {
        found.name: {"checks": found.facts["checks"], "seconds": found.facts["seconds"]}
        for found in stored
    }
    if as_json:
        facts = {found.name: dict(found.facts) for found in stored}
    report({"path": out / "report.html", "quick": quick, "items": facts}, as_json)
