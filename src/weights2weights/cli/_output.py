"""How commands print: facts for a person or, with --json, one JSON object for a script."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple

import click

COMMANDS: dict[str, click.Command] = {}
"""All commands by name."""


class Outcome(NamedTuple):
    """What a command found, where its facts alone do not tell the whole story.

    Attributes:
        facts: names to values; these may be nested mappings, lists, paths, NumPy or torch scalars.
        shown: what a person sees instead: other facts, or a text.
        problems: lines for stderr.
        code: the exit code if there are problems.
    """

    facts: Mapping[str, Any]
    shown: Mapping[str, Any] | str | None = None
    problems: Sequence[str] = ()
    code: int = 1


def verb(
    name: str, commands: dict[str, click.Command] = COMMANDS
) -> Callable[[Callable[..., Mapping[str, Any] | Outcome]], click.Command]:
    """Add a command that prints the facts, or the `Outcome`, that its function returns.

    A person gets one aligned line per fact, without letters that could steer a terminal. With
    --json they are one line of JSON, with null for NaN and infinities, which JSON cannot express.
    """

    def add(function: Callable[..., Mapping[str, Any] | Outcome]) -> click.Command:
        @wraps(function)
        def run(as_json: bool, **options: Any) -> None:
            from .._json import plain

            found = function(**options)
            outcome = found if isinstance(found, Outcome) else Outcome(found)
            shown = outcome.facts if outcome.shown is None else outcome.shown
            if as_json:
                click.echo(json.dumps(plain(outcome.facts)))
            elif shown:
                click.echo(shown if isinstance(shown, str) else as_text(plain(shown)))
            for problem in outcome.problems:
                click.echo(one_line(problem), err=True)
            if outcome.problems:
                click.get_current_context().exit(outcome.code)

        command = click.command(name)(run)
        text = "Print one JSON object on stdout."
        command.params.append(click.Option(["--json", "as_json"], is_flag=True, help=text))
        command.short_help = (command.help or "").partition("\n")[0]  # in full, click would cut it
        commands[name] = command
        return command

    return add


def one_line(message: object) -> str:
    """Join the lines of a message and mask what could steer a terminal; names come from files."""
    return _printable(" ".join(str(message).split()))


def as_text(facts: Mapping[str, Any], indent: str = "") -> str:
    """Return one aligned line per fact, with nested facts indented below their name."""
    facts = {_printable(name): value for name, value in facts.items()}
    width = max(map(len, facts), default=0)
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [indent + name, *([as_text(value, indent + "  ")] if value else [])]
        else:
            lines.append(f"{indent}{name:<{width}}  {_text(value)}".rstrip())
    return "\n".join(lines)


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case list():
            return ", ".join(map(_text, value))
    return _printable(str(value))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
