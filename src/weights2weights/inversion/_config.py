"""The settings of an inversion, and their presets."""

from dataclasses import dataclass, replace

from .._config import require_choices, require_ranges
from ..errors import InputError

_CHOICES = {
    "normalize": ("coefficient", "image"),
    "timesteps": ("uniform", "even"),
    "latents": ("sample", "mean"),
}
_RANGES = {
    "at least 1": "components steps samples_per_step eval_samples patience",
    "at least 0": "lr_warmup_steps weight_decay prior_weight eval_every",
    "more than 0": "learning_rate",
    "0 to 1": "lr_end_factor preconditioning",
}


@dataclass(frozen=True)
class InversionConfig:
    """Settings of an inversion; the defaults are the paper's.

    The search optimises z, where the coefficients are c = std^preconditioning · z, starting at
    z = 0, the mean of the training models.

    Attributes:
        components: number of leading coefficients to optimise, at most; the others stay 0.
        steps: maximum number of optimiser steps.
        samples_per_step: noises and timesteps per image in one step.
        learning_rate: peak learning rate of Adam, in units of z.
        lr_warmup_steps: steps of linear warm-up.
        lr_end_factor: the learning rate decays linearly to this fraction of its peak.
        betas: of Adam.
        weight_decay: times z, added to the gradient.
        normalize: what Adam divides by: "coefficient" each coefficient's own gradient size, so that
            all move equally fast; "image" one size for all, so that gradients keep proportion.
        preconditioning: 0 optimises the coefficients themselves, 1 their values in standard
            deviations of the training models.
        prior_weight: of the Gaussian prior ½ Σ ((c − mean) / std)², added to the mean loss; larger
            values stay closer to the training models.
        timesteps: "uniform" draws each independently; "even" covers the noise schedule evenly over
            the run, for less noisy gradients.
        timestep_range: part of the noise schedule to use: 0 is the clean image, 1 pure noise.
        latents: "sample" samples the VAE posterior for every noise, "mean" uses its mean.
        eval_every: steps between evaluations of the loss on fixed, held-out noise. The best point
            is returned. 0 does not evaluate, and returns the last point.
        eval_samples: noises and timesteps of that loss.
        patience: an image is done after this many evaluations without an improvement.
        gradient_checkpointing: recompute activations in the backward pass: about a third slower,
            much less memory.
    """

    components: int = 10_000
    steps: int = 400
    samples_per_step: int = 1
    learning_rate: float = 0.1
    lr_warmup_steps: int = 0
    lr_end_factor: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-10
    normalize: str = "coefficient"
    preconditioning: float = 0.0
    prior_weight: float = 0.0
    timesteps: str = "uniform"
    timestep_range: tuple[float, float] = (0.0, 1.0)
    latents: str = "sample"
    eval_every: int = 0
    eval_samples: int = 16
    patience: int = 2
    gradient_checkpointing: bool = False

    def __post_init__(self):
        require_choices(self, _CHOICES)
        require_ranges(self, _RANGES)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas {self.betas}: expected two numbers from 0 to below 1")
        low, high = self.timestep_range
        if not 0 <= low < high <= 1:
            raise InputError(
                f"timestep_range {self.timestep_range}: expected two rising numbers from 0 to 1"
            )


_FAST = InversionConfig(
    steps=50,
    samples_per_step=4,
    learning_rate=0.4,
    lr_warmup_steps=2,
    lr_end_factor=0.1,
    betas=(0.8, 0.95),
    weight_decay=0.0,
    normalize="image",
    preconditioning=0.25,
    prior_weight=1e-5,
    timesteps="even",
    timestep_range=(0.3, 1.0),
    latents="mean",
    eval_every=10,
    eval_samples=8,
)

PRESETS = {
    # The paper's (section 3.4, appendix C), with the image encoded once.
    "paper": InversionConfig(),
    # What the authors use for out-of-distribution images (section 4.5).
    "paper-ood": InversionConfig(components=1000, steps=800, learning_rate=1.0, weight_decay=0.0),
    # Few, well-spread samples. What matters most is `normalize`: steps along the gradient leave
    # alone the many components that an image says nothing about. The least noisy timesteps say
    # little about identity.
    "fast": _FAST,
    # For images unlike all training subjects: few components and a stronger prior. Tuned on the
    # embedded space, which has 1,200 components.
    "ood": replace(_FAST, components=48, learning_rate=0.1, preconditioning=1.0, prior_weight=1e-2),
}
"""Settings by name, as `invert` and `w2w invert --preset` take them."""
