"""Where things lie on one dog: the few measures and colours that several parts share."""

from dataclasses import dataclass

from weights2weights.worlds.people.palette import BLACK, RGB, WHITE, mix

from .image import Scene
from .traits import Dog

SIDES = (-1, 1)  # left and right in the image

COATS: dict[str, RGB] = {
    "black": (52, 48, 54),
    "brown": (134, 84, 48),
    "golden": (226, 172, 92),
    "white": (244, 240, 232),
    "gray": (150, 152, 162),
}
COLLARS: dict[str, RGB] = {
    "red": (206, 44, 50),
    "blue": (40, 92, 190),
    "green": (38, 140, 78),
    "yellow": (240, 200, 40),
    "purple": (134, 66, 164),
}
EYES: dict[str, RGB] = {"brown": (74, 44, 24), "amber": (196, 128, 30), "blue": (70, 150, 230)}
CREAM: RGB = (250, 246, 238)
DARK: RGB = (42, 36, 38)
NOSE: RGB = (30, 26, 30)
PINK: RGB = (232, 140, 150)
TAN: RGB = (206, 146, 84)
FROST: RGB = (214, 212, 210)


@dataclass(frozen=True)
class Frame:
    """Measures in 1/128 of the image, origin between the eyes, y downwards; shared colours."""

    half_width: float
    crown: float
    chin: float
    eye_x: float
    eye_y: float
    eye: float  # radius
    muzzle_half: float
    muzzle_top: float
    muzzle_bottom: float
    nose_y: float
    chest_half: float
    base_half: float
    neck_y: float
    turn: float
    coat: RGB
    shade: RGB
    line: RGB
    ear: RGB
    muzzle: RGB
    chest: RGB
    spot: RGB


def measure(dog: Dog, image: Scene) -> Frame:
    """Work out the measures and colours of a dog in an image."""
    lit = WHITE if image.light > 0 else BLACK
    tint = WHITE if dog.coat_shade > 0 else BLACK
    coat = mix(COATS[dog.coat], tint, 0.05 * abs(dog.coat_shade))
    coat = mix(coat, lit, 0.05 * abs(image.light))
    dark = dog.coat == "black"
    shade = mix(coat, WHITE, 0.16) if dark else mix(coat, BLACK, 0.16)
    line = mix(coat, WHITE, 0.3) if dark else mix(coat, BLACK, 0.45)
    muzzle, chest = mix(coat, CREAM, 0.28), mix(coat, CREAM, 0.18)
    if dog.pattern == "blaze":
        muzzle = chest = CREAM
    if dog.pattern == "mask":
        muzzle = DARK
    if dog.age > 0.5:
        muzzle = mix(muzzle, FROST, 0.75 * dog.age)
    long = 16 * dog.muzzle
    return Frame(
        half_width=26 + 1.4 * dog.head_width + 4.5 * dog.chubby,
        crown=-27 - 1.2 * dog.head_height,
        chin=24 + 0.55 * long,
        eye_x=12 + 0.8 * dog.eye_gap,
        eye_y=-3 + 0.8 * dog.eye_height,
        eye=5.2 + 0.35 * dog.eye_size - 0.9 * dog.large,
        muzzle_half=13.5 + 0.8 * dog.muzzle_width - 1.5 * dog.muzzle,
        muzzle_top=3 + 0.15 * long,
        muzzle_bottom=22 + 0.75 * long,
        nose_y=6.5 + 0.6 * long,
        chest_half=19 + 9 * dog.large + 4 * dog.chubby,
        base_half=24 + 7 * dog.large + 8 * dog.chubby,
        neck_y=1.25 * (24 + 0.55 * long) - 3,
        turn=1.6 * image.turn,
        coat=coat,
        shade=shade,
        line=line,
        ear=mix(coat, BLACK, 0.5) if dog.dark_ears or dog.pattern == "mask" else shade,
        muzzle=muzzle,
        chest=chest,
        spot=COATS["brown"] if dog.coat == "black" else DARK,
    )
