"""The kinds of subjects that the base learns to draw, each with its captions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from weights2weights.worlds.people import PEOPLE

from . import captions as people
from .dogs import DOGS
from .dogs import captions as dogs


@dataclass(frozen=True)
class Kind:
    """One kind of subject.

    Attributes:
        world: subjects, images of them and labels; a `World`, or an object like it.
        caption: (subject, image, generator) → a caption for training.
        attribute_prompts: label → (prompt that asks for it, prompt that asks for its opposite), in
            the words of the captions.
    """

    world: Any
    caption: Callable[[Any, Any, np.random.Generator], str]
    attribute_prompts: dict[str, tuple[str, str]]


KINDS = {
    "people": Kind(PEOPLE, people.caption, people.ATTRIBUTE_PROMPTS),
    "dogs": Kind(DOGS, dogs.caption, dogs.ATTRIBUTE_PROMPTS),
}
