"""Expected failures, each told in one line: what came, what was expected, the way out.

The command line prints that line and exits with 1. Any other exception that reaches a user is a
bug.
"""

from typing import Any


class W2WError(Exception):
    """An expected failure; catch this one to catch them all."""


class InputError(W2WError, ValueError):
    """An argument, a file or a combination of them that cannot be used: the caller can fix it."""


class ResourceError(W2WError, RuntimeError):
    """The machine's failure, not the caller's: a full disk, no network, too little memory."""


def shown(value: Any, most: int = 120) -> str:
    """Return a stranger's value as one short printable line."""
    text = ascii(value[: most + 1] if isinstance(value, str | list) else value)
    return text if len(text) <= most else text[: most - 1] + "…"
