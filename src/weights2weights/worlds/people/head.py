"""Body, head and skin: shoulders, neck, ears, the bare face and the marks on it."""

from .geometry import SIDES, Face
from .image import Scene
from .marks import circle, ellipse, path
from .palette import BLACK, BLUSH, CLOTHES, FRECKLE, GOLD, GOLD_EDGE, INK, WHITE, Number, mix
from .traits import CHUBBY, OLD, Person

_FRECKLES = ((9, 8), (14, 11), (19, 7), (23, 12), (17, 16))


def body(person: Person, image: Scene, face: Face) -> str:
    """Draw neck, shoulders, collar and necklace."""
    neck = 10.5 + 3.0 * person.male + 3.0 * person.chubby
    shoulder = 40 + 6 * person.male + 5 * person.chubby
    left, right = -neck - 2, neck + 2
    cloth = CLOTHES[image.clothes]
    drawn = path("M", -neck, 20, "V", 52, "H", neck, "V", 20, "Z", fill=face.shade)
    drawn += path(
        *("M", -shoulder - 10, 92, "C", -shoulder - 4, 56, -26, 51, left, 45),
        *("Q", 0, 60, right, 45, "C", 26, 51, shoulder + 4, 56, shoulder + 10, 92, "Z"),
        fill=cloth,
    )
    collar = mix(cloth, BLACK, 0.3)
    drawn += path("M", left, 45, "Q", 0, 60, right, 45, fill="none", stroke=collar, stroke_width=2)
    if person.necklace:
        chain = ("M", left + 1, 43, "Q", 0, 72, right - 1, 43)
        drawn += path(*chain, fill="none", stroke=GOLD, stroke_width=3)
        drawn += circle(0, 59, 4, fill=GOLD, stroke=GOLD_EDGE)
    return drawn


def ears(person: Person, face: Face) -> str:
    """Draw the ears."""
    size = 6 + 0.8 * person.ear_size
    x = face.half_width + 1
    return "".join(ellipse(side * x, 2, 0.7 * size, size, fill=face.shade) for side in SIDES)


def earrings(person: Person, face: Face) -> str:
    """Draw the earrings, if any, in front of the hair."""
    if not person.earrings:
        return ""
    x, y = face.half_width + 3.5, 12.5 + 0.8 * person.ear_size
    style = {"fill": GOLD, "stroke": GOLD_EDGE, "stroke_width": 0.8}
    return "".join(circle(side * x, y, 3.8, **style) for side in SIDES)


def head(person: Person, face: Face) -> str:
    """Draw the bare face: skin, double chin, shine, cheeks, freckles and wrinkles."""
    skin = {"fill": face.skin}
    drawn = ""
    if person.chubby > CHUBBY:
        chin = (0, face.chin - 3, 0.72 * face.half_width, 11)
        drawn += ellipse(*chin, **skin, stroke=face.line, stroke_width=1.2)
    drawn += path(*_outline(face), **skin, stroke=face.shade, stroke_width=0.8)
    if person.bald:
        drawn += ellipse(-9, face.crown + 9, 9, 4.5, fill=mix(face.skin, WHITE, 0.35))
    return drawn + _skin_marks(person, face)


def _outline(face: Face) -> tuple[str | Number, ...]:
    w, corner, pull, start = face.half_width, face.jaw_corner, face.jaw_pull, face.jaw_start
    top, chin = face.crown - 7, face.chin
    return (
        *("M", -w, -4, "C", -w, top, w, top, w, -4),
        *("C", w, start, corner + pull, chin, corner, chin, "L", -corner, chin),
        *("C", -corner - pull, chin, -w, start, -w, -4, "Z"),
    )


def _skin_marks(person: Person, face: Face) -> str:
    drawn = ""
    if person.rosy_cheeks:
        for side in SIDES:
            drawn += ellipse(side * 19 + face.turn, 12, 7.5, 5.5, fill=BLUSH, opacity=0.6)
    if person.freckles:
        color = mix(face.skin, FRECKLE, 0.72)
        for side in SIDES:
            for x, y in _FRECKLES:
                drawn += circle(side * x + face.turn, y, 1.5, fill=color)
    return drawn + _wrinkles(person.age, face) if person.age > OLD else drawn


def _wrinkles(age: float, face: Face) -> str:
    x, y, turn = face.eye_x, face.eye_y, face.turn
    folds = ["M", -13, -19, "Q", 0, -22, 13, -19, "M", -11, -24.5, "Q", 0, -27, 11, -24.5]
    for side in SIDES:
        folds += ["M", side * 9 + turn, 12, "Q", side * 15 + turn, 16, side * 15 + turn, 23]
        folds += ["M", side * (x - 5), y + 8.5, "Q", side * x, y + 11.5, side * (x + 5), y + 8.5]
    line = {"stroke": mix(face.line, INK, 0.15), "stroke_width": 0.5 + 1.1 * age}
    return path(*folds, fill="none", **line, stroke_linecap="round")
