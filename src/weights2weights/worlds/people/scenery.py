"""The background: a studio wall with a round light, or one of four scenes."""

from .marks import box, circle, path
from .palette import WALLS, WHITE, mix

_TREES = ((10, 30, "#2e6b3c"), (40, 14, "#3c8049"), (88, 12, "#2e6b3c"), (118, 28, "#3c8049"))
_HOUSES = ((0, 30, 24, "#7d8796"), (24, 50, 18, "#98a2b2"))
_HOUSES += ((86, 44, 16, "#98a2b2"), (102, 22, 26, "#6b7585"))
_WINDOWS = tuple((x, y) for x in (4, 14, 107, 117) for y in (38, 52, 66, 80))
_STARS = ((10, 14), (28, 34), (16, 60), (102, 12), (118, 40), (96, 30), (110, 66), (8, 90))

_SCENES = {
    "beach": box(0, 0, 128, 70, fill="#8fd0f2")
    + box(0, 62, 128, 30, fill="#2f8fc4")
    + box(0, 88, 128, 40, fill="#ecd49a")
    + circle(110, 18, 10, fill="#fff2a8"),
    "forest": box(0, 0, 128, 128, fill="#bfe0c4")
    + "".join(path("M", x - 20, 110, "L", x, y, x + 20, 110, "Z", fill=c) for x, y, c in _TREES)
    + box(0, 106, 128, 22, fill="#4a7a3a"),
    "city": box(0, 0, 128, 128, fill="#cfd8e4")
    + "".join(box(x, y, width, 128, fill=color) for x, y, width, color in _HOUSES)
    + "".join(box(x, y, 5, 6, fill="#f4e9a6") for x, y in _WINDOWS),
    "night": box(0, 0, 128, 128, fill="#1c2348")
    + "".join(circle(x, y, 1.8, fill="#fff") for x, y in _STARS)
    + circle(112, 18, 9, fill="#f4efc8"),
}


def scenery(scene: str) -> str:
    """Draw a scene or a wall over the whole 128 × 128 image."""
    if scene in _SCENES:
        return _SCENES[scene]
    wall = WALLS[scene]
    return box(0, 0, 128, 128, fill=wall) + circle(64, 58, 58, fill=mix(wall, WHITE, 0.25))
