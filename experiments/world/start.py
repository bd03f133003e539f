"""Where DreamBooth begins on a world's base: the A along which the world's subjects differ most."""

from pathlib import Path

import numpy as np
import torch

from weights2weights.bases import Base
from weights2weights.training import PAPER, RECIPES, Latents, find_start, write_start
from weights2weights.worlds import USER_POPULATIONS, load_world


def learn_start(
    world: str, base: Base, folder: Path, *, subjects: int = 32, images: int = 10
) -> Path:
    """Find the start of all trainings on a base and put it into the base's folder.

    Args:
        world: whose first users' subjects (`w2w world`, seed 0) say what differs.
        base: that learned the world, in float32.
        folder: of the base.
        subjects: how many.
        images: of each.

    Returns:
        the file.
    """
    drawn, recipe = load_world(world), RECIPES.get(world, PAPER)
    latents = []
    for index in range(subjects):
        subject = drawn.subject(USER_POPULATIONS, index)
        shown = [drawn.image(USER_POPULATIONS, index, number) for number in range(images)]
        pixels = np.stack([drawn.draw(subject, image, base.size) for image in shown])
        mean = base.encode_images(torch.from_numpy(pixels))
        captions = tuple(drawn.surroundings(image) for image in shown)
        latents.append(Latents(mean, None, None, captions=captions))
    layout = base.layout(recipe.rank, recipe.alpha, recipe.targets)
    return write_start(folder, base, layout, find_start(base, layout, recipe, latents))
