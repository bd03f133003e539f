"""Drawn dogs, the second kind of subject that the base learns."""

import numpy as np

from . import captions, draw, traits
from .image import Scene, sample_image
from .traits import Dog


class Dogs:
    """The dogs, one for each population and index; the attributes are those of `World`."""

    name = "dogs"
    label_names = traits.LABEL_NAMES
    attribute_prompts = captions.ATTRIBUTE_PROMPTS
    scene_prompts = captions.SCENE_PROMPTS
    tied = traits.TIED

    draw = staticmethod(draw.draw)
    labels = staticmethod(traits.labels)
    surroundings = staticmethod(captions.surroundings)

    def subject(self, population: int, index: int) -> Dog:
        """Return dog `index` of a population."""
        return traits.sample_dog(np.random.default_rng((population, index)))

    def image(self, population: int, index: int, number: int) -> Scene:
        """Return the circumstances of image `number` of that dog."""
        return sample_image(np.random.default_rng((population, index, 1 + number)))


DOGS = Dogs()
