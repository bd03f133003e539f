"""What a PATH can be: one page per kind of file or folder, for the verbs `info` and `verify`.

A page is a module of this package with three functions of the place as the user typed it:

- `recognise(place) -> bool`: cheap, by names and headers; never raises W2WError.
- `describe(place) -> dict`: the facts that `w2w info` prints.
- `verify(place) -> list[str]`: what is wrong with it, a line each; empty if all is well. Reads all.

The first page of the table that recognises a place has it. To add a kind, write its page and put
its name into the table, before `lora`, which takes whatever is left and says what it misses.
"""

from importlib import import_module
from types import ModuleType

KINDS = (
    "world",
    "dataset",
    "space",
    "model",
    "lora",
)


def kind_of(place: str) -> ModuleType:
    """Return the page for a place: a path, or the name of an embedded world."""
    pages = (import_module(f".{name}", __name__) for name in KINDS)
    return next(page for page in pages if page.recognise(place))
