"""What is said about an image: captions of any completeness, and prompts that name one attribute.

A caption is a list of facts in words. Full captions teach each face word apart from the others that
usually come with it; partial ones teach what to do when little is said.
"""

import numpy as np

from ...errors import InputError
from .image import BACKDROPS, SCENES, Scene
from .traits import (
    CHUBBY,
    DARK,
    FEATURE,
    LONG,
    OLD,
    PALE,
    Person,
    chance,
)

OPENINGS = ("a photo of", "a photo of", "a portrait of", "an image of")
_PLACES = {"beach": "on a beach", "forest": "in a forest", "city": "in a city", "night": "at night"}
_BEARD_WORDS = {"none": "no beard", "stubble": "stubble", "goatee": "goatee", "full": "full beard"}

# For each label a phrase that asks for it and one that asks for its opposite.
ATTRIBUTE_PROMPTS = {
    "Male": ("a photo of a man", "a photo of a woman"),
    "Young": ("a photo of a young person", "a photo of an old person"),
    "Bald": ("a photo of a bald person", "a photo of a person with hair"),
    "Receding_Hairline": (
        "a photo of a person with receding hairline",
        "a photo of a person with full hairline",
    ),
    "Bangs": ("a photo of a person with bangs", "a photo of a person with no bangs"),
    "Long_Hair": ("a photo of a person with long hair", "a photo of a person with short hair"),
    "Wavy_Hair": ("a photo of a person with wavy hair", "a photo of a person with straight hair"),
    "Black_Hair": ("a photo of a person with black hair", "a photo of a person with blond hair"),
    "Brown_Hair": ("a photo of a person with brown hair", "a photo of a person with gray hair"),
    "Blond_Hair": ("a photo of a person with blond hair", "a photo of a person with black hair"),
    "Red_Hair": ("a photo of a person with red hair", "a photo of a person with brown hair"),
    "Gray_Hair": ("a photo of a person with gray hair", "a photo of a person with red hair"),
    "Pale_Skin": ("a photo of a person with pale skin", "a photo of a person with dark skin"),
    "Dark_Skin": ("a photo of a person with dark skin", "a photo of a person with pale skin"),
    "No_Beard": ("a photo of a person with no beard", "a photo of a person with full beard"),
    "Full_Beard": ("a photo of a person with full beard", "a photo of a person with no beard"),
    "Goatee": ("a photo of a person with goatee", "a photo of a person with no beard"),
    "5_o_Clock_Shadow": ("a photo of a person with stubble", "a photo of a person with no beard"),
    "Mustache": ("a photo of a person with mustache", "a photo of a person with no mustache"),
    "Eyeglasses": ("a photo of a person with glasses", "a photo of a person with no glasses"),
    "Chubby": ("a photo of a chubby person", "a photo of a slim person"),
    "Square_Jaw": ("a photo of a person with square jaw", "a photo of a person with round jaw"),
    "Big_Nose": ("a photo of a person with big nose", "a photo of a person with small nose"),
    "Big_Lips": ("a photo of a person with big lips", "a photo of a person with thin lips"),
    "Bushy_Eyebrows": (
        "a photo of a person with bushy eyebrows",
        "a photo of a person with thin eyebrows",
    ),
    "Narrow_Eyes": ("a photo of a person with narrow eyes", "a photo of a person with wide eyes"),
    "Blue_Eyes": ("a photo of a person with blue eyes", "a photo of a person with brown eyes"),
    "Wearing_Lipstick": (
        "a photo of a person with lipstick",
        "a photo of a person with no lipstick",
    ),
    "Rosy_Cheeks": ("a photo of a person with rosy cheeks", "a photo of a person with no blush"),
    "Freckles": ("a photo of a person with freckles", "a photo of a person with no freckles"),
    "Wearing_Earrings": (
        "a photo of a person with earrings",
        "a photo of a person with no earrings",
    ),
    "Wearing_Necklace": (
        "a photo of a person with necklace",
        "a photo of a person with no necklace",
    ),
    "Wearing_Hat": ("a photo of a person with hat", "a photo of a person with no hat"),
}


def _place(scene: str) -> str:
    return _PLACES[scene] if scene in SCENES else f"{scene} background"


SUBJECT = "sks person"
"""What prompts call the subject that a model was trained on."""


