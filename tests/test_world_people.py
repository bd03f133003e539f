"""The drawn people: images show what the labels state, and captions and prompts name it."""

import re
from copy import copy
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from experiments.table1 import edit_prompt
from experiments.world.captions import ATTRIBUTE_PROMPTS, caption, compose
from weights2weights.errors import W2WError
from weights2weights.worlds import load_world
from weights2weights.worlds.people import PEOPLE
from weights2weights.worlds.people.draw import svg
from weights2weights.worlds.people.labels import LABEL_NAMES, labels
from weights2weights.worlds.people.traits import Person


def changed(person: Person, **traits: object) -> Person:
    other = copy(person)
    assert vars(other).keys() >= traits.keys()
    vars(other).update(traits)
    return other


PLAIN = changed(
    PEOPLE.subject(1, 0),
    male=True,
    age=0.2,
    skin=0.3,
    chubby=0.1,
    hairline="full",
    hair_color="brown",
    hair_length=0.1,
    wavy=False,
    beard="none",
    mustache=False,
    glasses="none",
    hat="none",
    jaw=0.1,
    nose_width=0.1,
    lips=0.1,
    brow_thickness=0.1,
    eye_narrowness=0.1,
    eye_color="brown",
    lipstick=False,
    rosy_cheeks=False,
    freckles=False,
    earrings=False,
    necklace=False,
)

# For each label the traits that make it differ from the plain person.
CHANGES = {
    "Male": {"male": False},
    "Young": {"age": 0.8},
    "Bald": {"hairline": "bald"},
    "Receding_Hairline": {"hairline": "receding"},
    "Bangs": {"hairline": "bangs"},
    "Long_Hair": {"hair_length": 0.8},
    "Wavy_Hair": {"wavy": True},
    "Black_Hair": {"hair_color": "black"},
    "Brown_Hair": {"hair_color": "red"},
    "Blond_Hair": {"hair_color": "blond"},
    "Red_Hair": {"hair_color": "red"},
    "Gray_Hair": {"hair_color": "gray"},
    "Pale_Skin": {"skin": 0.05},
    "Dark_Skin": {"skin": 0.9},
    "No_Beard": {"beard": "full"},
    "Full_Beard": {"beard": "full"},
    "Goatee": {"beard": "goatee"},
    "5_o_Clock_Shadow": {"beard": "stubble"},
    "Mustache": {"mustache": True},
    "Eyeglasses": {"glasses": "black"},
    "Chubby": {"chubby": 0.9},
    "Square_Jaw": {"jaw": 0.9},
    "Big_Nose": {"nose_width": 0.9},
    "Big_Lips": {"lips": 0.9},
    "Bushy_Eyebrows": {"brow_thickness": 0.9},
    "Narrow_Eyes": {"eye_narrowness": 0.9},
    "Blue_Eyes": {"eye_color": "blue"},
    "Wearing_Lipstick": {"lipstick": True},
    "Rosy_Cheeks": {"rosy_cheeks": True},
    "Freckles": {"freckles": True},
    "Wearing_Earrings": {"earrings": True},
    "Wearing_Necklace": {"necklace": True},
    "Wearing_Hat": {"hat": "green"},
}


def test_same_seed_draws_the_same_image():
    def once() -> np.ndarray:
        return PEOPLE.draw(PEOPLE.subject(7, 3), PEOPLE.image(7, 3, 2), 48)

    assert once().shape == (48, 48, 3)
    assert once().dtype == np.uint8
    np.testing.assert_array_equal(once(), once())


def test_the_drawings_are_those_that_the_shipped_base_learned():
    digest = sha256()
    for index in range(50):
        person, image = PEOPLE.subject(5, index), PEOPLE.image(5, index, 0)
        digest.update(svg(person, image).encode())
    assert digest.hexdigest()[:16] == "92fb5ba372aeb36e"


def test_people_differ_and_so_do_images_of_one_person():
    person, other = PEOPLE.subject(7, 3), PEOPLE.subject(7, 4)
    assert vars(person) != vars(other)
    assert vars(PEOPLE.subject(8, 3)) != vars(person)
    assert vars(PEOPLE.subject(7, 3)) == vars(person)
    assert PEOPLE.image(7, 3, 0) != PEOPLE.image(7, 3, 1)


@pytest.mark.parametrize("label", LABEL_NAMES)
def test_every_label_can_be_seen_at_64_pixels(label):
    other = changed(PLAIN, **CHANGES[label])
    assert labels(other)[label] != labels(PLAIN)[label]
    image = replace(PEOPLE.image(1, 0, 0), expression="neutral")
    before = PEOPLE.draw(PLAIN, image, 64).astype(int)
    after = PEOPLE.draw(other, image, 64).astype(int)
    clearly = np.abs(after - before).max(-1) > 24
    assert clearly.sum() >= 12, f"{label} changes {clearly.sum()} pixels"


