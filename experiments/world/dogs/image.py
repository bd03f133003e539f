"""What differs from image to image of a dog: pose, expression, light, scene."""

from dataclasses import dataclass

import numpy as np

from weights2weights.worlds.people.image import BACKDROPS, SCENES
from weights2weights.worlds.randomness import normal

EXPRESSIONS = ("calm", "panting", "smiling", "sleepy")


@dataclass(frozen=True)
class Scene:
    """One image of a dog. Lengths in units of 1/128 of the image's side."""

    shift_x: float
    shift_y: float
    scale: float
    tilt: float  # of the head, degrees
    turn: float  # how far the features move sideways on the face
    gaze: float
    wag: float  # of the tail, degrees
    light: float  # -1 darker to 1 lighter
    expression: str
    scene: str  # one of BACKDROPS (a studio wall) or SCENES


def sample_image(rng: np.random.Generator) -> Scene:
    """Draw the circumstances of one image; the same generator state gives the same ones."""
    wall = rng.uniform() < 0.5
    return Scene(
        shift_x=normal(rng, 1.2),
        shift_y=normal(rng, 1.0),
        scale=float(np.exp(normal(rng, 0.025))),
        tilt=normal(rng, 3.5),
        turn=normal(rng, 0.9),
        gaze=normal(rng, 0.7),
        wag=normal(rng, 7.0),
        light=normal(rng, 0.5),
        expression=str(rng.choice(EXPRESSIONS, p=[0.35, 0.3, 0.22, 0.13])),
        scene=str(rng.choice(BACKDROPS if wall else SCENES)),
    )
