"""Colours of the drawn people and their scenes."""

Number = float | int
RGB = tuple[Number, Number, Number]


def _rgb(code: str) -> RGB:
    red, green, blue = bytes.fromhex(code)
    return red, green, blue


def _named(colors: str) -> dict[str, RGB]:
    """Read names and colours: "black 1e1a1e brown 683e22"."""
    words = colors.split()
    return {name: _rgb(code) for name, code in zip(words[::2], words[1::2], strict=True)}


_SKIN = ("ffe2cd", "f6ceac", "e2b086", "ba8258", "8a5a3c", "5c3a28")
SKIN: tuple[RGB, ...] = tuple(map(_rgb, _SKIN))
HAIR = _named("black 1e1a1e brown 683e22 blond e8c260 red bc4c1e gray b2b2b8")
EYES = _named("brown 5c361a blue 2c78d6 green 349254")
WALLS = _named(
    "blue 78a8e0 green 80be82 pink f0b2c4 yellow f2dc82"
    " gray a8aab0 purple a88cd0 orange f0aa6e white f0f0f0"
)
CLOTHES = _named(
    "red c63034 blue 2c54ac green 2c824c black 2a2a30 white ececf0 yellow e8be30 purple 7c4298"
)
FRAMES = _named("black 18181c red b82030 gold cc9c28")
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
    red, green, blue = (x + (y - x) * fraction for x, y in zip(a, b, strict=True))
    return red, green, blue


def skin_tone(darkness: float) -> RGB:
    """Return the skin colour for a darkness of 0 (pale) to 1 (dark)."""
    place = darkness * (len(SKIN) - 1)
    index = min(int(place), len(SKIN) - 2)
    return mix(SKIN[index], SKIN[index + 1], place - index)
