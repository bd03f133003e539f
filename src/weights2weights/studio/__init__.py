"""The studio: a web page on which people sample, edit and take home models of a space.

`engine` draws the requests of all visitors in shared batches and knows nothing of the page.
"""

from .engine import Drawing, Engine, Photo, Superseded

__all__ = ["Drawing", "Engine", "Photo", "Superseded"]
