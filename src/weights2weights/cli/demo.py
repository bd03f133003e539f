"""`w2w demo`: the whole way, on the embedded world."""

from pathlib import Path
from typing import Any

import click

from ._malloc import keep_freed_memory
from ._options import FOLDER, SEED, base_options, space_option
from ._output import json_option, report


@click.command()
@click.option(
    "--out", default="demo", type=FOLDER, help="Folder for images, models and the report."
)
@base_options
@space_option
@click.option(
    "--subjects", default=8, type=click.IntRange(2), help="Number of people to fine-tune."
)
@click.option("--seed", default=0, type=SEED, help="Seed of the people, the noise and the samples.")
@json_option
def command(out: Path, base: Any, space: str, subjects: int, seed: int, as_json: bool) -> None:
    """Run the full demo, from images of new people to edited models and a LoRA file.

    Draws people, fine-tunes a model for each, projects them into the space, samples new people,
    edits, inverts one photo and exports a LoRA. Writes report.html and report.json.

    \b
    Example: w2w demo --out demo
    """
    from ..evaluate import Setting, demo

    keep_freed_memory()
    setting = Setting.open(base(), space, seed=seed, progress=True)
    facts = demo(setting, out, subjects=subjects, log=lambda text: click.echo(text, err=True))
    report({"path": out / "report.html", **(facts if as_json else _brief(facts))}, as_json)


def _brief(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the stages with their single figures, for the terminal."""
    brief = {}
    for name, stage in facts.items():
        if isinstance(stage, dict):
            brief[name] = {
                key: value["mean"] if isinstance(value, dict) else value
                for key, value in stage.items()
                if not isinstance(value, dict) or "mean" in value
            }
    return {**brief, "seconds": facts["seconds"]}
