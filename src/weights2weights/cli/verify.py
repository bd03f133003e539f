"""`w2w verify`: check a file or folder to the last number."""

import click

from ._output import json_option, one_line, report
from .kinds import kind_of


@click.command()
@click.argument("path")
@json_option
def command(path: str, as_json: bool) -> None:
    """Check every checksum, shape and number of a file or folder.

    Prints a line for each problem on stderr and exits with 1 if there is one.

    \b
    Example: w2w verify somebody.safetensors
    """
    problems = kind_of(path).verify(path)
    if as_json:
        report({"path": path, "sound": not problems, "problems": problems}, as_json)
    elif not problems:
        click.echo(f"{path}: sound")
    for problem in problems:
        click.echo(f"Error: {one_line(problem)}", err=True)
    if problems:
        raise SystemExit(1)
