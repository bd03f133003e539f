"""Who a drawn dog is: continuous and discrete traits, and the binary labels read off them.

Traits correlate as they do among dogs (large dogs have long muzzles, curly coats are fluffy, white
dogs have pink noses more often), so that entangled attribute directions can be studied. A trait
that carries a label is drawn from two well separated groups, so that the label can be seen; all
others vary freely, so that two dogs with the same labels are still two dogs.
"""

from dataclasses import dataclass

import numpy as np

from weights2weights.worlds.people.labels import tied_labels
from weights2weights.worlds.randomness import chance, high_or_low, normal, pick

COATS = ("black", "brown", "golden", "white", "gray")
PATTERNS = ("plain", "spotted", "blaze", "mask")
EARS = ("floppy", "pointy", "folded")
TAILS = ("thin", "bushy", "curly")
EYE_COLORS = ("brown", "amber", "blue")
COLLARS = ("red", "blue", "green", "yellow", "purple")

# Where the two groups of a labelled trait part; `sample_dog` leaves a gap around each.
OLD, FEATURE = 0.5, 0.5


@dataclass(frozen=True)
class Dog:
    """One dog. Numbers without a stated range are standard normal, clipped at ±2."""

    coat: str
    coat_shade: float
    pattern: str
    spots: tuple[tuple[float, float, float], ...]  # x and y from -1 to 1, radius from 0 to 1
    age: float  # 0 to 1
    large: float  # 0 small to 1 large
    chubby: float  # 0 to 1
    fur: float  # 0 short to 1 long
    curly: bool
    head_width: float
    head_height: float
    ears: str
    ear_length: float  # 0 to 1
    ear_spread: float
    dark_ears: bool
    muzzle: float  # 0 short to 1 long
    muzzle_width: float
    nose_size: float
    pink_nose: bool
    eye_size: float
    eye_gap: float
    eye_height: float
    eye_color: str
    brow_dots: bool
    tail: str
    tail_length: float
    collar: str  # "none" or one of COLLARS
    tag: bool
    bandana: str  # "none" or one of COLLARS


LABELS = {
    "Black_Coat": lambda d: d.coat == "black",
    "Brown_Coat": lambda d: d.coat == "brown",
    "Golden_Coat": lambda d: d.coat == "golden",
    "White_Coat": lambda d: d.coat == "white",
    "Gray_Coat": lambda d: d.coat == "gray",
    "Spotted": lambda d: d.pattern == "spotted",
    "White_Blaze": lambda d: d.pattern == "blaze",
    "Dark_Mask": lambda d: d.pattern == "mask",
    "Floppy_Ears": lambda d: d.ears == "floppy",
    "Pointy_Ears": lambda d: d.ears == "pointy",
    "Long_Muzzle": lambda d: d.muzzle > FEATURE,
    "Long_Fur": lambda d: d.fur > FEATURE,
    "Curly_Fur": lambda d: d.curly,
    "Large": lambda d: d.large > FEATURE,
    "Chubby": lambda d: d.chubby > FEATURE,
    "Old": lambda d: d.age > OLD,
    "Blue_Eyes": lambda d: d.eye_color == "blue",
    "Pink_Nose": lambda d: d.pink_nose,
    "Bushy_Tail": lambda d: d.tail == "bushy",
    "Curly_Tail": lambda d: d.tail == "curly",
    "Wearing_Collar": lambda d: d.collar != "none",
    "Wearing_Bandana": lambda d: d.bandana != "none",
}
LABEL_NAMES = tuple(LABELS)

# Labels of which a dog has at most one, since they are read off one trait.
_EXCLUSIVE = (
    ("Black_Coat", "Brown_Coat", "Golden_Coat", "White_Coat", "Gray_Coat"),
    ("Spotted", "White_Blaze", "Dark_Mask"),
    ("Floppy_Ears", "Pointy_Ears"),
    ("Bushy_Tail", "Curly_Tail"),
    ("Curly_Fur", "Long_Fur"),  # not exclusive: every curly coat is a long one
    ("Wearing_Collar", "Wearing_Bandana"),  # a bandana hides the collar
)

TIED = tied_labels(LABEL_NAMES, _EXCLUSIVE)
"""Label → the labels that cannot all stay when it changes."""


def labels(dog: Dog) -> dict[str, bool]:
    """Return the binary labels of a dog, in the order of `LABEL_NAMES`."""
    return {name: bool(holds(dog)) for name, holds in LABELS.items()}


def sample_dog(rng: np.random.Generator) -> Dog:
    """Draw a dog; the same generator state gives the same dog."""
    coat = pick(rng, COATS, [0.22, 0.26, 0.22, 0.16, 0.14])
    white = coat == "white"
    large = chance(rng, 0.45)
    curly = chance(rng, 0.2)
    long_fur = curly or chance(rng, 0.35)
    old = chance(rng, 0.25)
    patterns = [0.6, 0.4, 0.0, 0.0] if white else [0.45, 0.15, 0.25, 0.15]
    if coat == "black":
        patterns = [0.6, 0.1, 0.3, 0.0]
    bandana = chance(rng, 0.2)
    return Dog(
        coat=coat,
        coat_shade=normal(rng),
        pattern=pick(rng, PATTERNS, patterns),
        spots=_sample_spots(rng),
        age=float(rng.uniform(0.7, 1.0) if old else rng.uniform(0.0, 0.35)),
        large=high_or_low(rng, large),
        chubby=high_or_low(rng, chance(rng, 0.35 if old else 0.2)),
        fur=high_or_low(rng, long_fur),
        curly=curly,
        head_width=normal(rng),
        head_height=normal(rng),
        ears=pick(rng, EARS, [0.3, 0.45, 0.25] if large else [0.5, 0.28, 0.22]),
        ear_length=float(rng.uniform()),
        ear_spread=normal(rng),
        dark_ears=chance(rng, 0.3),
        muzzle=high_or_low(rng, chance(rng, 0.7 if large else 0.35)),
        muzzle_width=normal(rng),
        nose_size=normal(rng),
        pink_nose=chance(rng, 0.35 if white else 0.12),
        eye_size=normal(rng),
        eye_gap=normal(rng),
        eye_height=normal(rng),
        eye_color=pick(rng, EYE_COLORS, [0.4, 0.2, 0.4] if coat == "gray" else [0.6, 0.25, 0.15]),
        brow_dots=coat in ("black", "brown") and chance(rng, 0.3),
        tail=pick(rng, TAILS, [0.2, 0.55, 0.25] if long_fur else [0.5, 0.2, 0.3]),
        tail_length=normal(rng),
        collar=pick(rng, COLLARS) if not bandana and chance(rng, 0.45) else "none",
        tag=chance(rng, 0.5),
        bandana=pick(rng, COLLARS) if bandana else "none",
    )


def _sample_spots(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """Draw seven spots, used where the pattern asks for them, spread over separate sectors."""
    angles = np.linspace(0, 2 * np.pi, 7, endpoint=False) + rng.uniform(-0.3, 0.3, 7)
    reach, radius = rng.uniform(0.45, 0.85, 7), rng.uniform(0.3, 1.0, 7)
    places = zip(np.cos(angles) * reach, np.sin(angles) * reach, radius, strict=True)
    return tuple((float(x), float(y), float(r)) for x, y, r in places)
