"""Prompts that the base knows: for an attribute and for a scene."""

from .image import BACKDROPS, SCENES, Scene

SUBJECT = "sks person"
"""The name of the training subject in prompts."""

_PLACES = {"beach": "on a beach", "forest": "in a forest", "city": "in a city", "night": "at night"}


def _people_with(wanted: str, opposite: str) -> tuple[str, str]:
    return f"a photo of a person with {wanted}", f"a photo of a person with {opposite}"


# Articles are missing ("with hat") because the shipped base learned its captions without them.
ATTRIBUTE_PROMPTS = {
    "Male": ("a photo of a man", "a photo of a woman"),
    "Young": ("a photo of a young person", "a photo of an old person"),
    "Bald": ("a photo of a bald person", "a photo of a person with hair"),
    "Receding_Hairline": _people_with("receding hairline", "full hairline"),
    "Bangs": _people_with("bangs", "no bangs"),
    "Long_Hair": _people_with("long hair", "short hair"),
    "Wavy_Hair": _people_with("wavy hair", "straight hair"),
    "Black_Hair": _people_with("black hair", "blond hair"),
    "Brown_Hair": _people_with("brown hair", "gray hair"),
    "Blond_Hair": _people_with("blond hair", "black hair"),
    "Red_Hair": _people_with("red hair", "brown hair"),
    "Gray_Hair": _people_with("gray hair", "red hair"),
    "Pale_Skin": _people_with("pale skin", "dark skin"),
    "Dark_Skin": _people_with("dark skin", "pale skin"),
    "No_Beard": _people_with("no beard", "full beard"),
    "Full_Beard": _people_with("full beard", "no beard"),
    "Goatee": _people_with("goatee", "no beard"),
    "5_o_Clock_Shadow": _people_with("stubble", "no beard"),
    "Mustache": _people_with("mustache", "no mustache"),
    "Eyeglasses": _people_with("glasses", "no glasses"),
    "Chubby": ("a photo of a chubby person", "a photo of a slim person"),
    "Square_Jaw": _people_with("square jaw", "round jaw"),
    "Big_Nose": _people_with("big nose", "small nose"),
    "Big_Lips": _people_with("big lips", "thin lips"),
    "Bushy_Eyebrows": _people_with("bushy eyebrows", "thin eyebrows"),
    "Narrow_Eyes": _people_with("narrow eyes", "wide eyes"),
    "Blue_Eyes": _people_with("blue eyes", "brown eyes"),
    "Wearing_Lipstick": _people_with("lipstick", "no lipstick"),
    "Rosy_Cheeks": _people_with("rosy cheeks", "no blush"),
    "Freckles": _people_with("freckles", "no freckles"),
    "Wearing_Earrings": _people_with("earrings", "no earrings"),
    "Wearing_Necklace": _people_with("necklace", "no necklace"),
    "Wearing_Hat": _people_with("hat", "no hat"),
}
"""Label → (prompt that asks for it, prompt that asks for its opposite)."""


def surroundings(image: Scene) -> str:
    """Describe an image apart from the person: "smiling, red shirt, on a beach"."""
    return f"{image.expression}, {image.clothes} shirt, {place(image.scene)}"


def place(scene: str) -> str:
    """Return what prompts call a scene or wall: "on a beach", "blue background"."""
    return _PLACES[scene] if scene in SCENES else f"{scene} background"


SCENE_PROMPTS = {scene: f"a photo of a person, {place(scene)}" for scene in SCENES + BACKDROPS}
"""Scene or wall → a prompt that asks for it."""
