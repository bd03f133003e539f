"""The features that distinguish faces: eyes, brows, nose, mouth and glasses."""

from .geometry import SIDES, Face
from .image import Scene
from .marks import box, circle, ellipse, group, path
from .palette import BROW, EYES, FRAMES, INK, LIP, LIPSTICKS, RGB, WHITE, WHITE_OF_EYE, Number, mix
from .traits import Person

_EYE_OPENING = {"surprised": 1.2, "laughing": 0.85}


def eyes(person: Person, image: Scene, face: Face) -> str:
    """Draw both eyes."""
    width = 6.4 + 0.5 * person.eye_size
    opening = _EYE_OPENING.get(image.expression, 1)
    height = width * (0.86 - 0.52 * person.eye_narrowness) * opening
    drawn = ""
    for side in SIDES:
        x, angle = side * face.eye_x + face.turn, -side * 2.4 * person.eye_slant
        place = f"translate({x:.2f},{face.eye_y:.2f}) rotate({angle:.1f})"
        ball = _eyeball(f"eye{side}", width, height, EYES[person.eye_color], image.gaze)
        rim = ellipse(0, 0, width + 1, height + 1, fill=face.shade)
        drawn += group(rim, ball, _lid(person, face, side, width, height), transform=place)
    return drawn


def _eyeball(name: str, width: float, height: float, color: RGB, gaze: float) -> str:
    iris = min(0.62 * width, 1.25 * height)
    return (
        f'<clipPath id="{name}">{ellipse(0, 0, width, height)}</clipPath>'
        + group(
            box(-9, -9, 18, 18, fill=WHITE_OF_EYE),
            circle(gaze, 0, iris, fill=color),
            circle(gaze, 0, 0.45 * iris, fill="#0a0a0c"),
            clip_path=f"url(#{name})",
        )
        + circle(gaze + 1.2, -1.2, 1, fill=WHITE)
    )


def _lid(person: Person, face: Face, side: int, width: float, height: float) -> str:
    edge, top = width + 0.5, -1.36 * height
    line = ["M", -edge, 0, "C", -0.6 * width, top, 0.6 * width, top, edge, 0]
    if not person.male:  # lashes at the outer corner
        line += ["M", side * width, -0.2 * height, "l", side * 3.4, -3.2]
        line += ["M", side * 0.7 * width, -0.75 * height, "l", side * 2.6, -3.4]
    color = mix(face.line, INK, 0.5) if person.male else INK
    thickness = 1.2 if person.male else 1.9
    return path(*line, fill="none", stroke=color, stroke_width=thickness, stroke_linecap="round")


def brows(person: Person, image: Scene, face: Face) -> str:
    """Draw the eyebrows."""
    raised = 2.5 if image.expression == "surprised" else 0
    y = face.eye_y - 11.5 - 0.7 * person.brow_height - raised
    inner, outer = y + 0.8 * person.brow_angle, y + 1.4 - 0.5 * person.brow_angle
    line: list[str | Number] = []
    for side in SIDES:
        start, middle, end = (side * (face.eye_x + d) + face.turn for d in (-6.5, 0, 7.5))
        line += ["M", start, inner, "Q", middle, y - 2.8, end, outer]
    thickness = 1.5 + 4.2 * person.brow_thickness
    color = mix(face.hair, BROW, 0.35)
    return path(*line, fill="none", stroke=color, stroke_width=thickness, stroke_linecap="round")


def nose(person: Person, face: Face) -> str:
    """Draw the nose, slightly shaded, with the outline of its wings."""
    w = 3.0 + 6.0 * person.nose_width
    x, top = face.turn, face.eye_y + 3
    y = face.eye_y + 13.5 + 1.0 * person.nose_length + 1.5 * person.nose_width
    shape = path(
        *("M", x - 1.5, top, "Q", x - 0.7 * w, y - 4, x - w, y - 1),
        *("Q", x - w, y + 2.6, x, y + 2.2, "Q", x + w, y + 2.6, x + w, y - 1),
        *("Q", x + 0.7 * w, y - 4, x + 1.5, top, "Z"),
        fill=face.shade,
    )
    wings = ("M", x - w, y, "Q", x - w / 2, y + 3.6, x, y + 2.2, "Q", x + w / 2, y + 3.6, x + w, y)
    return shape + path(*wings, fill="none", stroke=face.line, stroke_width=1.9)


