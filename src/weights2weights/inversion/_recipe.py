"""How a photo is inverted: every number of the search, and the presets."""

import math
from dataclasses import dataclass, replace

from ..errors import InputError

_CHOICES = {
    "normalise": ("coefficient", "photo"),
    "timesteps": ("uniform", "even"),
    "latents": ("sample", "mean"),
}


@dataclass(frozen=True)
class InversionConfig:
    """How a photo is inverted; the defaults are the paper's.

    The search is for z in c = spread^whitening · z, from z = 0, the mean of the training models.

    Attributes:
        components: how many of the first are sought, at most; the other coefficients stay 0.
        share: of the space's components, the first of which are sought, at most.
        steps: of the optimiser, at most.
        samples_per_step: noises and timesteps for each photo in one step.
        learning_rate: of Adam, in units of z.
        warmup: steps over which the learning rate rises to its height.
        final_rate: the learning rate falls linearly to this fraction; 1 keeps it constant.
        betas: of Adam.
        weight_decay: times z, added to the gradient.
        normalise: what Adam divides by: "coefficient" each one's own mean gradient, so that all
            move equally fast; "photo" one number for all of a photo, so that they move as far as
            their gradients are large.
        whitening: 0 searches in the coefficients as they are, 1 in standard deviations of the
            training models, so that a component moves as widely as models spread along it.
        prior_weight: of the Gaussian prior ½ Σ ((c − center) / spread)², added to the mean loss.
        timesteps: "uniform" draws each independently, "even" spreads them evenly over the run
            (golden-ratio sequence): less noisy gradients from few steps.
        lowest: timesteps begin at this share of all: 0 is the clean image.
        highest: and end at this one: 1 is pure noise.
        antithetic: every noise is used twice in a step, as it is and negated.
        latents: "sample" draws from the VAE's posterior anew for each sample, "mean" takes its
            mean.
        check_every: steps between two looks at the loss on fixed, held-out noise, of which the best
            point is kept. 0 does not look, and keeps the last point.
        held_out: noises and timesteps of that loss.
        patience: a photo is done after this many looks without a gain.
        least_gain: fraction of the loss that counts as one.
    """

    components: int = 10_000
    share: float = 1.0
    steps: int = 400
    samples_per_step: int = 1
    learning_rate: float = 0.1
    warmup: int = 0
    final_rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-10
    normalise: str = "coefficient"
    whitening: float = 0.0
    prior_weight: float = 0.0
    timesteps: str = "uniform"
    lowest: float = 0.0
    highest: float = 1.0
    antithetic: bool = False
    latents: str = "sample"
    check_every: int = 0
    held_out: int = 16
    patience: int = 2
    least_gain: float = 0.0

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} {getattr(self, name)!r}: expected {' or '.join(choices)}")
        for name in ("components", "steps", "samples_per_step", "held_out", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: expected at least 1")
        if not 0 < self.share <= 1:
            raise InputError(f"share {self.share}: expected more than 0, and at most 1")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate {self.learning_rate}: expected more than 0")
        for name in ("warmup", "weight_decay", "prior_weight", "check_every", "least_gain"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)}: expected at least 0")
        for name in ("final_rate", "whitening"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)}: expected 0 to 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas {self.betas}: expected two numbers from 0 to below 1")
        if not 0 <= self.lowest < self.highest <= 1:
            raise InputError(
                f"timesteps from {self.lowest} to {self.highest}: expected shares that rise,"
                " between 0 and 1"
            )
        if self.antithetic and self.samples_per_step % 2:
            raise InputError(
                f"{self.samples_per_step} samples_per_step: expected an even number, since"
                " antithetic noise comes in pairs"
            )

    def sought(self, m: int) -> int:
        """Return how many coefficients are sought in a space of m components: the first of them.

        Example:
            >>> InversionConfig(components=100).sought(1000)
            100
            >>> InversionConfig(share=0.25).sought(1000)
            250
        """
        return min(self.components, math.ceil(self.share * m))

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        return self.learning_rate * rise * (1 - (1 - self.final_rate) * step / self.steps)


PAPER = InversionConfig()
"""The paper's (section 3.4, appendix C), with the photo encoded once."""

FAST = InversionConfig(
    steps=50,
    samples_per_step=4,
    learning_rate=0.4,
    warmup=2,
    final_rate=0.1,
    betas=(0.8, 0.95),
    weight_decay=0.0,
    normalise="photo",
    whitening=0.25,
    prior_weight=1e-5,
    timesteps="even",
    lowest=0.3,
    latents="mean",
    check_every=10,
    held_out=8,
)
"""Ours: few, well-spread samples. What matters most is `normalise`: steps along the gradient leave
alone the many components that a photo says nothing about, where Adam moves each as fast as the
others. A little whitening lets those along which models spread move somewhat further. The least
noisy timesteps say little about who it is."""

OUT_OF_DISTRIBUTION = replace(
    FAST,
    share=0.04,  # 48 of the people space's 1,200; the paper's example is 1,000 of 10,000
    learning_rate=0.1,
    whitening=1.0,
    prior_weight=1e-2,
)
"""For what the training subjects never looked like: a stronger prior."""

RECIPES = {"paper": PAPER, "fast": FAST, "ood": OUT_OF_DISTRIBUTION}
