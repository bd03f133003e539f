"""A dog in an image, as SVG and as pixels."""

import numpy as np

from weights2weights.worlds.people.draw import page, rasterise
from weights2weights.worlds.people.marks import group
from weights2weights.worlds.people.scenery import scenery

from . import body, head
from .geometry import measure
from .image import Scene
from .traits import Dog


def svg(dog: Dog, image: Scene, size: int = 128) -> str:
    """Draw a dog as SVG text of `size` × `size` pixels, from the back to the front."""
    frame = measure(dog, image)
    grown = 0.93 + 0.07 * dog.large
    place = (
        f"translate({61 + image.shift_x:.2f},{125 + image.shift_y:.2f}) "
        f"scale({image.scale * grown:.3f}) translate(0,{-body.FLOOR - 4})"
    )
    ears_behind = dog.ears == "pointy"
    skull = head.ears(dog, frame) * ears_behind + head.skull(dog, frame)
    face = (
        skull,
        head.muzzle(dog, image, frame),
        head.eyes(dog, image, frame),
        head.ears(dog, frame) * (not ears_behind),
        head.crown_fur(dog, frame),
    )
    looking = f"rotate({image.tilt:.2f}) scale({1.3 - 0.06 * dog.large:.3f})"
    parts = (
        body.tail(dog, image, frame),
        body.body(dog, frame),
        body.neckwear(dog, frame),
        group(*face, transform=looking),
    )
    return page(scenery(image.scene) + group(*parts, transform=place), size)


def draw(dog: Dog, image: Scene, size: int = 128) -> np.ndarray:
    """Draw a dog as an RGB image, uint8, shape (size, size, 3)."""
    return rasterise(svg(dog, image, size))