def mouth(person: Person, image: Scene, face: Face) -> str:
    """Draw the mouth with the image's expression."""
    color = mix(face.skin, LIP, 0.45)
    if person.lipstick:
        color = mix(*LIPSTICKS, person.lipstick_hue)
    half = 10.5 + 0.9 * person.mouth_width
    thickness = 1.4 + 2.9 * person.lips
    return _MOUTHS[image.expression](0.8 * face.turn, face.mouth_y, half, thickness, color)


def _neutral(x: Number, y: Number, half: Number, lip: Number, color: RGB) -> str:
    left, right, peak = x - half, x + half, y - 1.2 * lip
    lips = path(
        *("M", left, y, "Q", x - 0.4 * half, peak, x, y - 0.8 * lip),
        *("Q", x + 0.4 * half, peak, right, y, "Q", x, y + 2.4 * lip, left, y, "Z"),
        fill=color,
    )
    return lips + _seam(("M", left, y, "Q", x, y + 0.8, right, y), color)


def _smiling(x: Number, y: Number, half: Number, lip: Number, color: RGB) -> str:
    left, right, corner = x - half - 2, x + half + 2, y - 2.5
    lips = path(
        *("M", left, corner, "Q", x, y + 4 - 1.2 * lip, right, corner),
        *("Q", x, y + 7 + 2.2 * lip, left, corner, "Z"),
        fill=color,
    )
    return lips + _seam(("M", left, corner, "Q", x, y + 6, right, corner), color)


def _laughing(x: Number, y: Number, half: Number, lip: Number, color: RGB) -> str:
    half += 2
    left, right, corner, bottom = x - half, x + half, y - 3, y + 10
    opening = path(
        *("M", left, corner, "Q", x, y, right, corner, "Q", x + 0.7 * half, bottom, x, bottom),
        *("Q", x - 0.7 * half, bottom, left, corner, "Z"),
        **{"fill": "#6a1420", "stroke": color, "stroke_width": lip, "stroke_linejoin": "round"},
    )
    teeth = path(
        *("M", left + 1, y - 1.4, "Q", x, y + 1, right - 1, y - 1.4, "L", right - 3, y + 2.6),
        *("Q", x, y + 4.4, left + 3, y + 2.6, "Z"),
        fill=WHITE,
    )
    return opening + teeth


def _surprised(x: Number, y: Number, half: Number, lip: Number, color: RGB) -> str:
    style = {"fill": "#5a1018", "stroke": color, "stroke_width": 1.2 * lip}
    return ellipse(x, y + 3, 0.5 * half, 5.6, **style)


def _seam(line: tuple[str | Number, ...], color: RGB) -> str:
    return path(*line, fill="none", stroke=mix(color, INK, 0.6), stroke_width=1.3)


_MOUTHS = dict(neutral=_neutral, smiling=_smiling, laughing=_laughing, surprised=_surprised)


def glasses(person: Person, face: Face) -> str:
    """Draw the glasses, if any."""
    if person.glasses == "none":
        return ""
    y, turn = face.eye_y + 0.6, face.turn
    frame = {"stroke": FRAMES[person.glasses], "stroke_width": 2.8}
    lens = {"fill": "#dff", "fill_opacity": 0.16, **frame}
    line = {"fill": "none", **frame}
    drawn = path("M", turn - 3, y - 1, "Q", turn, y - 3.5, turn + 3, y - 1, **line)
    for side in SIDES:
        x, hinge = side * (face.eye_x + 0.3) + turn, side * (face.half_width + 1)
        if person.round_glasses:
            drawn += circle(x, y, 10.2, **lens)
        else:
            drawn += box(x - 10.6, y - 7.6, 21.2, 15.6, rx=3, **lens)
        drawn += path("M", x + side * 10.4, y - 1.5, "L", hinge, y - 3, **line)
    return drawn
