"""How verbs print: facts for a person or, with --json, one JSON object for a script."""

import json
from collections.abc import Mapping
from typing import Any

import click

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)


def one_line(message: object) -> str:
    """Join the lines of a message and mask what could steer a terminal; names come from files."""
    return _printable(" ".join(str(message).split()))


def report(facts: Mapping[str, Any], as_json: bool) -> None:
    """Print named facts on stdout.

    Args:
        facts: names to values; values may be nested mappings, lists, paths, NumPy or torch scalars.
        as_json: one line of JSON, with null for NaN and infinities, which JSON cannot say.
            Otherwise one aligned line per fact, nested facts indented below their name.
            Letters that could steer a terminal are masked there; JSON escapes them.
    """
    from .._json import plain

    cleaned = plain(facts)
    click.echo(json.dumps(cleaned) if as_json else "\n".join(_lines(cleaned)))


def _lines(facts: Mapping[str, Any], indent: str = "") -> list[str]:
    facts = {_printable(name): value for name, value in facts.items()}
    width = max((len(name) for name in facts), default=0)
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name:<{width}}  {_text(value)}".rstrip())
    return lines


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
