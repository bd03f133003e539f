"""How verbs print: facts for a person or, with --json, one JSON object for a script."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)


def report(facts: Mapping[str, Any], as_json: bool) -> None:
    """Print named facts on stdout.

    Args:
        facts: names to values; values may be nested mappings, lists, paths, NumPy or torch scalars.
        as_json: one line of JSON, with null for NaN and infinities, which JSON cannot say.
            Otherwise one aligned line per fact, nested facts indented below their name.
    """
    plain = _plain(facts)
    click.echo(json.dumps(plain, ensure_ascii=False) if as_json else "\n".join(_lines(plain)))


def _plain(value: Any) -> Any:
    """Give a value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(item) for item in items]
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy and torch
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _lines(facts: Mapping[str, Any], indent: str = "") -> list[str]:
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
    return str(value)
