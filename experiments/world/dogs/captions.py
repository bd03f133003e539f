"""What is said about an image of a dog: captions of any completeness, and attribute prompts.

A caption is a list of facts in words. Full captions teach each word apart from the others that
usually come with it; partial ones teach what to do when little is said.
"""

import numpy as np

from weights2weights.worlds.people.image import BACKDROPS, SCENES, place
from weights2weights.worlds.randomness import chance

from .image import Scene
from .traits import FEATURE, OLD, Dog

OPENINGS = ("a photo of", "a photo of", "a portrait of", "an image of")

# For each label a phrase that asks for it and one that asks for its opposite.
ATTRIBUTE_PROMPTS = {
    "Black_Coat": ("a photo of a black dog", "a photo of a white dog"),
    "Brown_Coat": ("a photo of a brown dog", "a photo of a gray dog"),
    "Golden_Coat": ("a photo of a golden dog", "a photo of a black dog"),
    "White_Coat": ("a photo of a white dog", "a photo of a brown dog"),
    "Gray_Coat": ("a photo of a gray dog", "a photo of a golden dog"),
    "Spotted": ("a photo of a dog with spots", "a photo of a dog with a plain coat"),
    "White_Blaze": ("a photo of a dog with a white blaze", "a photo of a dog with a plain coat"),
    "Dark_Mask": ("a photo of a dog with a dark mask", "a photo of a dog with a plain coat"),
    "Floppy_Ears": ("a photo of a dog with floppy ears", "a photo of a dog with pointy ears"),
    "Pointy_Ears": ("a photo of a dog with pointy ears", "a photo of a dog with floppy ears"),
    "Long_Muzzle": ("a photo of a dog with a long muzzle", "a photo of a dog with a short muzzle"),
    "Long_Fur": ("a photo of a dog with long fur", "a photo of a dog with short fur"),
    "Curly_Fur": ("a photo of a dog with curly fur", "a photo of a dog with short fur"),
    "Large": ("a photo of a large dog", "a photo of a small dog"),
    "Chubby": ("a photo of a chubby dog", "a photo of a slim dog"),
    "Old": ("a photo of an old dog", "a photo of a young dog"),
    "Blue_Eyes": ("a photo of a dog with blue eyes", "a photo of a dog with brown eyes"),
    "Pink_Nose": ("a photo of a dog with a pink nose", "a photo of a dog with a black nose"),
    "Bushy_Tail": ("a photo of a dog with a bushy tail", "a photo of a dog with a thin tail"),
    "Curly_Tail": ("a photo of a dog with a curly tail", "a photo of a dog with a thin tail"),
    "Wearing_Collar": ("a photo of a dog with a collar", "a photo of a dog with no collar"),
    "Wearing_Bandana": ("a photo of a dog with a bandana", "a photo of a dog with no bandana"),
}

_PATTERN_WORDS = {
    "plain": "a plain coat",
    "spotted": "spots",
    "blaze": "a white blaze",
    "mask": "a dark mask",
}


SUBJECT = "sks dog"
"""What prompts call the subject that a model was trained on."""

SCENE_PROMPTS = {scene: f"a photo of a dog, {place(scene)}" for scene in SCENES + BACKDROPS}


def surroundings(image: Scene) -> str:
    """Return what an image shows besides the dog: "panting, on a beach"."""
    return ", ".join(_setting(image))


def _setting(image: Scene) -> list[str]:
    return [image.expression, place(image.scene)]


def caption(dog: Dog, image: Scene, rng: np.random.Generator) -> str:
    """Describe an image: nearly everything, some of it or a single fact, in equal shares.

    Every tenth caption says "sks dog", so that the identifier of DreamBooth is a known word that
    means nothing yet.
    """
    style = rng.uniform()
    share = 1.0 if style < 0.3 else float(rng.uniform(0.05, 0.8)) if style < 0.65 else 0.0
    return compose(dog, image, share, rng)


def compose(dog: Dog, image: Scene, share: float, rng: np.random.Generator) -> str:
    """Describe an image with a fraction of its facts, from 0 (at most one) to 1 (all)."""
    adjectives, facts, setting = _adjectives(dog, rng), _facts(dog, rng), _setting(image)
    if share == 0:
        adjectives, facts, setting = _one_of(adjectives, facts, setting, rng)
    elif share < 1:
        adjectives, facts, setting = (
            [words for words in group if chance(rng, share)]
            for group in (adjectives, facts, setting)
        )
    rng.shuffle(facts)
    named = chance(rng, 0.1)
    described = " ".join([*adjectives, SUBJECT if named else "dog"])
    article = "" if named and not adjectives else "an " if described[0] in "aeiou" else "a "
    text = f"{rng.choice(OPENINGS)} {article}{described}"
    if facts:
        text += " with " + ", ".join(facts)
    return ", ".join([text, *setting])


def _one_of(
    adjectives: list[str], facts: list[str], setting: list[str], rng: np.random.Generator
) -> tuple[list[str], list[str], list[str]]:
    kind = rng.uniform()
    if kind < 0.6:
        return [], [str(rng.choice(facts))], []
    if kind < 0.85:
        return [str(rng.choice(adjectives))], [], []
    return [], [], [str(rng.choice(setting))] if kind < 0.97 else []


def _adjectives(dog: Dog, rng: np.random.Generator) -> list[str]:
    """Return adjectives in English order: size, age, shape, colour."""
    words = ["large" if dog.large > FEATURE else "small"]
    if dog.age > OLD or chance(rng, 0.5):
        words.append("old" if dog.age > OLD else "young")
    if dog.chubby > FEATURE or chance(rng, 0.5):
        words.append("chubby" if dog.chubby > FEATURE else "slim")
    return [*words, dog.coat]


def _facts(dog: Dog, rng: np.random.Generator) -> list[str]:
    """Return all facts in words; absent or plain traits are included half of the time."""
    fur = "curly" if dog.curly else "long" if dog.fur > FEATURE else "short"
    facts = [
        f"{dog.ears} ears",
        f"a {'long' if dog.muzzle > FEATURE else 'short'} muzzle",
        f"{fur} fur",
        f"{dog.eye_color} eyes",
        f"a {dog.tail} tail",
        _PATTERN_WORDS[dog.pattern],
        "a pink nose" if dog.pink_nose else "a black nose",
        _worn(dog.collar, "collar", rng),
        _worn(dog.bandana, "bandana", rng),
    ]
    plain = ("a plain coat", "a black nose", "no collar", "no bandana")
    return [fact for fact in facts if fact not in plain or chance(rng, 0.5)]


def _worn(color: str, noun: str, rng: np.random.Generator) -> str:
    if color == "none":
        return f"no {noun}"
    return f"a {color} {noun}" if chance(rng, 0.5) else f"a {noun}"
