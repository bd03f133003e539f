"""How a subject is learned: every number of the recipe, and the presets."""

from dataclasses import dataclass

from ..errors import InputError
from ..layout import PAPER_ALPHA, PAPER_TARGETS

_CHOICES = {
    "latents": ("sample", "mean"),
    "timesteps": ("uniform", "even"),
    "start": ("random", "base"),
    "normalise": ("number", "factor"),
}


@dataclass(frozen=True)
class DreamBoothConfig:
    """How a subject is learned; the defaults are the paper's for Stable Diffusion 1.5.

    Attributes:
        prompt: what the subject's images are called; "sks" is DreamBooth's rare word.
        caption_share: chance of each part of an image's caption (between commas) to follow the
            prompt in a step. Images without captions do not care.
        class_prompt: what the base's own images for prior preservation are called.
        rank: of the LoRAs.
        alpha: of the LoRAs; alpha / rank multiplies B · A.
        targets: the linear layers that carry them.
        steps: of the optimiser.
        train_batch_size: of each subject, and as many of the class; drawn in shuffled rounds.
        learning_rate: of AdamW.
        warmup: steps over which the learning rate rises to its height.
        final_rate: the learning rate falls linearly to this fraction; 1 keeps it constant.
        betas: of AdamW.
        weight_decay: of AdamW.
        normalise: what AdamW divides by: "number" each one's own mean gradient, so that all move
            equally fast; "factor" one size for all of a subject's A and one for all its B, so that
            numbers move as far as their gradients are large.
        clip: largest norm of a subject's gradient; None does not clip.
        prior_weight: λ of prior preservation; 0 does without, in half the time.
        num_class_images: that the base draws, once, shared by all subjects.
        latents: "sample" draws from the VAE's posterior anew in each step, "mean" takes its mean.
        timesteps: "uniform" draws each independently, "even" spreads them evenly over the run
            (golden-ratio sequence): less noisy gradients from few steps.
        overshoot: factor on B when all steps are done, and so on the update. Few steps stop short
            of where they head; 1 leaves them there.
        start: "random" begins with a random A, "base" with the one that lies in the base's folder
            (`find_start`).
        seed: of the initial A, the noise, the timesteps and the order of the images.
        seed_per_subject: False gives every subject the same chance, and so the same initial A, as
            the paper does: LoRAs of one A are comparable number by number. True mixes the name into
            the seed.
    """

    prompt: str = "sks person"
    caption_share: float = 0.5
    class_prompt: str = "person"
    rank: int = 1
    alpha: float = PAPER_ALPHA
    targets: tuple[str, ...] = PAPER_TARGETS
    steps: int = 800
    train_batch_size: int = 1
    learning_rate: float = 1e-4
    warmup: int = 0
    final_rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    normalise: str = "number"
    clip: float | None = 1.0
    prior_weight: float = 1.0
    num_class_images: int = 200
    latents: str = "sample"
    timesteps: str = "uniform"
    overshoot: float = 1.0
    start: str = "random"
    seed: int = 0
    seed_per_subject: bool = False

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} {getattr(self, name)!r}: expected {' or '.join(choices)}")
        for name in ("rank", "steps", "train_batch_size", "num_class_images"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: expected at least 1")
        for name in ("alpha", "learning_rate", "overshoot"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)}: expected more than 0")
        if not 0 <= self.caption_share <= 1:
            raise InputError(f"caption_share {self.caption_share}: expected 0 to 1")
        for name in ("warmup", "final_rate", "weight_decay", "prior_weight", "clip"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"{name} {getattr(self, name)}: expected at least 0")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        return self.learning_rate * rise * (1 - (1 - self.final_rate) * step / self.steps)


PAPER = DreamBoothConfig()
"""The paper's: RealisticVision v5.1, a Stable Diffusion 1.5 (section 4.1, appendix E)."""

PEOPLE = DreamBoothConfig(
    prompt="a photo of sks person",
    class_prompt="a photo of a person",
    steps=300,
    learning_rate=2e-3,
    warmup=10,
    final_rate=0.1,
    betas=(0.9, 0.99),
    weight_decay=0.0,
    prior_weight=0.0,
    latents="mean",
    timesteps="even",
    overshoot=1.5,
    start="base",
)
"""The embedded world's: a base this small wants larger steps, and fewer of them.

`benchmarks/dreambooth.py` compares recipes. Captions keep the person apart from the scene: without
them a LoRA learns its prompt by heart and loses the person in any other one; prior preservation is
not needed then. The learning rate is not the one that draws the person best: steps three times as
large do, but leave weights that are mostly chance, in which no direction can be found. Smaller
ones leave the person half drawn, which `overshoot` mends: it changes no direction of a space.
`normalise` "factor" draws people better and repeats better, but makes models that resist edits.
"""

RECIPES = {"paper": PAPER, "people": PEOPLE}
