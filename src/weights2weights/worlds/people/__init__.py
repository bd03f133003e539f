"""The embedded world: drawn people, labelled with CelebA's attribute names."""

import numpy as np

from . import draw, prompts, traits
from .image import Scene, sample_image
from .traits import Person


class World:
    """The people, one for each population and index.

    Attributes:
        name: the world's name on the command line.
        label_names: the binary attributes of a person.
        attribute_prompts: label → (prompt that asks for it, prompt that asks for its opposite).
        scene_prompts: scene → prompt that asks for it.
        tied: label → labels that cannot all stay when it changes.
        focus: (left, top, right, bottom) of the features that distinguish people, as fractions of
            the image's sides.
    """

    name = "people"
    label_names = traits.LABEL_NAMES
    attribute_prompts = prompts.ATTRIBUTE_PROMPTS
    scene_prompts = prompts.SCENE_PROMPTS
    tied = traits.TIED
    focus = (0.19, 0.25, 0.81, 0.875)

    draw = staticmethod(draw.draw)
    labels = staticmethod(traits.labels)
    surroundings = staticmethod(prompts.surroundings)

    def subject(self, population: int, index: int) -> Person:
        """Return person `index` of a population."""
        return traits.sample_person(np.random.default_rng((population, index)))

    def image(self, population: int, index: int, number: int) -> Scene:
        """Return the circumstances of image `number` of that person."""
        return sample_image(np.random.default_rng((population, index, 1 + number)))


PEOPLE = World()
