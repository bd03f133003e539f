"""Hair on the head, behind it and on the chin, and the hat on top."""

import math

from .geometry import SIDES, Face
from .marks import box, circle, group, path
from .palette import BLACK, CLOTHES, STUBBLE, Number, mix
from .traits import LONG, Person


def back_hair(person: Person, face: Face) -> str:
    """Draw long hair behind head and shoulders."""
    if person.bald or person.hair_length <= LONG:
        return ""
    w = face.hair_half_width
    bottom = 4 + (person.hair_length - 0.3) / 0.7 * 54
    if not person.wavy:
        tip = w + 2 + 3 * person.hair_length
        return path(
            *("M", -w, -14, "C", -w - 1, -52, w + 1, -52, w, -14),
            *("L", tip, bottom, "Q", 0, bottom + 8, -tip, bottom, "Z"),
            fill=face.hair_back,
        )
    curls = round(3 + bottom / 9)
    locks = [
        circle(side * (w - 1), -20 + (bottom + 20) * i / curls, 9.5 + i % 2)
        for i in range(curls + 1)
        for side in SIDES
    ]
    return group(*locks, box(-w, -24, 2 * w, bottom + 22), fill=face.hair_back)


def front_hair(person: Person, face: Face) -> str:
    """Draw the hair on crown and forehead."""
    if person.bald:
        return ""
    return _wavy_front(person, face) if person.wavy else _straight_front(person, face)


def _wavy_front(person: Person, face: Face) -> str:
    reach, rise = face.hair_half_width - 2, face.hair_top + 13
    size = 8.5 + 0.5 * person.hair_volume
    curls = []
    for i in range(11):
        angle = math.pi * (1.03 - 1.06 * i / 10)
        x, y = math.cos(angle) * reach, -10 + math.sin(angle) * rise
        curls.append(circle(x, y, size + 1.2 * (i % 2)))
    if person.hairline != "receding":
        lower = 8 if person.hairline == "bangs" else 0
        curls += [circle(10 * i, -33 - 2 * (i % 2) + lower, 8.5) for i in range(-2, 3)]
    gloss: list[str | Number] = []
    for i in range(-2, 3):
        gloss += ["M", 11 * i - 3, -41, "q", 3, -4, 6, 0]
    return group(*curls, fill=face.hair) + _gloss(gloss, face, 1.4)


def _straight_front(person: Person, face: Face) -> str:
    w, top, inner = face.hair_half_width, face.hair_top, face.half_width
    side = 8 if person.hair_length > LONG else -2
    part = 3.5 * person.hair_part
    cap = path(
        *("M", -w + 2, side, "C", -w - 2, top - 8, w + 2, top - 8, w - 2, side),
        *("L", inner - 0.5, side - 3, "V", -12, *_HAIRLINES[person.hairline](inner, part)),
        *("L", -inner + 0.5, side - 3, "Z"),
        fill=face.hair,
    )
    gloss = ["M", part - 14, top + 9, "Q", part, top + 3, part + 15, top + 10]
    return cap + _gloss(gloss, face, 2.4)


def _bangs(w: float, part: float) -> tuple[str | Number, ...]:
    return (
        *("L", w - 1, -14, "Q", 0.5 * w, -10, 0.3 * w, -14, "Q", 0, -9.5, -0.3 * w, -14),
        *("Q", -0.5 * w, -10, -w + 1, -14),
    )


def _receding(w: float, part: float) -> tuple[str | Number, ...]:
    return (
        *("Q", w - 3, -24, 0.62 * w, -27.5, "Q", 0.4 * w, -31.5, 0.2 * w, -31),
        *("Q", 0, -29.5, -0.2 * w, -31, "Q", -0.4 * w, -31.5, -0.62 * w, -27.5),
        *("Q", -w + 3, -24, -w + 0.5, -12),
    )


def _full_hairline(w: float, part: float) -> tuple[str | Number, ...]:
    return (
        *("C", w - 2, -22, part + 14, -24, part, -28),
        *("C", part - 10, -23, -w + 2, -22, -w + 0.5, -12),
    )


_HAIRLINES = {"bangs": _bangs, "receding": _receding, "full": _full_hairline}


def _gloss(line: list[str | Number], face: Face, width: float) -> str:
    style = {"stroke": face.hair_gloss, "stroke_width": width, "opacity": 0.7}
    return path(*line, fill="none", **style, stroke_linecap="round")


def beard(person: Person, face: Face) -> str:
    """Draw stubble, goatee or full beard, if any."""
    if person.beard == "full":
        bottom = face.chin + 2 + 8 * person.beard_length
        return _chin_hair(face, bottom, face.mouth_y - 6, 11, fill=face.hair)
    if person.beard == "stubble":
        color = mix(face.skin, STUBBLE, 0.55)
        return _chin_hair(face, face.chin - 0.3, face.mouth_y - 7, 10, fill=color, opacity=0.55)
    return _goatee(person, face) if person.beard == "goatee" else ""


def _chin_hair(face: Face, bottom: float, top: float, gap: Number, **style) -> str:
    w, corner, pull, start = face.half_width, face.jaw_corner, face.jaw_pull, face.jaw_start
    return path(
        *("M", -w, 1, "C", -w - 0.5, start + 2, -corner - pull, bottom, -corner, bottom),
        *("H", corner, "C", corner + pull, bottom, w + 0.5, start + 2, w, 1),
        *("C", w - 5, 13, 16, top, gap, top, "H", -gap, "C", -16, top, -w + 5, 13, -w, 1, "Z"),
        **style,
    )


def _goatee(person: Person, face: Face) -> str:
    y, bottom = face.mouth_y + 3, face.chin + 2 + 6 * person.beard_length
    return path(
        *("M", -9.5, y, "Q", 0, y - 2, 9.5, y, "L", 8, bottom),
        *("Q", 0, bottom + 4, -8, bottom, "Z"),
        fill=face.hair,
    )


def mustache(person: Person, face: Face) -> str:
    """Draw the mustache, if any."""
    if not person.mustache:
        return ""
    x, y, half = 0.8 * face.turn, face.mouth_y, 13.5 + person.mouth_width
    return path(
        *("M", x, y - 6, "Q", x - 7, y - 8.5, x - half, y + 1, "Q", x - 5, y - 0.5, x, y - 1.8),
        *("Q", x + 5, y - 0.5, x + half, y + 1, "Q", x + 7, y - 8.5, x, y - 6, "Z"),
        fill=mix(face.hair, BLACK, 0.18),
    )


def hat(person: Person, face: Face) -> str:
    """Draw the hat, if any."""
    if person.hat == "none":
        return ""
    w, top, color = face.hair_half_width, face.hair_top - 11, CLOTHES[person.hat]
    crown = path("M", -w, -22, "C", -w, top, w, top, w, -22, "Z", fill=color)
    return crown + box(-w - 2, -26, 2 * w + 4, 7, rx=3, fill=mix(color, BLACK, 0.25))