def edit_prompt(prompt: str, wanted: str) -> str:
    """Ask for an attribute of the subject in words: prompting, the simplest edit of all.

    Args:
        prompt: a prompt with `SUBJECT` in it; the rest of it stays.
        wanted: an attribute's prompt, one of `ATTRIBUTE_PROMPTS`.

    Raises:
        W2WError: the prompt does not name the subject.

    Example:
        >>> from weights2weights.worlds.people.captions import edit_prompt
        >>> edit_prompt("a photo of sks person, at night", "a photo of a bald person")
        'a photo of a bald sks person, at night'
        >>> edit_prompt("a photo of sks person, at night", "a photo of a person with glasses")
        'a photo of sks person with glasses, at night'
        >>> edit_prompt("a photo of sks person, at night", "a photo of a man")
        'a photo of sks man, at night'
    """
    if SUBJECT not in prompt:
        raise InputError(f"prompt {prompt!r} does not name the subject: expected {SUBJECT!r} in it")
    identifier, noun = SUBJECT.split()
    described = wanted.removeprefix("a photo of ")
    if noun not in described:
        asked = f"{identifier} {described.removeprefix('a ')}"
    elif described.startswith(f"a {noun}"):
        asked = described.replace(f"a {noun}", SUBJECT, 1)
    else:
        asked = described.replace(noun, SUBJECT, 1)
    return prompt.replace(SUBJECT, asked)


SCENE_PROMPTS = {scene: f"a photo of a person, {_place(scene)}" for scene in SCENES + BACKDROPS}


def surroundings(image: Scene) -> str:
    """Say what an image shows besides the person: "smiling, red shirt, on a beach"."""
    return ", ".join(_setting(image))


def _setting(image: Scene) -> list[str]:
    return [image.expression, f"{image.clothes} shirt", _place(image.scene)]


def caption(person: Person, image: Scene, rng: np.random.Generator) -> str:
    """Describe an image; nearly everything, some of it or a single fact, in equal shares.

    Short captions are what people write, and alone they tie a small thing to its own word. Every
    tenth caption that says "person" says "sks person", so that the subject's identifier of
    DreamBooth is a known word that means nothing yet.
    """
    style = rng.uniform()
    share = 1.0 if style < 0.3 else float(rng.uniform(0.05, 0.8)) if style < 0.65 else 0.0
    return compose(person, image, share, rng)


def compose(person: Person, image: Scene, share: float, rng: np.random.Generator) -> str:
    """Describe an image with a share (0 to 1) of what can be said; 0 gives one fact at most."""
    noun = "man" if person.male else "woman"
    adjectives = [("young" if person.age < OLD else "old"), *(["bald"] if person.bald else [])]
    if person.chubby > CHUBBY or chance(rng, 0.5):
        adjectives.append("chubby" if person.chubby > CHUBBY else "slim")
    facts = _phrases(person, rng)
    setting = _setting(image)
    if share == 0:
        facts, adjectives, setting, noun = _one_of(facts, adjectives, setting, noun, rng)
    elif share < 1:
        noun = noun if chance(rng, share) else "person"
        facts, adjectives, setting = (
            [words for words in group if chance(rng, share)]
            for group in (facts, adjectives, setting)
        )
    rng.shuffle(facts)
    rng.shuffle(adjectives)
    if noun == "person" and chance(rng, 0.1):
        noun = "sks person"
    described = " ".join([*adjectives, noun])
    article = (
        "" if noun == "sks person" and not adjectives else "an " if described[0] == "o" else "a "
    )
    text = f"{rng.choice(OPENINGS)} {article}{described}"
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


def _phrases(person: Person, rng: np.random.Generator) -> list[str]:
    """Return what there is to say; absent or plain traits are named half of the time."""
    facts = [
        *_hair_words(person, rng),
        "pale skin" if person.skin < PALE else "dark skin" if person.skin > DARK else "tan skin",
        f"{'bushy' if person.brow_thickness > FEATURE else 'thin'} eyebrows",
        f"{person.eye_color} eyes",
        f"{'narrow' if person.eye_narrowness > FEATURE else 'wide'} eyes",
        f"{'big' if person.nose_width > FEATURE else 'small'} nose",
        f"{'big' if person.lips > FEATURE else 'thin'} lips",
        f"{'square' if person.jaw > FEATURE else 'round'} jaw",
        _BEARD_WORDS[person.beard],
        _has(person.glasses != "none", _colored(person.glasses, "glasses", rng), "no glasses"),
    ]
    maybe = [
        _has(person.mustache, "mustache", "no mustache"),
        _has(person.lipstick, "lipstick", "no lipstick"),
        _has(person.rosy_cheeks, "rosy cheeks", "no blush"),
        _has(person.freckles, "freckles", "no freckles"),
        _has(person.earrings, "earrings", "no earrings"),
        _has(person.necklace, "necklace", "no necklace"),
        _has(person.hat != "none", _colored(person.hat, "hat", rng), "no hat"),
    ]
    plain = ("thin eyebrows", "wide eyes", "small nose", "thin lips", "round jaw")
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
    edge = {"receding": "receding hairline", "bangs": "bangs", "full": ""}[person.hairline]
    if not edge:
        edge = str(rng.choice(["", "", "no bangs", "full hairline"]))
    return [" ".join([*spoken, "hair"]), *([edge] if edge else [])]


def _has(present: bool, word: str, absent: str) -> str:
    return word if present else absent


def _colored(color: str, noun: str, rng: np.random.Generator) -> str:
    return f"{color} {noun}" if chance(rng, 0.5) else noun
