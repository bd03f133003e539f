"""The initialisation of LoRAs on the world's base: the A along which its people differ most."""

from pathlib import Path

import numpy as np
import torch

from weights2weights.bases import Base
from weights2weights.training import PRESETS, Latents, find_start, write_start
from weights2weights.worlds import USER_POPULATIONS
from weights2weights.worlds.people import PEOPLE


def learn_start(base: Base, folder: Path, *, subjects: int = 32, images: int = 10) -> Path:
    """Find the initialisation of all trainings on a base and write it to the base's folder.

    Args:
        base: a base that learned the world, in float32.
        folder: the folder of the base.
        subjects: how many people to compare, the first of `w2w world` with seed 0.
        images: images of each.

    Returns:
        The file.
    """
    latents = []
    for index in range(subjects):
        person = PEOPLE.subject(USER_POPULATIONS, index)
        shown = [PEOPLE.image(USER_POPULATIONS, index, number) for number in range(images)]
        pixels = np.stack([PEOPLE.draw(person, image, base.size) for image in shown])
        mean = base.encode_images(torch.from_numpy(pixels))
        captions = tuple(PEOPLE.surroundings(image) for image in shown)
        latents.append(Latents(mean, None, None, captions=captions))
    config = PRESETS["people"]
    layout = base.layout(config.rank, config.alpha, config.targets)
    return write_start(folder, base, layout, find_start(base, layout, config, latents))
