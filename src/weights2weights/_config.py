"""What training configurations share: checks of their values, and the learning-rate schedule."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import InputError


def require_choices(config: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError if a field is not one of its choices."""
    for name, allowed in choices.items():
        if (value := getattr(config, name)) not in allowed:
            raise InputError(f"{name} {value!r}: expected {' or '.join(allowed)}")


def require_at_least(config: Any, least: int, *names: str) -> None:
    """Raise InputError if a field is below a bound, infinite or NaN; None is fine."""
    for name in names:
        if (value := getattr(config, name)) is not None and not least <= value < math.inf:
            raise InputError(f"{name} {value}: expected at least {least}")


def require_positive(config: Any, *names: str) -> None:
    """Raise InputError if a field is 0, negative, infinite or NaN."""
    for name in names:
        if not 0 < (value := getattr(config, name)) < math.inf:
            raise InputError(f"{name} {value}: expected more than 0")


def require_fraction(config: Any, *names: str) -> None:
    """Raise InputError if a field is not between 0 and 1."""
    for name in names:
        if not 0 <= (value := getattr(config, name)) <= 1:
            raise InputError(f"{name} {value}: expected 0 to 1")


def learning_rate_at(config: Any, step: int) -> float:
    """Return the learning rate of a step: a linear warm-up, and a linear decay over all steps.

    Args:
        config: has `learning_rate`, `lr_warmup_steps`, `lr_end_factor` and `steps`.
        step: counted from 0.
    """
    warmup = min(1.0, (step + 1) / (config.lr_warmup_steps + 1))
    return config.learning_rate * warmup * (1 - (1 - config.lr_end_factor) * step / config.steps)
