"""Colours of the drawn people and their scenes."""

Number = float | int
RGB = tuple[Number, Number, Number]

SKIN: tuple[RGB, ...] = (
    (255, 226, 205),
    (246, 206, 172),
    (226, 176, 134),
    (186, 130, 88),
    (138, 90, 60),
    (92, 58, 40),
)
HAIR: dict[str, RGB] = {
    "black": (30, 26, 30),
    "brown": (104, 62, 34),
    "blond": (232, 194, 96),
    "red": (188, 76, 30),
    "gray": (178, 178, 184),
}
EYES: dict[str, RGB] = {"brown": (92, 54, 26), "blue": (44, 120, 214), "green": (52, 146, 84)}
WALLS: dict[str, RGB] = {
    "blue": (120, 168, 224),
    "green": (128, 190, 130),
    "pink": (240, 178, 196),
    "yellow": (242, 220, 130),
    "gray": (168, 170, 176),
    "purple": (168, 140, 208),
    "orange": (240, 170, 110),
    "white": (240, 240, 240),
}
CLOTHES: dict[str, RGB] = {
    "red": (198, 48, 52),
    "blue": (44, 84, 172),
    "green": (44, 130, 76),
    "black": (42, 42, 48),
    "white": (236, 236, 240),
    "yellow": (232, 190, 48),
    "purple": (124, 66, 152),
}
FRAMES: dict[str, RGB] = {"black": (24, 24, 28), "red": (184, 32, 48), "gold": (204, 156, 40)}
GOLD: RGB = (255, 208, 60)
GOLD_EDGE: RGB = (168, 120, 8)
WHITE: RGB = (255, 255, 255)
BLACK: RGB = (0, 0, 0)
SHADOW: RGB = (60, 20, 10)
INK: RGB = (26, 16, 18)
BLUSH: RGB = (238, 84, 106)
FRECKLE: RGB = (126, 58, 16)
STUBBLE: RGB = (40, 40, 50)
BROW: RGB = (20, 12, 8)
LIP: RGB = (170, 50, 56)
LIPSTICKS: tuple[RGB, RGB] = ((214, 16, 48), (168, 16, 108))
WHITE_OF_EYE: RGB = (253, 253, 253)


def mix(a: RGB, b: RGB, fraction: float) -> RGB:
    """Interpolate from colour `a` (fraction 0) to colour `b` (fraction 1)."""
    return (
        a[0] + (b[0] - a[0]) * fraction,
        a[1] + (b[1] - a[1]) * fraction,
        a[2] + (b[2] - a[2]) * fraction,
    )


def skin_tone(darkness: float) -> RGB:
    """Return the skin colour for a darkness of 0 (pale) to 1 (dark)."""
    place = darkness * (len(SKIN) - 1)
    index = min(int(place), len(SKIN) - 2)
    return mix(SKIN[index], SKIN[index + 1], place - index)
