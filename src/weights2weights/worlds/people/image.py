"""What varies between images of one person: pose, expression, clothes, light and scene."""

from dataclasses import dataclass

import numpy as np

from ..randomness import normal
from .traits import CLOTHES

EXPRESSIONS = ("neutral", "smiling", "laughing", "surprised")
BACKDROPS = ("blue", "green", "pink", "yellow", "gray", "purple", "orange", "white")
_PLACES = {"beach": "on a beach", "forest": "in a forest", "city": "in a city", "night": "at night"}
SCENES = tuple(_PLACES)
SUBJECT = "sks person"
"""The name of the training subject in prompts."""


@dataclass(frozen=True)
class Scene:
    """The circumstances of one image; lengths in 1/128 of its side."""

    shift_x: float
    shift_y: float
    scale: float
    tilt: float  # degrees
    turn: float  # how far the features move sideways on the face
    gaze: float
    light: float  # -1 darker to 1 lighter
    expression: str
    scene: str  # one of BACKDROPS (a studio wall) or SCENES
    clothes: str


def sample_image(rng: np.random.Generator) -> Scene:
    """Sample the circumstances of one image; equal generator states give equal ones."""
    wall = rng.uniform() < 0.64
    return Scene(
        shift_x=normal(rng, 1.2),
        shift_y=normal(rng, 1.0),
        scale=float(np.exp(normal(rng, 0.025))),
        tilt=normal(rng, 2.2),
        turn=normal(rng, 0.9),
        gaze=normal(rng, 0.8),
        light=normal(rng, 0.5),
        expression=str(rng.choice(EXPRESSIONS, p=[0.36, 0.34, 0.18, 0.12])),
        scene=str(rng.choice(BACKDROPS if wall else SCENES)),
        clothes=str(rng.choice(CLOTHES)),
    )


def surroundings(image: Scene) -> str:
    """Describe an image apart from the person: "smiling, red shirt, on a beach"."""
    return f"{image.expression}, {image.clothes} shirt, {place(image.scene)}"


def place(scene: str) -> str:
    """Return what prompts call a scene or wall: "on a beach", "blue background"."""
    return _PLACES.get(scene, f"{scene} background")


SCENE_PROMPTS = {s: f"a photo of a person, {place(s)}" for s in SCENES + BACKDROPS}
"""Scene or wall → a prompt that asks for it."""
