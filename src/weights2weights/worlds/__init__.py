"""Drawn worlds: sources of subjects whose every trait is known, and the recipe that learns them.

A world draws subjects; the recipe trains an autoencoder, a text-to-image model and scorers on its
images. `people` is the embedded one, whose trained base ships with the package.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._shipped import shipped as shipped

if TYPE_CHECKING:
    from ..bases import Base

USER_POPULATIONS = 1000
"""Populations that a user's seeds name: `w2w world --seed 3` draws population 1003."""


@dataclass(frozen=True)
class World:
    """A kind of subject that can be drawn.

    Attributes:
        name: the world's name, as on the command line.
        class_noun: what one subject is called in prompts ("person").
        label_names: the binary attributes of a subject.
        attribute_prompts: label → a prompt that asks for it and one that asks for its opposite.
        edit_prompt: prompt that names a subject, an attribute's prompt → a prompt that asks for
            this subject with that attribute.
        tied: label → labels that cannot all stay when it changes.
        sample_subject: generator → a subject; equal states give equal subjects.
        sample_image: generator → the circumstances of one image.
        draw: subject, circumstances, size → uint8 RGB image (size, size, 3).
        caption: subject, circumstances, generator → one description.
        surroundings: circumstances → what is said of them, in parts between commas.
        labels: subject → label name → whether it holds.
        scene_prompts: where a subject may stand → a prompt that asks for it.
        draw_scene: one of those, size → uint8 RGB image without a subject.
        focus: (left, top, right, bottom), in shares of an image: where the features are that tell
            subjects apart, few pixels that matter more than the many around them.
    """

    name: str
    class_noun: str
    label_names: tuple[str, ...]
    attribute_prompts: dict[str, tuple[str, str]]
    edit_prompt: Callable[[str, str], str]
    tied: dict[str, frozenset[str]]
    sample_subject: Callable[[np.random.Generator], Any]
    sample_image: Callable[[np.random.Generator], Any]
    draw: Callable[[Any, Any, int], np.ndarray]
    caption: Callable[[Any, Any, np.random.Generator], str]
    surroundings: Callable[[Any], str]
    labels: Callable[[Any], dict[str, bool]]
    scene_prompts: dict[str, str]
    draw_scene: Callable[[str, int], np.ndarray]
    focus: tuple[float, float, float, float]

    def subject(self, seed: int, index: int) -> Any:
        """Return subject number `index` of the population `seed`."""
        return self.sample_subject(np.random.default_rng((seed, index)))

    def image(self, seed: int, index: int, number: int) -> Any:
        """Return the circumstances of image `number` of that subject."""
        return self.sample_image(np.random.default_rng((seed, index, 1 + number)))


def load_world(name: str) -> World:
    """Return a world by name.

    Raises:
        W2WError: there is no such world.
    """
    from ..errors import InputError

    if name != "people":
        raise InputError(f"there is no world {name!r}: the only drawn world is 'people'")
    from .people import PEOPLE

    return PEOPLE


def is_shipped(base: "Base", world: str = "people") -> bool:
    """Return whether a base has the weights of the embedded one, whatever it is called.

    Only its images may be presented as drawings in which no real person appears.
    """
    from ..bases import load_base

    return base.hash == load_base(shipped(world, "base")).hash
