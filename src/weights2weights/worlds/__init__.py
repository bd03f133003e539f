"""Worlds of drawn subjects, whose every trait is known, and the base, scorers and space of one.

`people` is the embedded world. Its weights ship with the package; `experiments/world` in the
repository trained them.
"""

from typing import TYPE_CHECKING

from .._shipped import shipped as shipped
from ..errors import InputError
from .people import PEOPLE
from .people import World as World

if TYPE_CHECKING:
    from ..bases import Base

USER_POPULATIONS = 1000
"""Seed s of a user draws population 1000 + s; base and scorers learned from lower ones."""


def load_world(name: str) -> World:
    """Return a world by name; InputError unless it is "people"."""
    if name != PEOPLE.name:
        raise InputError(f"unknown world {name!r}; expected {PEOPLE.name!r}")
    return PEOPLE


def is_shipped(base: "Base") -> bool:
    """Return whether a base has the weights of the embedded one, whatever it is called.

    Only its images may be presented as drawings that show no real person.
    """
    from ..bases import load_base

    return base.hash == load_base(shipped(PEOPLE.name, "base")).hash
