"""What the settings of training and inversion share: checks, and the learning-rate schedule."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from .errors import InputError

_RANGES = {
    "at least 0": lambda value: 0 <= value < math.inf,
    "at least 1": lambda value: 1 <= value < math.inf,
    "more than 0": lambda value: 0 < value < math.inf,
    "0 to 1": lambda value: 0 <= value <= 1,
}


def require_choices(config: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError if a field is not one of its choices."""
    for name, allowed in choices.items():
        if (value := getattr(config, name)) not in allowed:
            raise InputError(f"{name} {value!r}: expected {' or '.join(allowed)}")


def require_ranges(config: Any, ranges: Mapping[str, str]) -> None:
    """Raise InputError if a number is outside its range or NaN; None is fine.

    Args:
        config: the settings.
        ranges: "at least 0", "at least 1", "more than 0" or "0 to 1" → names of fields.
    """
    for expected, names in ranges.items():
        for name in names.split():
            value = getattr(config, name)
            if value is not None and not _RANGES[expected](value):
                raise InputError(f"{name} {value}: expected {expected}")


def require_fields(config: Any, changes: Mapping[str, Any]) -> None:
    """Raise InputError if settings to change are not fields of the settings."""
    names = [field.name for field in fields(config)]
    for name in changes.keys() - names:
        near = difflib.get_close_matches(name, names, n=1) or [", ".join(names)]
        raise InputError(f"there is no setting {name!r}: expected {near[0]}")


def learning_rate_at(config: Any, step: int) -> float:
    """Return the learning rate of a step from 0 on: a linear warm-up, a linear decay throughout."""
    warmup = min(1.0, (step + 1) / (config.lr_warmup_steps + 1))
    return config.learning_rate * warmup * (1 - (1 - config.lr_end_factor) * step / config.steps)
