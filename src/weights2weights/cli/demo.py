"""`w2w demo`: the tour on the embedded world."""

from pathlib import Path

import click

from ._options import base_option, device_option, dtype_option, open_base
from ._output import json_option, report


@click.command()
@click.option(
    "--out",
    default=Path("demo"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for images, models and the report.",
)
@base_option
@click.option("--space", default="people", show_default=True, help="A folder, hub id or world.")
@click.option(
    "--subjects", default=8, show_default=True, type=click.IntRange(2), help="People to train."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@device_option
@dtype_option
@json_option
def command(
    out: Path,
    base: str,
    space: str,
    subjects: int,
    seed: int,
    device: str,
    dtype: str,
    as_json: bool,
) -> None:
    """Show the whole way, from images of new people to edited models and a LoRA file.

    Draws people, fine-tunes a model for each, places them in the shipped space, draws new people
    from it, edits, inverts one photo and exports a LoRA. Writes report.html and report.json.

    \b
    Example: w2w demo --out demo
    """
    from ..evaluate import open_setting
    from ..evaluate.demo import demo

    opened = open_base(base, device, dtype)
    setting = open_setting(opened, space, seed=seed, progress=True)
    facts = demo(setting, out, subjects=subjects, say=lambda text: click.echo(text, err=True))
    page = out / "report.html"
    report({"path": page, **facts} if as_json else {"path": page, **_brief(facts)}, as_json)


def _brief(facts: dict) -> dict:
    """Return the figures for a person to read: whole stages with their single numbers."""
    brief = {}
    for name, value in facts.items():
        if not isinstance(value, dict):
            continue
        brief[name] = {
            key: item["mean"] if isinstance(item, dict) else item
            for key, item in value.items()
            if not isinstance(item, dict) or "mean" in item
        }
    return {**brief, "seconds": facts["seconds"]}
