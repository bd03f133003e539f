"""The studio: a web page on which people sample, edit and take home models of a space.

`engine` draws the requests of all visitors in shared batches; `state` and `history` are what a
visitor has made, as immutable values; `studio` is what visitors do. None of them knows the page.
"""

from .engine import Drawing, Engine, Photo, Superseded
from .serve import serve

__all__ = ["Drawing", "Engine", "Photo", "Superseded", "serve"]
