"""Captions to train the base on: full ones, partial ones, and single facts.

Full captions teach the base to distinguish words for traits that usually occur together; partial
ones teach it what to draw when little is said. (The shipped base learned earlier captions, without
articles: "with hat".)
"""

import re

import numpy as np

from weights2weights.worlds.people import PEOPLE
from weights2weights.worlds.people.image import SUBJECT, Scene, surroundings
from weights2weights.worlds.people.traits import (
    CHUBBY,
    DARK,
    FEATURE,
    LONG,
    OLD,
    PALE,
    Person,
)
from weights2weights.worlds.randomness import chance

OPENINGS = ("a photo of", "a photo of", "a portrait of", "an image of")
_BEARD_WORDS = {
    "none": "no beard",
    "stubble": "stubble",
    "goatee": "a goatee",
    "full": "a full beard",
}

_WITH_ARTICLE = re.compile(
    r"with (receding hairline|full hairline|(?:full )?beard|goatee|mustache|necklace|hat"
    r"|(?:square|round) jaw|(?:big|small) nose)$"
)
ATTRIBUTE_PROMPTS = {
    name: (_WITH_ARTICLE.sub(r"with a \1", wanted), _WITH_ARTICLE.sub(r"with a \1", opposite))
    for name, (wanted, opposite) in PEOPLE.attribute_prompts.items()
}
"""Label → (prompt that asks for it, prompt that asks for its opposite), in the captions' words."""


def caption(person: Person, image: Scene, rng: np.random.Generator) -> str:
    """Describe an image: nearly everything (30 %), a part (35 %) or a single fact (35 %).

    Short captions are what users write, and only they tie a small feature to its own word. One in
    ten captions that say "person" says "sks person", so that DreamBooth's identifier is a known
    word without a meaning.
    """
    style = rng.uniform()
    fraction = 1.0 if style < 0.3 else float(rng.uniform(0.05, 0.8)) if style < 0.65 else 0.0
    return compose(person, image, fraction, rng)


def compose(person: Person, image: Scene, fraction: float, rng: np.random.Generator) -> str:
    """Describe an image with a fraction of its facts, from 0 (at most one) to 1 (all)."""
    noun = "man" if person.male else "woman"
    adjectives = _adjectives(person, rng)
    facts = _phrases(person, rng)
    setting = surroundings(image).split(", ")
    if fraction == 0:
        facts, adjectives, setting, noun = _one_of(facts, adjectives, setting, noun, rng)
    elif fraction < 1:
        noun = noun if chance(rng, fraction) else "person"
        facts, adjectives, setting = (
            [words for words in group if chance(rng, fraction)]
            for group in (facts, adjectives, setting)
        )
    rng.shuffle(facts)
    if noun == "person" and chance(rng, 0.1):
        noun = SUBJECT
    described = " ".join([*adjectives, noun])
    if adjectives or noun != SUBJECT:
        described = _article(described)
    text = f"{rng.choice(OPENINGS)} {described}"
    if facts:
        text += " with " + ", ".join(facts)
    return ", ".join([text, *setting])


def _one_of(
    facts: list[str],
    adjectives: list[str],
    setting: list[str],
    noun: str,
    rng: np.random.Generator,
) -> tuple[list[str], list[str], list[str], str]:
    kind = rng.uniform()
    if kind < 0.65:
        return [str(rng.choice(facts))], [], [], "person"
    if kind < 0.8:
        return [], [str(rng.choice(adjectives))], [], "person"
    if kind < 0.88:
        return [], [], [], noun
    return [], [], [str(rng.choice(setting))] if kind < 0.97 else [], "person"


def _adjectives(person: Person, rng: np.random.Generator) -> list[str]:
    """Return adjectives in English order: size, age, the rest."""
    words = []
    if person.chubby > CHUBBY or chance(rng, 0.5):
        words.append("chubby" if person.chubby > CHUBBY else "slim")
    words.append("young" if person.age < OLD else "old")
    return [*words, "bald"] if person.bald else words


def _phrases(person: Person, rng: np.random.Generator) -> list[str]:
    """Return all facts in words; absent or plain traits are included half of the time."""
    facts = [
        *_hair_words(person, rng),
        "pale skin" if person.skin < PALE else "dark skin" if person.skin > DARK else "tan skin",
        f"{'bushy' if person.brow_thickness > FEATURE else 'thin'} eyebrows",
        f"{person.eye_color} eyes",
        f"{'narrow' if person.eye_narrowness > FEATURE else 'wide'} eyes",
        f"a {'big' if person.nose_width > FEATURE else 'small'} nose",
        f"{'big' if person.lips > FEATURE else 'thin'} lips",
        f"a {'square' if person.jaw > FEATURE else 'round'} jaw",
        _BEARD_WORDS[person.beard],
        _has(person.glasses != "none", _colored(person.glasses, "glasses", rng), "no glasses"),
    ]
    maybe = [
        _has(person.mustache, "a mustache", "no mustache"),
        _has(person.lipstick, "lipstick", "no lipstick"),
        _has(person.rosy_cheeks, "rosy cheeks", "no blush"),
        _has(person.freckles, "freckles", "no freckles"),
        _has(person.earrings, "earrings", "no earrings"),
        _has(person.necklace, "a necklace", "no necklace"),
        _has(person.hat != "none", _article(_colored(person.hat, "hat", rng)), "no hat"),
    ]
    plain = ("thin eyebrows", "wide eyes", "a small nose", "thin lips", "a round jaw")
    return [
        fact
        for fact in facts + maybe
        if not (fact.startswith("no ") or fact in plain) or fact == "no beard" or chance(rng, 0.5)
    ]


def _hair_words(person: Person, rng: np.random.Generator) -> list[str]:
    if person.bald:
        return []
    words = [
        "wavy" if person.wavy else "straight",
        "long" if person.hair_length > LONG else "short",
        person.hair_color,
    ]
    spoken = [word for word in words if chance(rng, 0.7)]
    edge = {"receding": "a receding hairline", "bangs": "bangs", "full": ""}[person.hairline]
    if not edge:
        edge = str(rng.choice(["", "", "no bangs", "a full hairline"]))
    return [" ".join([*spoken, "hair"]), *([edge] if edge else [])]


def _has(present: bool, word: str, absent: str) -> str:
    return word if present else absent


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _colored(color: str, noun: str, rng: np.random.Generator) -> str:
    return f"{color} {noun}" if chance(rng, 0.5) else noun
