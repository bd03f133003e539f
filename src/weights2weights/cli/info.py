"""`w2w info`: report what a file or folder holds."""

from typing import Any

import click

from ._output import json_option, report


@click.command()
@click.argument("path")
@json_option
def command(path: str, as_json: bool) -> None:
    """Report what a file or folder holds.

    PATH is a LoRA (PEFT folder, diffusers or kohya file), a dataset, a space, a model, or the name
    of an embedded world.

    \b
    Example: w2w info somebody.safetensors
    """
    from ..inspection import info

    facts = info(path)
    report(facts if as_json else _brief(facts), as_json)


def _brief(value: Any, most: int = 100) -> Any:
    """Shorten long texts; headers are written by strangers."""
    if isinstance(value, dict):
        return {_brief(name): _brief(item) for name, item in value.items()}
    if isinstance(value, str):
        return value if len(value) <= most else value[: most - 1] + "…"
    return value
