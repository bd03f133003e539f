"""Draw a person in an image, as SVG and as pixels."""

import io

import numpy as np
from PIL import Image

from . import features, hair, head
from .geometry import Face
from .image import Scene
from .marks import group
from .scenery import scenery
from .traits import Person

SCALE = 1.1  # of the head in the image


def svg(person: Person, image: Scene, size: int = 128) -> str:
    """Return a person as SVG text of `size` × `size` pixels, drawn from back to front."""
    face = Face(person, image)
    place = (
        f"translate({64 + image.shift_x:.2f},{61 + image.shift_y:.2f}) "
        f"rotate({image.tilt:.2f}) scale({SCALE * image.scale:.3f})"
    )
    parts = (
        hair.back_hair(person, face),
        head.body(person, image, face),
        head.ears(person, face),
        head.head(person, face),
        hair.beard(person, face),
        features.nose(person, face),
        features.mouth(person, image, face),
        hair.mustache(person, face),
        features.eyes(person, image, face),
        hair.front_hair(person, face),
        features.brows(person, image, face),
        features.glasses(person, face),
        head.earrings(person, face),
        hair.hat(person, face),
    )
    return page(scenery(image.scene) + group(*parts, transform=place), size)


def draw(person: Person, image: Scene, size: int = 128) -> np.ndarray:
    """Draw a person as an RGB image, uint8, shape (size, size, 3)."""
    return rasterise(svg(person, image, size))


def page(marks: str, size: int) -> str:
    """Wrap marks in an SVG page of `size` × `size` pixels; coordinates run from 0 to 128."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128" width="{size}" '
        f'height="{size}">{marks}</svg>'
    )


def rasterise(svg: str) -> np.ndarray:
    """Render an SVG page as uint8 RGB pixels (size, size, 3)."""
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg))
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))
