"""The head: ears, skull with its pattern, muzzle, nose, mouth and eyes."""

from weights2weights.worlds.people.marks import circle, ellipse, group, path
from weights2weights.worlds.people.palette import BLACK, WHITE, mix

from .geometry import CREAM, DARK, EYES, NOSE, PINK, SIDES, TAN, Frame
from .image import Scene
from .traits import FEATURE, Dog


def ears(dog: Dog, frame: Frame) -> str:
    """Draw the ears, which frame the head from behind (pointy) or hang over it (floppy)."""
    return "".join(_EARS[dog.ears](side, dog, frame) for side in SIDES)


def _floppy(side: int, dog: Dog, frame: Frame) -> str:
    w, top = frame.half_width, frame.crown + 6
    out, low = w + 9 + dog.ear_spread, 16 + 12 * dog.ear_length
    return path(
        *("M", side * 0.45 * w, top, "C", side * w, top - 6, side * (out + 3), top + 8),
        *(side * out, low - 6, "C", side * (out - 1), low + 5, side * (w - 4), low + 3),
        *(side * (w - 4), low - 8, "C", side * (w - 3), top + 24, side * (w - 6), top + 14),
        *(side * 0.45 * w, top, "Z"),
        **{"fill": frame.ear, "stroke": frame.line, "stroke_width": 1.2},
    )


def _pointy(side: int, dog: Dog, frame: Frame) -> str:
    w, top = frame.half_width, frame.crown
    tip_x, tip_y = side * (0.82 * w + dog.ear_spread), top - 12 - 7 * dog.ear_length
    outer = path(
        *("M", side * 0.22 * w, top + 5, "Q", side * 0.45 * w, tip_y + 8, tip_x, tip_y),
        *("Q", side * (w + 5), top + 4, side * w, -6, "Z"),
        **{"fill": frame.ear, "stroke": frame.line, "stroke_width": 1.2},
    )
    inner = path(
        *("M", side * 0.42 * w, top + 5, "Q", side * 0.58 * w, tip_y + 12, tip_x, tip_y + 7),
        *("Q", side * (w + 0.5), top + 8, side * 0.9 * w, -8, "Z"),
        fill=mix(frame.ear, PINK, 0.55),
    )
    return outer + inner


def _folded(side: int, dog: Dog, frame: Frame) -> str:
    w, top = frame.half_width, frame.crown
    out = w + 5 + dog.ear_spread
    low = top + 22 + 5 * dog.ear_length
    return path(
        *("M", side * 0.25 * w, top + 4, "C", side * 0.45 * w, top - 8, side * 0.8 * w, top - 7),
        *(side * out, top + 3, "L", side * (out - 2), low, "Q", side * (0.75 * w), low - 8),
        *(side * 0.55 * w, top + 6, "Z"),
        **{"fill": frame.ear, "stroke": frame.line, "stroke_width": 1.2},
    )


_EARS = {"floppy": _floppy, "pointy": _pointy, "folded": _folded}


def skull(dog: Dog, frame: Frame) -> str:
    """Draw the bare head with its fur and pattern."""
    w, top, chin = frame.half_width, frame.crown, frame.chin
    outline = path(
        *("M", -w, -2, "C", -w, top - 6, w, top - 6, w, -2),
        *("C", w + 2, 16, 15, chin, 0, chin, "C", -15, chin, -w - 2, 16, -w, -2, "Z"),
        **{"fill": frame.coat, "stroke": frame.line, "stroke_width": 1.2},
    )
    return _fur(dog, frame) + outline + _pattern(dog, frame)


def crown_fur(dog: Dog, frame: Frame) -> str:
    """Draw what long fur leaves on the crown, over ears and skull."""
    if dog.fur <= FEATURE:
        return ""
    top = frame.crown
    if dog.curly:
        curls = [circle(7 * i, top + 3 + 0.5 * i * i, 6.2) for i in range(-2, 3)]
        curls += [circle(-4, top - 3, 5.5), circle(5, top - 3, 5.5)]
        gloss = [
            f'<path d="M {7 * i - 3} {top + 2 + 0.5 * i * i:.1f} q 3 -4 6 0"/>'
            for i in range(-2, 3)
        ]
        shine = {"fill": "none", "stroke": frame.shade, "stroke_width": 1.3}
        return group(*curls, fill=frame.coat) + group(*gloss, **shine)
    fringe = ("M", -11, top + 3, "Q", -6, top - 7, 2, top - 8, "Q", 9, top - 5, 11, top + 3)
    locks = ("L", 6, top + 12, "L", 3, top + 5, "L", -1, top + 15, "L", -4, top + 6)
    return path(*fringe, *locks, "L", -8, top + 11, "Z", fill=frame.shade)


def _fur(dog: Dog, frame: Frame) -> str:
    """Draw the cheek fur: tufts if straight, curls if curly, nothing if short."""
    if dog.fur <= FEATURE:
        return ""
    w, drawn = frame.half_width, ""
    reach = 4 + 6 * dog.fur
    for side in SIDES:
        for i, y in enumerate((0, 7, 14, 20)):
            x = side * (w - 0.5 - 2.2 * i)
            if dog.curly:
                style = {"fill": frame.coat, "stroke": frame.line, "stroke_width": 0.8}
                drawn += circle(x, y, 6, **style)
            else:
                drawn += path(
                    *("M", x - side * 4, y - 7, "Q", x + side * 3, y - 2),
                    *(x + side * reach, y + 5, "Q", x, y + 5, x - side * 4, y + 8, "Z"),
                    **{"fill": frame.coat, "stroke": frame.line, "stroke_width": 0.9},
                )
    return drawn


