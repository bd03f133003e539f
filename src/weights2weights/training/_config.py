"""The settings of DreamBooth training, and their presets."""

from dataclasses import dataclass, replace

from .._config import require_choices, require_ranges
from ..bases import Base
from ..layout import PAPER_ALPHA, PAPER_TARGETS

_CHOICES = {
    "latents": ("sample", "mean"),
    "timesteps": ("uniform", "even"),
    "start": ("random", "own", "base"),
}
_RANGES = {
    "at least 1": "rank steps train_batch_size num_class_images",
    "at least 0": "lr_warmup_steps weight_decay prior_loss_weight max_grad_norm",
    "more than 0": "alpha learning_rate scale",
    "0 to 1": "caption_dropout lr_end_factor",
}


@dataclass(frozen=True)
class DreamBoothConfig:
    """Settings of DreamBooth training; the defaults are the paper's for Stable Diffusion 1.5.

    Attributes:
        instance_prompt: prompt of the subject's images; "sks" is DreamBooth's rare token.
        caption_dropout: probability that a comma-separated part of an image's caption is left out
            of its prompt in a step.
        class_prompt: prompt of the class images for prior preservation.
        rank: LoRA rank.
        alpha: LoRA alpha; the update of a layer is alpha / rank · B · A.
        targets: names of the linear layers that carry LoRAs.
        steps: number of optimiser steps.
        train_batch_size: images per step and subject, and as many class images.
        learning_rate: peak learning rate of AdamW.
        lr_warmup_steps: steps of linear warm-up.
        lr_end_factor: the learning rate decays linearly to this fraction of its peak.
        betas: of AdamW.
        weight_decay: of AdamW.
        max_grad_norm: each subject's gradient is clipped to this norm; None does not clip.
        prior_loss_weight: λ of prior preservation; 0 trains without it, in half the time.
        num_class_images: class images, generated once by the base and shared by all subjects.
        latents: "sample" samples the VAE posterior in every step, "mean" uses its mean.
        timesteps: "uniform" draws each independently; "even" covers the noise schedule evenly over
            the run, for less noisy gradients.
        scale: factor on B, and so on the update, after the last step. Above 1 it extrapolates a
            run that stops before it has converged.
        start: "random" initialises A as PEFT does, the same for all subjects; "own" initialises
            each subject's A by itself, for spaces of updates; "base" uses the A stored in the
            base's folder, until the embedded base, which needs it, has been retrained.
        seed: of the initial A, the noise, the timesteps and the order of the images; shared by all
            subjects, since only LoRAs with the same initial A can be compared element by element.
        gradient_checkpointing: recompute activations in the backward pass: about a third slower,
            much less memory.
    """

    instance_prompt: str = "sks person"
    caption_dropout: float = 0.5
    class_prompt: str = "person"
    rank: int = 1
    alpha: float = PAPER_ALPHA
    targets: tuple[str, ...] = PAPER_TARGETS
    steps: int = 800
    train_batch_size: int = 1
    learning_rate: float = 1e-4
    lr_warmup_steps: int = 0
    lr_end_factor: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    max_grad_norm: float | None = 1.0
    prior_loss_weight: float = 1.0
    num_class_images: int = 200
    latents: str = "sample"
    timesteps: str = "uniform"
    scale: float = 1.0
    start: str = "random"
    seed: int = 0
    gradient_checkpointing: bool = False

    def __post_init__(self):
        require_choices(self, _CHOICES)
        require_ranges(self, _RANGES)


# The defaults of diffusers' examples/dreambooth/train_dreambooth_lora_sdxl.py, …_sd3.py, …_flux.py.
_DIFFUSERS = DreamBoothConfig(
    rank=4, alpha=4.0, steps=500, train_batch_size=4, weight_decay=1e-4, prior_loss_weight=0.0
)
_ATTENTION = (
    *("attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0"),
    *("attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out"),
)

PRESETS = {
    # RealisticVision v5.1, a Stable Diffusion 1.5 (section 4.1, appendix E).
    "paper": DreamBoothConfig(),
    # The embedded base is so small that it needs larger and fewer steps, and captions separate the
    # person from the scene without prior preservation. Three times the learning rate gives better
    # images, but weights dominated by noise, in which no direction can be found. `scale` makes up
    # for a person half learned without changing any direction of a space.
    "people": DreamBoothConfig(
        instance_prompt="a photo of sks person",
        class_prompt="a photo of a person",
        steps=300,
        learning_rate=2e-3,
        lr_warmup_steps=10,
        lr_end_factor=0.1,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        prior_loss_weight=0.0,
        latents="mean",
        timesteps="even",
        scale=1.5,
        start="base",
    ),
    "sdxl": replace(_DIFFUSERS, targets=("to_k", "to_q", "to_v", "to_out.0")),
    "sd3": replace(_DIFFUSERS, targets=_ATTENTION),
    "flux": replace(
        _DIFFUSERS,
        targets=(
            *_ATTENTION,
            *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        ),
    ),
}
"""Settings by name; `train` uses "people" on the embedded base, else those of the base's family."""


def default_config(base: Base) -> DreamBoothConfig:
    """Return the settings that a base is trained with unless others are given."""
    return PRESETS.get(base.id, PRESETS[base.family.preset])