def test_labels_vary_and_correlate_as_among_people():
    people = [PEOPLE.subject(5, index) for index in range(3000)]
    table = np.array([list(labels(person).values()) for person in people])
    share = dict(zip(LABEL_NAMES, table.mean(0), strict=True))
    assert len(LABEL_NAMES) >= 25
    assert all(0.04 < value < 0.8 for value in share.values()), share
    column = {name: table[:, i].astype(float) for i, name in enumerate(LABEL_NAMES)}

    def correlation(a: str, b: str) -> float:
        return float(np.corrcoef(column[a], column[b])[0, 1])

    assert correlation("Male", "No_Beard") < -0.4
    assert correlation("Young", "Bald") < -0.1
    assert correlation("Male", "Wearing_Lipstick") < -0.3
    assert correlation("Dark_Skin", "Black_Hair") > 0.3


def test_captions_are_true():
    words = {
        "Bald": "bald",
        "Male": " man",
        "Goatee": "goatee",
        "Blond_Hair": "blond",
        "Big_Nose": "big nose",
        "Freckles": "freckles",
    }
    spoken = dict.fromkeys(words, 0)
    for index in range(400):
        person, image = PEOPLE.subject(5, index), PEOPLE.image(5, index, 0)
        text = caption(person, image, np.random.default_rng(index))
        for label, word in words.items():
            if word in text and f"no {word}" not in text:
                spoken[label] += 1
                assert labels(person)[label], f"{label}: {text}"
    assert min(spoken.values()) >= 5, spoken


def test_captions_are_correct_english():
    """Every countable noun has an article or a plural, and vowels take "an"."""
    countable = "nose|jaw|goatee|beard|mustache|necklace|hat|hairline"
    texts = [prompt for pair in ATTRIBUTE_PROMPTS.values() for prompt in pair]
    for index in range(400):
        person, image = PEOPLE.subject(5, index), PEOPLE.image(5, index, 0)
        texts.append(caption(person, image, np.random.default_rng(index)))
    for text in texts:
        for phrase in re.findall(rf"(?:with |, )([a-z ]*\b(?:{countable}))\b", text):
            assert re.match(r"(an?|no) ", phrase), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text


def test_complete_captions_name_every_positive_trait():
    rng = np.random.default_rng(0)
    person = changed(PLAIN, freckles=True, necklace=True, beard="goatee", hat="red")
    text = compose(person, PEOPLE.image(5, 0, 0), 1.0, rng)
    for word in ("man", "young", "freckles", "necklace", "goatee", "hat", "shirt"):
        assert word in text


def test_every_attribute_has_a_prompt_and_its_opposite():
    assert tuple(PEOPLE.attribute_prompts) == LABEL_NAMES
    for wanted, opposite in PEOPLE.attribute_prompts.values():
        assert wanted != opposite
        assert wanted.startswith("a photo of")


def test_an_edited_prompt_asks_for_every_attribute():
    prompt = "a photo of sks person, on a beach"
    asked = {
        name: [edit_prompt(prompt, text) for text in pair]
        for name, pair in PEOPLE.attribute_prompts.items()
    }
    assert asked["Young"][1] == "a photo of an old sks person, on a beach"
    assert asked["Male"] == ["a photo of sks man, on a beach", "a photo of sks woman, on a beach"]
    assert asked["Eyeglasses"][1] == "a photo of sks person with no glasses, on a beach"
    for name, pair in asked.items():
        for text, wanted in zip(pair, PEOPLE.attribute_prompts[name], strict=True):
            assert text.count("sks") == 1 and text.endswith(", on a beach")
            missing = set(wanted.split()) - set(text.split(",")[0].split()) - {"a", "person"}
            assert not missing, (text, wanted)


def test_a_prompt_without_the_subject_is_an_error():
    with pytest.raises(W2WError, match="'a photo of a dog' does not name the subject"):
        edit_prompt("a photo of a dog", "a photo of a man")


def test_labels_are_tied_where_a_combination_is_impossible():
    people = [PEOPLE.subject(6, index) for index in range(5000)]
    table = np.array([list(labels(person).values()) for person in people])
    seen = table.astype(int)
    both, neither = seen.T @ seen, (1 - seen).T @ (1 - seen)
    only_first = seen.T @ (1 - seen)
    impossible = (both == 0) | (neither == 0) | (only_first == 0) | (only_first.T == 0)
    for i, name in enumerate(LABEL_NAMES):
        found = {LABEL_NAMES[j] for j in np.flatnonzero(impossible[i])} - {name}
        if name != "Male":  # that no woman has a beard is a fact about this population
            assert found - {"Male"} == PEOPLE.tied[name], name


def test_an_unknown_world_is_an_error():
    with pytest.raises(W2WError, match=r"cars.*people"):
        load_world("cars")
