"""Everything below and behind the head: tail, sitting body, paws, collar and bandana."""

import math

from weights2weights.worlds.people.marks import circle, ellipse, group, path
from weights2weights.worlds.people.palette import BLACK, WHITE, mix

from .geometry import COLLARS, CREAM, SIDES, Frame
from .image import Scene
from .traits import FEATURE, Dog

FLOOR = 58  # where the paws stand


def tail(dog: Dog, image: Scene, frame: Frame) -> str:
    """Draw the tail, which rises behind the body on the right."""
    length = 30 + 2 * dog.tail_length
    place = f"translate({frame.base_half + 1:.1f},{FLOOR - 10}) rotate({image.wag + 8:.1f})"
    return group(_TAILS[dog.tail](length, dog, frame), transform=place)


def _thin(length: float, dog: Dog, frame: Frame) -> str:
    line = ("M", -6, 4, "Q", 16, 0, 17, -length)
    return path(*line, fill="none", stroke=frame.line, stroke_width=8, stroke_linecap="round") + (
        path(*line, fill="none", stroke=frame.coat, stroke_width=6, stroke_linecap="round")
    )


def _bushy(length: float, dog: Dog, frame: Frame) -> str:
    top = -length - 4
    plume = path(
        *("M", -6, 6, "C", 12, 8, 30, -6, 24, top, "C", 22, top + 6, 18, top + 6, 17, top + 1),
        *("C", 12, top + 12, 4, -12, -6, -6, "Z"),
        **{"fill": frame.coat, "stroke": frame.line, "stroke_width": 1.2},
    )
    tip = CREAM if dog.pattern == "blaze" else frame.chest
    end = ("M", 24, top, "C", 22, top + 6, 18, top + 6, 17, top + 1, "Q", 13, top + 9, 13, top + 16)
    return plume + path(*end, "Q", 20, top + 13, 26, top + 18, "Q", 27, top + 8, 24, top, fill=tip)


def _curly(length: float, dog: Dog, frame: Frame) -> str:
    steps: list[str | float] = ["M", -6, 4]
    for i in range(15):
        angle, radius = math.pi * (0.35 - 0.175 * i), 10.5 - 0.45 * i
        steps += ["L", 10 + radius * math.cos(angle), -16 + radius * math.sin(angle)]
    style = {"fill": "none", "stroke_linecap": "round", "stroke_linejoin": "round"}
    outline = path(*steps, **style, stroke=frame.line, stroke_width=8.4)
    return outline + path(*steps, **style, stroke=frame.coat, stroke_width=6.4)


_TAILS = {"thin": _thin, "bushy": _bushy, "curly": _curly}


def body(dog: Dog, frame: Frame) -> str:
    """Draw the sitting body with chest, thighs, front legs and paws."""
    w, base, top = frame.chest_half, frame.base_half, 16
    edge = {"stroke": frame.line, "stroke_width": 1.2}
    drawn = ""
    for side in SIDES:  # thighs and hind paws
        drawn += ellipse(side * (base - 5), FLOOR - 9, 13, 14, fill=frame.shade, **edge)
        drawn += ellipse(side * base, FLOOR + 3, 9, 5, fill=frame.coat, **edge)
    drawn += path(
        *("M", -w + 4, top, "C", -w - 3, 34, -base + 3, 42, -base + 5, FLOOR),
        *("H", base - 5, "C", base - 3, 42, w + 3, 34, w - 4, top, "Z"),
        **{"fill": frame.coat, **edge},
    )
    drawn += _fur_edge(dog, frame) + _body_spots(dog, frame)
    bib = w - 7
    drawn += path(
        *("M", -bib, 24, "C", -bib, 40, -7, 45, 0, 48, "C", 7, 45, bib, 40, bib, 24, "Z"),
        fill=frame.chest,
    )
    return drawn + _legs(dog, frame)


def _legs(dog: Dog, frame: Frame) -> str:
    half, x = 5.2 + 2.4 * dog.large, 8.2 + 2.2 * dog.large
    paw = CREAM if dog.pattern == "blaze" else frame.coat
    edge = {"stroke": frame.line, "stroke_width": 1.2}
    drawn = ""
    for side in SIDES:
        left, right = side * x - half, side * x + half
        leg = ("M", left, 40, "L", left + 0.6, FLOOR, "H", right - 0.6, "L", right, 40)
        drawn += path(*leg, fill=frame.coat, **edge)
        drawn += ellipse(side * x, FLOOR + 3, half + 2, 5.2, fill=paw, **edge)
        toes = ("M", side * x - 2, FLOOR + 2, "v", 5, "M", side * x + 2, FLOOR + 2, "v", 5)
        drawn += path(*toes, fill="none", stroke=frame.line, stroke_width=1)
    return drawn


def _fur_edge(dog: Dog, frame: Frame) -> str:
    """Draw long fur along the flanks: tufts if straight, curls if curly."""
    if dog.fur <= FEATURE:
        return ""
    drawn = ""
    for side in SIDES:
        for i in range(5):
            x = side * (frame.chest_half + (frame.base_half - frame.chest_half) * i / 5 - 1)
            y = 24 + 6.5 * i
            drawn += _tuft(x, y, side, dog, frame)
    return drawn


def _tuft(x: float, y: float, side: int, dog: Dog, frame: Frame) -> str:
    if dog.curly:
        return circle(x, y, 5.5, fill=frame.coat, stroke=frame.line, stroke_width=0.8)
    reach = 3 + 4 * dog.fur
    return path(
        "M", x - side * 3, y - 5, "Q", x + side * 2, y, x + side * reach, y + 6,
        "Q", x - side * 1, y + 5, x - side * 3, y + 7, "Z", fill=frame.coat,
    )  # fmt: skip


def _body_spots(dog: Dog, frame: Frame) -> str:
    if dog.pattern != "spotted":
        return ""
    w, drawn = frame.chest_half, ""
    for x, y, radius in dog.spots[3:]:
        drawn += ellipse(x * w, 38 + 14 * y, 3.5 + 3 * radius, 3 + 2.5 * radius, fill=frame.spot)
    return drawn


def neckwear(dog: Dog, frame: Frame) -> str:
    """Draw the collar or the bandana, if any."""
    w, y = frame.chest_half + 2, frame.neck_y
    if dog.bandana != "none":
        cloth = COLLARS[dog.bandana]
        drawn = path(
            *("M", -w, y - 5, "Q", 0, y + 8, w, y - 5, "L", w - 2, y + 3),
            *("L", 2, y + 23, "Q", 0, y + 25, -2, y + 23, "L", -w + 2, y + 3, "Z"),
            **{"fill": cloth, "stroke": mix(cloth, BLACK, 0.35), "stroke_width": 1.2},
        )
        dots = ((-7, 12), (7, 12), (0, 15), (-13, 6), (13, 6), (0, 8))
        return drawn + "".join(circle(x, y + dy, 1.5, fill=WHITE) for x, dy in dots)
    if dog.collar == "none":
        return ""
    band = COLLARS[dog.collar]
    line = ("M", -w, y - 2, "Q", 0, y + 16, w, y - 2)
    drawn = path(*line, fill="none", stroke=mix(band, BLACK, 0.35), stroke_width=7.6)
    drawn += path(*line, fill="none", stroke=band, stroke_width=5.6)
    if dog.tag:
        drawn += circle(0, y + 13, 4.2, fill="#ffd83c", stroke="#a87808", stroke_width=1)
    return drawn
