"""The traits of a drawn person.

They correlate as they do among people (men and beards, age and baldness, skin and hair), so that
entangled directions can be studied. A trait behind a label is sampled from two separate ranges, so
that the label is visible; all others vary freely: two people with the same labels still differ.
"""

import numpy as np

from ..randomness import chance, high_or_low, normal, pick

HAIR_COLORS = ("black", "brown", "blond", "red", "gray")
EYE_COLORS = ("brown", "blue", "green")
BEARDS = ("none", "stubble", "goatee", "full")
GLASSES = ("none", "black", "red", "gold")
CLOTHES = ("red", "blue", "green", "black", "white", "yellow", "purple")

# Thresholds of the labels; `Person` leaves a gap around each.
OLD, PALE, DARK, LONG, CHUBBY, FEATURE = 0.45, 0.17, 0.6, 0.5, 0.5, 0.5


class Person:
    """One person; equal generator states give equal people.

    Numbers without a stated range are standard normal, clipped to ±2.
    """

    def __init__(self, rng: np.random.Generator):
        self.male = male = chance(rng, 0.5)
        old = chance(rng, 0.45)
        self.age = float(rng.uniform(0.55, 1.0) if old else rng.uniform(0.0, 0.35))
        self.skin = _sample_skin(rng)  # 0 pale to 1 dark
        dark = self.skin > DARK
        self.hair_color = _sample_hair_color(rng, old, dark)
        self.hairline = _sample_hairline(rng, male, old)
        self.beard = pick(rng, BEARDS, [0.46, 0.14, 0.15, 0.25]) if male else "none"
        mustache_chance = {"none": 0.2, "stubble": 0.2, "goatee": 0.7, "full": 1.0}[self.beard]
        long = chance(rng, 0.1 if male else 0.72)
        self.chubby = high_or_low(rng, chance(rng, 0.33 if old else 0.22))  # 0 to 1
        self.face_width = normal(rng)
        self.face_height = normal(rng)
        self.jaw = high_or_low(rng, chance(rng, 0.5 if male else 0.12))  # 0 round to 1 square
        self.eye_size = normal(rng)
        self.eye_gap = normal(rng)
        self.eye_height = normal(rng)
        self.eye_slant = normal(rng)
        self.eye_narrowness = high_or_low(rng, chance(rng, 0.25))  # 0 to 1
        self.eye_color = pick(rng, EYE_COLORS, [0.88, 0.06, 0.06] if dark else [0.4, 0.38, 0.22])
        self.brow_thickness = high_or_low(rng, chance(rng, 0.45 if male else 0.12))  # 0 to 1
        self.brow_height = normal(rng)
        self.brow_angle = normal(rng)
        self.nose_length = normal(rng)
        self.nose_width = high_or_low(rng, chance(rng, 0.4 if male else 0.2))  # 0 small to 1 big
        self.mouth_width = normal(rng)
        self.mouth_height = normal(rng)
        self.lips = high_or_low(rng, chance(rng, 0.2 if male else 0.4))  # 0 thin to 1 big
        self.lipstick = chance(rng, 0.02 if male else 0.5)
        self.lipstick_hue = float(rng.uniform())  # 0 red to 1 magenta
        self.hair_shade = normal(rng)
        self.hair_length = float(rng.uniform(0.65, 1.0) if long else rng.uniform(0.0, 0.25))
        self.hair_volume = normal(rng)
        self.hair_part = normal(rng)
        self.wavy = chance(rng, 0.6 if dark else 0.3)
        self.beard_length = float(rng.uniform())
        self.mustache = male and chance(rng, mustache_chance)
        self.glasses = pick(
            rng, GLASSES, [0.6, 0.24, 0.08, 0.08] if old else [0.82, 0.1, 0.04, 0.04]
        )
        self.round_glasses = chance(rng, 0.5)
        self.rosy_cheeks = chance(rng, 0.1 if male else 0.35)
        self.freckles = chance(rng, 0.03 if dark else 0.2)
        self.earrings = chance(rng, 0.05 if male else 0.42)
        self.necklace = chance(rng, 0.06 if male else 0.35)
        self.hat = pick(rng, CLOTHES) if chance(rng, 0.1) else "none"
        self.ear_size = normal(rng)

    @property
    def bald(self) -> bool:
        """Whether the person has no hair on the head."""
        return self.hairline == "bald"


def _sample_skin(rng: np.random.Generator) -> float:
    low, high = [(0.0, 0.12), (0.22, 0.5), (0.7, 1.0)][rng.choice(3, p=[0.27, 0.43, 0.3])]
    return float(rng.uniform(low, high))


def _sample_hair_color(rng: np.random.Generator, old: bool, dark: bool) -> str:
    if chance(rng, 0.5 if old else 0.01):
        return "gray"
    return pick(rng, HAIR_COLORS[:4], [0.8, 0.18, 0.01, 0.01] if dark else [0.27, 0.28, 0.27, 0.18])


def _sample_hairline(rng: np.random.Generator, male: bool, old: bool) -> str:
    if chance(rng, (0.36 if old else 0.08) if male else 0.02):
        return "bald"
    if chance(rng, (0.4 if old else 0.1) if male else 0.03):
        return "receding"
    return "bangs" if chance(rng, 0.16 if male else 0.36) else "full"
