"""The measures and colours of a face that several parts of a drawing share."""

from .image import Scene
from .palette import BLACK, HAIR, SHADOW, WHITE, mix, skin_tone
from .traits import Person

SIDES = (-1, 1)  # left and right in the image


class Face:
    """Measures in 1/128 of the image, with the origin between the ears and y downwards."""

    def __init__(self, person: Person, image: Scene):
        square = 0.15 + 0.85 * person.jaw + 0.2 * person.chubby
        volume = 1.4 * person.hair_volume
        self.half_width = 30 + 1.5 * person.face_width + 5.5 * person.chubby
        self.chin = 37 + 1.8 * person.face_height
        self.crown = -36 - 0.8 * person.face_height
        self.jaw_corner = 6 + 8 * square
        self.jaw_start = 13 + 15 * square
        self.jaw_pull = 9 + 8 * square
        self.eye_x = 12.6 + 0.8 * person.eye_gap
        self.eye_y = -3 + 1.0 * person.eye_height
        self.mouth_y = 21 + 1.0 * person.mouth_height
        self.turn = 1.5 * image.turn
        self.hair_half_width = self.half_width + 5 + volume
        self.hair_top = self.crown - 9 - volume
        lit = WHITE if image.light > 0 else BLACK
        self.skin = mix(skin_tone(person.skin), lit, 0.05 * abs(image.light))
        self.shade = mix(self.skin, SHADOW, 0.22)
        self.line = mix(self.skin, SHADOW, 0.42)
        tint = WHITE if person.hair_shade > 0 else BLACK
        self.hair = mix(HAIR[person.hair_color], tint, 0.08 * abs(person.hair_shade))
        self.hair_back = mix(self.hair, BLACK, 0.3)
        self.hair_gloss = mix(self.hair, WHITE, 0.22)
