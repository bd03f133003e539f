"""The measures and colours of a face that several parts of a drawing share."""

from dataclasses import dataclass

from .image import Scene
from .palette import BLACK, HAIR, RGB, SHADOW, WHITE, mix, skin_tone
from .traits import Person

SIDES = (-1, 1)  # left and right in the image


@dataclass(frozen=True)
class Face:
    """Measures in 1/128 of the image, with the origin between the ears and y downwards."""

    half_width: float
    chin: float
    crown: float
    jaw_corner: float
    jaw_start: float
    jaw_pull: float
    eye_x: float
    eye_y: float
    mouth_y: float
    turn: float
    hair_half_width: float
    hair_top: float
    skin: RGB
    shade: RGB
    line: RGB
    hair: RGB
    hair_back: RGB
    hair_gloss: RGB


def measure(person: Person, image: Scene) -> Face:
    """Compute the measures of a person's face in an image."""
    half_width = 30 + 1.5 * person.face_width + 5.5 * person.chubby
    crown = -36 - 0.8 * person.face_height
    square = 0.15 + 0.85 * person.jaw + 0.2 * person.chubby
    volume = 1.4 * person.hair_volume
    lit = WHITE if image.light > 0 else BLACK
    skin = mix(skin_tone(person.skin), lit, 0.05 * abs(image.light))
    tint = WHITE if person.hair_shade > 0 else BLACK
    hair = mix(HAIR[person.hair_color], tint, 0.08 * abs(person.hair_shade))
    return Face(
        half_width=half_width,
        chin=37 + 1.8 * person.face_height,
        crown=crown,
        jaw_corner=6 + 8 * square,
        jaw_start=13 + 15 * square,
        jaw_pull=9 + 8 * square,
        eye_x=12.6 + 0.8 * person.eye_gap,
        eye_y=-3 + 1.0 * person.eye_height,
        mouth_y=21 + 1.0 * person.mouth_height,
        turn=1.5 * image.turn,
        hair_half_width=half_width + 5 + volume,
        hair_top=crown - 9 - volume,
        skin=skin,
        shade=mix(skin, SHADOW, 0.22),
        line=mix(skin, SHADOW, 0.42),
        hair=hair,
        hair_back=mix(hair, BLACK, 0.3),
        hair_gloss=mix(hair, WHITE, 0.22),
    )
