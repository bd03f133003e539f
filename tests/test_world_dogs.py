"""Drawn dogs: every label shows, captions are correct English, equal seeds give equal dogs."""

import re
from dataclasses import replace

import numpy as np
import pytest

from experiments.world.dogs.captions import ATTRIBUTE_PROMPTS, caption
from experiments.world.dogs.draw import draw
from experiments.world.dogs.image import sample_image
from experiments.world.dogs.traits import LABEL_NAMES, TIED, Dog, labels, sample_dog

PLAIN = replace(
    sample_dog(np.random.default_rng(0)),
    **{
        "coat": "golden",
        "pattern": "plain",
        "ears": "folded",
        "tail": "thin",
        "eye_color": "brown",
    },
    **{"collar": "none", "bandana": "none", "pink_nose": False, "curly": False, "brow_dots": False},
    **{"muzzle": 0.1, "fur": 0.1, "large": 0.1, "chubby": 0.1, "age": 0.1},
)
SCENE = replace(sample_image(np.random.default_rng(0)), expression="calm")

CHANGES = {
    "Black_Coat": {"coat": "black"},
    "Brown_Coat": {"coat": "brown"},
    "White_Coat": {"coat": "white"},
    "Gray_Coat": {"coat": "gray"},
    "Spotted": {"pattern": "spotted"},
    "White_Blaze": {"pattern": "blaze"},
    "Dark_Mask": {"pattern": "mask"},
    "Floppy_Ears": {"ears": "floppy"},
    "Pointy_Ears": {"ears": "pointy"},
    "Long_Muzzle": {"muzzle": 0.9},
    "Long_Fur": {"fur": 0.9},
    "Large": {"large": 0.9},
    "Chubby": {"chubby": 0.9},
    "Old": {"age": 0.9},
    "Blue_Eyes": {"eye_color": "blue"},
    "Pink_Nose": {"pink_nose": True},
    "Bushy_Tail": {"tail": "bushy"},
    "Curly_Tail": {"tail": "curly"},
    "Wearing_Collar": {"collar": "red"},
    "Wearing_Bandana": {"bandana": "blue"},
}


def dogs(count: int) -> list[Dog]:
    return [sample_dog(np.random.default_rng((1, i))) for i in range(count)]


def test_same_seed_gives_the_same_dog_and_the_same_pixels():
    first, second = (sample_dog(np.random.default_rng(7)) for _ in range(2))
    assert first == second
    np.testing.assert_array_equal(draw(first, SCENE, 64), draw(second, SCENE, 64))
    assert draw(first, SCENE, 64).shape == (64, 64, 3)


@pytest.mark.parametrize("name", CHANGES)
def test_every_label_shows_and_changes_alone(name):
    changed = replace(PLAIN, **CHANGES[name])
    before, after = labels(PLAIN), labels(changed)
    differing = {label for label in LABEL_NAMES if before[label] != after[label]}
    assert name in differing
    assert differing - {name} <= TIED[name]
    difference = np.abs(draw(PLAIN, SCENE).astype(int) - draw(changed, SCENE).astype(int)).max(-1)
    assert (difference > 40).sum() >= 20, "pixels of 128 × 128 that change clearly"


def test_labels_are_neither_rare_nor_universal():
    table = np.array([list(labels(dog).values()) for dog in dogs(1000)])
    shares = dict(zip(LABEL_NAMES, table.mean(0), strict=True))
    assert all(0.05 < share < 0.6 for share in shares.values()), shares
    assert len(LABEL_NAMES) >= 14


def test_labels_correlate_as_among_dogs():
    table = np.array([list(labels(dog).values()) for dog in dogs(2000)], dtype=float)
    large, muzzle = (table[:, LABEL_NAMES.index(name)] for name in ("Large", "Long_Muzzle"))
    assert 0.2 < np.corrcoef(large, muzzle)[0, 1] < 0.6


def test_captions_use_articles_and_never_contradict_the_dog():
    for i, dog in enumerate(dogs(300)):
        rng = np.random.default_rng((2, i))
        text = caption(dog, sample_image(rng), rng)
        assert re.match(r"(a photo|a portrait|an image) of ((a|an) |sks dog)", text), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou\s]", text.replace("an image", "")), text
        assert ("long muzzle" not in text) or labels(dog)["Long_Muzzle"]
        assert ("curly fur" not in text) or dog.curly


def test_every_label_has_a_prompt_and_an_opposite():
    assert tuple(ATTRIBUTE_PROMPTS) == LABEL_NAMES
    assert all(wanted != opposite for wanted, opposite in ATTRIBUTE_PROMPTS.values())
