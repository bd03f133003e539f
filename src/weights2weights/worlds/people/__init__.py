"""The embedded world: drawn people, labelled with CelebA's attribute names."""

import numpy as np

from . import draw, image, labels, traits


class World:
    """The people, one for each population and index.

    Attributes:
        name: the world's name on the command line.
        label_names: the binary attributes of a person.
        attribute_prompts: label → (prompt that asks for it, prompt that asks for its opposite).
        scene_prompts: scene → prompt that asks for it.
        tied: label → labels that cannot all stay when it changes.
        focus: left, top, right and bottom of what distinguishes people, as parts of the sides.
    """

    name = "people"
    label_names = labels.LABEL_NAMES
    attribute_prompts = labels.ATTRIBUTE_PROMPTS
    scene_prompts = image.SCENE_PROMPTS
    tied = labels.TIED
    focus = (0.19, 0.25, 0.81, 0.875)

    draw = staticmethod(draw.draw)
    labels = staticmethod(labels.labels)
    surroundings = staticmethod(image.surroundings)

    def subject(self, population: int, index: int) -> traits.Person:
        """Return person `index` of a population."""
        return traits.Person(np.random.default_rng((population, index)))

    def image(self, population: int, index: int, number: int) -> image.Scene:
        """Return the circumstances of image `number` of that person."""
        return image.sample_image(np.random.default_rng((population, index, 1 + number)))


PEOPLE = World()
