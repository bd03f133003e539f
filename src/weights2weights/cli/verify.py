"""`w2w verify`: check a file or folder completely."""

import click

from ._output import json_option, one_line, report


@click.command()
@click.argument("path")
@json_option
def command(path: str, as_json: bool) -> None:
    """Check every checksum, shape and value of a file or folder.

    PATH is what w2w info takes. Prints one line per problem on stderr and exits with 1 if there is
    any.

    \b
    Example: w2w verify somebody.safetensors
    """
    from ..inspection import verify

    problems = verify(path)
    if as_json:
        report({"path": path, "sound": not problems, "problems": problems}, as_json)
    elif not problems:
        click.echo(f"{path}: sound")
    for problem in problems:
        click.echo(f"Error: {one_line(problem)}", err=True)
    if problems:
        raise SystemExit(1)
