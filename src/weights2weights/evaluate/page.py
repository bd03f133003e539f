"""Reports as web pages: one self-contained file each, rendered from templates with Jinja2.

Templates escape every text by default, embed images as data URIs, and load nothing from elsewhere.
"""

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

TEMPLATES = Path(__file__).parent / "templates"
_LEAST_WIDTH = 128


def render(template: str, *folders: Path, **values: Any) -> str:
    """Render a template of this package, or of the given folders.

    Filters: `figure` formats numbers and estimates, `words` label names; `pil` makes images of
    pixels, `data_uri` embeds them.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "words": words, "pil": _image, "data_uri": _data_uri}
    return environment.get_template(template).render(**values)


def figure(value: Any) -> str:
    """Format a value of a report; for an estimate, its mean.

    Example:
        >>> figure(0.12345), figure(99648), figure(None), figure({"mean": 0.64})
        ('0.123', '99,648', '–', '0.640')
    """
    if isinstance(value, Mapping):
        value = value["mean"]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def words(label: str) -> str:
    """Return a label as words, such as "wearing hat"."""
    return label.replace("_", " ").lower()


def _image(image: Any) -> "Image":
    """Return pixels (h, w, 3) as an image; small ones are enlarged."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    drawn = Image.fromarray(np.asarray(image))
    if drawn.width >= _LEAST_WIDTH:
        return drawn
    return drawn.resize((_LEAST_WIDTH, _LEAST_WIDTH), Image.Resampling.BICUBIC)


def _data_uri(image: "Image") -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
