"""`w2w study`: ask people which of two methods they prefer."""

from pathlib import Path
from typing import Any

import click
from click import argument, option

from ._options import COUNT, FILE, FOLDER, SEED, given
from ._output import COMMANDS, verb

_verbs: dict[str, click.Command] = {}


@verb("make", _verbs)
@argument("out", type=FOLDER)
@argument("methods", nargs=-1, required=True, metavar="NAME=FOLDER...")
@option("--question", "questions", multiple=True, help="Asked about every pair; may be repeated.")
@option("--reference", type=FOLDER, help="Images to show above the pairs, by file name.")
@option("--pairs", type=COUNT, help="Number of pairs.  [default: all]")
@option("--checks", type=click.IntRange(0), default=3, help="Number of attention checks.")
@option("--consent", help="What raters agree to.  [default: answers stay on their device]")
@option("--seed", type=SEED, default=0, help="Seed of the choice of pairs.")
def make(
    out: Path, methods: tuple[str, ...], questions: tuple[str, ...], **options: Any
) -> dict[str, Any]:
    """Write a web page of pairs to choose from, and its key.

    Every NAME=FOLDER is a method and its images; images of one file name form pairs. Give raters
    OUT/study.html, as a file or on any web server, and keep OUT/key.json to yourself.
    """
    from ..study import make_study

    folders = {}
    for method in methods:
        name, equals, folder = method.partition("=")
        if not (name and equals and folder) or name in folders:
            raise click.UsageError(f"expected NAME=FOLDER with unlike names; got {method!r}")
        folders[name] = folder
    if questions:
        options["questions"] = questions
    files = make_study(out, folders, **given(options))
    return {"page": files.page, "key": files.key}


@verb("analyse", _verbs)
@argument("key", type=FILE)
@argument("answers", nargs=-1, required=True, type=FILE)
@option(
    "--failed-checks",
    type=click.IntRange(0),
    default=0,
    help="Raters who failed more attention checks are left out.",
)
def analyse(key: Path, answers: tuple[Path, ...], failed_checks: int) -> dict[str, Any]:
    """Report which methods the raters prefer, from the files that they saved."""
    from ..study import analyse_study

    return analyse_study(key, answers, failed_checks=failed_checks)


COMMANDS["study"] = click.Group(
    "study",
    _verbs,
    short_help="Ask people which of two methods they prefer.",
    help="""Ask people which of two methods they prefer.

    \b
    Example: w2w study make study edited=out/w2w prompted=out/prompting
             w2w study analyse study/key.json answers-*.json
    """,
)
