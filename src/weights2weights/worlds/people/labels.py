"""The labels of a drawn person: what a data set would record, and how a prompt asks for it."""

from collections.abc import Iterable, Sequence

from .traits import CHUBBY, DARK, FEATURE, LONG, OLD, PALE, Person

# Label, under CelebA's name where it has one → rule, words for it, words for its opposite. Articles
# are missing ("with hat") because the shipped base learned its captions without them.
_LABELS = {
    "Male": (lambda p: p.male, "a man", "a woman"),
    "Young": (lambda p: p.age < OLD, "a young person", "an old person"),
    "Bald": (lambda p: p.bald, "a bald person", "a person with hair"),
    "Receding_Hairline": (lambda p: p.hairline == "receding", "receding hairline", "full hairline"),
    "Bangs": (lambda p: p.hairline == "bangs", "bangs", "no bangs"),
    "Long_Hair": (lambda p: not p.bald and p.hair_length > LONG, "long hair", "short hair"),
    "Wavy_Hair": (lambda p: not p.bald and p.wavy, "wavy hair", "straight hair"),
    "Black_Hair": (lambda p: not p.bald and p.hair_color == "black", "black hair", "blond hair"),
    "Brown_Hair": (lambda p: not p.bald and p.hair_color == "brown", "brown hair", "gray hair"),
    "Blond_Hair": (lambda p: not p.bald and p.hair_color == "blond", "blond hair", "black hair"),
    "Red_Hair": (lambda p: not p.bald and p.hair_color == "red", "red hair", "brown hair"),
    "Gray_Hair": (lambda p: not p.bald and p.hair_color == "gray", "gray hair", "red hair"),
    "Pale_Skin": (lambda p: p.skin < PALE, "pale skin", "dark skin"),
    "Dark_Skin": (lambda p: p.skin > DARK, "dark skin", "pale skin"),
    "No_Beard": (lambda p: p.beard == "none", "no beard", "full beard"),
    "Full_Beard": (lambda p: p.beard == "full", "full beard", "no beard"),
    "Goatee": (lambda p: p.beard == "goatee", "goatee", "no beard"),
    "5_o_Clock_Shadow": (lambda p: p.beard == "stubble", "stubble", "no beard"),
    "Mustache": (lambda p: p.mustache, "mustache", "no mustache"),
    "Eyeglasses": (lambda p: p.glasses != "none", "glasses", "no glasses"),
    "Chubby": (lambda p: p.chubby > CHUBBY, "a chubby person", "a slim person"),
    "Square_Jaw": (lambda p: p.jaw > FEATURE, "square jaw", "round jaw"),
    "Big_Nose": (lambda p: p.nose_width > FEATURE, "big nose", "small nose"),
    "Big_Lips": (lambda p: p.lips > FEATURE, "big lips", "thin lips"),
    "Bushy_Eyebrows": (lambda p: p.brow_thickness > FEATURE, "bushy eyebrows", "thin eyebrows"),
    "Narrow_Eyes": (lambda p: p.eye_narrowness > FEATURE, "narrow eyes", "wide eyes"),
    "Blue_Eyes": (lambda p: p.eye_color == "blue", "blue eyes", "brown eyes"),
    "Wearing_Lipstick": (lambda p: p.lipstick, "lipstick", "no lipstick"),
    "Rosy_Cheeks": (lambda p: p.rosy_cheeks, "rosy cheeks", "no blush"),
    "Freckles": (lambda p: p.freckles, "freckles", "no freckles"),
    "Wearing_Earrings": (lambda p: p.earrings, "earrings", "no earrings"),
    "Wearing_Necklace": (lambda p: p.necklace, "necklace", "no necklace"),
    "Wearing_Hat": (lambda p: p.hat != "none", "hat", "no hat"),
}
LABEL_NAMES = tuple(_LABELS)


def labels(person: Person) -> dict[str, bool]:
    """Return the binary labels of a person, in the order of `LABEL_NAMES`."""
    return {name: bool(holds(person)) for name, (holds, _, _) in _LABELS.items()}


def _prompt(words: str) -> str:
    whole = "person" in words or "man" in words
    return f"a photo of {words if whole else f'a person with {words}'}"


ATTRIBUTE_PROMPTS = {name: (_prompt(yes), _prompt(no)) for name, (_, yes, no) in _LABELS.items()}
"""Label → (prompt that asks for it, prompt that asks for its opposite)."""


def tied_labels(names: Sequence[str], groups: Iterable[Sequence[str]]) -> dict[str, frozenset[str]]:
    """Return for every label the others of the groups that it belongs to."""
    groups = list(groups)
    return {
        name: frozenset(other for group in groups if name in group for other in group) - {name}
        for name in names
    }


_HAIR_COLORS = ("Black_Hair", "Brown_Hair", "Blond_Hair", "Red_Hair", "Gray_Hair")
_EXCLUSIVE = (  # labels that exclude one another, since they derive from one trait
    _HAIR_COLORS,
    ("Bald", "Receding_Hairline", "Bangs"),
    ("Pale_Skin", "Dark_Skin"),
    ("No_Beard", "Full_Beard", "Goatee", "5_o_Clock_Shadow"),
    *(("Bald", name) for name in ("Long_Hair", "Wavy_Hair", *_HAIR_COLORS)),
    ("Full_Beard", "Mustache"),  # tied, not exclusive: every full beard has a mustache
)
TIED = tied_labels(LABEL_NAMES, _EXCLUSIVE)
"""Label → labels that cannot all stay when it changes: a bald man has no wavy hair.

Labels that merely correlate in this population, such as men and beards, are not tied: they are what
entangles directions.
"""