def _pattern(dog: Dog, frame: Frame) -> str:
    w, top = frame.half_width, frame.crown
    if dog.pattern == "blaze":
        x = 0.8 * frame.turn
        return path(
            *("M", x - 2.5, top - 1, "Q", x - 6, -8, x - 8, 8, "H", x + 8),
            *("Q", x + 6, -8, x + 2.5, top - 1, "Z"),
            fill=CREAM,
        )
    if dog.pattern == "mask":
        return "".join(
            ellipse(side * frame.eye_x + frame.turn, frame.eye_y + 1, 9, 8.5, fill=DARK)
            for side in SIDES
        )
    if dog.pattern == "spotted":
        places = ((-frame.eye_x, frame.eye_y), (0.45 * w, top + 9), (0.62 * w, 9))
        return "".join(
            ellipse(a + 3 * x + frame.turn, b + 3 * y, 5 + 4 * r, 5 + 3.5 * r, fill=frame.spot)
            for (a, b), (x, y, r) in zip(places, dog.spots, strict=False)
        )
    return ""


def muzzle(dog: Dog, image: Scene, frame: Frame) -> str:
    """Draw muzzle, mouth and nose."""
    x, w = 1.4 * frame.turn, frame.muzzle_half
    top, bottom = frame.muzzle_top, frame.muzzle_bottom
    middle = (top + bottom) / 2
    shape = path(
        *("M", x, top, "C", x + 0.75 * w, top, x + 0.8 * w, middle - 3, x + w, middle + 3),
        *("C", x + w + 1, bottom - 1, x + 0.4 * w, bottom + 1, x, bottom),
        *("C", x - 0.4 * w, bottom + 1, x - w - 1, bottom - 1, x - w, middle + 3),
        *("C", x - 0.8 * w, middle - 3, x - 0.75 * w, top, x, top, "Z"),
        fill=frame.muzzle,
    )
    return shape + _mouth(dog, image, frame, x) + _nose(dog, frame, x)


def _nose(dog: Dog, frame: Frame, x: float) -> str:
    size, y = 5.2 + 0.5 * dog.nose_size, frame.nose_y
    color = PINK if dog.pink_nose else NOSE
    shape = path(
        *("M", x - size, y - 1.5, "Q", x - size, y - 4, x, y - 4, "Q", x + size, y - 4),
        *(x + size, y - 1.5, "Q", x + 0.8 * size, y + 3, x, y + 4, "Q", x - 0.8 * size, y + 3),
        *(x - size, y - 1.5, "Z"),
        **{"fill": color, "stroke": mix(color, BLACK, 0.4), "stroke_width": 0.8},
    )
    return shape + ellipse(x - 1.4, y - 2.2, 1.8, 0.9, fill=mix(color, WHITE, 0.6))


def _mouth(dog: Dog, image: Scene, frame: Frame, x: float) -> str:
    y = frame.nose_y + 4
    lip = min(frame.muzzle_bottom - 5, y + 5)
    half = 0.62 * frame.muzzle_half
    happy = image.expression in ("panting", "smiling")
    corner = lip - (2.5 if happy else -0.5)
    dark = dog.pattern == "mask" and dog.age <= 0.5
    ink = mix(frame.muzzle, WHITE, 0.45) if dark else mix(frame.muzzle, BLACK, 0.72)
    line = ["M", x, y, "V", lip, "M", x - half, corner, "Q", x - 0.5 * half, lip + 2.5, x, lip]
    line += ["Q", x + 0.5 * half, lip + 2.5, x + half, corner]
    opened = ""
    if happy:
        deep = 6 if image.expression == "smiling" else 9
        opened = path(
            *("M", x - 0.75 * half, lip, "Q", x, lip + 3, x + 0.75 * half, lip),
            *("Q", x + 0.5 * half, lip + deep, x, lip + deep),
            *("Q", x - 0.5 * half, lip + deep, x - 0.75 * half, lip, "Z"),
            fill="#6a1a26",
        )
    if image.expression == "panting":
        opened += path(
            *("M", x - 4, lip + 2, "V", lip + 10, "Q", x, lip + 16, x + 4, lip + 10),
            *("V", lip + 2, "Z"),
            **{"fill": "#f07888", "stroke": "#b84858", "stroke_width": 0.8},
        )
    return opened + path(*line, fill="none", stroke=ink, stroke_width=1.5, stroke_linecap="round")


def eyes(dog: Dog, image: Scene, frame: Frame) -> str:
    """Draw both eyes and what is over them."""
    drawn, sleepy = "", image.expression == "sleepy"
    for side in SIDES:
        x, y, r = side * frame.eye_x + frame.turn, frame.eye_y, frame.eye
        rim = DARK if dog.coat != "black" and dog.pattern != "mask" else mix(DARK, WHITE, 0.35)
        drawn += circle(x, y, r + 1.3, fill=rim)
        drawn += circle(x + 0.4 * image.gaze, y, r, fill=EYES[dog.eye_color])
        drawn += circle(x + image.gaze, y + 0.2, 0.58 * r, fill="#0c0a0c")
        drawn += circle(x + image.gaze + 1.4, y - 1.5, 0.3 * r, fill=WHITE)
        if sleepy:
            lid = ("M", x - r - 1.6, y + 0.5, "Q", x, y - 2 * r - 3.5, x + r + 1.6, y + 0.5, "Z")
            drawn += path(*lid, fill=DARK if dog.pattern == "mask" else frame.shade)
        if dog.brow_dots:
            drawn += ellipse(x - side, y - r - 4.5, 3.2, 2.3, fill=TAN)
    return drawn
