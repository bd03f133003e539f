"""JSON: values that it can hold, and the one spelling of a value for files and hashes."""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any, NoReturn

from .errors import InputError, shown


def plain(value: Any) -> Any:
    """Return a value as JSON holds it, whatever it is nested in.

    Arrays and scalars of NumPy and torch become lists and numbers, dataclasses and mappings
    objects, paths strings, sets sorted lists; NaN and infinite numbers become None (null).
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value)]
    if isinstance(value, list | tuple | range):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, PurePath):
        return str(value)
    raise InputError(f"cannot write a {type(value).__name__} as JSON; expected text or numbers")


def canonical_json(value: Any) -> bytes:
    """Return the one spelling of a JSON value: sorted keys, UTF-8, no NaN, a final newline."""
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
        return text.encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise InputError(
            f"a value that JSON cannot hold ({error}); expected text, finite numbers and the like"
        ) from error


def parse_json(raw: bytes | str, what: str) -> Any:
    """Parse a stranger's JSON: no key twice, no NaN, no endless nesting, no broken text."""
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        if "\\u" in text:  # an escape may name half a character, which can never be printed
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{what} is not valid JSON ({reason}); download it again") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"key {shown(key)} occurs twice")
        values[key] = value
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
