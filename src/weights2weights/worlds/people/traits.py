"""The traits of a drawn person.

They correlate as they do among people (men and beards, age and baldness, skin and hair), so that
entangled directions can be studied. A trait behind a label is sampled from two separate ranges, so
that the label is visible; all others vary freely: two people with the same labels still differ.
"""

from dataclasses import dataclass

import numpy as np

from ..randomness import chance, high_or_low, normal, pick

HAIR_COLORS = ("black", "brown", "blond", "red", "gray")
EYE_COLORS = ("brown", "blue", "green")
BEARDS = ("none", "stubble", "goatee", "full")
GLASSES = ("none", "black", "red", "gold")
CLOTHES = ("red", "blue", "green", "black", "white", "yellow", "purple")

# Thresholds of the labels; `sample_person` leaves a gap around each.
OLD, PALE, DARK, LONG, CHUBBY, FEATURE = 0.45, 0.17, 0.6, 0.5, 0.5, 0.5


@dataclass(frozen=True)
class Person:
    """One person. Numbers without a stated range are standard normal, clipped to ±2."""

    male: bool
    age: float  # 0 to 1
    skin: float  # 0 pale to 1 dark
    chubby: float  # 0 to 1
    face_width: float
    face_height: float
    jaw: float  # 0 round to 1 square
    eye_size: float
    eye_gap: float
    eye_height: float
    eye_slant: float
    eye_narrowness: float  # 0 to 1
    eye_color: str
    brow_thickness: float  # 0 to 1
    brow_height: float
    brow_angle: float
    nose_length: float
    nose_width: float  # 0 small to 1 big
    mouth_width: float
    mouth_height: float
    lips: float  # 0 thin to 1 big
    lipstick: bool
    lipstick_hue: float  # 0 red to 1 magenta
    hairline: str  # "bald", "receding", "bangs" or "full"
    hair_color: str
    hair_shade: float
    hair_length: float  # 0 to 1
    hair_volume: float
    hair_part: float
    wavy: bool
    beard: str
    beard_length: float  # 0 to 1
    mustache: bool
    glasses: str
    round_glasses: bool
    rosy_cheeks: bool
    freckles: bool
    earrings: bool
    necklace: bool
    hat: str  # "none" or a colour of CLOTHES
    ear_size: float

    @property
    def bald(self) -> bool:
        """Whether the person has no hair on the head."""
        return self.hairline == "bald"


def sample_person(rng: np.random.Generator) -> Person:
    """Sample a person; equal generator states give equal people."""
    male = chance(rng, 0.5)
    old = chance(rng, 0.45)
    age = rng.uniform(0.55, 1.0) if old else rng.uniform(0.0, 0.35)
    skin = _sample_skin(rng)
    dark = skin > DARK
    hair_color = _sample_hair_color(rng, old, dark)
    hairline = _sample_hairline(rng, male, old)
    beard = str(rng.choice(BEARDS, p=[0.46, 0.14, 0.15, 0.25])) if male else "none"
    mustache_chance = {"none": 0.2, "stubble": 0.2, "goatee": 0.7, "full": 1.0}[beard]
    long = chance(rng, 0.1 if male else 0.72)
    chubby = chance(rng, 0.33 if old else 0.22)
    return Person(
        male=male,
        age=float(age),
        skin=skin,
        chubby=high_or_low(rng, chubby),
        face_width=normal(rng),
        face_height=normal(rng),
        jaw=high_or_low(rng, chance(rng, 0.5 if male else 0.12)),
        eye_size=normal(rng),
        eye_gap=normal(rng),
        eye_height=normal(rng),
        eye_slant=normal(rng),
        eye_narrowness=high_or_low(rng, chance(rng, 0.25)),
        eye_color=pick(rng, EYE_COLORS, [0.88, 0.06, 0.06] if dark else [0.4, 0.38, 0.22]),
        brow_thickness=high_or_low(rng, chance(rng, 0.45 if male else 0.12)),
        brow_height=normal(rng),
        brow_angle=normal(rng),
        nose_length=normal(rng),
        nose_width=high_or_low(rng, chance(rng, 0.4 if male else 0.2)),
        mouth_width=normal(rng),
        mouth_height=normal(rng),
        lips=high_or_low(rng, chance(rng, 0.2 if male else 0.4)),
        lipstick=chance(rng, 0.02 if male else 0.5),
        lipstick_hue=float(rng.uniform()),
        hairline=hairline,
        hair_color=hair_color,
        hair_shade=normal(rng),
        hair_length=float(rng.uniform(0.65, 1.0) if long else rng.uniform(0.0, 0.25)),
        hair_volume=normal(rng),
        hair_part=normal(rng),
        wavy=chance(rng, 0.6 if dark else 0.3),
        beard=beard,
        beard_length=float(rng.uniform()),
        mustache=bool(male and chance(rng, mustache_chance)),
        glasses=pick(rng, GLASSES, [0.6, 0.24, 0.08, 0.08] if old else [0.82, 0.1, 0.04, 0.04]),
        round_glasses=chance(rng, 0.5),
        rosy_cheeks=chance(rng, 0.1 if male else 0.35),
        freckles=chance(rng, 0.03 if dark else 0.2),
        earrings=chance(rng, 0.05 if male else 0.42),
        necklace=chance(rng, 0.06 if male else 0.35),
        hat=pick(rng, CLOTHES) if chance(rng, 0.1) else "none",
        ear_size=normal(rng),
    )


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
